"""Two processes that share a batch learn what one process learns from all of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.model.distributed_steps import KINDS, make_batch, make_model, step


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with what two processes found."""
    folder = tmp_path_factory.mktemp("found")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}"]
    command = [sys.executable, *torchrun, "-m", "tests.model.distributed_steps", str(folder)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_find_the_loss_and_the_gradients_of_one(kind: str, found: Path) -> None:
    shared, whole = torch.load(found / f"{kind}.pt"), step(make_model(), make_batch())
    assert shared.keys() == whole.keys()
    assert whole["loss after"] < whole["loss"] - 0.1
    for name, value in whole.items():
        torch.testing.assert_close(shared[name], value, msg=name, atol=1e-6, rtol=1e-5)
