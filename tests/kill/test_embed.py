"""`embed` that is killed at any moment, and started again: the same bytes as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kill.running import memory_folder, run_driver


pytest.importorskip("pyarrow", reason="embed needs the extra 'embed'")


def test_a_killed_run_continues_to_the_same_bytes() -> None:
    with memory_folder() as folder:
        found = run_driver("some", Path(folder), seconds=600, module="tests.kill.embed_driver")
    assert not found["broken"], "\n".join(found["broken"])
    assert found["tried"]["SIGKILL"] >= 10 + 5 + 7  # at random calls, and at each rename of both outputs
    assert found["tried"]["race"] == 2
