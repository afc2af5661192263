"""transformers.js in a version that is pinned with everything it needs, installed into a cache by npm."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest


SOURCE = Path(__file__).parent / "transformers_js"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "albert-hub-bridge"


def require_transformers_js() -> Path:
    """Return the folder in which transformers.js is installed, or skip the test.

    `npm ci` installs what the lock file names, and checks the hash of each package. No package runs a script.
    """
    if not shutil.which("npm") or not shutil.which("node"):
        pytest.skip("node and npm are not installed")
    lock = (SOURCE / "package-lock.json").read_bytes()
    folder = CACHE / f"transformers-js-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCE / name, folder)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
        if run.returncode:
            pytest.skip(f"npm cannot install transformers.js: {run.stderr.strip()[-300:]}")
        (folder / "installed").touch()
    shutil.copy(SOURCE / "run.mjs", folder)  # modules are found beside the script
    return folder


def run_transformers_js(tasks: Sequence[dict[str, Any]]) -> list[Any]:
    """Run tasks in one process, and return their results. See `run.mjs`."""
    folder = require_transformers_js()
    command = ["node", str(folder / "run.mjs")]
    run = subprocess.run(
        command, cwd=folder, input=json.dumps(tasks), capture_output=True, text=True, timeout=900, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    results: list[Any] = json.loads(run.stdout)
    return results
