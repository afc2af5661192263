"""Truncate and pad pieces, and present them with the interface of a `tokenizers.Encoding`.

This module needs neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from .sentencepiece_pieces import Offset, Pieces


Value = TypeVar("Value")
Mark = tuple[str, int]  # a special token and its id


@dataclass(frozen=True, slots=True)
class Padding:
    """Padding of a row.

    Args:
        length: Number of tokens of the padded row.
        mark: The padding token.
        segment: Its segment id.
        left: Whether to pad on the left.
    """

    length: int
    mark: Mark
    segment: int
    left: bool


class Encoding:
    """One or two texts as a row of ids, with the attributes and methods of a `tokenizers.Encoding`.

    Args:
        texts: The pieces of one or two texts.
        marks: The special tokens of `[CLS] a [SEP] b [SEP]`, or `None` for the pieces alone.
        padding: The padding, or `None`.
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
        self.attention_mask = self._padded([1] * len(ids), 0)
        self.ids = self._padded(ids, padding.mark[1] if padding else 0)
        self.type_ids = self._padded(segments, padding.segment if padding else 0)

    def _padded(self, row: list[Value], value: Value) -> list[Value]:
        if self._padding is None:
            return row
        fill = [value] * (self._padding.length - len(row))
        return fill + row if self._padding.left else row + fill

    def _in_row(self, parts: Sequence[list[Value]], cls: Value, sep: Value, pad: Value) -> list[Value]:
        """Arrange values of the pieces like the ids, with other values at special tokens."""
        row: list[Value] = [] if self._marks is None else [cls]
        for part in parts:
            row += part if self._marks is None else [*part, sep]
        return self._padded(row, pad)

    @property
    def tokens(self) -> list[str]:
        """The pieces."""
        (cls, _), (sep, _) = self._marks or (("", 0), ("", 0))
        pad = self._padding.mark[0] if self._padding else ""
        return self._in_row([text.details[0] for text in self._texts], cls, sep, pad)

    @property
    def offsets(self) -> list[Offset]:
        """Start and end of each token in its text, in characters. (0, 0) for special tokens."""
        return self._in_row([text.offsets for text in self._texts], (0, 0), (0, 0), (0, 0))

    @property
    def sequence_ids(self) -> list[int | None]:
        """0 for tokens of the first text, 1 for the second, `None` for special and padding tokens."""
        parts: list[list[int | None]] = [[i] * len(text.ids) for i, text in enumerate(self._texts)]
        return self._in_row(parts, None, None, None)

    @property
    def word_ids(self) -> list[int | None]:
        """Word number of each token in its text, `None` for special tokens."""
        return self._in_row([text.details[2] for text in self._texts], None, None, None)

    @property
    def words(self) -> list[int | None]:
        """The old name of `word_ids`."""
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
        """Always empty: overflowing tokens are in encodings of their own."""
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
        """Return start and end of a token in its text."""
        return None if _at(self.sequence_ids, token) is None else self.offsets[token]

    def char_to_token(self, char: int, sequence: int = 0) -> int | None:
        """Return the token of a character."""
        places = enumerate(zip(self.offsets, self.sequence_ids, strict=True))
        return next((i for i, ((start, end), of) in places if of == sequence and start <= char < end), None)

    def char_to_word(self, char: int, sequence: int = 0) -> int | None:
        """Return the word of a character."""
        token = self.char_to_token(char, sequence)
        return None if token is None else self.word_ids[token]

    def word_to_tokens(self, word: int, sequence: int = 0) -> tuple[int, int] | None:
        """Return the first token of a word, and the token after its last."""
        pairs = enumerate(zip(self.word_ids, self.sequence_ids, strict=True))
        tokens = [i for i, pair in pairs if pair == (word, sequence)]
        return (tokens[0], tokens[-1] + 1) if tokens else None

    def word_to_chars(self, word: int, sequence: int = 0) -> tuple[int, int] | None:
        """Return start and end of a word in its text."""
        tokens = self.word_to_tokens(word, sequence)
        return (self.offsets[tokens[0]][0], self.offsets[tokens[1] - 1][1]) if tokens else None


def _at(row: Sequence[Value | None], index: int) -> Value | None:
    return row[index] if 0 <= index < len(row) else None


def token_budgets(lengths: Sequence[int], budget: int, rule: str) -> list[int]:
    """Divide a number of tokens between one or two texts.

    Args:
        lengths: Number of pieces of each text.
        budget: Number of tokens, without special tokens.
        rule: `round_robin` (one piece of each text in turn, the first text first) or `waterfall` (all of the first text
            first), like KerasHub's MultiSegmentPacker. Or `longest_first`, `only_first` or `only_second`, like
            transformers.

    Returns:
        Number of pieces of each text to keep.

    Raises:
        ValueError: The text to truncate has too few pieces, or does not exist.
    """
    budget = max(budget, 0)
    if sum(lengths) <= budget:
        return list(lengths)
    if len(lengths) == 1:
        if rule == "only_second":
            raise ValueError("only_second needs a second text.")
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
            raise ValueError(f"The texts have {first} and {second} pieces: {rule} cannot truncate them to {budget}.")
    return [kept, budget - kept]


def overlapping_windows(length: int, size: int, stride: int, left: bool) -> list[tuple[int, int]]:
    """Divide a text into overlapping windows.

    Args:
        length: Number of pieces of the text.
        size: Number of pieces of a window.
        stride: Number of pieces that a window shares with the one before it.
        left: Whether truncation is on the left. Then the first window is at the end of the text.

    Returns:
        First piece of each window, and the piece after its last.

    Raises:
        ValueError: `stride` is not smaller than `size`.
    """
    if stride >= size:
        raise ValueError(
            f"Windows of {size} pieces cannot share {stride}: choose a smaller stride or a larger max_length."
        )
    starts = range(0, length - stride, size - stride)
    if left:
        return [(max(length - start - size, 0), length - start) for start in starts]
    return [(start, min(start + size, length)) for start in starts]
