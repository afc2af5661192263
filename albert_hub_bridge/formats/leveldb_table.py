"""Read an untrusted table in LevelDB's format, the format of the index of TensorFlow's checkpoints.

A table has blocks of sorted keys and values, then a block about other blocks, which TensorFlow leaves empty, then a
block with the places of the blocks of keys, and a footer with the places of the last two. LevelDB has no reader in
Python that checks a file without changing it. Only what TensorFlow writes is accepted: every byte belongs to a block,
and every number has one spelling.

Sources: https://github.com/google/leveldb, doc/table_format.md; https://github.com/tensorflow/tensorflow,
core/lib/io/format.cc.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import google_crc32c
import numpy as np

from albert_hub_bridge.formats.varint import read_varint


MAX_NAMES = 30_000  # of 600 layers without shared weights, with an optimizer's state
_MAX_NAME_BYTES, _MAX_VALUE_BYTES = 300, 1 << 16
_FOOTER_BYTES, _MAGIC = 48, 0xDB4775248B80FB57
_TRAILER_BYTES = 5  # after a block: its compression, and the checksum of both


def read_table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a table; the keys are sorted.

    Raises:
        ValueError: The table is damaged, or has something that TensorFlow does not write. The message says what was
            found.
    """
    end = len(content) - _FOOTER_BYTES
    if end < 0 or int.from_bytes(content[-8:], "little") != _MAGIC:
        raise ValueError("one that does not end as an index does: was it cut off?")
    footer = _Reader(content[end:-8])
    empty, places = footer.read_place(), footer.read_place()
    if places.begin != empty.end or places.end != end or any(footer.rest()):
        raise ValueError("a footer that does not name the two blocks before it")
    if _read_block(content, empty):
        raise ValueError("blocks about other blocks, which TensorFlow does not write")
    position, last_separator, count = 0, None, 0
    for separator, value in _read_block(content, places):
        place = _read_block_place(value, position, empty.begin)
        rows = _read_block(content, place)
        count += len(rows)
        if not rows or count > MAX_NAMES:
            raise ValueError(f"more than {MAX_NAMES:,} names" if rows else f"an empty block at byte {position:,}")
        if (last_separator is not None and rows[0][0] <= last_separator) or rows[-1][0] > separator:
            raise ValueError(f"a block at byte {position:,} with names outside of its range")
        yield from rows
        position, last_separator = place.end, separator
    if position != empty.begin:
        raise ValueError(f"{empty.begin - position:,} bytes that belong to no block")


def masked_crc32c(checksum: int) -> int:
    """Return a checksum in the form that files have: LevelDB masks checksums of content that has checksums itself."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


class _Place(NamedTuple):
    """Where a block is in a table."""

    begin: int
    size: int

    @property
    def end(self) -> int:
        """Where the next block begins."""
        return self.begin + self.size + _TRAILER_BYTES


def _read_block_place(value: bytes, position: int, end: int) -> _Place:
    """Read the place of a block, which has to begin at a position and to end before another."""
    reader = _Reader(value)
    place = reader.read_place()
    if place.begin != position or place.end > end or reader.rest():
        found = f"a block of {place.size:,} bytes at {place.begin:,}"
        raise ValueError(f"{found}, where the block before it ends at {position:,}")
    return place


def _read_block(content: bytes, place: _Place) -> list[tuple[bytes, bytes]]:
    """Return the keys and values of a block; its checksum is compared first."""
    stop = place.begin + place.size
    expected = int.from_bytes(content[stop + 1 : stop + 5], "little")
    if (found := masked_crc32c(google_crc32c.value(content[place.begin : stop + 1]))) != expected:
        raise ValueError(f"a block at byte {place.begin:,} with crc32c {found:#010x} instead of {expected:#010x}")
    if content[stop] != 0:
        raise ValueError(f"a block that is compressed (type {content[stop]}), which TensorFlow does not write")
    # At a restart a key is stored whole; the block ends with the offsets of its restarts and their number.
    count = int.from_bytes(content[max(place.begin, stop - 4) : stop], "little")
    entries = place.size - 4 * (count + 1)
    if count < 1 or entries < 0:
        raise ValueError(f"a block of {place.size:,} bytes with {count:,} restarts")
    restarts = np.frombuffer(content, "<u4", count, place.begin + entries).astype(np.int64)
    rows, whole_keys = _read_rows(content[place.begin : place.begin + entries])
    if restarts[0] != 0 or (np.diff(restarts) <= 0).any() or not np.isin(restarts, [0, *whole_keys]).all():
        raise ValueError(f"a block at byte {place.begin:,} with restarts where no whole name is")
    return rows


def _read_rows(entries: bytes) -> tuple[list[tuple[bytes, bytes]], list[int]]:
    """Return the keys and values of a block, and the offsets of keys that are stored whole."""
    reader = _Reader(entries)
    rows: list[tuple[bytes, bytes]] = []
    whole_keys: list[int] = []
    key = b""
    while reader.left:
        if len(rows) == MAX_NAMES:
            raise ValueError(f"more than {MAX_NAMES:,} names")
        start, before = reader.position, key
        shared, own, size = reader.read_number(), reader.read_number(), reader.read_number()
        if shared > len(before) or shared + own > _MAX_NAME_BYTES or size > _MAX_VALUE_BYTES:
            found = f"a name with {shared:,} of the {len(before):,} bytes before it and {own:,} more, of {size:,} bytes"
            raise ValueError(f"{found}, where {_MAX_NAME_BYTES} of {_MAX_VALUE_BYTES:,} are allowed")
        if not shared:
            whole_keys.append(start)
        key, value = before[:shared] + reader.take(own), reader.take(size)
        if rows and key <= before:
            raise ValueError(f"{key!r} after {before!r}, which are not in order")
        rows.append((key, value))
    return rows, whole_keys


class _Reader:
    """Reads bytes from the first to the last."""

    def __init__(self, content: bytes) -> None:
        self._content, self.position = content, 0

    @property
    def left(self) -> int:
        """The number of bytes that were not read."""
        return len(self._content) - self.position

    def read_place(self) -> _Place:
        return _Place(self.read_number(), self.read_number())

    def read_number(self) -> int:
        """Read an integer that has no more bytes than it needs."""
        value, end = read_varint(self._content, self.position)
        if end - self.position > 1 and not self._content[end - 1]:
            raise ValueError(f"a number with zeros at its end, at byte {self.position:,} of its block")
        self.position = end
        return value

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise ValueError(f"{self.left:,} bytes instead of {count:,}")
        self.position += count
        return self._content[self.position - count : self.position]

    def rest(self) -> bytes:
        return self.take(self.left)
