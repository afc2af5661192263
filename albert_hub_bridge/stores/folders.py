"""Writing folders and files whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from albert_hub_bridge.errors import TargetError, first_few


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
        found = (path.relative_to(target).as_posix() for path in sorted(target.rglob("*")) if not path.is_dir())
        if others := [name for name in found if not is_known(name)]:
            raise TargetError(
                f"The target {target} would be deleted as a whole, and has {first_few(others, 5)}, "
                "which nothing here writes. Move them away, or choose another target."
            )
    _check_parent(target)


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
    """Yield the name of a file beside `target`; move it in place when the block ends well, else remove it.

    Raises:
        TargetError: As `check_target_file`.
    """
    check_target_file(target, overwrite)
    draft = target.parent / f".albert-hub-bridge-{secrets.token_hex(4)}-new"
    try:
        yield draft
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def new_folder(
    target: Path, overwrite: bool, is_known: Callable[[str], bool], config: str = "config.json"
) -> Iterator[Path]:
    """Yield an empty folder beside `target`; move it in place when the block ends well, else remove it.

    An existing target is replaced as a whole, never overlaid: files of the old one do not survive in the new one.

    Raises:
        TargetError: As `check_target`.
    """
    check_target(target, overwrite, is_known, config)
    mark = secrets.token_hex(4)
    draft, old = (target.parent / f".albert-hub-bridge-{mark}-{kind}" for kind in ("new", "old"))
    draft.mkdir()
    try:
        yield draft
        _move_in_place(draft, target, old)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _move_in_place(draft: Path, target: Path, old: Path) -> None:
    if not target.exists():
        os.rename(draft, target)
        return
    os.rename(target, old)
    try:
        os.rename(draft, target)
    except BaseException:  # whatever it is, a KeyboardInterrupt too: the old target comes back
        os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
