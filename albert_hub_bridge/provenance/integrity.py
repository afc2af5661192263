"""Compare a converted folder with its `conversion.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from albert_hub_bridge.disk.checksums import sha256_of
from albert_hub_bridge.errors import CheckpointError, SourceError
from albert_hub_bridge.layouts.registry import check_own_files, read_checkpoint
from albert_hub_bridge.provenance.digests import file_list, tensor_list
from albert_hub_bridge.provenance.record import CARD, PICTURE, RECORD, ConversionRecord, read_record


@dataclass(frozen=True, slots=True)
class FilesCheck:
    """Whether a converted folder is what it was when it was made, by its own `conversion.json`.

    Args:
        folder: That was checked.
        made_by: What the record says of where it comes from.
        files: Number of files that the record has checksums of.
        tensors: Number of tensors that it has checksums of.
        changes: "changed", "missing" or "new", by the name of each file of which that is true. Only files that presets
            and repositories have are new.
        different_tensors: Tensors that are not those of the record, where the folder can be read.
        others: Files of other kinds, which the record says nothing of.
    """

    folder: str
    made_by: str
    files: int
    tensors: int
    changes: dict[str, str]
    different_tensors: Sequence[str]
    others: Sequence[str]

    @property
    def passed(self) -> bool:
        """Whether every file and tensor is there and is the same, and nothing was added that libraries would read."""
        return not self.changes and not self.different_tensors

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return {"passed": self.passed, **asdict(self)}


def changed_files(folder: Path, record: ConversionRecord) -> dict[str, str]:
    """Compare a folder with its record.

    Returns:
        What happened, "changed", "missing" or "new", by the name of each file that is not as it was made.
    """
    made, found = record.target.files, file_list(folder)
    changes = {name: "missing" for name in made if name not in found}
    changes |= {name: "new" for name in found if name not in made}
    changes |= {name: "changed" for name in found if name in made and found[name]["sha256"] != made[name].sha256}
    return dict(sorted(changes.items()))


def check_files(folder: Path) -> FilesCheck | None:
    """Compare the files and the tensors of a folder with the checksums in its record; None where it has no record.

    Raises:
        FileError: What would be read is not a regular file of the folder.
        ConfigurationError: It is not a record of this package.
        CheckpointError: No file was changed, and the folder cannot be read all the same.
    """
    check_own_files(folder)
    record = read_record(folder)
    if record is None:
        return None
    changes, made = changed_files(folder, record), set(record.target.files)
    if (picture := record.picture) is not None:
        file, made = folder / PICTURE, {*made, PICTURE}
        if not file.is_file():
            changes[PICTURE] = "missing"
        elif sha256_of(file) != picture.sha256:
            changes[PICTURE] = "changed"
    # A hub's own files, which every download of it has, are no news.
    known = {*made, *changes, RECORD, CARD, ".gitattributes"}
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    others = [
        path.as_posix() for path in found if path.as_posix() not in known and path.parts[0] not in (".git", ".cache")
    ]
    tensors = record.target.tensors
    try:
        with read_checkpoint(folder) as checkpoint:
            held = tensor_list(checkpoint)
    except (CheckpointError, SourceError):
        if not changes:
            raise
        held = {}  # what was changed is why
    different = sorted(name for name in {**tensors, **held} if tensors.get(name) != held.get(name)) if held else []
    return FilesCheck(str(folder), record.made_by, len(made), len(tensors), changes, different, others)
