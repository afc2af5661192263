"""What SentencePiece makes of a text, in the form in which transformers expects it.

The `tokenizers` library comes close to SentencePiece and is not the same: it adds scores in another precision, so that
ties fall differently, takes `<pad>` spelled out in a text for the control piece, and normalizes clusters of combining
marks as one character. So ids come from SentencePiece itself, offsets included, and this module gives them the face of
a `tokenizers.Encoding`. Texts with rules before the vocabulary are left to that library, and get the same face. Pure:
needs neither torch nor transformers.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeVar

import sentencepiece
import tokenizers


Value = TypeVar("Value")
Offset = tuple[int, int]
Details = tuple[list[str], list[Offset], list[int | None]]  # pieces, where each lies, the number of its word
Mark = tuple[str, int]  # a special token and its id


class Pieces:
    """A text in pieces, without special tokens.

    Args:
        ids: One for each piece.
        source: The details, or what `find` finds them in.
        find: Finds the details. They take SentencePiece several times as long as the ids do, and few ask for them, so
            they are found when somebody does. None where `source` is the details.
        offsets: Where each piece lies in its text, where that was found with the ids.
    """

    # Few objects are kept for each text: with millions alive, collecting garbage costs more than SentencePiece.
    __slots__ = ("_find", "_offsets", "_source", "ids")

    def __init__(
        self,
        ids: list[int],
        source: Any,
        find: Callable[[Any], Details] | None = None,
        offsets: list[Offset] | None = None,
    ) -> None:
        self.ids, self._source, self._find, self._offsets = ids, source, find, offsets

    @property
    def details(self) -> Details:
        """The pieces, where each lies in its text, and the number of its word."""
        if self._find is not None:
            self._source, self._find = self._find(self._source), None
        details: Details = self._source
        return details

    @property
    def offsets(self) -> list[Offset]:
        """Where each piece lies in its text."""
        return self.details[1] if self._offsets is None else self._offsets

    def part(self, start: int, stop: int) -> Pieces:
        """Return the pieces from one up to another."""
        offsets = None if self._offsets is None else self._offsets[start:stop]
        return Pieces(self.ids[start:stop], (self, start, stop), _details_of_part, offsets)

    def __reduce__(self) -> tuple[Any, ...]:
        # What finds the details has a vocabulary with it, and no batch of texts should carry that to another process.
        return Pieces, (self.ids, pickle.dumps(self.details), pickle.loads)


def _details_of_part(source: tuple[Pieces, int, int]) -> Details:
    whole, start, stop = source
    pieces, offsets, words = whole.details
    return pieces[start:stop], offsets[start:stop], words[start:stop]


def join_words(words: Sequence[Pieces]) -> Pieces:
    """Make one text of words that were given one by one; offsets stay those within each word."""
    return Pieces([index for word in words for index in word.ids], words, _details_of_words)


def _details_of_words(words: Sequence[Pieces]) -> Details:
    pieces: list[str] = []
    offsets: list[Offset] = []
    numbers: list[int | None] = []
    for number, word in enumerate(words):
        found, places, _ = word.details
        pieces += found
        offsets += places
        numbers += [number] * len(found)
    return pieces, offsets, numbers


Part = tuple[str, "int | None", int, int]  # of a text: itself, its id if it is an added token, where it begins and ends


class SentencePieceSplitter:
    """Cuts added tokens out of texts, and gives what lies between them to SentencePiece.

    Args:
        processor: The vocabulary.
        tokens: Special tokens and those that a user added, by their ids.
        split_special: Whether special tokens that are written in a text are text.
    """

    def __init__(
        self,
        processor: sentencepiece.SentencePieceProcessor,
        tokens: Mapping[int, tokenizers.AddedToken],
        split_special: bool,
    ) -> None:
        wanted = {i: token for i, token in tokens.items() if not (split_special and token.special)}
        patterns = [_pattern(token) for token in sorted(wanted.values(), key=lambda token: -len(token.content))]
        self._processor = processor
        self._ids = {token.content: i for i, token in wanted.items()}
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    def split(self, texts: Sequence[str], with_offsets: bool) -> list[Pieces]:
        """Split texts, some hundred at once.

        One by one takes SentencePiece longer. Of all at once too much would be alive: collecting garbage would take
        longer than SentencePiece.
        """
        some = (texts[first : first + 256] for first in range(0, len(texts), 256))
        return [pieces for batch in some for pieces in self._split(batch, with_offsets)]

    def _split(self, texts: Sequence[str], with_offsets: bool) -> list[Pieces]:
        cuts = [self._cut(text) for text in texts]
        if with_offsets:
            rows = zip(texts, cuts, self._mappings(cuts), strict=True)
            return [
                Pieces(_joined(found, "ids"), text, self._details, _places(cut, found)) for text, cut, found in rows
            ]
        ids = self._encode(cuts, int)
        return [
            Pieces([i for part in cut for i in (next(ids) if part[1] is None else [part[1]])], text, self._details)
            for text, cut in zip(texts, cuts, strict=True)
        ]

    def _details(self, text: str) -> Details:
        cuts = [self._cut(text)]
        (found,) = self._mappings(cuts)
        # Every part of a text begins a word, and so does every space in it.
        begins = (piece[0] == "▁" or not i for mapping in found for i, piece in enumerate(mapping["pieces"]))
        words: list[int | None] = list(accumulate(begins, initial=-1))[1:]
        return _joined(found, "pieces"), _places(cuts[0], found), words

    def _mappings(self, cuts: Sequence[list[Part]]) -> Iterator[list[Mapping[str, Any]]]:
        """Yield the ids, the pieces and the offsets of every part of each text."""
        found = self._encode(cuts, "offset_mapping")
        for cut in cuts:
            yield [
                next(found) if index is None else {"ids": [index], "pieces": [part], "offsets": [(0, end - start)]}
                for part, index, start, end in cut
            ]

    def _encode(self, cuts: Sequence[list[Part]], kind: Any) -> Iterator[Any]:
        plain = [part for cut in cuts for part, index, _, _ in cut if index is None]
        if len(plain) > 32:
            return iter(self._processor.encode(plain, return_type=kind))
        # For a list SentencePiece starts threads, which takes as long as these do.
        return (self._processor.encode(part, return_type=kind) for part in plain)

    def _cut(self, text: str) -> list[Part]:
        parts: list[Part] = []
        start = 0
        for match in self._pattern.finditer(text) if self._pattern else ():
            first, last = match.span()
            if start < first:
                parts.append((text[start:first], None, start, first))
            token = match[match.lastindex or 0]
            parts.append((token, self._ids[token], first, last))
            start = last
        if start < len(text):
            parts.append((text[start:], None, start, len(text)))
        return parts


def _pattern(token: tokenizers.AddedToken) -> str:
    content = re.escape(token.content)
    if token.single_word:
        content = rf"(?<!\w){content}(?!\w)"
    if token.lstrip or token.rstrip:  # the group says what of the match is the token; groups cost time
        content = (r"\s*" if token.lstrip else "") + f"({content})" + (r"\s*" if token.rstrip else "")
    return content


def _joined(mappings: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    return [value for mapping in mappings for value in mapping[name]]


def _places(cut: list[Part], mappings: Sequence[Mapping[str, Any]]) -> list[Offset]:
    offsets: list[Offset] = []
    for (part, _, start, _), mapping in zip(cut, mappings, strict=True):
        places = mapping["offsets"]
        for position, piece in enumerate(mapping["pieces"]):
            first, last = places[position]
            if piece[0] == "▁":  # a word lies without the space before it
                first = last - len(part[first:last].lstrip())
            if first == last and piece != "▁":  # one of the pieces that a single character was made into
                last += 1
            places[position] = first, last
        offsets += [(start + first, start + last) for first, last in places] if start else places
    return offsets


class PipelineSplitter:
    """Gives texts to a pipeline of the `tokenizers` library, which can have rules before its vocabulary.

    Args:
        pipeline: It neither cuts nor pads.
        split_special: Whether special tokens that are written in a text are text.
    """

    def __init__(self, pipeline: tokenizers.Tokenizer, split_special: bool) -> None:
        self._pipeline, self._split_special = pipeline, split_special

    def split(self, texts: Sequence[str], with_offsets: bool) -> list[Pieces]:
        """Split texts; the library finds offsets in any case."""
        self._pipeline.encode_special_tokens = self._split_special
        found = self._pipeline.encode_batch(texts, add_special_tokens=False)
        return [Pieces(encoding.ids, encoding, _details_of_encoding) for encoding in found]


def _details_of_encoding(encoding: tokenizers.Encoding) -> Details:
    pieces = encoding.tokens
    # The library gives a space that stands alone the place of the character after it.
    places = zip(pieces, encoding.offsets, strict=True)
    offsets = [(first, first if piece == "▁" else last) for piece, (first, last) in places]
    return pieces, offsets, encoding.word_ids


@dataclass(frozen=True, slots=True)
class Padding:
    """What fills a row up.

    Args:
        length: To how many tokens.
        mark: The token that fills.
        segment: Its segment.
        left: Whether it comes before the texts.
    """

    length: int
    mark: Mark
    segment: int
    left: bool


class Encoding:
    """Ids with all that is known of them: what a `tokenizers.Encoding` has, under its names.

    Args:
        texts: One or two texts in pieces.
        marks: The special tokens of `[CLS] a [SEP] b [SEP]`; None for the pieces alone.
        padding: What fills the row up; None for nothing.
    """

    __slots__ = ("_marks", "_padding", "_texts", "attention_mask", "ids", "type_ids")

    def __init__(
        self, texts: Sequence[Pieces], marks: tuple[Mark, Mark] | None = None, padding: Padding | None = None
    ) -> None:
        self._texts, self._marks, self._padding = texts, marks, padding
        ids: list[int] = []
        segments: list[int] = []
        for segment, text in enumerate(texts):
            if marks is None:
                ids += text.ids
            else:
                ids += [*([] if segment else [marks[0][1]]), *text.ids, marks[1][1]]
            segments += [segment] * (len(ids) - len(segments))
        self.attention_mask = self._filled([1] * len(ids), 0)
        self.ids = self._filled(ids, padding.mark[1] if padding else 0)
        self.type_ids = self._filled(segments, padding.segment if padding else 0)

    def _filled(self, row: list[Value], value: Value) -> list[Value]:
        if self._padding is None:
            return row
        fill = [value] * (self._padding.length - len(row))
        return fill + row if self._padding.left else row + fill

    def _laid_out(self, parts: Sequence[list[Value]], cls: Value, sep: Value, pad: Value) -> list[Value]:
        """Lay out rows of the texts as the ids are, with values for the special tokens."""
        row: list[Value] = [] if self._marks is None else [cls]
        for part in parts:
            row += part if self._marks is None else [*part, sep]
        return self._filled(row, pad)

    @property
    def tokens(self) -> list[str]:
        """The pieces."""
        (cls, _), (sep, _) = self._marks or (("", 0), ("", 0))
        pad = self._padding.mark[0] if self._padding else ""
        return self._laid_out([text.details[0] for text in self._texts], cls, sep, pad)

    @property
    def offsets(self) -> list[Offset]:
        """Where each token lies in its text, from and to, in characters; (0, 0) for special tokens."""
        return self._laid_out([text.offsets for text in self._texts], (0, 0), (0, 0), (0, 0))

    @property
    def sequence_ids(self) -> list[int | None]:
        """0 for tokens of the first text, 1 for the second, None for special and padding tokens."""
        parts: list[list[int | None]] = [[i] * len(text.ids) for i, text in enumerate(self._texts)]
        return self._laid_out(parts, None, None, None)

    @property
    def word_ids(self) -> list[int | None]:
        """Number of the word that each token belongs to, counted in its text; None for special tokens."""
        return self._laid_out([text.details[2] for text in self._texts], None, None, None)

    @property
    def words(self) -> list[int | None]:
        """The same under its old name."""
        return self.word_ids

    @property
    def special_tokens_mask(self) -> list[int]:
        """1 for special and padding tokens, 0 for the others."""
        return [int(sequence is None) for sequence in self.sequence_ids]

    @property
    def n_sequences(self) -> int:
        """Number of texts."""
        return len(self._texts)

    @property
    def overflowing(self) -> list[Encoding]:
        """Nothing: what was cut off is in the encodings after this one, where it was asked for."""
        return []

    def __len__(self) -> int:
        return len(self.ids)

    def token_to_sequence(self, token: int) -> int | None:
        """Return the text of a token."""
        return _at(self.sequence_ids, token)

    def token_to_word(self, token: int) -> int | None:
        """Return the word of a token."""
        return _at(self.word_ids, token)

    def token_to_chars(self, token: int) -> tuple[int, int] | None:
        """Return where a token lies in its text."""
        return None if _at(self.sequence_ids, token) is None else self.offsets[token]

    def char_to_token(self, char: int, sequence: int = 0) -> int | None:
        """Return the token that holds a character of a text."""
        places = enumerate(zip(self.offsets, self.sequence_ids, strict=True))
        return next((i for i, ((start, end), of) in places if of == sequence and start <= char < end), None)

    def char_to_word(self, char: int, sequence: int = 0) -> int | None:
        """Return the word that holds a character of a text."""
        token = self.char_to_token(char, sequence)
        return None if token is None else self.word_ids[token]

    def word_to_tokens(self, word: int, sequence: int = 0) -> tuple[int, int] | None:
        """Return the first token of a word, and the one after its last."""
        pairs = enumerate(zip(self.word_ids, self.sequence_ids, strict=True))
        tokens = [i for i, pair in pairs if pair == (word, sequence)]
        return (tokens[0], tokens[-1] + 1) if tokens else None

    def word_to_chars(self, word: int, sequence: int = 0) -> tuple[int, int] | None:
        """Return where a word lies in its text."""
        tokens = self.word_to_tokens(word, sequence)
        return (self.offsets[tokens[0]][0], self.offsets[tokens[1] - 1][1]) if tokens else None


def _at(row: Sequence[Value | None], index: int) -> Value | None:
    return row[index] if 0 <= index < len(row) else None


def budgets(lengths: Sequence[int], budget: int, rule: str) -> list[int]:
    """Share the places of a packed input between one or two texts.

    Args:
        lengths: Number of pieces of each text.
        budget: Number of places, without special tokens.
        rule: `round_robin` and `waterfall` as KerasHub's MultiSegmentPacker has them: one piece of each text in turn,
            so that the odd one goes to the first, or the first text first. `longest_first`, `only_first` and
            `only_second` as transformers has them.

    Returns:
        How many pieces of each text to keep.

    Raises:
        ValueError: The text that is to be cut has too few pieces, or there is none.
    """
    budget = max(budget, 0)
    if sum(lengths) <= budget:
        return list(lengths)
    if len(lengths) == 1:
        if rule == "only_second":
            raise ValueError("There is no second text that only_second could cut.")
        return [budget]
    first, second = lengths
    if rule == "waterfall":
        kept = min(first, budget)
    elif rule == "round_robin":
        kept = min(first, max(budget - second, (budget + 1) // 2))
    elif rule == "longest_first":  # the odd piece goes to the longer text
        short, long = min(lengths), max(lengths)
        short = min(short, budget // 2) if short + min(long, max(short, budget - short)) > budget else short
        kept = short if first <= second else budget - short
    else:
        kept = budget - second if rule == "only_first" else first
        if kept < 0 or budget - kept < 0:
            raise ValueError(f"The texts have {first} and {second} pieces: {rule} cannot cut them to {budget}.")
    return [kept, budget - kept]


def windows(length: int, size: int, stride: int, left: bool) -> list[tuple[int, int]]:
    """Cut a text that is too long into parts.

    Args:
        length: Number of its pieces.
        size: Number of pieces in each part.
        stride: How many pieces a part shares with the one before it.
        left: Whether the first part is the text's end, where the left is cut.

    Returns:
        From and to which piece each part goes.

    Raises:
        ValueError: The parts share all they have.
    """
    if stride >= size:
        raise ValueError(
            f"Parts of {size} pieces cannot share {stride}: choose a smaller stride or a larger max_length."
        )
    starts = range(0, length - stride, size - stride)
    if left:
        return [(max(length - start - size, 0), length - start) for start in starts]
    return [(start, min(start + size, length)) for start in starts]
