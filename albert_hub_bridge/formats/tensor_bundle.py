"""A checkpoint of TensorFlow 1, a tensor bundle: an index, and files of values, which stay where they are.

The index is a table in LevelDB's format: blocks of sorted keys and values, then a block of nothing, a block that has
the places of the others, and a footer that has those of the last two. A key is the name of a variable, and its value a
message of protobuf; the first key is empty, and its value is about all of them. TensorFlow leaves no byte between
blocks or between values, and writes each message in one way only, so nothing else is taken. Sources of the formats:
https://github.com/google/leveldb, doc/table_format.md; https://github.com/tensorflow/tensorflow,
core/util/tensor_bundle/tensor_bundle.cc, core/protobuf/tensor_bundle.proto, core/lib/io/format.cc.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from albert_hub_bridge.disk.regular_files import check_beginning, open_regular, read_bytes
from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.formats.blocks import map_tensor
from albert_hub_bridge.formats.lazy_tensors import DTYPES


_MOST_BYTES, _LONGEST_NAME, _LONGEST_MESSAGE = 4 << 20, 300, 1 << 16
_MOST_NAMES = 30_000  # six hundred layers of their own, with an optimizer's state; an ALBERT has a few
_FOOTER_BYTES, _MAGIC = 48, 0xDB4775248B80FB57
_TRAILER_BYTES = 5  # after a block: how it is compressed, and a checksum of both
_VERSION = 1  # of bundles; there was never another
_BLOCK_BYTES = 4 << 20  # of values, to check at once

# fmt: off
# Number of a dtype -> TensorFlow's name, and how many bytes a value has; None where that differs.
_DTYPES = {
    1: ("float32", 4), 2: ("float64", 8), 3: ("int32", 4), 4: ("uint8", 1), 5: ("int16", 2), 6: ("int8", 1),
    7: ("string", None), 8: ("complex64", 8), 9: ("int64", 8), 10: ("bool", 1), 14: ("bfloat16", 2), 17: ("uint16", 2),
    18: ("complex128", 16), 19: ("float16", 2), 22: ("uint32", 4), 23: ("uint64", 8),
}
# Message -> its fields: number, name, and type; a star where there may be many.
_MESSAGES = {
    "Version": ((1, "producer", "INT32"), (2, "min_consumer", "INT32"), (3, "bad_consumers", "INT32*")),
    "Header":  ((1, "num_shards", "INT32"), (2, "endianness", "INT32"), (3, "version", "Version")),
    "Axis":    ((1, "size", "INT64"),),
    "Shape":   ((2, "dim", "Axis*"), (3, "unknown_rank", "BOOL")),
    "Entry":   ((1, "dtype", "INT32"), (2, "shape", "Shape"), (3, "shard_id", "INT32"), (4, "offset", "INT64"),
                (5, "size", "INT64"), (6, "crc32c", "FIXED32"), (7, "slices", "BYTES*")),
}
# fmt: on


class Variable(NamedTuple):
    """A variable in a file of values."""

    dtype: str  # a key of DTYPES, or TensorFlow's own name of another dtype
    shape: tuple[int, ...]
    file: Path
    offset: int  # of its first byte, in the file
    size: int  # in bytes
    checksum: int  # of the values: crc32c, masked


def read_bundle(index: Path) -> dict[str, Variable]:
    """Return every variable of a checkpoint, by its name; no values are read.

    Args:
        index: Such as `model.ckpt-best.index`, beside `model.ckpt-best.data-00000-of-00001`.

    Raises:
        FileError: One of the files is not a regular file, or is something else by its content, or the index is larger
            than one can be.
        ValueError: It is no checkpoint, or is damaged, or has something that nobody claims. The message says what was
            found.
    """
    rows = _rows(read_bytes(index, _MOST_BYTES))
    if (first := next(rows, (None, b"")))[0] != b"":
        raise ValueError("one that does not begin with a header")
    header = _message("Header", first[1])
    if header.endianness != 0:
        raise ValueError(f"one of byte order {header.endianness}, and only little-endian ones (0) are read")
    if header.version.min_consumer > _VERSION or _VERSION in header.version.bad_consumers:
        raise ValueError(f"one that readers of version {_VERSION} must not read")
    if not 0 < header.num_shards <= _MOST_NAMES:
        raise ValueError(f"one of {header.num_shards:,} files of values")
    files = [
        index.with_name(f"{index.stem}.data-{shard:05d}-of-{header.num_shards:05d}")
        for shard in range(header.num_shards)
    ]
    found = {name: _variable(name, _message("Entry", value), files) for name, value in _named(rows)}
    places: dict[Path, list[tuple[int, int, str]]] = {}
    for name, variable in found.items():
        places.setdefault(variable.file, []).append((variable.offset, variable.offset + variable.size, name))
    if len(places) != len(files):
        raise ValueError(f"one of {len(files):,} files of values, with variables in {len(places):,}")
    for file, runs in places.items():
        _check_places(file, sorted(runs))
    return found


def _named(rows: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[str, bytes]]:
    for key, value in rows:
        if key.startswith(b"\0"):  # a part: 0, the name, 0, and which part it is
            raise _in_parts(key[1:].partition(b"\0")[0].decode("ascii", "replace"))
        yield key.decode("ascii"), value  # UnicodeDecodeError is a ValueError


def _in_parts(name: str) -> ValueError:
    return ValueError(f"{name} in parts: a partitioned variable, which has to be saved in one piece")


def _variable(name: str, entry: Any, files: list[Path]) -> Variable:
    """Return a variable as its message describes it."""
    if entry.slices:
        raise _in_parts(name)
    shape = tuple(axis.size for axis in entry.shape.dim)
    if entry.shape.unknown_rank or len(shape) > 8 or not all(0 <= size < 1 << 48 for size in shape):
        raise ValueError(f"{name} of shape {shape}: not all of it are sizes")
    if not (0 <= entry.offset < 1 << 48 and 0 <= entry.size < 1 << 48 and 0 <= entry.shard_id < len(files)):
        raise ValueError(f"{name} of {entry.size} bytes at {entry.offset} of file {entry.shard_id} of {len(files)}")
    dtype, size = _DTYPES.get(entry.dtype, (f"dtype {entry.dtype}", None))
    if size is not None and prod(shape) * size != entry.size:
        raise ValueError(f"{name} of {dtype} and shape {shape} in {entry.size:,} bytes")
    return Variable(dtype, shape, files[entry.shard_id], entry.offset, entry.size, entry.crc32c)


def _check_places(file: Path, runs: list[tuple[int, int, str]]) -> None:
    """Refuse a file of values that is not filled by its variables, from the first byte to the last."""
    try:
        check_beginning(file)
        with open_regular(file) as stream:
            whole = os.fstat(stream.fileno()).st_size
    except FileNotFoundError as error:
        raise ValueError(f"no {file.name} beside it") from error
    end = 0
    for begin, stop, name in runs:
        if begin != end:
            raise ValueError(f"{name} at byte {begin:,} of {file.name}, where the variable before it ends at {end:,}")
        end = stop
    if whole < end:
        raise ValueError(f"{file.name} truncated at {whole:,} of {end:,} bytes")
    if whole > end:
        raise ValueError(f"{whole - end:,} bytes after the last variable of {file.name}")


class Values:
    """What returns the values of a variable, mapped from where they lie; the first time, it compares their checksum.

    Args:
        name: Of the variable, for the message.
        variable: Of a dtype in `DTYPES`, when it is called.

    Calling raises:
        WeightsError: They are others than were saved.
    """

    __slots__ = ("_is_checked", "_name", "_variable")

    def __init__(self, name: str, variable: Variable) -> None:
        self._name, self._variable, self._is_checked = name, variable, False

    def __call__(self) -> np.ndarray:
        """Return the values."""
        dtype, shape, file, offset, size, checksum = self._variable
        if not self._is_checked:
            content, found = map_tensor(file, offset, (size,), np.dtype(np.uint8)), 0
            for begin in range(0, size, _BLOCK_BYTES):
                found = google_crc32c.extend(found, content[begin : begin + _BLOCK_BYTES])
            if _masked(found) != checksum:
                detail = f"expected values with crc32c {checksum:#010x}, found {_masked(found):#010x}"
                raise WeightsError(file, "weights", [Problem("wrong checksum", self._name, detail)])
            self._is_checked = True
        return map_tensor(file, offset, shape, DTYPES[dtype])


def _masked(checksum: int) -> int:
    """Return a checksum as it is stored: LevelDB masks those that lie among what others are computed of."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


# The table.


class _Place(NamedTuple):
    """Where a block lies."""

    begin: int
    size: int

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.begin + self.size + _TRAILER_BYTES


def _rows(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys of a table, which are sorted, and their values."""
    end = len(content) - _FOOTER_BYTES
    if end < 0 or int.from_bytes(content[-8:], "little") != _MAGIC:
        raise ValueError("one that does not end as an index does: was it cut off?")
    footer = _Reader(content[end:-8])
    empty, places = footer.place(), footer.place()
    if places.begin != empty.end or places.end != end or any(footer.rest()):
        raise ValueError("a footer that is not that of two blocks before it")
    if _block(content, empty):
        raise ValueError("blocks about others, where TensorFlow writes none")
    at, last, count = 0, None, 0
    for separator, value in _block(content, places):
        reader = _Reader(value)
        place = reader.place()
        if place.begin != at or place.end > empty.begin or reader.rest():
            raise ValueError(f"a block of {place.size:,} bytes at {place.begin:,}, where the one before ends at {at:,}")
        rows = _block(content, place)
        count += len(rows)
        if not rows or count > _MOST_NAMES:
            raise ValueError(f"more than {_MOST_NAMES:,} names" if rows else f"a block of nothing at byte {at:,}")
        if (last is not None and rows[0][0] <= last) or rows[-1][0] > separator:
            raise ValueError(f"a block at byte {at:,} with other names than those that its place is for")
        yield from rows
        at, last = place.end, separator
    if at != empty.begin:
        raise ValueError(f"{empty.begin - at:,} bytes that no name leads to")


def _block(content: bytes, place: _Place) -> list[tuple[bytes, bytes]]:
    """Return the keys and values of a block that lies within the content; its checksum is compared first."""
    stop = place.begin + place.size
    said = int.from_bytes(content[stop + 1 : stop + 5], "little")
    if (found := _masked(google_crc32c.value(content[place.begin : stop + 1]))) != said:
        raise ValueError(f"a block at byte {place.begin:,} with crc32c {found:#010x} instead of {said:#010x}")
    if content[stop] != 0:
        raise ValueError(f"a block that is compressed (type {content[stop]}), which TensorFlow never writes")
    count = int.from_bytes(content[max(place.begin, stop - 4) : stop], "little")
    entries = place.size - 4 * (count + 1)
    if count < 1 or entries < 0:
        raise ValueError(f"a block of {place.size:,} bytes with {count:,} restarts")
    restarts = np.frombuffer(content, "<u4", count, place.begin + entries)
    reader = _Reader(content[place.begin : place.begin + entries])
    rows: list[tuple[bytes, bytes]] = []
    starts, key = [], b""
    while reader.left:
        if len(rows) == _MOST_NAMES:
            raise ValueError(f"more than {_MOST_NAMES:,} names")
        start, before = reader.at, key
        shared, own, size = reader.varint(), reader.varint(), reader.varint()
        if shared > len(before) or shared + own > _LONGEST_NAME or size > _LONGEST_MESSAGE:
            detail = f"{shared:,} of the {len(before):,} bytes before it and {own:,} more, with {size:,} bytes"
            raise ValueError(f"a name of {detail}, and {_LONGEST_NAME} with {_LONGEST_MESSAGE:,} are more than enough")
        if not shared:  # others restart there
            starts.append(start)
        key, value = before[:shared] + reader.take(own), reader.take(size)
        if rows and key <= before:
            raise ValueError(f"{key!r} after {before!r}, which are not in order")
        rows.append((key, value))
    if restarts[0] != 0 or (np.diff(restarts.astype(np.int64)) <= 0).any() or not np.isin(restarts, [0, *starts]).all():
        raise ValueError(f"a block at byte {place.begin:,} with restarts where no whole name is")
    return rows


class _Reader:
    """Reads bytes from the first to the last."""

    def __init__(self, content: bytes) -> None:
        self._content, self.at = content, 0

    @property
    def left(self) -> int:
        """How many bytes come yet."""
        return len(self._content) - self.at

    def place(self) -> _Place:
        return _Place(self.varint(), self.varint())

    def varint(self) -> int:
        """Return a number that is written with seven bits a byte, the lowest first, and no more bytes than it needs."""
        value = 0
        for shift in range(0, 63, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if not byte and shift:
                    break
                return value
        raise ValueError(f"a number that has no end, or nothing at its end, before byte {self.at:,} of its block")

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise ValueError(f"{self.left:,} bytes where {count:,} should be")
        self.at += count
        return self._content[self.at - count : self.at]

    def rest(self) -> bytes:
        return self.take(self.left)


# Its messages.


def _classes() -> Mapping[str, Any]:
    """Make the classes of messages, in a pool of their own: TensorFlow, where it is imported, has its own."""
    file = FileDescriptorProto(name="tensor_bundle", package="bundle", syntax="proto3")
    for message, fields in _MESSAGES.items():
        described = file.message_type.add(name=message)
        for number, name, kind in fields:
            field = described.field.add(name=name, number=number)
            field.label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            if (kind := kind.rstrip("*")) in _MESSAGES:
                field.type, field.type_name = field.TYPE_MESSAGE, f".bundle.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind}")
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {message: GetMessageClass(pool.FindMessageTypeByName(f"bundle.{message}")) for message in _MESSAGES}


_CLASSES = _classes()


def _message(kind: str, content: bytes) -> Any:
    """Parse a message, and refuse one that is not written as protobuf itself writes it."""
    message = _CLASSES[kind]()
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise ValueError(f"a message that is damaged: {error}") from error
    message.DiscardUnknownFields()
    if message.SerializeToString(deterministic=True) != content:
        raise ValueError(f"a message of {len(content):,} bytes that has more than TensorFlow writes")
    return message
