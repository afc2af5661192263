"""Where a new folder or file grows up: beside its target, under a name that only one process can have.

The draft of `NAME` is `.albert-hub-bridge-<hash of NAME>/NAME`. Who writes it keeps the outer folder locked, and the
system drops the lock with the process, however that ends. So a draft without a lock is left over, and one with a lock
is somebody's work: both can be told without asking for clocks or process numbers.
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
_ASIDE = ".replaced"  # where the old target is for a moment, where the system cannot exchange two names
_PATIENCE = 1.0  # seconds; who clears up after a killed run holds its lock for less

_NO_LOCKS = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}  # what network file systems say


def is_staging_directory(path: Path) -> bool:
    """Tell whether a path has the name of a draft's folder."""
    return _NAME.fullmatch(path.name) is not None


@contextmanager
def staging_directory(target: Path) -> Iterator[Path]:
    """Yield a path beside a target that nobody else writes and where nothing is; remove what is there afterwards.

    What killed runs left beside it is removed first.

    Raises:
        TargetError: Another process is writing the target.
        OSError: The system does not allow a folder there.
    """
    for leftover in _drafts_in(target.parent):
        _remove_unlocked(leftover)
    mark = hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]
    folder = target.parent / f".albert-hub-bridge-{mark}"
    lock = _make_and_lock(folder, target)
    try:
        yield folder / target.name
    finally:
        _remove(folder, lock)


def _drafts_in(parent: Path) -> list[Path]:
    """Return the drafts in a folder that this user made."""
    if sys.platform == "win32":  # where nothing tells whether somebody still writes them
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
    except OSError:  # a folder that may be written and not listed, or a draft that vanished
        return []


def _remove_unlocked(folder: Path) -> None:
    try:
        lock = _lock(folder)
        if lock is not None:
            _remove(folder, lock)
    except (OSError, TargetError):  # it is in nobody's way
        pass


def _remove(folder: Path, lock: int) -> None:
    """Remove a draft that this process has locked; an old target that was moved aside for it is put back first.

    Raises:
        TargetError: That failed, so the draft stays.
    """
    try:
        aside = folder / _ASIDE
        if os.path.lexists(aside):
            for staging in folder.iterdir():
                target = folder.parent / staging.name
                if staging != aside and not os.path.lexists(target):
                    os.rename(aside, target)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise TargetError(
            f"The old {target} could not be put back, and is {aside} now: {error.strerror}. Move it back."
        ) from error
    finally:
        os.close(lock)


def _make_and_lock(folder: Path, target: Path) -> int:
    """Make a draft's folder, and return the descriptor that keeps it locked."""
    patience = time.monotonic() + _PATIENCE
    while True:
        try:
            folder.mkdir()
            made = True
        except FileExistsError:
            made = False
        try:
            lock = _lock(folder, made)
        except OSError:
            if made:
                folder.rmdir()
            raise
        if lock is not None and made:
            return lock
        if lock is not None:
            _remove(folder, lock)
        if time.monotonic() > patience:
            raise TargetError(
                f"Another process is writing {target}: it has {folder}. Wait until it is done, and look at what it "
                "made. If there is no such process, delete that folder."
            )
        time.sleep(0.01)


def _lock(folder: Path, made: bool = False) -> int | None:
    """Lock a folder, for as long as the descriptor that is returned is open; None if somebody else has it.

    Args:
        folder: To lock.
        made: Whether this process made it, and may have it where the file system has no locks.
    """
    if sys.platform == "win32":
        return os.open(os.devnull, os.O_RDONLY) if made else None
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:  # somebody cleared it away
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.lstat(folder)):  # still the one that has that name
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError as error:
        if error.errno in _NO_LOCKS and made:
            return descriptor
        os.close(descriptor)
        if error.errno in _NO_LOCKS:
            return None
        raise
    os.close(descriptor)
    return None


def put_in_place(staging: Path, target: Path) -> None:
    """Give a draft the name of its target, in one step; the draft's name is the old target's then.

    Where the system or the file system cannot exchange two names, there are two steps, and a moment without a target;
    who is killed in it leaves the old one aside, and the next run puts it back.

    Raises:
        OSError: The system did not do it; nothing was changed.
    """
    if not os.path.lexists(target):
        os.rename(staging, target)
        return
    try:
        _exchange(staging, target)
    except NotImplementedError:
        aside = staging.parent / _ASIDE
        with ExitStack() as back:  # whatever happens, a KeyboardInterrupt too, the old target comes back
            os.rename(target, aside)
            back.callback(os.rename, aside, target)
            os.rename(staging, target)
            back.callback(os.rename, target, staging)
            os.rename(aside, staging)
            back.pop_all()


def _exchange(one: Path, other: Path) -> None:
    """Exchange two names, in one step.

    Raises:
        NotImplementedError: The system or the file system cannot do that.
        OSError: It can, and did not.

    Source:
        renameat2(2) of Linux, renamex_np(2) of macOS.
    """
    arguments: tuple[int | bytes, ...]
    if sys.platform == "linux":
        name, at_cwd, flag = "renameat2", -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        arguments = (at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), flag)
    else:
        name, flag = "renamex_np", 2  # RENAME_SWAP
        arguments = (os.fsencode(one), os.fsencode(other), flag)
    function = None if sys.platform == "win32" else getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        raise NotImplementedError
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise NotImplementedError
        raise OSError(number, os.strerror(number), str(one), None, str(other))
