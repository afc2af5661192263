"""Files that are on the disk when the function returns, read back from there and compared.

Whatever the system refuses is an `OSError` that names the file, which it does not do by itself where it knows only a
descriptor; `folders` makes one message of it.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path


if sys.platform != "win32":
    import fcntl


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Let an OSError of the block say which file it is about."""
    try:
        yield
    except OSError as error:
        if not isinstance(error.filename, str | bytes):  # none, or the number of a descriptor
            error.filename = str(file)
        raise


def write_file(file: Path, content: bytes) -> None:
    """Write a new file, and compare what the disk gives back.

    Raises:
        OSError: The file exists, or the system did not write it, or gave back something else.
    """
    with naming(file), file.open("x+b", buffering=0) as stream:
        write_all(stream, content)
        to_disk(stream)
        stream.seek(0)
        if stream.readall() != content:
            raise read_back_wrong(file)


def write_all(stream: FileIO, content: bytes | memoryview) -> None:
    """Write all of it: a raw write may take less."""
    left = memoryview(content)
    while left:
        left = left[stream.write(left) :]


def to_disk(stream: FileIO) -> None:
    """Wait until a file is on the disk, and let the system forget its copy in memory, so that reading asks the disk.

    Forgetting is advice. Linux takes it on file systems of a disk; elsewhere what is read back afterwards may come from
    the system's memory, and shows only that the system got everything right so far.
    """
    os.fsync(stream.fileno())
    if sys.platform == "darwin":  # whose fsync leaves things in the memory of the disk
        fcntl.fcntl(stream, fcntl.F_FULLFSYNC)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def folder_to_disk(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; some file systems cannot, and need not, do that by itself."""
    if sys.platform == "win32":  # has no such thing
        return
    with naming(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)


def read_back_wrong(file: Path) -> OSError:
    """Say that a file is not what was written."""
    return OSError(errno.EIO, "What was read back is not what was written", str(file))
