"""Write folders and files completely or not at all: the cases that the kill tests cannot produce."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from albert_hub_bridge import convert, convert_adapter
from albert_hub_bridge.disk import staging as staging_directories
from albert_hub_bridge.disk.atomic import new_folder, replace_file
from albert_hub_bridge.disk.durable import write_file
from albert_hub_bridge.disk.staging import is_staging_directory
from albert_hub_bridge.errors import TargetError, write_error
from albert_hub_bridge.layouts import weight_files as tensors
from albert_hub_bridge.layouts.registry import is_written_file, write_checkpoint
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, write_sample_preset


def _staging_of(target: Path) -> Path:
    return target.parent / f".albert-hub-bridge-{hashlib.sha256(target.name.encode()).hexdigest()[:16]}"


def _make(target: Path, content: str, overwrite: bool = False, meanwhile: Callable[[], object] = lambda: None) -> None:
    with new_folder(target, overwrite, lambda name: name == "config.json") as staging:
        write_file(staging / "config.json", content.encode())
        meanwhile()


def _config(target: Path) -> str:
    return (target / "config.json").read_text()


@pytest.fixture(params=["exchanged", "in two steps"])
def steps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names can be exchanged in one step, or cannot."""

    def cannot(*_: object) -> None:
        raise NotImplementedError

    if request.param == "in two steps":
        monkeypatch.setattr(staging_directories, "_exchange", cannot)


# Two writers.


@pytest.mark.usefixtures("steps")
def test_a_second_writer_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging_directories, "_PATIENCE", 0.05)
    target = tmp_path / "target"
    _make(target, "old")
    with new_folder(target, True, lambda name: name == "config.json") as staging:
        write_file(staging / "config.json", b"first")
        with pytest.raises(TargetError, match=r"Another process is writing .*target: it has .*Wait until it is done"):
            _make(target, "second", overwrite=True)
        assert _config(target) == "old"
        _make(tmp_path / "other", "next to it")  # another target is not affected, and the staging directory stays
    assert _config(target) == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "target"]


@pytest.mark.parametrize("before", [None, "old"])
def test_a_target_that_another_process_changed_is_left_alone(before: str | None, tmp_path: Path) -> None:
    target = tmp_path / "target"
    if before is not None:
        _make(target, before)

    def meanwhile() -> None:
        if before is not None:
            target.rename(tmp_path / "moved")
        target.mkdir()
        (target / "config.json").write_text("theirs")

    with pytest.raises(TargetError, match=r"Another process made, replaced or removed .*target while"):
        _make(target, "ours", overwrite=True, meanwhile=meanwhile)
    assert _config(target) == "theirs"
    assert not [path for path in tmp_path.iterdir() if is_staging_directory(path)]


@pytest.mark.usefixtures("steps")
def test_a_file_added_to_the_old_target_is_not_deleted(tmp_path: Path) -> None:
    target = tmp_path / "target"
    _make(target, "old")
    with pytest.raises(TargetError, match=r"has precious\.txt, which nothing here writes"):
        _make(target, "new", overwrite=True, meanwhile=lambda: (target / "precious.txt").write_text("mine"))
    assert _config(target) == "old"
    assert (target / "precious.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["target"]


# What killed runs left.


def test_only_staging_directories_without_a_lock_are_removed(tmp_path: Path) -> None:
    for name in ("target", "another"):
        (_staging_of(tmp_path / name) / name).mkdir(parents=True)
        (_staging_of(tmp_path / name) / name / "model.safetensors").write_bytes(b"half")
    kept = {".albert-hub-bridge", ".albert-hub-bridge-0123", ".albert-hub-bridge-0123456789abcdef-mine"}
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / ".albert-hub-bridge-0123456789abcdef").write_text("a file")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious.txt").write_text("mine")
    (tmp_path / ".albert-hub-bridge-fedcba9876543210").symlink_to(elsewhere)
    _make(tmp_path / "target", "new")
    kept |= {".albert-hub-bridge-0123456789abcdef", ".albert-hub-bridge-fedcba9876543210", "elsewhere", "target"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert (elsewhere / "precious.txt").read_text() == "mine"


def test_a_locked_staging_directory_is_left_alone(tmp_path: Path) -> None:
    staging = _staging_of(tmp_path / "another")
    staging.mkdir()
    code = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)"
    code += "; print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(staging)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        _make(tmp_path / "target", "new")
        assert staging.is_dir()
        process.kill()
        process.wait()
    _make(tmp_path / "target", "newer", overwrite=True)
    assert not staging.exists()


def test_an_old_target_that_was_moved_aside_is_put_back(tmp_path: Path) -> None:
    target = tmp_path / "target"
    for name in (target.name, ".replaced"):
        (_staging_of(target) / name).mkdir(parents=True)
        (_staging_of(target) / name / "config.json").write_text("new" if name == "target" else "old")
    _make(tmp_path / "another", "x")
    assert _config(target) == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["another", "target"]


@pytest.mark.parametrize("left_over", [False, True])
def test_a_file_system_without_locks(left_over: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(staging_directories, "_PATIENCE", 0.05)
    target = tmp_path / "target"
    if left_over:
        _staging_of(target).mkdir()
        with pytest.raises(TargetError, match=r"If there is no such process, delete that folder"):
            _make(target, "new")
        assert not target.exists()
        assert _staging_of(target).is_dir()
    else:
        _make(target, "new")
        assert _config(target) == "new"
        assert [path.name for path in tmp_path.iterdir()] == ["target"]


# Files.


def test_replace_file(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    replace_file(file, b"one")
    assert file.read_bytes() == b"one"
    replace_file(file, b"two")
    assert file.read_bytes() == b"two"
    with pytest.raises(TypeError):
        replace_file(file, "not bytes")  # type: ignore[arg-type]
    assert file.read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_modes_of_adapters_follow_the_umask(unpacked: Callable[[str], Path], tmp_path: Path) -> None:
    source = unpacked("peft_model")
    before = os.umask(0o027)
    try:
        convert_adapter(source / "adapter", tmp_path / "a.lora.h5", base=source / "base", to="keras")
        convert_adapter(source / "adapter", tmp_path / "adapter", base=source / "base", to="transformers")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    files = {"a.lora.h5", "adapter_config.json", "adapter_model.safetensors"}
    assert modes == {"adapter": 0o750, **dict.fromkeys(files, 0o640)}


@pytest.mark.parametrize("layout", ["keras", "transformers"])
def test_values_written_over_metadata_are_noticed(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read back is compared with the whole file that was meant, not with each piece as it was written."""
    write = tensors.ParallelWriter._write
    shifted: list[int] = []

    def shift(self: tensors.ParallelWriter, part: tuple[int, np.ndarray]) -> bool:
        offset = part[0] - 8 * (not shifted)
        shifted.append(offset)
        return write(self, (offset, part[1]))

    monkeypatch.setattr(tensors.ParallelWriter, "_write", shift)
    with (
        pytest.raises(TargetError, match=r"target/model\S+ could not be written: What was read back is not"),
        new_folder(tmp_path / "target", False, is_written_file) as staging,
    ):
        write_checkpoint(random_checkpoint(SAMPLE_ARCHITECTURE), staging, layout)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# What the system says.


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EINTR])
def test_system_errors_become_one_message(number: int) -> None:
    said = str(write_error("there/model.safetensors", OSError(number, os.strerror(number))))
    assert said.startswith(f"there/model.safetensors could not be written: {os.strerror(number)}. ")
    assert said.endswith(" Nothing was changed.")
    assert "hoose another target" in said or "hoose a target on another disk" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission_is_named(tmp_path: Path) -> None:
    write_sample_preset(tmp_path / "sample")
    (tmp_path / "closed").mkdir(mode=0o555)
    with pytest.raises(
        TargetError, match=r"closed/target could not be written: Permission denied\. You have no write permission"
    ):
        convert(tmp_path / "sample", tmp_path / "closed" / "target", to="transformers")


def test_an_error_of_the_source_is_no_target_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="elsewhere") as caught, new_folder(tmp_path / "t", False, is_written_file):
        raise OSError(errno.EIO, "Input/output error", "/elsewhere/model.safetensors")
    assert not isinstance(caught.value, TargetError)


def test_the_command_prints_a_system_error(tmp_path: Path) -> None:
    write_sample_preset(tmp_path / "sample")
    limit = "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    limit += "from albert_hub_bridge.cli import main; main()"
    command = [
        sys.executable,
        "-c",
        limit,
        "convert",
        str(tmp_path / "sample"),
        str(tmp_path / "t"),
        "--to",
        "transformers",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{tmp_path}/t/" in done.stderr
    assert "File too large. The file system does not support files of this size. Pass --max-shard-size" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sample"]
