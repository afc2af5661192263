from __future__ import annotations

import numpy as np
import pytest

from albert_hub_bridge.mapping.axes import parse, rearrange, shape_of


SIZES = {"heads": 2, "head_dim": 3, "hidden": 5}


def test_patterns_are_parsed_into_dimensions() -> None:
    assert parse("(heads head_dim) hidden") == (("heads", "head_dim"), ("hidden",))
    assert parse("hidden") == (("hidden",),)
    assert shape_of("(heads head_dim) hidden", SIZES) == (6, 5)


def test_rearrange_converts_a_kernel_of_keras_to_torch() -> None:
    kernel = np.arange(30).reshape(5, 2, 3)  # hidden heads head_dim
    moved = rearrange(kernel, "hidden heads head_dim", "(heads head_dim) hidden", SIZES)
    assert moved.shape == (6, 5)
    for hidden, head, dim in np.ndindex(5, 2, 3):
        assert moved[head * 3 + dim, hidden] == kernel[hidden, head, dim]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("hidden heads head_dim", "(heads head_dim) hidden"),
        ("heads head_dim hidden", "hidden (heads head_dim)"),
        ("heads head_dim", "(heads head_dim)"),
        ("hidden heads", "heads hidden"),
    ],
)
def test_rearrange_returns_views_and_is_invertible(source: str, target: str) -> None:
    array = np.random.default_rng(0).standard_normal(shape_of(source, SIZES))
    moved = rearrange(array, source, target, SIZES)
    back = rearrange(moved, target, source, SIZES)
    assert np.shares_memory(array, moved)
    assert np.shares_memory(array, back)
    np.testing.assert_array_equal(back, array)
