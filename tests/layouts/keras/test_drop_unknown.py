"""Datasets that no ALBERT has, in presets: left out only by their names."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from albert_hub_bridge import convert, verify
from albert_hub_bridge.checkpoint import DROPPED_UNKNOWN
from albert_hub_bridge.errors import WeightsError
from albert_hub_bridge.layouts.registry import read_checkpoint


EXTRA = "layers/my_adapter/vars/0"


@pytest.fixture
def preset(unpacked: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(unpacked("keras_hub_classifier"), tmp_path / "preset"))


def _weights(folder: Path) -> dict[str, np.ndarray]:
    with read_checkpoint(folder) as checkpoint:
        return {name: weight.load().copy() for name, weight in checkpoint.weights.items()}


@pytest.mark.parametrize("file", ["model.weights.h5", "task.weights.h5"])
def test_datasets_that_no_albert_has_are_named(file: str, preset: Path, tmp_path: Path) -> None:
    before = _weights(preset)
    with h5py.File(preset / file, "a") as weights:
        weights.create_dataset(EXTRA, data=np.ones((2, 3), "float32"))
    with pytest.raises(WeightsError, match=rf"unexpected +{EXTRA} .*\n.*--drop-unknown NAME"):
        convert(preset, tmp_path / "target", to="transformers")
    assert not (tmp_path / "target").exists()
    report = convert(preset, tmp_path / "target", to="transformers", drop_unknown=[EXTRA])
    (dropped,) = [each for each in report.dropped if each.reason == DROPPED_UNKNOWN]
    assert (dropped.name, dropped.shape) == (EXTRA, (2, 3))
    found = _weights(tmp_path / "target")
    assert found.keys() == before.keys()
    assert all(np.array_equal(found[name], value) for name, value in before.items())
    verified = verify(preset, tmp_path / "target")
    assert verified.passed, verified
    assert any(EXTRA in note for note in verified.notes)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["layers/dense_1/vars/0"], r"needed +layers/dense_1/vars/0 .*one of its own"),
        (["layers/none/vars/0"], r"missing +layers/none/vars/0"),
    ],
)
def test_drop_unknown_leaves_out_nothing_of_albert(
    names: list[str], message: str, preset: Path, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=message):
        convert(preset, tmp_path / "target", to="transformers", drop_unknown=names)
