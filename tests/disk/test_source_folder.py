"""The folder of a source: what is listed, asked for, parsed and refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from albert_hub_bridge.disk.source_folder import SourceFolder, list_files
from albert_hub_bridge.errors import ConfigurationError, FileError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inner" / "most").mkdir(parents=True)
    for name in ("b.json", "a.bin", "inner/most/c.txt"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "a.bin")
    (tmp_path / "linked folder").symlink_to(tmp_path / "inner")
    (tmp_path / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


def _descriptors() -> int | None:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else None


def test_names_are_those_of_files_in_all_subfolders(folder: Path) -> None:
    source = SourceFolder(folder, lambda _: False)
    assert source.names == list_files(folder) == ["a.bin", "b.json", "inner/most/c.txt", "link"]
    assert source.matching("*.b*") == ["a.bin"]
    assert source.matching("*.txt") == []


def test_names_that_were_not_asked_for_are_unread(folder: Path) -> None:
    source = SourceFolder(folder, lambda _: False, ["inner/most/c.txt", "inner/none"])
    assert "absent.json" not in source
    assert "inner/none" not in source
    assert "inner/most/c.txt" in source
    assert source.unread == ["a.bin", "b.json", "link"]
    source.json("b.json")
    source.path("link")
    assert source.unread == ["a.bin"]
    assert source.read("a.bin", 2) == b"{}"
    assert source.unread == []


def test_config_json_is_parsed_once_and_cannot_be_changed_by_a_caller(folder: Path) -> None:
    (folder / "config.json").write_text('{"a": 1}')
    source = SourceFolder(folder, lambda _: False)
    source.json("config.json")["a"] = 2
    (folder / "config.json").unlink()
    assert source.json("config.json") == {"a": 1}
    (folder / "b.json").write_text('{"a": 1}')
    assert source.json("b.json") == {"a": 1}
    assert source._parsed.keys() == {"config.json"}  # a large file is not kept in memory


def test_json_that_is_refused_is_refused_again(folder: Path) -> None:
    source = SourceFolder(folder, lambda _: False)
    for _ in range(2):
        with pytest.raises(FileError, match=r"too large +b\.json +expected at most 1 bytes, found 2"):
            source.json("b.json", max_bytes=1)
        with pytest.raises(ConfigurationError, match=r"missing +absent\.json"):
            source.json("absent.json")


def test_every_name_that_is_no_file_is_refused_at_once(folder: Path) -> None:
    before = _descriptors()
    with pytest.raises(FileError) as refused:
        SourceFolder(folder, lambda name: name in ("pipe", "inner", "broken", "a.bin"), ["linked folder/most"])
    assert [problem.where for problem in refused.value.problems] == ["broken", "inner", "pipe", "linked folder/most"]
    assert _descriptors() == before


def test_no_descriptor_stays_open(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _descriptors()
    with pytest.raises(FileNotFoundError):
        SourceFolder(folder / "absent", lambda _: False)
    source = SourceFolder(folder, lambda _: False)
    monkeypatch.setattr("albert_hub_bridge.disk.source_folder._is_file", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        source.names  # noqa: B018 (it lists the subfolders)
    monkeypatch.undo()
    assert _descriptors() == before
    assert source.names == ["a.bin", "b.json", "inner/most/c.txt", "link"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may list everywhere")
def test_a_subfolder_that_cannot_be_listed_has_no_files(folder: Path) -> None:
    (folder / "inner").chmod(0)
    assert list_files(folder) == ["a.bin", "b.json", "link"]
    (folder / "inner").chmod(0o700)
