"""Split texts into SentencePiece pieces, with ids and offsets.

The `tokenizers` library does not always agree with SentencePiece. It adds scores in another precision, and so breaks
ties differently. It reads `<pad>` in a text as the control piece, and it normalizes a cluster of combining marks as one
character. So ids and offsets come from SentencePiece itself. Only with text normalization they come from a pipeline of
that library. This module needs neither torch nor transformers.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import sentencepiece
import tokenizers


Offset = tuple[int, int]
Details = tuple[list[str], list[Offset], list[int | None]]  # pieces, offsets, word numbers


class Pieces:
    """The pieces of a text, without special tokens.

    Args:
        ids: Id of each piece.
        source: The details, or the argument of `find`.
        find: Computes the details from `source` at first use. They take SentencePiece several times as long as the ids.
            `None` if `source` is the details.
        offsets: Start and end of each piece in the text, if they were computed with the ids.
    """

    # Each text keeps few objects: with millions of objects, garbage collection takes longer than SentencePiece.
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
        """The pieces, their offsets in the text, and their word numbers."""
        if self._find is not None:
            self._source, self._find = self._find(self._source), None
        details: Details = self._source
        return details

    @property
    def offsets(self) -> list[Offset]:
        """Start and end of each piece in the text."""
        return self.details[1] if self._offsets is None else self._offsets

    def part(self, start: int, stop: int) -> Pieces:
        """Return the pieces from `start` up to `stop`."""
        offsets = None if self._offsets is None else self._offsets[start:stop]
        return Pieces(self.ids[start:stop], (self, start, stop), _details_of_part, offsets)

    def __reduce__(self) -> tuple[Any, ...]:
        # `find` holds the vocabulary. Compute the details now, so that no text carries it to another process.
        return Pieces, (self.ids, pickle.dumps(self.details), pickle.loads)


def _details_of_part(source: tuple[Pieces, int, int]) -> Details:
    whole, start, stop = source
    pieces, offsets, words = whole.details
    return pieces[start:stop], offsets[start:stop], words[start:stop]


def join_words(words: Sequence[Pieces]) -> Pieces:
    """Join the pieces of words to one text. Offsets stay relative to each word."""
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


Part = tuple[str, "int | None", int, int]  # a part of a text, its id if it is an added token, its start and end


class SentencePieceSplitter:
    """Splits texts with SentencePiece. Added tokens are cut out first.

    Args:
        processor: The SentencePiece model.
        tokens: Special and added tokens by id.
        split_special: Whether special tokens in a text are treated as text.
    """

    def __init__(
        self,
        processor: sentencepiece.SentencePieceProcessor,
        tokens: Mapping[int, tokenizers.AddedToken],
        split_special: bool,
    ) -> None:
        cut_out = {i: token for i, token in tokens.items() if not (split_special and token.special)}
        patterns = [_pattern(token) for token in sorted(cut_out.values(), key=lambda token: -len(token.content))]
        self._processor = processor
        self._ids = {token.content: i for i, token in cut_out.items()}
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    def split(self, texts: Sequence[str], with_offsets: bool) -> list[Pieces]:
        """Split texts in batches of 256.

        SentencePiece is slower on single texts. With larger batches, garbage collection takes longer than it.
        """
        batches = (texts[first : first + 256] for first in range(0, len(texts), 256))
        return [pieces for batch in batches for pieces in self._split(batch, with_offsets)]

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
        # A word begins at each part of a text, and at each space.
        begins = (piece[0] == "▁" or not i for mapping in found for i, piece in enumerate(mapping["pieces"]))
        words: list[int | None] = list(accumulate(begins, initial=-1))[1:]
        return _joined(found, "pieces"), _places(cuts[0], found), words

    def _mappings(self, cuts: Sequence[list[Part]]) -> Iterator[list[Mapping[str, Any]]]:
        """Yield ids, pieces and offsets of each part of each text."""
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
        # For a list SentencePiece starts threads. That takes as long as these calls.
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
    if token.lstrip or token.rstrip:  # the group is the token without white space; groups cost time
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
            if piece[0] == "▁":  # offsets of a word do not include the space before it
                first = last - len(part[first:last].lstrip())
            if first == last and piece != "▁":  # several pieces came from this character
                last += 1
            places[position] = first, last
        offsets += [(start + first, start + last) for first, last in places] if start else places
    return offsets


class PipelineSplitter:
    """Splits texts with a pipeline of the `tokenizers` library, which may have text normalization.

    Args:
        pipeline: A pipeline that neither truncates nor pads.
        split_special: Whether special tokens in a text are treated as text.
    """

    def __init__(self, pipeline: tokenizers.Tokenizer, split_special: bool) -> None:
        self._pipeline, self._split_special = pipeline, split_special

    def split(self, texts: Sequence[str], with_offsets: bool) -> list[Pieces]:
        """Split texts. The library always computes offsets."""
        self._pipeline.encode_special_tokens = self._split_special
        found = self._pipeline.encode_batch(texts, add_special_tokens=False)
        return [Pieces(encoding.ids, encoding, _details_of_encoding) for encoding in found]


def _details_of_encoding(encoding: tokenizers.Encoding) -> Details:
    pieces = encoding.tokens
    # The library gives a lone space the offsets of the next character.
    places = zip(pieces, encoding.offsets, strict=True)
    offsets = [(first, first if piece == "▁" else last) for piece, (first, last) in places]
    return pieces, offsets, encoding.word_ids
