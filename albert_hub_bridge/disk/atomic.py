"""Write folders and files completely, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from albert_hub_bridge.disk.durable import folder_to_disk, write_file
from albert_hub_bridge.disk.staging import is_staging_directory, put_in_place, staging_directory
from albert_hub_bridge.errors import TargetError, TargetExistsError, TargetNotFoundError, write_error
from albert_hub_bridge.text import first_few


def check_target(
    target: Path, overwrite: bool, is_replaceable: Callable[[str], bool], config: str = "config.json"
) -> None:
    """Refuse a target that must not be written, before any work is done.

    Args:
        target: The folder to make.
        overwrite: Whether an existing preset or repository may be replaced. Nothing else is ever replaced.
        is_replaceable: Returns whether a file of that name may be replaced. A folder with other files is refused.
        config: The file that every preset or repository has. A folder without it is refused.

    Raises:
        TargetError: The target exists and may not be replaced, or is not a folder, or its parent does not exist.
    """
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise TargetExistsError(f"The target {target} exists and is not a folder. Choose another target.")
    if target.exists() and target.samefile(Path.cwd()):
        raise TargetError(f"The target {target} is the current folder, which cannot be replaced. Name a new folder.")
    if target.is_dir() and any(target.iterdir()):
        if not overwrite:
            raise TargetExistsError(f"The target {target} exists. Pass --overwrite (overwrite=True) to replace it.")
        if not (target / config).is_file():
            what = "neither a preset nor a repository" if config == "config.json" else "not an adapter"
            raise TargetExistsError(
                f"The target {target} has no {config}: it is {what}, and nothing else is replaced. "
                "Choose another target."
            )
        _check_replaceable(target, target, is_replaceable)
    _check_parent(target)


def _check_replaceable(folder: Path, target: Path, is_replaceable: Callable[[str], bool]) -> None:
    """Refuse to delete the old target if it has files that this package does not write.

    Args:
        folder: Where the old target is now.
        target: What it is called, for the message.
        is_replaceable: Returns whether a file of that name may be replaced.
    """
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if not path.is_dir())
    names = [path.as_posix() for path in found if not is_staging_directory(Path(path.parts[0]))]
    if others := [name for name in names if not is_replaceable(name)]:
        raise TargetExistsError(
            f"The target {target} would be deleted as a whole, and has {first_few(others, 5)}, "
            "which nothing here writes. Move them away, or choose another target."
        )


def check_target_file(target: Path, overwrite: bool) -> None:
    """Refuse a file that must not be written, before any work is done.

    Raises:
        TargetError: The target exists and may not be replaced, or is not a file, or its parent does not exist.
    """
    if target.is_symlink() or (target.exists() and not target.is_file()):
        raise TargetExistsError(f"The target {target} exists and is not a file. Choose another target.")
    if target.exists() and not overwrite:
        raise TargetExistsError(f"The target {target} exists. Pass --overwrite (overwrite=True) to replace it.")
    _check_parent(target)


def _check_parent(target: Path) -> None:
    if not target.parent.is_dir():
        raise TargetNotFoundError(
            f"The folder {target.parent} that should hold the target does not exist. Create it first."
        )


@contextmanager
def new_file(target: Path, overwrite: bool) -> Iterator[Path]:
    """Yield the path of a file to write. It becomes `target` when the block succeeds, and is removed otherwise.

    Raises:
        TargetError: As `check_target_file`, or another process writes the target too, or the system refused.
    """
    before = _identity(target)
    check_target_file(target, overwrite)
    with _as_target_errors(target), staging_directory(target) as staged:
        _check_unchanged(target, before)
        yield staged
        _check_unchanged(target, before)
        _put_in_place(staged, target)


def replace_file(file: Path, content: bytes) -> None:
    """Write a file, or replace it as a whole.

    Raises:
        TargetError: As `new_file`.
    """
    with new_file(file, overwrite=True) as staged:
        write_file(staged, content)


@contextmanager
def new_folder(
    target: Path, overwrite: bool, is_replaceable: Callable[[str], bool], config: str = "config.json"
) -> Iterator[Path]:
    """Yield an empty folder to fill. It becomes `target` when the block succeeds, and is removed otherwise.

    An existing target is replaced as a whole: none of its files stays. The block has to bring its files to the disk, as
    `disk.durable` does.

    Raises:
        TargetError: As `check_target`, or another process writes the target too, or the system refused.
    """
    before = _identity(target)
    check_target(target, overwrite, is_replaceable, config)
    with _as_target_errors(target), staging_directory(target) as staged:
        _check_unchanged(target, before)
        staged.mkdir()
        yield staged
        for folder, _, _ in os.walk(staged, topdown=False):
            folder_to_disk(Path(folder))
        _check_unchanged(target, before)
        _put_in_place(staged, target, lambda: _check_replaceable(staged, target, is_replaceable))


def _put_in_place(staged: Path, target: Path, check_old: Callable[[], None] = lambda: None) -> None:
    """Give a staged folder or file its final name, or change nothing."""
    replaces = os.path.lexists(target)
    put_in_place(staged, target)
    try:
        folder_to_disk(target.parent)
        if replaces:  # from now on no process can add files to the old target under its name
            check_old()
    except BaseException as error:  # on any failure, KeyboardInterrupt too, the old target comes back
        try:
            put_in_place(staged, target) if replaces else os.rename(target, staged)
        except OSError:
            raise TargetError(
                f"{target} is written, and whole, but the system did not say that it will still be there after a "
                f"power cut, and did not bring back what was there before. ({error})"
            ) from error
        raise


def _identity(target: Path) -> tuple[int, int] | None:
    """Return device and inode, which differ between two folders or files of one name; None if there is none."""
    try:
        found = target.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _check_unchanged(target: Path, before: tuple[int, int] | None) -> None:
    if _identity(target) != before:
        raise TargetError(
            f"Another process made, replaced or removed {target} while this one ran. The current content was left "
            "alone. Look at it, and run the command again with another target, or with --overwrite (overwrite=True)."
        )


@contextmanager
def _as_target_errors(target: Path) -> Iterator[None]:
    """Turn an OSError about the target or its staging directory into a TargetError that names the final path."""
    try:
        yield
    except OSError as error:
        where = Path(os.fsdecode(error.filename)) if error.filename else None
        if where is None:
            raise
        if staging := [path for path in (where, *where.parents) if is_staging_directory(path)]:
            inside = where.relative_to(staging[-1])
            raise write_error(target.parent / inside if inside.parts else target, error) from error
        if where in (target, target.parent):
            raise write_error(where, error) from error
        raise
