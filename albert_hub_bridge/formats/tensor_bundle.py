"""Checkpoints of TensorFlow 1 (tensor bundles): an index, and files of values that are mapped.

TensorFlow has 600 MB and copies the values, so its checkpoints are read here: the index is checked to the last byte,
the values are mapped, and their checksums are compared when they are first read. The index is a table
(`leveldb_table`) of protobuf messages. A key is the name of a variable; the first key is empty, and its message is the
header. TensorFlow leaves no gaps between values and writes each message in one way only, so nothing else is accepted.

Source: https://github.com/tensorflow/tensorflow, core/util/tensor_bundle/tensor_bundle.cc and
core/protobuf/tensor_bundle.proto.
"""

from __future__ import annotations

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

from albert_hub_bridge.disk.regular_files import check_beginning, read_bytes
from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.formats.blocks import map_tensor
from albert_hub_bridge.formats.lazy_tensors import DTYPES, LazyTensor, TensorLocation, check_runs
from albert_hub_bridge.formats.leveldb_table import MAX_NAMES, masked_crc32c, read_table


_MAX_INDEX_BYTES = 4 << 20
_VERSION = 1  # of bundles: there is no other
_BLOCK_BYTES = 4 << 20  # of values, whose checksum is computed at once

# fmt: off
# Number of a dtype -> TensorFlow's name, and the bytes of a value; None where that differs.
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

    file: Path
    location: TensorLocation
    size: int  # in bytes
    checksum: int  # of the values: crc32c, masked


def read_bundle(index: Path, max_files: int = MAX_NAMES) -> dict[str, LazyTensor]:
    """Return the variables of a checkpoint by their names, unread.

    Reading the values of a variable compares their checksum, until it was right once, and raises a `WeightsError` if it
    is wrong.

    Args:
        index: Such as `model.ckpt-best.index`, in the same folder as `model.ckpt-best.data-00000-of-00001`.
        max_files: The largest number of files of values.

    Raises:
        FileError: As `read_index`.
        WeightsError: The files are not a checkpoint, or are damaged.
    """
    try:
        variables = read_index(index, max_files)
    except ValueError as error:
        detail = f"expected a TensorFlow checkpoint, found {error}"
        raise WeightsError(index, "weights", [Problem("not a checkpoint", index.name, detail)]) from error
    return {
        name: LazyTensor(variable.location.shape, variable.location.dtype, _CheckedValues(name, variable))
        for name, variable in variables.items()
    }


def read_index(index: Path, max_files: int = MAX_NAMES) -> dict[str, Variable]:
    """Return where the variables of a checkpoint lie, by their names. Arguments as in `read_bundle`.

    Raises:
        FileError: A file is not a regular file, or has the content of another kind of file, or the index is too large.
        ValueError: The files are not a checkpoint, or are damaged, or have bytes that belong to no variable. The
            message says what was found.
    """
    rows = read_table(read_bytes(index, _MAX_INDEX_BYTES))
    if (first := next(rows, (None, b"")))[0] != b"":
        raise ValueError("one that does not begin with a header")
    header = _message("Header", first[1])
    if header.endianness != 0:
        raise ValueError(f"one of byte order {header.endianness}, and only little-endian ones (0) are read")
    if header.version.min_consumer > _VERSION or _VERSION in header.version.bad_consumers:
        raise ValueError(f"one that readers of version {_VERSION} must not read")
    if not 0 < header.num_shards <= max_files:
        raise ValueError(f"one of {header.num_shards:,} files of values")
    files = [
        index.with_name(f"{index.stem}.data-{shard:05d}-of-{header.num_shards:05d}")
        for shard in range(header.num_shards)
    ]
    found = {name: _variable(name, _message("Entry", value), files) for name, value in _named(rows)}
    runs: dict[Path, list[tuple[int, int, str]]] = {}  # file -> begin, end and name of its variables
    for name, (file, location, size, _) in found.items():
        runs.setdefault(file, []).append((location.offset, location.offset + size, name))
    if len(runs) != len(files):
        raise ValueError(f"one of {len(files):,} files of values, with variables in {len(runs):,}")
    for file in files:
        try:
            check_beginning(file)
            check_runs(sorted(runs[file]), 0, file.stat().st_size)
        except FileNotFoundError as error:
            raise ValueError(f"no {file.name} in its folder") from error
        except ValueError as error:
            raise ValueError(f"{file.name}: {error}") from error
    return found


def _named(rows: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[str, bytes]]:
    for key, value in rows:
        if key.startswith(b"\0"):  # of a part: 0, the name, 0, and the slice
            raise _in_parts(key[1:].partition(b"\0")[0].decode("ascii", "replace"))
        yield key.decode("ascii"), value  # UnicodeDecodeError is a ValueError


def _in_parts(name: str) -> ValueError:
    return ValueError(f"{name} in parts: a partitioned variable, which has to be saved as a whole")


def _variable(name: str, entry: Any, files: list[Path]) -> Variable:
    """Return the variable that a message describes."""
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
    return Variable(files[entry.shard_id], TensorLocation(dtype, shape, entry.offset), entry.size, entry.crc32c)


class _CheckedValues:
    """Returns the values of a variable, mapped from their file; compares their checksum until it was right once."""

    __slots__ = ("_is_checked", "_name", "_variable")

    def __init__(self, name: str, variable: Variable) -> None:
        self._name, self._variable, self._is_checked = name, variable, False

    def __call__(self) -> np.ndarray:
        file, location, size, expected = self._variable
        if not self._is_checked:
            content, checksum = map_tensor(file, location.offset, (size,), np.dtype(np.uint8)), 0
            for begin in range(0, size, _BLOCK_BYTES):
                checksum = google_crc32c.extend(checksum, content[begin : begin + _BLOCK_BYTES])
            if (found := masked_crc32c(checksum)) != expected:
                detail = f"expected values with crc32c {expected:#010x}, found {found:#010x}"
                raise WeightsError(file, "weights", [Problem("wrong checksum", self._name, detail)])
            self._is_checked = True
        return map_tensor(file, location.offset, location.shape, DTYPES[location.dtype])


def _classes() -> Mapping[str, Any]:
    """Make the classes of messages, in a pool of their own: TensorFlow may be imported, and has the same classes."""
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
    """Parse a message, and refuse it if protobuf writes it in another way."""
    message = _CLASSES[kind]()
    try:
        message.ParseFromString(content)
    except DecodeError as error:
        raise ValueError(f"a message that is damaged: {error}") from error
    message.DiscardUnknownFields()
    if message.SerializeToString(deterministic=True) != content:
        raise ValueError(f"a message of {len(content):,} bytes that has more than TensorFlow writes")
    return message
