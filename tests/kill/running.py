"""Starts the driver with its shim."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest


ROOT = Path(__file__).parents[2]


def run_driver(extent: str, folder: Path, seconds: float, module: str = "tests.kill.driver") -> dict[str, Any]:
    """Build the shim, let `some` or `all` calls go wrong in a folder, and return what the driver found."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("the shim that lets calls fail needs Linux and a C compiler (cc)")
    shim = folder / "shim.so"
    build = [compiler, "-shared", "-fPIC", "-O1", "-o", str(shim), str(ROOT / "tests" / "kill" / "shim.c"), "-ldl"]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f"the C compiler does not build the shim: {built.stderr[:300]}")
    work = folder / "work"
    work.mkdir()
    # Threads of a library do not survive a fork, and none is needed.
    environment = {**os.environ, "LD_PRELOAD": str(shim), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", module, str(shim), str(work), extent]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def memory_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder in memory where there is such a file system, since every call of the driver waits for the disk."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)
