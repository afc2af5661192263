"""Named axes. A pattern gives the shape of a tensor, and two patterns give the conversion between two layouts.

A pattern is a sequence of axis names. Parentheses merge axes: `"(heads head_dim) hidden"` is a matrix with one row per
dimension of each head. The sizes of the axes come from the architecture. Conversions return views of NumPy arrays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from math import prod

import numpy as np

from albert_hub_bridge.model.architecture import Architecture


def axis_sizes(architecture: Architecture, num_labels: int = 2) -> dict[str, int]:
    """Return the size of every axis in the table of weights.

    Args:
        architecture: The architecture.
        num_labels: The number of labels of a head.
    """
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
        "label": num_labels,
        "score": 1,
    }


@cache
def parse(pattern: str) -> tuple[tuple[str, ...], ...]:
    """Split a pattern into its dimensions, each a tuple of axis names: `(("heads", "head_dim"), ("hidden",))`."""
    return tuple(tuple(part.strip("()").split()) for part in re.findall(r"\([^()]*\)|[^\s()]+", pattern))


def shape_of(pattern: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Return the shape of a pattern."""
    return tuple(prod(sizes[axis] for axis in dimension) for dimension in parse(pattern))


def rearrange(array: np.ndarray, source: str, target: str, sizes: Mapping[str, int]) -> np.ndarray:
    """Convert an array from the layout `source` to the layout `target`.

    Args:
        array: Shape `shape_of(source, sizes)`.
        source: The pattern of the array.
        target: A pattern with the same axes, in another order or grouping.
        sizes: Size of every axis.

    Returns:
        Shape `shape_of(target, sizes)`. It is a view if the strides allow that, which they do for all of ALBERT.
    """
    before = [axis for dimension in parse(source) for axis in dimension]
    after = [axis for dimension in parse(target) for axis in dimension]
    separate = array.reshape([sizes[axis] for axis in before])
    return separate.transpose([before.index(axis) for axis in after]).reshape(shape_of(target, sizes))
