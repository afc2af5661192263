"""Copy large matrices block by block, so that memory stays small and a block stays in a core's cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np


# A block of 4 MB fits a core's cache. It is filled in tiles of 512 rows by a few cache lines.
_BLOCK_BYTES, _TILE_ROWS, _TILE_COLUMNS = 4 << 20, 512, 32


def map_tensor(file: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Map the values of a tensor, read-only; the system reads them from the file when they are used.

    Args:
        file: Has the values in one run, in C order.
        offset: Of the first byte, in the file.
        shape: Shape of the values.
        dtype: With the byte order of the file.

    Raises:
        ValueError: The file ends before the tensor.
    """
    return np.memmap(file, dtype, "r", offset, shape)


def row_blocks(array: np.ndarray, offset: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the rows of an array in blocks of 4 MB.

    Args:
        array: Its strides have to allow `as_matrix`.
        offset: Of the array's first byte, in a file.

    Yields:
        The offset of each block in the file, and the block.
    """
    matrix = as_matrix(array)
    row_bytes = matrix.shape[1] * matrix.itemsize
    rows = max(1, _BLOCK_BYTES // row_bytes)
    for top in range(0, matrix.shape[0], rows):
        yield offset + top * row_bytes, matrix[top : top + rows]


class ContiguousCopier:
    """Copies blocks of a matrix into C order, into one buffer: each copy is valid until the next call."""

    def __init__(self) -> None:
        self._buffer = np.empty(0, np.uint8)

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Return the block in C order; a block that is in C order is not copied."""
        if block.flags.c_contiguous:
            return block
        if self._buffer.size < block.nbytes:
            self._buffer = np.empty(block.nbytes, np.uint8)
        copy = self._buffer[: block.nbytes].view(block.dtype).reshape(block.shape)
        for rows, columns in _tiles(block.shape):
            copy[rows, columns] = block[rows, columns]
        return copy


def blocks_in_c_order(matrix: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows of a matrix in blocks of 4 MB, in C order; each block is valid until the next."""
    copier = ContiguousCopier()
    for _, block in row_blocks(matrix, 0):
        yield copier(block)


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    for left in range(0, shape[1], _TILE_COLUMNS):
        for top in range(0, shape[0], _TILE_ROWS):
            yield slice(top, top + _TILE_ROWS), slice(left, left + _TILE_COLUMNS)


def as_matrix(array: np.ndarray) -> np.ndarray:
    """View an array with two dimensions, without a copy; the layouts of ALBERT's tensors allow it.

    Raises:
        ValueError: The strides do not allow it.
    """
    try:
        return array.reshape(-1, array.shape[-1], copy=False)
    except ValueError:
        return array.reshape(array.shape[0], -1, copy=False)
