"""Names in a source that are pipes, links, devices or folders, or files with other content."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from albert_hub_bridge import convert, inspect
from albert_hub_bridge.commands.publish import card
from albert_hub_bridge.disk.regular_files import read_bytes
from albert_hub_bridge.errors import ConfigurationError, FileError
from tests.hostile.conftest import Refused, expect
from tests.hostile.valid import edit


def _outside(file: Path) -> None:
    other = file.parents[len(file.parents) - 1 - file.parts.index("source")].parent / "outside"
    shutil.move(file, other)
    file.symlink_to(other)


def _socket(file: Path) -> None:
    file.unlink()
    before = Path.cwd()
    os.chdir(file.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(file.name)
    finally:
        os.chdir(before)


def _replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def apply(file: Path) -> None:
        file.unlink()
        make(file)

    return apply


def _sparse(file: Path) -> None:
    with file.open("wb") as stream:
        stream.truncate(1 << 33)


def _instead(text: str) -> Callable[[Path], None]:
    return _replaced(lambda file: file.write_text(text))


def _link(target: str) -> Callable[[Path], None]:
    return _replaced(lambda file: file.symlink_to(target))


def _circle(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 47\n"
PAGE = "  <!doctype HTML>\n<html>Not found</html>"
ANSWER = '<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'
# fmt: off
KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe":               (_replaced(os.mkfifo),   "found a pipe (FIFO)"),
    "a socket":             (_socket,                "found a socket"),
    "a folder":             (_replaced(Path.mkdir),  "found a folder"),
    "a device":             (_link("/dev/zero"),     "found a link to /dev/zero, outside of it"),
    "a link to outside":    (_outside,               "outside of it"),
    "a link to the system": (_link("/etc/hostname"), "outside of it"),
    "a link to nothing":    (_link("nowhere"),       "where nothing is"),
    "a link to itself":     (_circle,                "where nothing is"),
    "nothing in it":        (_replaced(Path.touch),  "found 0 bytes"),
    "a pointer":            (_instead(POINTER),      "found a Git LFS pointer"),
    "a page":               (_instead(PAGE),         "found an HTML page"),
    "an error of a server": (_instead(ANSWER),       "found an XML document"),
    "8 GB of zeros":        (_replaced(_sparse),     ""),
}
FILES = (
    ("task",         "config.json"),
    ("task",         "model.weights.h5"),
    ("task",         "task.json"),
    ("task",         "task.weights.h5"),
    ("task",         "tokenizer.json"),
    ("task",         "preprocessor.json"),
    ("task",         "assets/tokenizer/vocabulary.spm"),
    ("shards",       "model.weights.json"),
    ("shards",       "model_00001.weights.h5"),
    ("albert_hub",       "config.json"),
    ("albert_hub",       "model.safetensors"),
    ("albert_hub",       "spiece.model"),
    ("albert_hub",       "tokenizer_config.json"),
    ("text",         "tokenizer.json"),
    ("text",         "added_tokens.json"),
    ("text",         "special_tokens_map.json"),
    ("transformers_shards", "model.safetensors.index.json"),
    ("flax",         "flax_model.msgpack"),
    ("tensorflow",   "tf_model.h5"),
    ("peft_adapter", "adapter_config.json"),
    ("peft_adapter", "adapter_model.safetensors"),
)
# fmt: on


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("layout", "name"), FILES)
def test_other_things_than_files(
    kind: str, layout: str, name: str, source: Callable[[str], Path], refused: Refused
) -> None:
    folder = source(layout)
    make, found = KINDS[kind]
    make(folder / name)
    expect(refused(folder), [name.rpartition("/")[2], found])


ADAPTER_FILES = ("a pipe", "nothing in it", "a link to nothing", "a pointer", "a page", "8 GB of zeros")


@pytest.mark.parametrize("kind", ADAPTER_FILES)
def test_other_things_than_adapters(kind: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("keras_adapter")
    KINDS[kind][0](folder / "a.lora.h5")
    expect(refused(folder), "a.lora.h5")


def test_a_link_in_a_path_is_refused(source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("task")
    shutil.move(folder / "assets", folder.parent / "assets")
    (folder / "assets").symlink_to(folder.parent / "assets")
    expect(refused(folder), ["assets/tokenizer/vocabulary.spm", "outside of it"])


def test_the_cache_of_hugging_face(
    source: Callable[[str], Path], valid: dict[str, Path], tmp_path: Path, refused: Refused
) -> None:
    cache = tmp_path / "models--user--repo"
    for kind in ("task", "albert_hub"):
        snapshot = cache / "snapshots" / kind
        for number, file in enumerate(sorted(path for path in valid[kind].rglob("*") if path.is_file())):
            name = file.relative_to(valid[kind])
            blob = cache / "blobs" / f"{kind}{number}"
            blob.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, blob)
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
        assert inspect(snapshot).vocabulary is not None
        convert(snapshot, tmp_path / f"{kind}-converted", to="transformers")
    (snapshot / "config.json").unlink()
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text("{}")
    (snapshot / "config.json").symlink_to("../../refs/main")
    expect(refused(snapshot), ["config.json", "outside of it"])


def test_a_folder_that_is_a_link_is_read(valid: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(valid["task"])
    assert inspect(tmp_path / "link").head == "text classifier of 3 classes"


def test_unread_names_may_be_anything(source: Callable[[str], Path], tmp_path: Path) -> None:
    folder = source("task")
    os.mkfifo(folder / "events")
    (folder / "latest").symlink_to("/etc")
    (folder / "notes\x1b[2J.txt").touch()
    assert convert(folder, tmp_path / "target", to="albert_hub").source.head == "text classifier of 3 classes"


MODULES: dict[str, Callable[[Path], object]] = {
    "a pooling elsewhere": lambda f: _pooling(f).symlink_to(f.parent / "outside.json"),
    "a pooling that is a pipe": lambda f: os.mkfifo(_pooling(f)),
    "levels without end": lambda f: (f / "modules.json").write_text("[" * 100_000),
    "a number": lambda f: (f / "modules.json").write_text("7"),
    "a key twice": lambda f: (f / "modules.json").write_text('[{"type": "a", "type": "b"}]'),
}


def _pooling(folder: Path) -> Path:
    (folder / "modules.json").write_text("[]")
    (folder.parent / "outside.json").write_text("{}")
    (folder / "1_Pooling").mkdir()
    return folder / "1_Pooling" / "config.json"


@pytest.mark.parametrize("what", MODULES)
def test_modules_of_sentence_transformers(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("albert_hub")
    MODULES[what](folder)
    expect(refused(folder), "1_Pooling/config.json" if "pooling" in what else "modules.json")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/etc/hostname")])
def test_values_of_a_tensor_bundle(
    make: Callable[[Path], object], source: Callable[[str], Path], refused: Refused
) -> None:
    folder = source("transformers")
    (folder / "config.json").rename(folder / "albert_config.json")
    (folder / "model.index").touch()
    make(folder / "model.data-00000-of-00001")
    expect(refused(folder), "model.data-00000-of-00001")


def test_names_of_files_are_escaped_in_a_card(source: Callable[[str], Path], tmp_path: Path) -> None:
    folder = source("task")
    (folder / "a\n# b <i>[c](d) `e\x1b").touch()
    (folder / os.fsdecode(b"\xff\x9b")).touch()
    convert(folder, tmp_path / "target", to="albert_hub")
    card = (tmp_path / "target" / "README.md").read_text()
    assert r"a\n# b &lt;i>[c] (d) 'e\x1b" in card
    assert r"\udcff" in card


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["source"].pop("handle"),
        lambda r: r["source"].update(layout="x"),
        lambda r: r.update(vocabulary={}),
        lambda r: r.update(ignored=[1]),
        lambda r: r.update(head_kind="x"),
    ],
)
def test_unusable_records(change: Callable[[Any], object], source: Callable[[str], Path], tmp_path: Path) -> None:
    convert(source("task"), tmp_path / "target", to="albert_hub")
    edit("conversion.json", change)(tmp_path / "target")
    before = (tmp_path / "target" / "README.md").read_text()
    with pytest.raises(ConfigurationError, match=r"(?s)in the record of .*expected .*found"):
        card(tmp_path / "target")
    assert (tmp_path / "target" / "README.md").read_text() == before


def test_a_file_that_is_replaced_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    looked_at = os.stat(tmp_path / "file")
    descriptors = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else None
    monkeypatch.setattr("albert_hub_bridge.disk.regular_files.os.stat", lambda file: looked_at)
    with pytest.raises(FileError, match=r"folder +expected a regular file, found a folder"):
        read_bytes(tmp_path / "folder", 10)
    monkeypatch.undo()
    assert descriptors is None or len(os.listdir("/proc/self/fd")) == descriptors
