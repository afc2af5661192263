"""A source is opened once: its folders are listed once, and its JSON files are read and parsed once."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from albert_hub_bridge import convert
from albert_hub_bridge.commands.id_comparison import IdComparison
from albert_hub_bridge.layouts.registry import write_checkpoint
from albert_hub_bridge.mapping.heads import Head
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint


class Accesses:
    """What the process lists and opens below a folder, noted by an audit hook, and what it parses as JSON."""

    current: ClassVar[Accesses | None] = None

    def __init__(self, folder: Path) -> None:
        self.root = os.path.realpath(folder)
        self.listed: Counter[str] = Counter()
        self.opened: Counter[str] = Counter()
        self.parsed: Counter[str] = Counter()

    def note(self, event: str, path: Any) -> None:
        counters = {"os.listdir": self.listed, "os.scandir": self.listed, "open": self.opened}
        if event in counters and isinstance(path, str | bytes | os.PathLike):
            name = os.path.relpath(os.path.realpath(os.fsdecode(path)), self.root)
            if not name.startswith(".."):
                counters[event][Path(name).as_posix()] += 1


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if Accesses.current is not None and arguments:
        Accesses.current.note(event, arguments[0])


sys.addaudithook(_hook)  # stays as long as the process, and does nothing without a current object


@contextmanager
def accesses_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Accesses]:
    """Note accesses to a folder. Hashing is left out, because it has to read every file again."""
    loads = json.loads

    def noted(text: str | bytes, **options: Any) -> Any:
        accesses.parsed[text if isinstance(text, str) else text.decode()] += 1
        return loads(text, **options)

    accesses = Accesses(folder)
    with monkeypatch.context() as patched:
        patched.setattr(json, "loads", noted)
        patched.setattr("albert_hub_bridge.provenance.digests.sha256_of", lambda _: "0" * 64)
        # transformers parses copies of the tokenizer's files, several times.
        patched.setattr("albert_hub_bridge.commands.convert.compare_ids", lambda *_: IdComparison(None))
        Accesses.current = accesses
        try:
            yield accesses
        finally:
            Accesses.current = None


def _preset(folder: Path, vocabulary: bytes) -> None:
    write_checkpoint(random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary), folder, "keras")


def _task(folder: Path, vocabulary: bytes) -> None:
    head = Head(kind="sequence_classification", num_labels=3)
    write_checkpoint(random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary, head=head), folder, "keras")


def _sharded_preset(folder: Path, vocabulary: bytes) -> None:
    write_checkpoint(random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary), folder, "keras", None, 40_000)


def _transformers(folder: Path, vocabulary: bytes) -> None:
    write_checkpoint(random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary), folder, "transformers")
    (folder / "special_tokens_map.json").write_text('{"mask_token": "[MASK]"}')
    (folder / "added_tokens.json").write_text("{}")


def _sharded(folder: Path, vocabulary: bytes) -> None:
    head = Head(kind="masked_lm")
    write_checkpoint(
        random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary, head=head), folder, "transformers", None, 40_000
    )


def _albert_hub(folder: Path, vocabulary: bytes) -> None:
    head = Head(kind="token_classification", num_labels=3)
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary, head=head)
    write_checkpoint(checkpoint, folder, "albert_hub", include_code=True)


def _without_spiece_model(folder: Path, vocabulary: bytes) -> None:
    _transformers(folder, vocabulary)
    (folder / "spiece.model").unlink()


def _sentence_transformers(folder: Path, vocabulary: bytes) -> None:
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary)
    write_checkpoint(checkpoint, folder, "transformers", sentence_transformers="mean")


# Files that describe a folder or another library, of which nothing is converted.
UNREAD = {"metadata.json"}

# fmt: off
SOURCES: dict[str, tuple[Callable[[Path, bytes], None], set[str]]] = {
    "preset":                (_preset,                {"", "assets", "assets/tokenizer"}),
    "task":                  (_task,                  {"", "assets", "assets/tokenizer"}),
    "sharded preset":        (_sharded_preset,        {"", "assets", "assets/tokenizer"}),
    "transformers":          (_transformers,          {""}),
    "sharded transformers":  (_sharded,               {""}),
    "albert_hub with code":  (_albert_hub,            {""}),
    "without spiece.model":  (_without_spiece_model,  {""}),
    "sentence-transformers": (_sentence_transformers, {"", "1_Pooling"}),
}
# fmt: on


def _check(accesses: Accesses, source: Path, folders: set[str]) -> None:
    assert accesses.listed == Counter(dict.fromkeys((Path(folder).as_posix() for folder in folders), 1))
    files = {path.relative_to(source).as_posix(): path for path in source.rglob("*.json")}
    assert {name: accesses.opened[name] for name in files} == {name: int(name not in UNREAD) for name in files}
    parsed = {name: accesses.parsed[path.read_text()] for name, path in files.items()}
    assert parsed == {name: int(name not in UNREAD) for name in files}
    vocabularies = [name for name in accesses.opened if name.endswith((".spm", ".model"))]
    assert {name: accesses.opened[name] for name in vocabularies} == dict.fromkeys(vocabularies, 1)


@pytest.mark.parametrize("kind", SOURCES)
def test_convert(kind: str, vocabulary: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, folders = SOURCES[kind]
    source = tmp_path / "source"
    source.mkdir()
    write(source, vocabulary)
    with accesses_of(source, monkeypatch) as accesses:
        convert(source, tmp_path / "target", to="albert_hub", include_code=True)
    _check(accesses, source, folders)


@pytest.mark.parametrize("name", ["google_classifier", "google_pretraining"])
def test_convert_google(
    name: str, unpacked: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = unpacked(name)
    with accesses_of(source, monkeypatch) as accesses:
        convert(source, tmp_path / "target", to="keras", drop_head=True)
    _check(accesses, source, {""})


def test_the_counters_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.json").write_text('{"a": 1}')
    with accesses_of(tmp_path, monkeypatch) as accesses:
        assert sorted(path.name for path in tmp_path.rglob("*.json")) == ["a.json"]
        for _ in range(2):
            json.loads((tmp_path / "folder" / "a.json").read_bytes())
    assert accesses.listed.keys() >= {".", "folder"}
    assert accesses.opened["folder/a.json"] == 2
    assert accesses.parsed['{"a": 1}'] == 2
