"""Copy large matrices block by block, so that memory stays small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np


# A core fills a block of 4 MB, which fits its cache, in tiles of a few cache lines by 512 rows, and writes it.
_BLOCK_BYTES, _TILE_ROWS, _TILE_COLUMNS = 4 << 20, 512, 32


def map_tensor(file: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Map a tensor's values in a file, read-only; they are read when they are used.

    Raises:
        ValueError: The file ends before the tensor does.
    """
    return np.memmap(file, dtype, "r", offset, shape)


def row_blocks(array: np.ndarray, offset: int) -> Iterator[tuple[int, np.ndarray]]:
    """Cut an array that belongs at an offset into blocks of rows, with theirs."""
    matrix = as_matrix(array)
    row_bytes = matrix.shape[1] * matrix.itemsize
    rows = max(1, _BLOCK_BYTES // row_bytes)
    for top in range(0, matrix.shape[0], rows):
        yield offset + top * row_bytes, matrix[top : top + rows]


class ContiguousCopier:
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
    compact, rows = ContiguousCopier(), max(1, _BLOCK_BYTES // (matrix.shape[1] * matrix.itemsize))
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
