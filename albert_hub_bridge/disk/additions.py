"""Add files to a folder that stays: all of them, or none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from albert_hub_bridge.disk.atomic import new_file, replace_file
from albert_hub_bridge.disk.checksums import sha256_of
from albert_hub_bridge.disk.durable import folder_to_disk
from albert_hub_bridge.errors import TargetError, write_error


def refuse_links(folder: Path, names: Iterable[str]) -> None:
    """Refuse to write where a link leads: into another folder, or over a file that others share.

    Args:
        folder: The folder.
        names: Names of files in it, of which some exist.

    Raises:
        TargetError: A file or a folder on the way to it is a link.
    """
    for name in names:
        parts = Path(name).parts
        for place in (folder.joinpath(*parts[: depth + 1]) for depth in range(len(parts))):
            if place.is_symlink():
                raise TargetError(f"{place} is a link. Put there what it leads to. Nothing was changed.")


def add_files(
    folder: Path, files: Mapping[str, Path], before: Mapping[str, bytes], sums: Mapping[str, str], last: str
) -> None:
    """Add files to a folder, and replace some. The folder is what it was until the last one is there.

    Args:
        folder: The folder.
        files: The new files, by their names in the folder.
        before: The contents that files had which are replaced.
        sums: The SHA-256 of the others.
        last: The name of the file that is written last.

    Raises:
        TargetError: A file was changed meanwhile, or the system did not write one. The folder is what it was.
    """
    undo = ExitStack()  # calls the last first
    try:
        for name in sorted(files, key=lambda name: (name in before, name == last)):
            target = folder / name
            _make_folders(folder, target.parent, undo)
            if name not in before:
                _add_file(files[name], target, sums[name], undo)
                continue
            if target.read_bytes() != before[name]:
                raise TargetError(f"{target} was changed meanwhile. Nothing was changed. Run the command again.")
            undo.callback(replace_file, target, before[name])
            replace_file(target, files[name].read_bytes())
    except BaseException as error:  # Ctrl-C too
        with suppress(OSError, TargetError):
            undo.close()
        if isinstance(error, OSError):
            raise write_error(folder, error) from error
        raise


def _make_folders(folder: Path, subfolder: Path, undo: ExitStack) -> None:
    """Make a subfolder and those above it, and bring their names to the disk."""
    if subfolder == folder or subfolder.is_dir():
        return
    _make_folders(folder, subfolder.parent, undo)
    subfolder.mkdir()
    undo.callback(subfolder.rmdir)
    folder_to_disk(subfolder.parent)


def _add_file(source: Path, target: Path, sha256: str, undo: ExitStack) -> None:
    """Copy a file to a new name, and compare what was read back."""
    with new_file(target, overwrite=False) as staged:
        with source.open("rb") as given, staged.open("xb") as taken:
            shutil.copyfileobj(given, taken)
            taken.flush()
            os.fsync(taken.fileno())
        if sha256_of(staged) != sha256:
            raise OSError(0, "what was read back is different", str(staged))
    undo.callback(target.unlink, missing_ok=True)
