"""Chunks of rows: what is tokenized, computed and written at once. No chunk spans two parts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from albert_hub_bridge.corpora.reading import Row
from albert_hub_bridge.errors import TargetExistsError


_MAX_ROWS = 4096  # among so many texts, many have the same length
_MAX_CHARACTERS = 1 << 20  # bounds the memory of long texts


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows that follow one another.

    Args:
        first_row: The number of the first row in the corpus, from 0.
        rows: The rows.
        part: The number of their part, from 0.
        part_sha256: The digest of the texts and keys of the part, up to the last of these rows.
        ends_part: Whether the part has as many rows as it may have.
    """

    first_row: int
    rows: Sequence[Row]
    part: int
    part_sha256: str
    ends_part: bool


@dataclass(frozen=True, slots=True)
class PartFacts:
    """What a part says of itself.

    Args:
        rows: The number of rows.
        tokens: The number of tokens of its texts, without padding.
        truncated: The number of texts that were cut.
        invalid: Why a row has no vector, for each such row.
        texts_sha256: The digest of its texts and keys.
    """

    rows: int
    tokens: int
    truncated: int
    invalid: tuple[str, ...]
    texts_sha256: str


def chunks_of(rows: Iterable[Row], part_rows: int) -> Iterator[Chunk]:
    """Yield the chunks of a corpus.

    Args:
        rows: The rows.
        part_rows: The largest number of rows of a part.
    """
    chunk: list[Row] = []
    characters, end, digest = 0, 0, hashlib.sha256()
    for end, row in enumerate(rows, 1):
        chunk.append(row)
        digest.update(repr((row.text, row.keys)).encode())
        characters += len(row.text) if isinstance(row.text, str) else sum(map(len, row.text or ()))
        ends_part = end % part_rows == 0
        if ends_part or len(chunk) == _MAX_ROWS or characters >= _MAX_CHARACTERS:
            yield Chunk(end - len(chunk), chunk, (end - 1) // part_rows, digest.hexdigest(), ends_part)
            chunk, characters = [], 0
            digest = hashlib.sha256() if ends_part else digest
    if chunk:
        yield Chunk(end - len(chunk), chunk, (end - 1) // part_rows, digest.hexdigest(), False)


def unfinished(chunks: Iterable[Chunk], finished: Sequence[PartFacts], target: str) -> Iterator[Chunk]:
    """Yield the chunks of the parts that are not written yet, and check that the others have these texts.

    Args:
        chunks: All chunks of the corpus.
        finished: What the parts that are written say of themselves.
        target: Their folder, for the message.

    Raises:
        TargetExistsError: A part was made from other texts.
    """
    before: Chunk | None = None
    for chunk in chunks:
        if before is not None and before.part != chunk.part:
            _check_part(before, finished, target)
        before = chunk
        if chunk.part >= len(finished):
            yield chunk
    if before is not None:
        _check_part(before, finished, target)
    if (0 if before is None else before.part + 1) < len(finished):
        raise _other_texts(target, "The texts end before the last part.")


def _check_part(last: Chunk, finished: Sequence[PartFacts], target: str) -> None:
    """Check the digest of a part that is written, given its last chunk."""
    if last.part < len(finished) and finished[last.part].texts_sha256 != last.part_sha256:
        raise _other_texts(
            target, f"The rows up to {last.first_row + len(last.rows) - 1} are not those of part {last.part}."
        )


def _other_texts(target: str, how: str) -> TargetExistsError:
    return TargetExistsError(
        f"{target} was made from other texts or keys. {how} Choose another target, or delete {target}."
    )
