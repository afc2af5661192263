"""Run each fuzzer for a short time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.fuzz import FUZZERS


@pytest.mark.parametrize(
    ("kind", "count"),
    [("json", 400), ("safetensors", 400), ("hdf5", 200), ("protos", 200), ("bundles", 400), ("flax", 400)],
)
def test_mutants_are_refused_or_unchanged(kind: str, count: int, tmp_path: Path) -> None:
    outcomes = FUZZERS[kind](tmp_path, count, seed=0)
    assert sum(outcomes.values()) >= count * 0.9
    assert outcomes["refused"] > count / 10
    assert outcomes["killed after 5 s"] == 0
