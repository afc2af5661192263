"""Moving tensors between files: mapped from where they lie, written to where they belong, transposed on the way.

Both formats keep a tensor's values in one run of bytes. So a reader only needs the offset, a writer lays the file out
first and fills it afterwards, and all cores can fill it at once. Nothing is held in memory but a few megabytes a core:
the libraries' own writers take a whole checkpoint as contiguous arrays, which costs its size again in memory, and a
transposed copy that follows the target row by row costs three to five times as long (`benchmarks/convert.py`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import groupby
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from albert_hub_bridge.errors import TargetError
from albert_hub_bridge.mapping.weights import Dialect, WeightRule
from albert_hub_bridge.stores.checkpoint import DTYPES, Checkpoint, Progress


# A core fills a block of 4 MB, which fits its cache, in tiles of a few cache lines by 512 rows, and writes it.
_BLOCK_BYTES, _TILE_ROWS, _TILE_COLUMNS = 4 << 20, 512, 32


def map_tensor(file: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Map a tensor's values in a file, read-only; they are read when they are used.

    Raises:
        ValueError: The file ends before the tensor does.
    """
    return np.memmap(file, dtype, "r", offset, shape)


class Placed(NamedTuple):
    """Where the values of a weight belong."""

    rule: WeightRule
    file: Path  # laid out for it
    offset: int  # of its first byte


def write_weights(
    checkpoint: Checkpoint, placed: Sequence[Placed], dialect: Dialect, progress: Progress | None
) -> None:
    """Fill files with weights of a checkpoint.

    Args:
        checkpoint: Whose weights to write.
        placed: Every weight, those of one file in a row.
        dialect: The layout of the files.
        progress: Called after every tensor.
    """
    done = 0
    for file, weights in groupby(placed, key=lambda weight: weight.file):
        with _Filler(file) as filler:
            for rule, _, offset in weights:
                array = checkpoint.read(rule, dialect)
                if array.dtype != DTYPES[checkpoint.dtype]:  # it would be written over its neighbours
                    raise ValueError(f"{rule.bridge} should be {checkpoint.dtype}, and is {array.dtype}.")
                filler.fill(array, offset)
                done += array.nbytes
                if progress is not None:
                    progress(done, checkpoint.nbytes)


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
        self._local = threading.local()  # a handle and a buffer for each thread
        self._resources = ExitStack()

    def __enter__(self) -> _Filler:
        self._pool = self._resources.enter_context(ThreadPoolExecutor(os.cpu_count()))
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def fill(self, array: np.ndarray, offset: int) -> None:
        """Write one array at an offset; raises what writing raises, such as OSError."""
        matrix = as_matrix(array)
        row_bytes = matrix.shape[1] * matrix.itemsize
        rows = max(1, _BLOCK_BYTES // row_bytes)
        tops = range(0, matrix.shape[0], rows)
        list(self._pool.map(lambda top: self._write(matrix[top : top + rows], offset + top * row_bytes), tops))

    def _write(self, block: np.ndarray, offset: int) -> None:
        if not hasattr(self._local, "handle"):
            self._local.handle = self._resources.enter_context(self._file.open("r+b", buffering=0))
            self._local.compact = Compactor()
        left = self._local.compact(block).reshape(-1).view(np.uint8).data
        self._local.handle.seek(offset)
        while left:  # a raw write may take less than all
            left = left[self._local.handle.write(left) :]


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
