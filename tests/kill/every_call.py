"""Every kind of fault at every call, on the disk of the machine: `make fuzz` runs it; it takes minutes."""

from __future__ import annotations

from pathlib import Path

from tests.kill.running import run_driver


def test_every_call_on_the_disk(tmp_path: Path) -> None:
    found = run_driver("all", tmp_path, seconds=3600)
    assert not found["broken"], "\n".join(found["broken"])
    assert found["tried"]["SIGKILL"] > 500
