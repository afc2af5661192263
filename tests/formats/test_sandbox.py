"""The separate process ends, whatever happens to it or to its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import msgpack
import numpy as np
import pytest
import torch

from albert_hub_bridge.errors import WeightsError
from albert_hub_bridge.formats import sandbox as sandbox_module
from albert_hub_bridge.formats.pytorch import read_pytorch
from albert_hub_bridge.formats.sandbox import Sandbox, SandboxError, started_early
from tests.hostile.valid import flax_array


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "flax_model.msgpack"
    file.write_bytes(msgpack.packb({"a": flax_array(np.zeros(8, np.float32))}))
    return file


def test_answers_belong_to_their_files(file: Path) -> None:
    damaged = file.with_name("damaged")
    damaged.write_bytes(b"\x07")
    with ExitStack() as resources:
        sandbox = Sandbox("flax", [damaged, file, damaged], 5, resources)
        assert sandbox.answer(file)["arrays"][0][:3] == ["a", "float32", [8]]
        with pytest.raises(SandboxError, match="where a map or an array should be"):
            sandbox.answer(damaged)
    assert sandbox._process.returncode is not None


def test_a_process_that_was_started_early_is_the_next_of_its_task(file: Path) -> None:
    with started_early("flax"), ExitStack() as resources:
        early = sandbox_module._waiting["flax"]
        other, first, second = (Sandbox(task, [file], 5, resources) for task in ("hdf5", "flax", "flax"))
        assert early is first._process
        assert early not in (other._process, second._process)
        for each in (first, second):
            assert each.answer(file)["arrays"][0][:3] == ["a", "float32", [8]]
    assert early.returncode is not None


def test_a_process_that_was_started_early_and_is_not_needed_ends() -> None:
    with started_early("flax"):
        process = sandbox_module._waiting["flax"]
    assert process.returncode is not None
    assert not sandbox_module._waiting


def test_a_process_that_was_started_early_and_killed_is_replaced(file: Path) -> None:
    with started_early("flax"), ExitStack() as resources:
        killed = sandbox_module._waiting["flax"]
        killed.kill()
        os.waitid(os.P_PID, killed.pid, os.WEXITED | os.WNOWAIT)
        assert Sandbox("flax", [file], 5, resources).answer(file)["arrays"]


def test_a_process_that_was_started_early_ends_if_its_parent_is_killed() -> None:
    code = """
        import os, signal
        from albert_hub_bridge.formats.sandbox import _waiting, started_early
        with started_early("hdf5"):
            print(_waiting["hdf5"].pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    command = Path(f"/proc/{int(done.stdout)}/cmdline")
    for _ in range(600):
        try:
            if not command.read_bytes():  # an orphan that has ended may wait for whoever adopted it
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.1)
    pytest.fail("the process still runs")


def test_an_answer_does_not_wait_for_later_files(file: Path) -> None:
    os.mkfifo(pipe := file.with_name("pipe"))
    began = time.perf_counter()
    with ExitStack() as resources:
        assert Sandbox("flax", [file, pipe], 60, resources).answer(file)["arrays"]
    assert time.perf_counter() - began < 30


def test_a_task_that_hangs_is_ended(file: Path) -> None:
    os.mkfifo(pipe := file.with_name("pipe"))
    began = time.perf_counter()
    with ExitStack() as resources:
        sandbox = Sandbox("flax", [file, pipe, file.with_name("after")], 0.5, resources)
        assert sandbox.answer(file)["arrays"]
        for hung in (pipe, file.with_name("after")):
            with pytest.raises(SandboxError, match="crashes, or takes too much memory or time"):
                sandbox.answer(hung)
    assert time.perf_counter() - began < 10


def test_a_process_that_does_not_start_its_task_is_ended(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("albert_hub_bridge.formats.sandbox._PROGRAM", "import time; time.sleep(600)")
    monkeypatch.setattr("albert_hub_bridge.formats.sandbox._START_SECONDS", 0.2)
    with ExitStack() as resources, pytest.raises(SandboxError, match="crashes"):
        Sandbox("flax", [file], 0.2, resources).answer(file)


def test_an_answer_has_a_limit(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("albert_hub_bridge.formats.sandbox._PROGRAM", "while True: print('[' * 10_000)")
    monkeypatch.setattr("albert_hub_bridge.formats.sandbox._MAX_ANSWER_BYTES", 1 << 16)
    with ExitStack() as resources:
        sandbox = Sandbox("flax", [file], 60, resources)
        with pytest.raises(SandboxError, match="crashes"):
            sandbox.answer(file)
        assert sandbox._process.returncode is not None


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_the_process_ends_with_an_error_of_its_parent(error: type[BaseException], file: Path) -> None:
    os.mkfifo(pipe := file.with_name("pipe"))
    sandboxes = []

    def fail() -> None:
        with ExitStack() as resources:
            sandboxes.append(Sandbox("flax", [pipe], 600, resources))
            raise error

    with pytest.raises(error):
        fail()
    (sandbox,) = sandboxes
    assert sandbox._process.returncode is not None
    assert sandbox._in.closed
    assert sandbox._out.closed


def test_a_keyboard_interrupt_ends_a_process_that_is_waited_for(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(size: int) -> bytes:
        raise KeyboardInterrupt

    os.mkfifo(pipe := file.with_name("pipe"))
    with ExitStack() as resources:
        sandbox = Sandbox("flax", [pipe], 600, resources)
        pipe_end = SimpleNamespace(readline=interrupt, close=sandbox._out.close, closed=False)
        monkeypatch.setattr(sandbox, "_out", pipe_end)
        with pytest.raises(KeyboardInterrupt):
            sandbox.answer(pipe)
        assert sandbox._process.returncode is not None


def test_copies_of_a_pickle_vanish(tmp_path: Path, temporary: Path) -> None:
    file = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.arange(3.0)}, file)
    with ExitStack() as resources:
        assert read_pytorch(file, resources)["a"].load().tolist() == [0, 1, 2]
        assert len(list(temporary.iterdir())) == 1
    assert not any(temporary.iterdir())
    file.write_bytes(b"damaged")
    with ExitStack() as resources, pytest.raises(WeightsError, match="not tensors"):
        read_pytorch(file, resources)
    assert not any(temporary.iterdir())
