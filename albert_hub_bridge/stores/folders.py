"""Writing folders whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from albert_hub_bridge.errors import TargetError, first_few


def check_target(target: Path, overwrite: bool, is_known: Callable[[str], bool]) -> None:
    """Refuse a target that must not be written, before any work is done.

    Args:
        target: The folder to make.
        overwrite: Whether a preset or repository that is there may be replaced. Nothing else is ever replaced.
        is_known: Tells which files a preset or repository may have; a folder with others is not replaced.

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
        if not (target / "config.json").is_file():
            raise TargetError(
                f"The target {target} has no config.json: it is neither a preset nor a repository, and nothing else is "
                "replaced. Choose another target."
            )
        found = (path.relative_to(target).as_posix() for path in sorted(target.rglob("*")) if not path.is_dir())
        if others := [name for name in found if not is_known(name)]:
            raise TargetError(
                f"The target {target} would be deleted as a whole, and has {first_few(others, 5)}, "
                "which nothing here writes. Move them away, or choose another target."
            )
    if not target.parent.is_dir():
        raise TargetError(f"The folder {target.parent} that should hold the target does not exist. Create it first.")


@contextmanager
def new_folder(target: Path, overwrite: bool, is_known: Callable[[str], bool]) -> Iterator[Path]:
    """Yield an empty folder beside `target`; move it in place when the block ends well, else remove it.

    An existing target is replaced as a whole, never overlaid: files of the old one do not survive in the new one.

    Raises:
        TargetError: As `check_target`.
    """
    check_target(target, overwrite, is_known)
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
