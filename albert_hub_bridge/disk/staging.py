"""The staging directory, in which a new folder or file is written before it gets its name.

For a target `NAME` it is `.albert-hub-bridge-<hash of NAME>/NAME`, next to the target. The writing process keeps the
outer folder locked. The system drops the lock when the process ends, in whatever way. So a staging directory without a
lock is left over from a killed run, and one with a lock is in use. No clock and no process number is needed.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from albert_hub_bridge.errors import TargetError


if sys.platform != "win32":
    import fcntl


_NAME = re.compile(r"\.albert-hub-bridge-[0-9a-f]{16}")
_ASIDE = ".replaced"  # holds the old target for a moment, where the system cannot exchange two names
_PATIENCE = 1.0  # seconds; removing what a killed run left takes less

_NO_LOCKS = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}  # of network file systems


def is_staging_directory(path: Path) -> bool:
    """Return whether a path has the name of a staging directory."""
    return _NAME.fullmatch(path.name) is not None


@contextmanager
def staging_directory(target: Path) -> Iterator[Path]:
    """Yield a path in a new staging directory next to a target, and remove the directory afterwards.

    Nothing exists at the path, and no other process writes to it. What killed runs left next to the target is removed
    first.

    Raises:
        TargetError: Another process is writing the target.
        OSError: The system does not allow a folder there.
    """
    for leftover in _staging_directories_in(target.parent):
        _remove_unlocked(leftover)
    digest = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    folder = target.parent / f".albert-hub-bridge-{digest}"
    lock = _make_and_lock(folder, target)
    try:
        yield folder / target.name
    finally:
        _remove(folder, lock)


def _staging_directories_in(parent: Path) -> list[Path]:
    """Return the staging directories in a folder that this user made."""
    if sys.platform == "win32":  # has no locks, so one in use and one left over look the same
        return []
    try:
        with os.scandir(parent) as entries:
            return [
                Path(entry.path)
                for entry in entries
                if is_staging_directory(Path(entry.path))
                and entry.is_dir(follow_symlinks=False)
                and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
            ]
    except OSError:  # the folder can be written but not listed, or a staging directory vanished
        return []


def _remove_unlocked(folder: Path) -> None:
    try:
        lock = _lock(folder)
        if lock is not None:
            _remove(folder, lock)
    except (OSError, TargetError):  # a leftover disturbs nothing
        pass


def _remove(folder: Path, lock: int) -> None:
    """Remove a staging directory that this process has locked. An old target that was moved aside is put back first.

    Raises:
        TargetError: The old target could not be put back, so the staging directory stays.
    """
    try:
        aside = folder / _ASIDE
        if os.path.lexists(aside):
            for staged in folder.iterdir():
                target = folder.parent / staged.name
                if staged != aside and not os.path.lexists(target):
                    os.rename(aside, target)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise TargetError(
            f"The old {target} could not be put back, and is {aside} now: {error.strerror}. Move it back."
        ) from error
    finally:
        os.close(lock)


def _make_and_lock(folder: Path, target: Path) -> int:
    """Make a staging directory, and return the descriptor that keeps it locked."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            folder.mkdir()
            is_new = True
        except FileExistsError:
            is_new = False
        try:
            lock = _lock(folder, is_new)
        except OSError:
            if is_new:
                folder.rmdir()
            raise
        if lock is not None and is_new:
            return lock
        if lock is not None:
            _remove(folder, lock)
        if time.monotonic() > deadline:
            raise TargetError(
                f"Another process is writing {target}: it has {folder}. Wait until it is done, and look at what it "
                "made. If there is no such process, delete that folder."
            )
        time.sleep(0.01)


def _lock(folder: Path, is_new: bool = False) -> int | None:
    """Lock a folder for as long as the returned descriptor is open. Return None if another process has the lock.

    Args:
        folder: The folder to lock.
        is_new: Whether this process made the folder. Then it counts as locked where the file system has no locks.
    """
    if sys.platform == "win32":
        return os.open(os.devnull, os.O_RDONLY) if is_new else None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:  # another process removed it
        return None
    is_locked = False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_locked = os.path.samestat(os.fstat(descriptor), os.lstat(folder))  # the name still stands for this folder
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        is_locked = is_new
    finally:
        if not is_locked:
            os.close(descriptor)
    return descriptor if is_locked else None


def put_in_place(staged: Path, target: Path) -> None:
    """Give a staged folder or file the name of its target, in one step. The old target gets the staged name.

    Where the system cannot exchange two names there are two steps, and for a moment there is no target. A run that is
    killed in this moment leaves the old target aside, and the next run puts it back.

    Raises:
        OSError: The system refused; nothing was changed.
    """
    if not os.path.lexists(target):
        os.rename(staged, target)
        return
    try:
        _exchange(staged, target)
    except NotImplementedError:
        aside = staged.parent / _ASIDE
        with ExitStack() as undo:  # on any failure, KeyboardInterrupt too, the old target comes back
            os.rename(target, aside)
            undo.callback(os.rename, aside, target)
            os.rename(staged, target)
            undo.callback(os.rename, target, staged)
            os.rename(aside, staged)
            undo.pop_all()


def _exchange(first: Path, second: Path) -> None:
    """Exchange two names in one step.

    Raises:
        NotImplementedError: The system or the file system cannot do that.
        OSError: The system refused.

    Source:
        renameat2(2) of Linux, renamex_np(2) of macOS.
    """
    arguments: tuple[int | bytes, ...]
    if sys.platform == "linux":
        name, at_cwd, flag = "renameat2", -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        arguments = (at_cwd, os.fsencode(first), at_cwd, os.fsencode(second), flag)
    else:
        name, flag = "renamex_np", 2  # RENAME_SWAP
        arguments = (os.fsencode(first), os.fsencode(second), flag)
    function = None if sys.platform == "win32" else getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        raise NotImplementedError
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise NotImplementedError
        raise OSError(number, os.strerror(number), str(first), None, str(second))
