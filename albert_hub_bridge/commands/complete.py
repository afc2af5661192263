"""The command `complete`: add to a preset or a repository what the other library needs to load it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import unified_diff
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.commands.notes import note_on_cut_out
from albert_hub_bridge.disk.additions import add_files, refuse_links
from albert_hub_bridge.disk.checksums import sha256_of
from albert_hub_bridge.disk.regular_files import read_bytes
from albert_hub_bridge.disk.source_folder import SourceFolder, list_files
from albert_hub_bridge.document import Block, Document, escape
from albert_hub_bridge.errors import SourceError, TargetError
from albert_hub_bridge.hubs.huggingface import find_pull_request, list_hugging_face, propose_to_hugging_face
from albert_hub_bridge.hubs.local_source import LocalSource
from albert_hub_bridge.hubs.source import find_handle
from albert_hub_bridge.layouts.keras.compatibility import with_cut_out_pieces
from albert_hub_bridge.layouts.layout import DESCRIPTIONS, ReadOptions
from albert_hub_bridge.layouts.registry import needed_files, open_source, pull, read_checkpoint
from albert_hub_bridge.layouts.universal.completion import write_other_half
from albert_hub_bridge.mapping.cut_out import in_another_way
from albert_hub_bridge.provenance.card_section import with_section
from albert_hub_bridge.provenance.record import CARD, RECORD
from albert_hub_bridge.verification import run
from albert_hub_bridge.verification.outputs import WITHOUT_KERAS_HUB
from albert_hub_bridge.verification.progress import StageProgress, ignore_progress
from albert_hub_bridge.verification.sample_texts import SAMPLE_TEXTS


_CONFIG = "config.json"
_CHANGED = (_CONFIG, CARD)
_MAX_BYTES = 4 << 20  # of each of these
_MAX_SHOWN_BYTES = 20_000  # of a new file of text, in a diff
_BINARY = (".h5", ".safetensors", ".spm", ".model")
_OTHER: Mapping[str, Literal["keras_hub", "transformers"]] = {"keras": "transformers", "transformers": "keras_hub"}


@dataclass(frozen=True, slots=True)
class Completion(Document):
    """What `complete` adds.

    Args:
        source: The folder or handle.
        layout: Its layout before.
        library: The library that loads it afterwards too.
        added: The size and SHA-256 of each new file, by name.
        diffs: What changes, by the name of each file: a unified diff, or the size of a file that is no short text.
        verified: What `verify` found between the source and the completed folder, in words; None if it was a dry run.
        notes: What the libraries do otherwise, and what was not measured.
        url: The address of the pull request; None for a folder, or if it was a dry run.
    """

    source: str
    layout: str
    library: str
    added: Mapping[str, Mapping[str, Any]]
    diffs: Mapping[str, str]
    verified: str | None = None
    notes: Sequence[str] = ()
    url: str | None = None

    def blocks(self) -> Iterator[Block]:
        """Yield what the report shows."""
        yield f"[bold]{escape(self.source)}[/] is to load with {self.library} too: {len(self.diffs)} files"
        if self.verified is None:
            for diff in self.diffs.values():
                yield escape(diff)
            yield "[yellow]Nothing was written: --dry-run.[/]"
            return
        yield {name: "new" if name in self.added else "changed" for name in self.diffs}
        yield escape(self.verified)
        yield from (f"[yellow]Note:[/] {escape(note)}" for note in self.notes)
        if self.url is not None:
            yield escape(self.url)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as data for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def complete(
    source: str | Path,
    *,
    dry_run: bool = False,
    message: str | None = None,
    allow_pickle: bool = False,
    progress: StageProgress = ignore_progress,
) -> Completion:
    """Add to a preset or a transformers repository what the other library needs, so that both load it by one name.

    Files that are there stay as they are, but `config.json`, which gets the keys of the other library, and the card,
    which gets a section. The result is verified before anything is written. A folder gets the files. A repository on
    Hugging Face gets a pull request, unless it received a commit since it was read, or has an open one with that title.

    Args:
        source: A folder, or `hf://user/repo`.
        dry_run: Whether to return what would change, and write nothing.
        message: Title of the pull request.
        allow_pickle: Whether to read weights from a pickle, as for `convert`.
        progress: As for `verify`.

    Returns:
        What was added and changed, with the diff of each file.

    Raises:
        SourceError, CheckpointError: The source cannot be found, is wrong, or cannot be completed. Nothing was changed.
        EngineError: A library cannot load the result. Nothing was changed.
        TargetError: A file that is to be added is there, the result differs from the source, the source was changed
            meanwhile, it has such a pull request, or it cannot be written.
    """
    handle = find_handle(source)
    is_on_hub = handle is not None
    if handle is not None and not handle.startswith("hf://"):
        raise SourceError(
            f"{source}: only folders and repositories on Hugging Face (hf://user/repo) are completed. Convert it: "
            "albert-hub-bridge convert SOURCE TARGET --to universal"
        )
    pulled = pull(source)
    name, _, revision = pulled.handle.removeprefix("hf://").partition("@")
    present = list_hugging_face(name, pulled.revision) if is_on_hub else list_files(pulled.folder)
    before = {file: read_bytes(pulled.folder / file, _MAX_BYTES) for file in _CHANGED if file in present}
    opened = open_source(pulled.folder)
    with TemporaryDirectory() as parent, read_checkpoint(opened, ReadOptions(allow_pickle=allow_pickle)) as checkpoint:
        if RECORD in present:
            raise SourceError(
                f"{source} was made by convert: more files would contradict its {RECORD}. Convert its source again: "
                "albert-hub-bridge convert SOURCE TARGET --to universal"
            )
        staged = Path(parent) / pulled.folder.name
        staged.mkdir()
        write_other_half(checkpoint, opened, staged)
        location = f"hf://{name}" if is_on_hub else pulled.folder.resolve().name
        _write_card(checkpoint, pulled.folder / CARD, before.get(CARD, b""), staged, location)
        files = {file: staged / file for file in list_files(staged)}
        if taken := sorted(set(files) & set(present) - set(_CHANGED)):
            raise TargetError(
                f"{source} has {', '.join(taken)} already, which would be replaced. If a run that was "
                "killed left it there, delete it. Nothing was changed."
            )
        if not is_on_hub:
            refuse_links(pulled.folder, files)
        added = {
            file: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
            for file, path in files.items()
            if file not in present
        }
        report = Completion(
            str(source),
            DESCRIPTIONS[checkpoint.layout],
            _OTHER[checkpoint.layout],
            added,
            {file: _diff(before.get(file), file, path, added.get(file)) for file, path in files.items()},
        )
        if dry_run:
            return report
        title = message or f"Add what {report.library} needs to load this model"
        if is_on_hub and (url := find_pull_request(name, title)) is not None:
            raise TargetError(f"{source} has an open pull request with this title: {url}. No other one was opened.")
        verified, notes = _verify(checkpoint, pulled, opened, files, allow_pickle, progress)
        url = None
        if is_on_hub:
            url = propose_to_hugging_face(files, name, str(pulled.revision), revision or None, message=title)
        else:
            sums = {file: str(each["sha256"]) for file, each in added.items()}
            add_files(pulled.folder, files, before, sums, last=_CONFIG)
    return replace(report, verified=verified, notes=notes, url=url)


def _write_card(checkpoint: Checkpoint, file: Path, content: bytes, folder: Path, location: str) -> None:
    try:
        before = content.decode()
    except UnicodeDecodeError as error:
        raise SourceError(f"{file} is not UTF-8: {error}. Save it as UTF-8.") from error
    head = checkpoint.head.kind if checkpoint.head is not None else None
    card = with_section(before, _OTHER[checkpoint.layout], head, location, checkpoint.has_tokenizer)
    (folder / CARD).write_bytes(card.encode())


def _diff(before: bytes | None, name: str, new: Path, added: Mapping[str, Any] | None) -> str:
    """Return what becomes of a file, as a unified diff; of a new file that is no short text, its size and SHA-256."""
    if added is not None and (added["bytes"] > _MAX_SHOWN_BYTES or name.endswith(_BINARY)):
        return f"new file {name}: {added['bytes']:,} bytes, SHA-256 {added['sha256']}"
    old = "/dev/null" if before is None else f"a/{name}"
    one, other = (content.decode().splitlines() for content in (before or b"", new.read_bytes()))
    return "\n".join(unified_diff(one, other, old, f"b/{name}", lineterm=""))


def _verify(
    checkpoint: Checkpoint,
    pulled: LocalSource,
    source: SourceFolder,
    files: Mapping[str, Path],
    allow_pickle: bool,
    progress: StageProgress,
) -> tuple[str, Sequence[str]]:
    """Compare the source with what it becomes, as both libraries load it.

    Returns:
        What was found, in words, and notes on what the libraries do otherwise and on what was not measured.

    Raises:
        TargetError: They differ.
    """
    with TemporaryDirectory(dir=next(iter(files.values())).parent.parent) as parent:
        folder = Path(parent) / "completed"
        for name in needed_files(source.names):
            _link(source.folder / name, folder / name)
        for name, path in files.items():
            (folder / name).unlink(missing_ok=True)
            _link(path, folder / name)
        texts, notes = _texts(checkpoint)
        report = run.verify(pulled.folder, folder, texts=texts, allow_pickle=allow_pickle, progress=progress)
    if not report.passed:
        failed = ", ".join(report.failed_checks)
        raise TargetError(f"{pulled.handle} was not changed: the result would differ from it. Failed checks: {failed}.")
    not_measured = dict.fromkeys(each for check in report.checks.values() for each in check.not_measured)
    keras = "this package's model of KerasHub" if WITHOUT_KERAS_HUB in not_measured else "KerasHub"
    verified = f"Verified with {report.target_engine} and {keras}: {', '.join(report.checks)} passed."
    return verified, (*notes, *report.notes, *not_measured)


def _texts(checkpoint: Checkpoint) -> tuple[Sequence[str], Sequence[str]]:
    """Return the texts to compare, and notes: KerasHub is known to give other ids for some, and the note says which."""
    tokenizer, files = with_cut_out_pieces(checkpoint).tokenizer, checkpoint.tokenizer_files
    if tokenizer is None or files is None or not files.cut_out:
        return SAMPLE_TEXTS, ()
    texts = [text for text in SAMPLE_TEXTS if not in_another_way(text, files.cut_out, tokenizer.vocabulary)]
    return texts, (note_on_cut_out(files.cut_out),)


def _link(file: Path, new: Path) -> None:
    """Give a file a second name, or copy it to another disk."""
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file.resolve(), new)
    except OSError:
        shutil.copyfile(file, new)
