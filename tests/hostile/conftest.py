"""Run commands on hostile sources, and assert how they are refused."""

from __future__ import annotations

import importlib.abc
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import albert_hub_bridge.commands.convert  # noqa: F401 (the command imports it when it runs, which would count as its time)
from albert_hub_bridge.cli import app
from albert_hub_bridge.errors import AlbertHubBridgeError, CheckpointError
from tests.hostile.valid import small_vocabulary, write_all


SECONDS = 5  # of the processor: a busy machine does not change them
WAITING = 60  # seconds of the clock, after which a refusal counts as hung
Refused = Callable[..., str]


@pytest.fixture(scope="session")
def proto() -> bytes:
    return small_vocabulary()


@pytest.fixture(scope="session")
def valid(proto: bytes, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_all(tmp_path_factory.mktemp("valid"), proto)


@pytest.fixture
def source(valid: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a valid source, for a test to make hostile."""
    return lambda kind: Path(shutil.copytree(valid[kind], tmp_path / "source"))


class _Forbidden(importlib.abc.MetaPathFinder):
    """Records every import of a name that only a hostile file has."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if "hostile_module" in fullname:
            self.names.append(fullname)


def command_for(source: Path, target: Path, valid: dict[str, Path]) -> list[str]:
    """Return the command that reads a source: `convert`, or `convert-adapter` for an adapter."""
    if (adapter := source / "a.lora.h5").exists() or adapter.is_symlink():
        return ["convert-adapter", str(adapter), str(target), "--base", str(valid["preset"]), "--to", "transformers"]
    if (source / "adapter_config.json").exists() or (source / "adapter_model.safetensors").exists():
        return ["convert-adapter", str(source), f"{target}.lora.h5", "--base", str(valid["preset"]), "--to", "keras"]
    return ["convert", str(source), str(target), "--to", "albert_hub"]


def _tree(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


def processor_seconds() -> float:
    """Return the seconds of the processor that this process and its ended children took so far."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


@pytest.fixture
def refused(valid: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Refused]:
    """Return a function that runs the command on a source, and asserts how it is refused.

    It exits with 2, for an exception of ours, whose message names the file, what was expected and found, and what to
    do; it has written and imported nothing; and it took less than 5 seconds
    of the processor.
    """
    finder = _Forbidden()
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")

    def run(source: Path, *options: str) -> str:
        command = [*command_for(source, tmp_path / "target", valid), *options]
        before, began, spent = _tree(tmp_path), time.perf_counter(), processor_seconds()
        result = CliRunner().invoke(app, command)
        seconds, waited = processor_seconds() - spent, time.perf_counter() - began
        print(result.stderr)
        error = _ours(result.exception)
        assert result.exit_code == 2, (result.output, result.exception)
        assert error is not None, result.exception
        assert_message(error, source)
        assert str(error).splitlines()[0] in result.stderr
        assert _tree(tmp_path) == before
        assert finder.names == []
        assert seconds < SECONDS
        assert waited < WAITING
        return str(error)

    yield run
    assert not [name for name in sys.modules if "hostile_module" in name]


def _ours(error: BaseException | None) -> AlbertHubBridgeError | None:
    """Return the exception that the command turned into an exit code."""
    while error is not None and not isinstance(error, AlbertHubBridgeError):
        error = error.__cause__ or error.__context__
    return error


def assert_message(error: AlbertHubBridgeError, source: Path) -> None:
    """Assert that a message has file, place, expected, found and advice, and no control characters."""
    message = str(error)
    assert str(source) in message
    assert all(character.isprintable() or character == "\n" for character in message)
    assert len(message) < 1_000_000
    assert "expected" in message, message
    assert "found" in message, message
    if isinstance(error, CheckpointError):
        assert error.problems
        for problem in error.problems:
            assert "expected" in problem.detail, problem
            assert "found" in problem.detail, problem
        assert message.splitlines()[-1][0].isupper(), message
    assert message[-1] in ".?", message


def expect(message: str, parts: str | Sequence[str]) -> None:
    """Assert that a message has one or more texts."""
    for part in [parts] if isinstance(parts, str) else parts:
        assert part in message, (part, message)
