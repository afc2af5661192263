"""Moving tensors between files: mapped from where they lie, written to where they belong, transposed on the way.

Both formats keep a tensor's values in one run of bytes. So a reader only needs the offset, a writer lays the file out
first and fills it afterwards, and all cores can fill it at once. Afterwards it is read once, to be hashed and to be
compared with the checkpoint. Nothing is held in memory but a few megabytes a core:
the libraries' own writers take a whole checkpoint as contiguous arrays, which costs its size again in memory, and a
transposed copy that follows the target row by row costs three to five times as long (`benchmarks/convert.py`).
"""

from __future__ import annotations

import hashlib
import heapq
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import FileIO
from math import prod
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from albert_hub_bridge.errors import TargetError
from albert_hub_bridge.mapping.weights import Dialect, WeightRule
from albert_hub_bridge.stores.checkpoint import DTYPES, Checkpoint, Progress, are_finite, not_finite
from albert_hub_bridge.stores.files import naming, read_back_wrong, to_disk, write_all


# A core fills a block of 4 MB, which fits its cache, in tiles of a few cache lines by 512 rows, and writes it.
_BLOCK_BYTES, _TILE_ROWS, _TILE_COLUMNS = 4 << 20, 512, 32


def map_tensor(file: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Map a tensor's values in a file, read-only; they are read when they are used.

    Raises:
        ValueError: The file ends before the tensor does.
    """
    return np.memmap(file, dtype, "r", offset, shape)


class LaidOut(NamedTuple):
    """A file of weights before it is written: all of it but the values."""

    file: Path
    size: int  # in bytes
    frame: Mapping[int, bytes]  # what lies around the values, by offset; with them it fills the file
    values: Sequence[tuple[WeightRule, int]]  # the offset where those of each weight begin, in the order of the file


def write_weights(
    checkpoint: Checkpoint, files: Iterable[LaidOut], dialect: Dialect, progress: Progress | None
) -> dict[Path, str]:
    """Write files with weights of a checkpoint, and compare what the disk gives back, bit for bit.

    Args:
        checkpoint: Whose weights to write.
        files: To make.
        dialect: The layout of the files.
        progress: Called after every tensor.

    Returns:
        The SHA-256 of every file, of what was read back, in hexadecimal.

    Raises:
        WeightsError: A value is NaN or infinite; all tensors with such values are listed.
        OSError: The system did not write a file, or gave back something else.
    """
    done, sums = 0, {}
    for laid_out in files:
        with naming(laid_out.file), laid_out.file.open("xb", buffering=0) as stream:
            stream.truncate(laid_out.size)
            for offset, piece in laid_out.frame.items():
                stream.seek(offset)
                write_all(stream, piece)
        with _Filler(laid_out.file) as filler:
            for rule, offset in laid_out.values:
                array = _values(checkpoint, rule, dialect)
                if not filler.fill(array, offset):
                    raise not_finite(checkpoint.weights.values())
                done += array.nbytes
                if progress is not None:
                    progress(done, checkpoint.nbytes)
        sums[laid_out.file] = _read_back(laid_out, checkpoint, dialect)
    return sums


def _values(checkpoint: Checkpoint, rule: WeightRule, dialect: Dialect) -> np.ndarray:
    array = checkpoint.read(rule, dialect)
    if array.dtype != DTYPES[checkpoint.dtype]:  # it would be written over its neighbours
        raise ValueError(f"{rule.bridge} should be {checkpoint.dtype}, and is {array.dtype}.")
    return array


def _read_back(laid_out: LaidOut, checkpoint: Checkpoint, dialect: Dialect) -> str:
    """Read a file once: one thread hashes it, another compares it with its frame and with the checkpoint."""
    digest, compact, at = hashlib.sha256(), Compactor(), 0
    room = np.empty(0, np.uint8)
    with ExitStack() as resources:
        with naming(laid_out.file):
            stream = resources.enter_context(laid_out.file.open("rb", buffering=0))
            to_disk(stream)
        comparing = resources.enter_context(ThreadPoolExecutor(1))
        for offset, expected in _contents(laid_out, checkpoint, dialect):
            if room.size < expected.nbytes:
                room = np.empty(expected.nbytes, np.uint8)
            found = room[: expected.nbytes]
            with naming(laid_out.file):
                is_whole = offset == at and _read_into(stream, found)
            same = comparing.submit(lambda: np.array_equal(found, compact(expected).reshape(-1).view(np.uint8)))  # noqa: B023
            digest.update(found.data)
            at += expected.nbytes
            if not (same.result() and is_whole):
                raise read_back_wrong(laid_out.file)
        with naming(laid_out.file):
            if at != laid_out.size or stream.read(1):
                raise read_back_wrong(laid_out.file)
    return digest.hexdigest()


def _contents(laid_out: LaidOut, checkpoint: Checkpoint, dialect: Dialect) -> Iterator[tuple[int, np.ndarray]]:
    """Return what a file should have, with its offsets, from its beginning to its end."""
    frame = [(offset, np.frombuffer(piece, np.uint8)) for offset, piece in laid_out.frame.items()]
    values = (part for rule, offset in laid_out.values for part in _blocks(_values(checkpoint, rule, dialect), offset))
    return heapq.merge(sorted(frame, key=itemgetter(0)), values, key=itemgetter(0))


def _read_into(stream: FileIO, room: np.ndarray) -> bool:
    """Read until an array of bytes is full, and tell whether the file had as many."""
    left = room.data
    while left:
        count = stream.readinto(left)
        if not count:
            return False
        left = left[count:]
    return True


def shards_of(checkpoint: Checkpoint, rules: Sequence[WeightRule], max_bytes: int | None) -> list[list[WeightRule]]:
    """Split weights into files, in order: a new one where the next weight would make it larger than `max_bytes`.

    Raises:
        TargetError: One weight alone is larger than that.
    """
    if max_bytes is None:
        return [list(rules)]
    itemsize, sizes = DTYPES[checkpoint.dtype].itemsize, checkpoint.sizes
    shards: list[list[WeightRule]] = [[]]
    filled = 0
    for rule in rules:
        nbytes = prod(rule.shape("bridge", sizes)) * itemsize
        if nbytes > max_bytes:
            raise TargetError(
                f"A shard may have {max_bytes:,} bytes, and {rule.bridge} alone has {nbytes:,}. Allow larger shards."
            )
        if filled + nbytes > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(rule)
        filled += nbytes
    return shards


class _Filler:
    """Writes arrays of any strides into a file, in C order, with as many threads as there are cores."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._local = threading.local()  # a handle, and the buffer of `_in_order`, for each thread
        self._resources = ExitStack()

    def __enter__(self) -> _Filler:
        self._pool = self._resources.enter_context(ThreadPoolExecutor(os.cpu_count()))
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def fill(self, array: np.ndarray, offset: int) -> bool:
        """Write one array at an offset, and tell whether all is finite; raises what writing raises, such as OSError."""
        return all(self._pool.map(self._write, _blocks(array, offset)))

    def _write(self, part: tuple[int, np.ndarray]) -> bool:
        offset, block = part
        if not hasattr(self._local, "compact"):
            self._local.compact = Compactor()
        compact = self._local.compact(block)
        finite = are_finite(compact)  # while it is in the cache
        content = compact.reshape(-1).view(np.uint8).data
        with naming(self._file):
            if not hasattr(self._local, "handle"):
                self._local.handle = self._resources.enter_context(self._file.open("r+b", buffering=0))
            self._local.handle.seek(offset)
            write_all(self._local.handle, content)
        return finite


def _blocks(array: np.ndarray, offset: int) -> Iterator[tuple[int, np.ndarray]]:
    """Cut an array that belongs at an offset into blocks of rows, with theirs."""
    matrix = as_matrix(array)
    row_bytes = matrix.shape[1] * matrix.itemsize
    rows = max(1, _BLOCK_BYTES // row_bytes)
    for top in range(0, matrix.shape[0], rows):
        yield offset + top * row_bytes, matrix[top : top + rows]


class Compactor:
    """Copies blocks of a matrix into C order, in a buffer of its own that the next block overwrites."""

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Return the block in C order: itself, where it is."""
        if block.flags.c_contiguous:
            return block
        if self._buffer.size < block.nbytes:
            self._buffer = np.empty(block.nbytes, np.uint8)
        compact = self._buffer[: block.nbytes].view(block.dtype).reshape(block.shape)
        for rows, columns in _tiles(block.shape):
            compact[rows, columns] = block[rows, columns]
        return compact


def blocks_in_c_order(matrix: np.ndarray) -> Iterator[np.ndarray]:
    """Yield a matrix's rows in blocks of 4 MB, in C order; each block is good until the next."""
    compact, rows = Compactor(), max(1, _BLOCK_BYTES // (matrix.shape[1] * matrix.itemsize))
    for top in range(0, matrix.shape[0], rows):
        yield compact(matrix[top : top + rows])


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    for left in range(0, shape[1], _TILE_COLUMNS):
        for top in range(0, shape[0], _TILE_ROWS):
            yield slice(top, top + _TILE_ROWS), slice(left, left + _TILE_COLUMNS)


def as_matrix(array: np.ndarray) -> np.ndarray:
    """View an array with two dimensions, without a copy: as ALBERT's layouts always allow.

    Raises:
        ValueError: Its strides do not allow that.
    """
    try:
        return array.reshape(-1, array.shape[-1], copy=False)
    except ValueError:
        return array.reshape(array.shape[0], -1, copy=False)
