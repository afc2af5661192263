"""Writing folders and files whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from albert_hub_bridge.disk.durable import folder_to_disk, write_file
from albert_hub_bridge.disk.staging import is_staging_directory, put_in_place, staging_directory
from albert_hub_bridge.errors import TargetError, write_error
from albert_hub_bridge.text import first_few


def check_target(target: Path, overwrite: bool, is_known: Callable[[str], bool], config: str = "config.json") -> None:
    """Refuse a target that must not be written, before any work is done.

    Args:
        target: The folder to make.
        overwrite: Whether a preset or repository that is there may be replaced. Nothing else is ever replaced.
        is_known: Tells which files a preset or repository may have; a folder with others is not replaced.
        config: The file without which a folder is none of ours.

    Raises:
        TargetError: The target exists and may not be replaced, or cannot be a folder, or has no parent.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise TargetError(f"The target {target} exists and is not a folder. Choose another target.")
    if target.exists() and target.samefile(Path.cwd()):
        raise TargetError(f"The target {target} is the current folder, which cannot be replaced. Name a new folder.")
    if target.is_dir() and any(target.iterdir()):
        if not overwrite:
            raise TargetError(f"The target {target} exists. Pass --overwrite (overwrite=True) to replace it.")
        if not (target / config).is_file():
            what = "neither a preset nor a repository" if config == "config.json" else "not an adapter"
            raise TargetError(
                f"The target {target} has no {config}: it is {what}, and nothing else is replaced. "
                "Choose another target."
            )
        _check_content(target, target, is_known)
    _check_parent(target)


def _check_content(folder: Path, target: Path, is_known: Callable[[str], bool]) -> None:
    """Refuse to delete a folder that is the target, or was, if it has files that nothing here writes."""
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if not path.is_dir())
    names = [path.as_posix() for path in found if not is_staging_directory(Path(path.parts[0]))]
    if others := [name for name in names if not is_known(name)]:
        raise TargetError(
            f"The target {target} would be deleted as a whole, and has {first_few(others, 5)}, "
            "which nothing here writes. Move them away, or choose another target."
        )


def check_target_file(target: Path, overwrite: bool) -> None:
    """Refuse a file that must not be written, before any work is done.

    Raises:
        TargetError: The target exists and may not be replaced, or is not a file, or has no parent.
    """
    if target.is_symlink() or (target.exists() and not target.is_file()):
        raise TargetError(f"The target {target} exists and is not a file. Choose another target.")
    if target.exists() and not overwrite:
        raise TargetError(f"The target {target} exists. Pass --overwrite (overwrite=True) to replace it.")
    _check_parent(target)


def _check_parent(target: Path) -> None:
    if not target.parent.is_dir():
        raise TargetError(f"The folder {target.parent} that should hold the target does not exist. Create it first.")


@contextmanager
def new_file(target: Path, overwrite: bool) -> Iterator[Path]:
    """Yield the name of a file to make beside `target`; move it in place when the block ends well, else remove it.

    Raises:
        TargetError: As `check_target_file`, or another process writes it too, or the system did not write something.
    """
    before = _identity(target)
    check_target_file(target, overwrite)
    with _as_target_errors(target), staging_directory(target) as staging:
        _check_unchanged(target, before)
        yield staging
        _check_unchanged(target, before)
        _put_in_place(staging, target)


def replace_file(file: Path, content: bytes) -> None:
    """Write a file, or replace it as a whole.

    Raises:
        TargetError: As `new_file`.
    """
    with new_file(file, overwrite=True) as staging:
        write_file(staging, content)


@contextmanager
def new_folder(
    target: Path, overwrite: bool, is_known: Callable[[str], bool], config: str = "config.json"
) -> Iterator[Path]:
    """Yield an empty folder beside `target`; move it in place when the block ends well, else remove it.

    An existing target is replaced as a whole, never overlaid: files of the old one do not survive in the new one. Files
    have to be on the disk when the block ends, as `files` leaves them.

    Raises:
        TargetError: As `check_target`, or another process writes it too, or the system did not write something.
    """
    before = _identity(target)
    check_target(target, overwrite, is_known, config)
    with _as_target_errors(target), staging_directory(target) as staging:
        _check_unchanged(target, before)
        staging.mkdir()
        yield staging
        for folder, _, _ in os.walk(staging, topdown=False):
            folder_to_disk(Path(folder))
        _check_unchanged(target, before)
        _put_in_place(staging, target, lambda: _check_content(staging, target, is_known))


def _put_in_place(staging: Path, target: Path, check_old: Callable[[], None] = lambda: None) -> None:
    """Give a draft its name, for good; or nothing, where that fails."""
    replaces = os.path.lexists(target)
    put_in_place(staging, target)
    try:
        folder_to_disk(target.parent)
        if replaces:  # now nobody can put something into it any more
            check_old()
    except BaseException as error:  # whatever it is, a KeyboardInterrupt too: the old target comes back
        try:
            put_in_place(staging, target) if replaces else os.rename(target, staging)
        except OSError:
            raise TargetError(
                f"{target} is written, and whole, but the system did not say that it will still be there after a "
                f"power cut, and did not bring back what was there before. ({error})"
            ) from error
        raise


def _identity(target: Path) -> tuple[int, int] | None:
    """Return what tells a folder or file from another one with the same name."""
    try:
        found = target.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _check_unchanged(target: Path, before: tuple[int, int] | None) -> None:
    if _identity(target) != before:
        raise TargetError(
            f"Another process made, replaced or removed {target} while this one was at it. What is there now was left "
            "alone. Look at it, and run the command again with another target, or with --overwrite (overwrite=True)."
        )


@contextmanager
def _as_target_errors(target: Path) -> Iterator[None]:
    """Make one message of what the system said of the target or its draft; other files are not ours to speak of."""
    try:
        yield
    except OSError as error:
        where = Path(os.fsdecode(error.filename)) if error.filename else None
        staging_directories = (
            [path for path in (where, *where.parents) if is_staging_directory(path)] if where is not None else []
        )
        if where is not None and staging_directories:  # it says what the file would have been called
            inside = where.relative_to(staging_directories[-1])
            raise write_error(target.parent / inside if inside.parts else target, error) from error
        if where in (target, target.parent):
            raise write_error(where, error) from error
        raise
