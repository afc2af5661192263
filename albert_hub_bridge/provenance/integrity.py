"""Compare a converted folder with its `conversion.json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from albert_hub_bridge.disk.checksums import sha256_of
from albert_hub_bridge.document import Block, Document, escape
from albert_hub_bridge.errors import CheckpointError, SourceError
from albert_hub_bridge.layouts.registry import open_source, read_checkpoint
from albert_hub_bridge.provenance.digests import file_list, tensor_list
from albert_hub_bridge.provenance.record import CARD, PICTURE, RECORD, ConversionRecord, FileDigest, read_record
from albert_hub_bridge.text import first_few


@dataclass(frozen=True, slots=True)
class FilesCheck(Document):
    """Whether a converted folder is still what its own `conversion.json` says.

    Args:
        folder: The folder.
        made_by: Where the folder comes from, according to its record.
        files: The number of files with checksums in the record.
        tensors: The number of tensors with checksums in the record.
        changes: "changed", "missing" or "new", by the name of each such file. Only files that presets and repositories
            have count as new.
        different_tensors: Tensors with other checksums than in the record, if the folder can be read.
        others: Other files, which the record does not mention.
    """

    folder: str
    made_by: str
    files: int
    tensors: int
    changes: dict[str, str]
    different_tensors: Sequence[str]
    others: Sequence[str]

    def __bool__(self) -> bool:
        """Return whether the folder is unchanged, so that `assert check(...)` cannot succeed on a changed folder."""
        return self.passed

    @property
    def passed(self) -> bool:
        """Whether every file and tensor is unchanged, and no file was added that libraries would read."""
        return not self.changes and not self.different_tensors

    def blocks(self) -> Iterator[Block]:
        """Yield what the report shows."""
        yield f"[bold]{escape(self.folder)}[/]: {escape(self.made_by)}"
        if self.changes:
            yield {name: f"[red]{change}[/]" for name, change in self.changes.items()}
        if self.different_tensors:
            yield f"[red]Changed tensors:[/] {escape(first_few(self.different_tensors, 10))}"
        if self.others:
            others = escape(", ".join(self.others))
            yield f"[yellow]Not in conversion.json, and not part of a preset or repository:[/] {others}"
        if self.passed:
            yield f"[bold green]PASSED: all {self.files} files and {self.tensors} tensors are unchanged.[/]"
        else:
            changed = f"{len(self.changes)} files and {len(self.different_tensors)} tensors"
            yield f"[bold red]FAILED: {changed} were changed since the conversion.[/]"

    @property
    def needs_attention(self) -> bool:
        """See `Document`."""
        return not self.passed

    def as_dict(self) -> dict[str, Any]:
        """Return the report as data for JSON."""
        return {"passed": self.passed, **asdict(self)}


def changed_files(folder: Path, record: ConversionRecord, names: Iterable[str] | None = None) -> dict[str, str]:
    """Compare the files of a folder with its record.

    Args:
        folder: The folder.
        record: Its `conversion.json`.
        names: The names of its files, if they were listed already.

    Returns:
        "changed", "missing" or "new", by the name of each file that differs.
    """
    return compare_digests(file_list(folder, names), record)


def compare_digests(found: Mapping[str, Mapping[str, Any]], record: ConversionRecord) -> dict[str, str]:
    """Compare the digests of a folder's files, as `file_list` returns them, with its record. See `changed_files`."""
    recorded = record.target.files
    changes = {name: "missing" for name in recorded if name not in found}
    changes |= {name: "new" for name in found if name not in recorded}
    changes |= {
        name: "changed" for name in found if name in recorded and found[name]["sha256"] != recorded[name].sha256
    }
    return dict(sorted(changes.items()))


def describe_changes(changes: Mapping[str, str]) -> str:
    """Return the result of `changed_files` as a list: "config.json (changed), spiece.model (missing)"."""
    return ", ".join(f"{file} ({change})" for file, change in changes.items())


def is_source_of(folder: Path, record: ConversionRecord) -> bool:
    """Return whether a folder has all recorded files of the conversion's source, with the same digests."""
    found = file_list(folder)
    return all(name in found and found[name]["sha256"] == digest.sha256 for name, digest in record.source.files.items())


def check_files(folder: Path) -> FilesCheck | None:
    """Compare the files and tensors of a folder with the checksums in its record; return None if it has no record.

    Raises:
        FileError: A file that would be read is not a regular file of the folder.
        ConfigurationError: `conversion.json` is not a record of this package.
        CheckpointError: No file was changed, but the folder cannot be read.
    """
    source = open_source(folder)
    record = read_record(folder)
    if record is None:
        return None
    recorded = set(record.target.files)
    changes = changed_files(folder, record, source.names)
    if record.picture is not None:
        recorded.add(PICTURE)
        changes |= _changed_picture(folder, record.picture)
    expected = {*recorded, *changes, RECORD, CARD, ".gitattributes"}  # hubs add .gitattributes to every download
    others = [name for name in source.names if name not in expected and name.split("/")[0] not in (".git", ".cache")]
    tensors = record.target.tensors
    different = _different_tensors(folder, tensors, has_changes=bool(changes))
    return FilesCheck(str(folder), record.made_by, len(recorded), len(tensors), changes, different, others)


def _changed_picture(folder: Path, picture: FileDigest) -> dict[str, str]:
    file = folder / PICTURE
    if not file.is_file():
        return {PICTURE: "missing"}
    return {} if sha256_of(file) == picture.sha256 else {PICTURE: "changed"}


def _different_tensors(folder: Path, recorded: Mapping[str, str], has_changes: bool) -> list[str]:
    try:
        with read_checkpoint(folder) as checkpoint:  # checks the files again, after the time of hashing
            found = tensor_list(checkpoint)
    except (CheckpointError, SourceError):
        if not has_changes:
            raise
        return []  # the changed files are the reason
    return sorted(name for name in {**recorded, **found} if recorded.get(name) != found.get(name))
