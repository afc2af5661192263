"""Write files that are on the disk when the function returns, and that were read back and compared.

Every failure is an `OSError` with the file's name. The system does not name a file that it knows by a descriptor.
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
def add_filename(file: Path) -> Iterator[None]:
    """Add the name of a file to an OSError of the block that has none."""
    try:
        yield
    except OSError as error:
        if not isinstance(error.filename, str | bytes):  # None, or the number of a descriptor
            error.filename = str(file)
        raise


def write_file(file: Path, content: bytes) -> None:
    """Write a new file, read it back, and compare.

    Raises:
        OSError: The file exists, or it could not be written, or what was read back is different.
    """
    with add_filename(file), file.open("x+b", buffering=0) as stream:
        write_all(stream, content)
        to_disk(stream)
        stream.seek(0)
        if stream.readall() != content:
            raise read_back_error(file)


def write_all(stream: FileIO, content: bytes | memoryview) -> None:
    """Write all bytes. One raw write may take fewer."""
    left = memoryview(content)
    while left:
        left = left[stream.write(left) :]


def to_disk(stream: FileIO) -> None:
    """Wait until a file is on the disk, and ask the system to drop its copy in memory.

    Without that copy, reading the file reads the disk. Linux drops it on file systems of a disk. Elsewhere, reading
    back may only show that the system's memory is right.
    """
    os.fsync(stream.fileno())
    if sys.platform == "darwin":  # fsync leaves data in the cache of the disk
        fcntl.fcntl(stream, fcntl.F_FULLFSYNC)
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def folder_to_disk(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the file system can do that."""
    if sys.platform == "win32":  # has no such call
        return
    with add_filename(folder):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)


def read_back_error(file: Path) -> OSError:
    """Return the error for a file that has other content than was written."""
    return OSError(errno.EIO, "What was read back is not what was written", str(file))
