"""A failure in a reader leaves no process and no temporary file behind, at whichever step it happens."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from albert_hub_bridge.layouts.registry import read_checkpoint, write_checkpoint
from albert_hub_bridge.mapping.heads import Head
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint


class StepError(Exception):
    """What the broken step raises."""


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """Note every process that is started."""
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    return started


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def _compress(file: Path) -> None:
    """Compress one dataset: its values are not mapped, but copied by another process."""
    with h5py.File(file, "r+") as h5:
        names: list[str] = []
        h5.visit(lambda name: names.append(name) if isinstance(h5[name], h5py.Dataset) and h5[name].shape else None)
        values = h5[names[0]][()]
        del h5[names[0]]
        h5.create_dataset(names[0], data=values, compression="gzip")


def _break(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StepError

    monkeypatch.setattr(f"albert_hub_bridge.layouts.{step}", fail)


@pytest.fixture
def preset(vocabulary: bytes, tmp_path: Path) -> Path:
    folder = tmp_path / "preset"
    folder.mkdir()
    head = Head(kind="sequence_classification", num_labels=3)
    write_checkpoint(random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary, head=head), folder, "keras")
    _compress(folder / "model.weights.h5")
    return folder


@pytest.fixture
def tensorflow(unpacked: Callable[[str], Path], tmp_path: Path) -> Path:
    folder = tmp_path / "tensorflow"
    folder.mkdir()
    for file in unpacked("transformers_4_tf_classifier").iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    _compress(folder / "tf_model.h5")
    return folder


def _all_ended(processes: list[subprocess.Popen[bytes]]) -> bool:
    return bool(processes) and all(process.poll() is not None for process in processes)


def test_close(preset: Path, tensorflow: Path, temporary: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    for folder in (preset, tensorflow):
        with read_checkpoint(folder) as checkpoint:
            checkpoint.check_values()
            assert list(temporary.iterdir())
        assert not list(temporary.iterdir())
        assert _all_ended(processes)


@pytest.mark.parametrize(
    "step",
    [
        "keras.preset.read_task",
        "keras.preset.read_tokenizer",
        "keras.preset.split_tensors",
        "keras.preset.dequantize",
        "keras.preset.match_weights",
        "keras.preset.check_tied",
        "keras.preset.policy_name",
        "keras.preset.Checkpoint",
        "registry.replace",
        "registry._notes_on_unread_files",
    ],
)
def test_preset(
    step: str,
    preset: Path,
    temporary: Path,
    processes: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _break(monkeypatch, step)
    with pytest.raises(StepError):
        read_checkpoint(preset)
    assert _all_ended(processes)
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    "step",
    [
        "hub.matching.rename_legacy_tensors",
        "hub.matching.find_head",
        "hub.matching.read_head",
        "hub.matching.match_weights",
        "hub.matching.check_tied",
        "hub.repository.read_tokenizer",
        "hub.repository.read_modules",
        "hub.repository.Checkpoint",
        "hub.repository.replace",
        "registry.replace",
        "registry._notes_on_unread_files",
    ],
)
def test_repository(
    step: str,
    tensorflow: Path,
    temporary: Path,
    processes: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _break(monkeypatch, step)
    with pytest.raises(StepError):
        read_checkpoint(tensorflow)
    assert _all_ended(processes)
    assert not list(temporary.iterdir())
