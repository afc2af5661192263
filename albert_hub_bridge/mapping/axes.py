"""Named axes: one pattern gives a tensor's shape, and two patterns the move from one layout to the other.

A pattern is a row of axis names; parentheses merge neighbours: `"(heads head_dim) hidden"` is a matrix whose rows run
through the heads, and through the dimensions of each head. The sizes come from the architecture, so nothing is
written down twice. Moves are views of NumPy arrays: nothing is copied here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from math import prod

import numpy as np

from albert_hub_bridge.model.architecture import Architecture


def axis_sizes(architecture: Architecture, num_labels: int = 2) -> dict[str, int]:
    """Return the size of every axis name that occurs in the table of weights; `num_labels` is a head's."""
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
