"""A conversion that is killed, or runs into a full or failing disk, at any call that touches its target."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kill.running import memory_folder, run_driver


@pytest.fixture(scope="module")
def found() -> Iterator[dict[str, Any]]:
    with memory_folder() as folder:
        yield run_driver("some", Path(folder), seconds=600)


def test_whatever_goes_wrong_the_target_is_the_old_one_or_the_new_one(found: dict[str, Any]) -> None:
    assert not found["broken"], "\n".join(found["broken"])
    tried = found["tried"]
    assert tried["SIGKILL"] > 100
    assert min(tried["EIO"], tried["ENOSPC"]) > 40
    assert min(tried["ENOSPC from then on"], tried["EIO from then on"]) > 5
    assert tried["another bit"] > 2
    assert tried["race"] == 100
    assert tried["writer that lost"] >= 50  # where there was no target, one loses


def test_every_file_is_on_the_disk_and_read_back_before_the_folder_gets_its_name(found: dict[str, Any]) -> None:
    for name, calls in found["calls"].items():
        moved = max(at for at, call in enumerate(calls) if call.startswith(("rename ", "exchange ")))
        draft = calls[moved].partition(" ")[2]
        folders = {"", *(str(Path(file).parent) for file in found["files"][name])} - {"."}
        for file in found["files"][name]:
            made = [at for at, call in enumerate(calls) if call == f"create {draft}/{file}"]
            written = [at for at, call in enumerate(calls) if call == f"write {draft}/{file}"]
            synced = [at for at, call in enumerate(calls) if call == f"fsync {draft}/{file}"]
            read = [at for at, call in enumerate(calls) if call == f"read {draft}/{file}"]
            assert len(made) == 1, (name, file)
            assert made[0] < written[-1] < synced[-1] < read[-1] < moved, (name, file)
        for folder in folders:
            assert f"fsync {draft}/{folder}".rstrip("/") in calls[:moved], (name, folder)
        assert "fsync " in calls[moved:], name  # the folder that holds the target


def test_modes_follow_the_umask(found: dict[str, Any]) -> None:
    assert found["modes"] == ["0o100640", "0o40750"]  # of files and folders, with 027
