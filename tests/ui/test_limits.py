"""What a visit may use: a job that takes more is stopped and says why, and visits that nobody uses make room."""

from __future__ import annotations

import importlib.util
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from albert_hub_bridge.ui import visit as visits_module
from albert_hub_bridge.ui.advice import for_visitors
from albert_hub_bridge.ui.limits import Limits
from albert_hub_bridge.ui.visit import VisitError, Visits, remove_old_uploads
from albert_hub_bridge.ui.worker import memory_of
from tests.ui.conftest import wait_until


if importlib.util.find_spec("keras_hub") is None:
    pytest.skip("KerasHub is not installed", allow_module_level=True)


@contextmanager
def open_visits(parent: Path, limits: Limits) -> Iterator[Visits]:
    visits = Visits(parent / "visits", parent / "served", limits)
    try:
        yield visits
    finally:
        visits.close()


# fmt: off
TOO_MUCH: dict[str, tuple[Limits, float, str]] = {
    "time":   (Limits(),                     0.1, "This took longer than"),
    "memory": (Limits(memory_bytes=1000),   60.0, "more than 0.0 GB of memory"),
    "disk":   (Limits(visit_bytes=1000),    60.0, "more than 0.0 GB of disk"),
}
# fmt: on


@pytest.mark.parametrize("name", TOO_MUCH)
def test_job_that_takes_too_much_is_stopped(name: str, models: Path, tmp_path: Path) -> None:
    limits, seconds, message = TOO_MUCH[name]
    with open_visits(tmp_path, limits) as visits:
        visit = visits.of("a visitor")
        (visit.folder / "download").write_bytes(bytes(2000))
        job = {"job": "inspect", "source": str(models / "preset"), "head": None, "drop_head": False}
        *_, said = visits.run(visit, job, seconds)
        assert message in said["error"]
        assert "Convert this model on your own machine" in said["error"]
        assert visit.worker is not None
        assert not visit.worker.alive
        assert memory_of(visit.worker.pid) == 0, "the process has ended"
        assert not visit.lock.locked(), "the next job may begin"


def test_file_beyond_the_limit_is_not_written(tmp_path: Path) -> None:
    """The system refuses it, also between two looks at the folder."""
    with zipfile.ZipFile(tmp_path / "upload.zip", "w") as archive:
        archive.writestr("model.safetensors", bytes(3_000_000))
    with open_visits(tmp_path, Limits(visit_bytes=1_000_000)) as visits:
        visit = visits.of("a visitor")
        job = {"job": "unpack", "archive": str(tmp_path / "upload.zip"), "name": "upload.zip"}
        *_, said = visits.run(visit, job, 60.0)
        assert "File too large" in said["error"]
        assert not list(visit.folder.glob("upload/*")), "what was unpacked is removed"


def test_number_of_visits(tmp_path: Path) -> None:
    with open_visits(tmp_path, Limits(visits=2)) as visits:
        visits.of("first")
        visits.of("second")
        with pytest.raises(VisitError, match="works for 2 visitors at a time"):
            visits.of("third")
        assert visits.of("first").folder.is_dir()
        visits.leave("second")
        visits.of("third")


def test_visit_that_nobody_uses_makes_room(tmp_path: Path) -> None:
    with open_visits(tmp_path, Limits(visits=2, warm_seconds=0.0)) as visits:
        first, second = visits.of("first"), visits.of("second")
        visits.of("first")
        visits.of("third")
        assert first.folder.is_dir()
        assert not second.folder.exists(), "it was used least recently"
        assert not second.downloads.exists()


def test_visit_ends_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits_module, "_SECONDS_BETWEEN_LOOKS", 0.05)
    with open_visits(tmp_path, Limits(idle_seconds=0.1)) as visits:
        idle, working = visits.of("idle"), visits.of("working")
        with working.lock:  # as while a job runs
            wait_until(lambda: idle.ended and not idle.folder.exists(), "the end of the visit", 10)
            assert working.folder.is_dir()


def test_old_uploads_are_removed(tmp_path: Path) -> None:
    for name in ("old", "new", "visit-1"):
        (tmp_path / name).mkdir()
    for name in ("old", "visit-1"):
        os.utime(tmp_path / name, (0, 0))
    remove_old_uploads(tmp_path, 60.0)
    assert {path.name for path in tmp_path.iterdir()} == {"new", "visit-1"}


# fmt: off
ADVICE = {
    "Pass --drop-head (drop_head=True) to convert the encoder alone.": 'choose "leave it out" as the Head in "Options',
    "Or pass --allow-pickle (allow_pickle=True).":                     "This page reads no pickles.",
    "Convert it: albert-hub-bridge convert SOURCE --to universal":     "This page does not do that.",
}
# fmt: on


@pytest.mark.parametrize("message", ADVICE)
def test_options_of_the_command_are_explained(message: str) -> None:
    advice = for_visitors(message)
    assert advice.startswith(f"{message} ")
    assert ADVICE[message] in advice


def test_other_messages_stay_as_they_are() -> None:
    assert for_visitors("--- a/README.md has no config.json -- none") == "--- a/README.md has no config.json -- none"
