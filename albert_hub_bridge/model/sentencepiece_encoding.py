"""What SentencePiece makes of a text, in the form in which transformers expects it.

The `tokenizers` library comes close to SentencePiece and is not the same: it adds scores in another precision, so that
ties fall differently, takes `<pad>` spelled out in a text for the control piece, and normalizes clusters of combining
marks as one character. So ids come from SentencePiece itself, offsets included, and this module gives them the face of
a `tokenizers.Encoding`. Pure: needs neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .sentencepiece_unigram import CLS, SEP


Offset = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Pieces:
    """A text in pieces, without special tokens.

    Args:
        ids: One for each piece.
        text: The whole text.
        details: Gives the pieces and their offsets of a whole text. They take SentencePiece several times as long as
            the ids do, and few ask for them.
        skipped: How many pieces of the whole text come before the first.
    """

    ids: list[int]
    text: str
    details: Callable[[str], tuple[list[str], list[Offset]]]
    skipped: int = 0

    def cut(self, length: int, left: bool) -> Pieces:
        """Keep the first `length` pieces, or the last ones where the left is cut."""
        skipped = max(len(self.ids) - length, 0) if left else 0
        return Pieces(self.ids[skipped : skipped + max(length, 0)], self.text, self.details, self.skipped + skipped)

    def tokens_and_offsets(self) -> tuple[list[str], list[Offset]]:
        """Return the pieces, and where each lies in the text."""
        part = slice(self.skipped, self.skipped + len(self.ids))
        tokens, offsets = self.details(self.text)
        return tokens[part], offsets[part]


class Encoding:
    """Ids with all that is known of them: what a `tokenizers.Encoding` has, under its names.

    Args:
        texts: One or two texts in pieces.
        special_ids: Those of "cls" and "sep" for `[CLS] a [SEP] b [SEP]`; None for the pieces alone.
    """

    def __init__(self, texts: Sequence[Pieces], special_ids: Mapping[str, int] | None) -> None:
        self._texts, self._special = texts, special_ids is not None
        self._padding, self._pad_token = (0, 0), ""
        self.ids: list[int] = []
        self.type_ids: list[int] = []
        for segment, text in enumerate(texts):
            if special_ids is None:
                self.ids += text.ids
            else:
                self.ids += [*([] if segment else [special_ids["cls"]]), *text.ids, special_ids["sep"]]
            self.type_ids += [segment] * (len(self.ids) - len(self.type_ids))
        self.attention_mask = [1] * len(self.ids)

    def pad(self, length: int, token: str, index: int, segment: int, left: bool) -> None:
        """Fill up to a length."""
        count = length - len(self)
        if count <= 0:
            return
        self._padding, self._pad_token = ((count, 0) if left else (0, count)), token
        self.ids = self._padded(self.ids, index)
        self.type_ids = self._padded(self.type_ids, segment)
        self.attention_mask = self._padded(self.attention_mask, 0)

    def _padded(self, row: list[Any], value: Any) -> list[Any]:
        left, right = self._padding
        return [value] * left + row if left else row + [value] * right

    def _laid_out(self, parts: Sequence[list[Any]], cls: Any, sep: Any, pad: Any) -> list[Any]:
        """Lay out rows of the texts as the ids are, with values for the special tokens."""
        row: list[Any] = [cls] if self._special else []
        for part in parts:
            row += [*part, sep] if self._special else part
        return self._padded(row, pad)

    @property
    def tokens(self) -> list[str]:
        """The pieces."""
        return self._laid_out([text.tokens_and_offsets()[0] for text in self._texts], CLS, SEP, self._pad_token)

    @property
    def offsets(self) -> list[Offset]:
        """Where each token lies in its text, from and to, in characters; (0, 0) for special tokens."""
        return self._laid_out([text.tokens_and_offsets()[1] for text in self._texts], (0, 0), (0, 0), (0, 0))

    @property
    def sequence_ids(self) -> list[int | None]:
        """0 for tokens of the first text, 1 for the second, None for special and padding tokens."""
        return self._laid_out([[i] * len(text.ids) for i, text in enumerate(self._texts)], None, None, None)

    @property
    def word_ids(self) -> list[int | None]:
        """Number of the word that each token belongs to, counted in its text; None for special tokens."""
        words: list[int | None] = []
        last: int | None = None
        word = -1
        for token, sequence in zip(self.tokens, self.sequence_ids, strict=True):
            if sequence != last:
                last, word = sequence, -1
            if sequence is None:
                words.append(None)
            else:
                word += token.startswith("▁") or word < 0
                words.append(word)
        return words

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
        """Nothing: what was cut off is not kept."""
        return []

    def __len__(self) -> int:
        return len(self.ids)

    def token_to_sequence(self, token: int) -> int | None:
        """Return the text of a token."""
        return self.sequence_ids[token]

    def token_to_word(self, token: int) -> int | None:
        """Return the word of a token."""
        return self.word_ids[token]

    def token_to_chars(self, token: int) -> tuple[int, int] | None:
        """Return where a token lies in its text."""
        return self.offsets[token] if self.sequence_ids[token] is not None else None

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
        ValueError: The text that is to be cut has too few pieces.
    """
    budget = max(budget, 0)
    if sum(lengths) <= budget:
        return list(lengths)
    if len(lengths) == 1:
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
