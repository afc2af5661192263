"""The command `complete`: add to a preset or a repository what the other library needs to load it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import unified_diff
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.disk.atomic import replace_file
from albert_hub_bridge.disk.checksums import sha256_of
from albert_hub_bridge.disk.source_folder import SourceFolder, list_files
from albert_hub_bridge.document import Block, Document, escape
from albert_hub_bridge.errors import SourceError, TargetError, write_error
from albert_hub_bridge.hubs.huggingface import list_hugging_face, propose_to_hugging_face
from albert_hub_bridge.hubs.local_source import LocalSource
from albert_hub_bridge.layouts.layout import DESCRIPTIONS, ReadOptions
from albert_hub_bridge.layouts.registry import open_source, pull, read_checkpoint
from albert_hub_bridge.layouts.universal.completion import write_other_half
from albert_hub_bridge.provenance.card_section import with_section
from albert_hub_bridge.provenance.record import CARD, RECORD
from albert_hub_bridge.verification import run
from albert_hub_bridge.verification.progress import StageProgress, ignore_progress


_CONFIG = "config.json"
_MAX_SHOWN_BYTES = 20_000  # of a new file of text, in a diff
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
        url: The address of the pull request; None for a folder, or if it was a dry run.
    """

    source: str
    layout: str
    library: str
    added: Mapping[str, Mapping[str, Any]]
    diffs: Mapping[str, str]
    verified: str | None = None
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
    Hugging Face gets a pull request, which the Hub refuses if the repository received a commit since it was read.

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
        TargetError: A file that is to be added is there, the result differs from the source, or it cannot be written.
    """
    pulled = pull(source)
    is_on_hub = "://" in pulled.handle
    if is_on_hub and not pulled.handle.startswith("hf://"):
        raise SourceError(f"{source}: only folders and repositories on Hugging Face (hf://user/repo) are completed.")
    name, _, revision = pulled.handle.removeprefix("hf://").partition("@")
    present = list_hugging_face(name, pulled.revision) if is_on_hub else list_files(pulled.folder)
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
        _write_card(checkpoint, opened, staged, location)
        files = {file: staged / file for file in list_files(staged)}
        if taken := sorted(set(files) & set(present) - {_CONFIG, CARD}):
            raise TargetError(f"{source} has {', '.join(taken)} already, which would be replaced. Nothing was changed.")
        report = Completion(
            str(source),
            DESCRIPTIONS[checkpoint.layout],
            _OTHER[checkpoint.layout],
            {file: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for file, path in files.items()},
            {file: _diff(pulled.folder, file, path, present) for file, path in files.items()},
        )
        report = _changed_only(report, present)
        if dry_run:
            return report
        verified = _verify(pulled, opened, files, allow_pickle, progress)
        url = None
        if is_on_hub:
            title = message or f"Add what {report.library} needs to load this model"
            url = propose_to_hugging_face(files, name, str(pulled.revision), revision or None, message=title)
        else:
            _add_to_folder(pulled.folder, files, present)
    return Completion(report.source, report.layout, report.library, report.added, report.diffs, verified, url)


def _changed_only(report: Completion, present: list[str]) -> Completion:
    added = {name: digest for name, digest in report.added.items() if name not in present}
    return Completion(report.source, report.layout, report.library, added, report.diffs)


def _write_card(checkpoint: Checkpoint, source: SourceFolder, folder: Path, location: str) -> None:
    try:
        before = (source.folder / CARD).read_bytes().decode() if CARD in source.names else ""
    except UnicodeDecodeError as error:
        raise SourceError(f"{source.folder / CARD} is not UTF-8: {error}. Save it as UTF-8.") from error
    head = checkpoint.head.kind if checkpoint.head is not None else None
    card = with_section(before, _OTHER[checkpoint.layout], head, location, checkpoint.has_tokenizer)
    (folder / CARD).write_bytes(card.encode())


def _diff(folder: Path, name: str, new: Path, present: list[str]) -> str:
    """Return what becomes of a file, in words or as a unified diff."""
    content = new.read_bytes() if new.stat().st_size <= _MAX_SHOWN_BYTES or name in present else b"\0"
    if b"\0" in content or name.endswith((".h5", ".safetensors", ".spm", ".model")):
        return f"new file {name}: {new.stat().st_size:,} bytes, SHA-256 {sha256_of(new)}"
    before = (folder / name).read_text(encoding="utf-8").splitlines() if name in present else []
    old = f"a/{name}" if name in present else "/dev/null"
    return "\n".join(unified_diff(before, content.decode().splitlines(), old, f"b/{name}", lineterm=""))


def _verify(
    pulled: LocalSource, source: SourceFolder, files: Mapping[str, Path], allow_pickle: bool, progress: StageProgress
) -> str:
    """Compare the source with what it becomes, as both libraries load it.

    Raises:
        TargetError: They differ.
    """
    with TemporaryDirectory(dir=next(iter(files.values())).parent.parent) as parent:
        folder = Path(parent) / "completed"
        for name in source.names:
            _link(source.folder / name, folder / name)
        for name, path in files.items():
            (folder / name).unlink(missing_ok=True)
            _link(path, folder / name)
        report = run.verify(pulled.folder, folder, allow_pickle=allow_pickle, progress=progress)
    if not report.passed:
        failed = ", ".join(report.failed_checks)
        raise TargetError(f"{pulled.handle} was not changed: the result would differ from it. Failed checks: {failed}.")
    return f"Verified with {report.target_engine} and KerasHub: {', '.join(report.checks)} passed."


def _link(file: Path, new: Path) -> None:
    """Give a file a second name, or copy it to another disk."""
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file.resolve(), new)
    except OSError:
        shutil.copyfile(file, new)


def _add_to_folder(folder: Path, files: Mapping[str, Path], present: list[str]) -> None:
    """Add files to a folder, `config.json` last: the folder is what it was until then.

    Raises:
        TargetError: The system did not write a file. The new files were removed again.
    """
    in_order = sorted(files, key=lambda name: (name in present, name == _CONFIG))
    added: list[Path] = []
    try:
        for name in in_order:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if name in present:
                replace_file(target, files[name].read_bytes())
            else:
                added.append(target)
                shutil.copyfile(files[name], target)
                if sha256_of(target) != sha256(files[name].read_bytes()).hexdigest():
                    raise OSError(0, "what was read back is different")
    except (OSError, TargetError) as error:
        for path in added:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise error if isinstance(error, TargetError) else write_error(folder, error) from error
