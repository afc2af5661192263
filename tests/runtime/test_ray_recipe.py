"""The recipe of docs/guides/embed-a-corpus.md for pipelines of Ray Data, with real Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from albert_hub_bridge import Embedder
from conversion.sample import CORPUS
from tests.docs.blocks import DOCS, ROOT, read_blocks


pytest.importorskip("ray", reason="Ray is not installed")


def test_two_actors_give_the_vectors_of_one_process(preset: Path, tmp_path: Path) -> None:
    from pyarrow import parquet

    page = DOCS / "guides" / "embed-a-corpus.md"
    (recipe,) = (block.code for block in read_blocks(page.read_text()) if "import ray" in block.code)
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "preset").symlink_to(preset)
    rows = [{"id": number, "text": text} for number, text in enumerate(CORPUS)]
    (tmp_path / "corpus.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "CUDA_VISIBLE_DEVICES": ""}
    start = "import ray; ray.init(num_cpus=3, include_dashboard=False)\n"
    command = [sys.executable, "-W", "ignore", "-c", start + recipe]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = parquet.read_table(tmp_path / "vectors-of-ray").sort_by("id")
    assert found.column("text").to_pylist() == list(CORPUS)
    vectors = np.asarray(found.column("embedding").to_pylist(), np.float32).reshape(len(CORPUS), -1)
    expected = np.asarray(Embedder(preset, device="cpu").encode(CORPUS))
    assert np.abs(vectors - expected).max() <= 1e-5 * np.abs(expected).max()
