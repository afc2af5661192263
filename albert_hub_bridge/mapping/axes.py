"""Named axes: one pattern gives a tensor's shape, and two patterns the move from one layout to the other.

A pattern is a row of axis names; parentheses merge neighbours: `"(heads head_dim) hidden"` is a matrix whose rows run
through the heads, and through the dimensions of each head. The sizes come from the architecture, so nothing is
written down twice. Moves are views of NumPy arrays; `compact` copies one, fast.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import prod

import numpy as np

from albert_hub_bridge.model.architecture import Architecture


def axis_sizes(architecture: Architecture) -> dict[str, int]:
    """Return the size of every axis name that occurs in the table of weights."""
    return {
        "vocabulary": architecture.vocabulary_size,
        "position": architecture.max_sequence_length,
        "segment": architecture.num_segments,
        "embedding": architecture.embedding_dim,
        "hidden": architecture.hidden_dim,
        "pooled": architecture.hidden_dim,
        "heads": architecture.num_heads,
        "head_dim": architecture.head_dim,
        "intermediate": architecture.intermediate_dim,
    }


@cache
def parse(pattern: str) -> tuple[tuple[str, ...], ...]:
    """Split a pattern into its dimensions, each a tuple of axis names: `(("heads", "head_dim"), ("hidden",))`."""
    return tuple(tuple(part.strip("()").split()) for part in re.findall(r"\([^()]*\)|[^\s()]+", pattern))


def shape_of(pattern: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape that a pattern has with these axis sizes."""
    return tuple(prod(sizes[axis] for axis in dimension) for dimension in parse(pattern))


def rearrange(array: np.ndarray, source: str, target: str, sizes: Mapping[str, int]) -> np.ndarray:
    """Move an array from the layout `source` to the layout `target`.

    Args:
        array: Shape `shape_of(source, sizes)`.
        source: Pattern of the array.
        target: Pattern with the same axes in another order or grouping.
        sizes: Size of every axis.

    Returns:
        Shape `shape_of(target, sizes)`: a view wherever the strides allow it, as they do for all of ALBERT.
    """
    before = [axis for dimension in parse(source) for axis in dimension]
    after = [axis for dimension in parse(target) for axis in dimension]
    apart = array.reshape([sizes[axis] for axis in before])
    return apart.transpose([before.index(axis) for axis in after]).reshape(shape_of(target, sizes))


# A transposed copy reads one element per cache line if it follows the target row by row. Tiles of 64 columns (a few
# cache lines) by 512 rows ran 3 to 5 times faster on matrices of 4096 x 16384; benchmarks/convert.py is the judge.
_TILE_ROWS, _TILE_COLUMNS, _SMALL = 512, 64, 1 << 18


def compact(array: np.ndarray) -> np.ndarray:
    """Return the array in C order: itself if it is already, else a copy made tile by tile on all cores."""
    if array.flags.c_contiguous:
        return array
    matrix = _as_matrix(array)
    if matrix is None or array.size < _SMALL:
        return np.ascontiguousarray(array)
    copy = np.empty(matrix.shape, array.dtype)

    def copy_rows(top: int) -> None:
        rows = slice(top, top + _TILE_ROWS)
        for left in range(0, matrix.shape[1], _TILE_COLUMNS):
            columns = slice(left, left + _TILE_COLUMNS)
            copy[rows, columns] = matrix[rows, columns]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(copy_rows, range(0, matrix.shape[0], _TILE_ROWS)))
    return copy.reshape(array.shape)


def _as_matrix(array: np.ndarray) -> np.ndarray | None:
    """View the array with two dimensions, or return None where its strides do not allow that."""
    for shape in ((-1, array.shape[-1]), (array.shape[0], -1)):
        try:
            return array.reshape(shape, copy=False)
        except ValueError:
            continue
    return None
