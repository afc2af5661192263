"""Open the files of an untrusted source. Only regular files of a limited size are read.

Under any name there may be a pipe without a writer, a device, or gigabytes instead of a kilobyte.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from albert_hub_bridge.disk.durable import add_filename
from albert_hub_bridge.errors import FileError, Problem


_PAGE = "It is the page about the file, or of an error. Download the file itself, logged in where that is needed."
_POINTER = "The file itself was not downloaded: run `git lfs pull` in the clone, or download it from the hub."
# fmt: off
_KINDS = (
    (stat.S_ISDIR,  "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR,  "a device"),
    (stat.S_ISBLK,  "a device"),
)
# First bytes of a file, in lower case -> what it is, and what the user can do.
_IMPOSTORS = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer", _POINTER),
    (b"<!doctype html",                           "an HTML page",      _PAGE),
    (b"<html",                                    "an HTML page",      _PAGE),
    (b"<?xml",                                    "an XML document",   _PAGE),
)
# fmt: on
_BEGINNING = 64


def describe_mode(mode: int) -> str:
    """Return the kind of file that a mode of `os.stat` stands for, such as "a pipe (FIFO)"."""
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")


@contextmanager
def open_regular(file: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading. A pipe would block, and opening a device can have effects.

    Raises:
        FileError: It is not a regular file.
        OSError: The file does not exist, or cannot be opened or read. The error names it.
    """
    mode = os.stat(file).st_mode
    if stat.S_ISREG(mode):
        handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        mode = os.fstat(handle).st_mode
        if stat.S_ISREG(mode):  # it was not replaced between the two calls
            with add_filename(file), os.fdopen(handle, "rb") as stream:
                yield stream
            return
        os.close(handle)
    problem = Problem("not a file", file.name, f"expected a regular file, found {describe_mode(mode)}")
    raise FileError(file, "files", [problem], "Replace it by the file itself.")


def read_bytes(file: Path, max_bytes: int) -> bytes:
    """Read a file of at most `max_bytes` bytes.

    Raises:
        FileError: The file is larger, is not a regular file, or has other content (see `check_beginning`).
        OSError: The file does not exist, or cannot be opened or read. The error names it.
    """
    with open_regular(file) as stream:
        content = stream.read(max_bytes + 1)
        size = os.fstat(stream.fileno()).st_size
    if len(content) > max_bytes:
        problem = Problem("too large", file.name, f"expected at most {max_bytes:,} bytes, found {size:,}")
        advice = "No ALBERT has a file of that size. Download the source again, or re-export it."
        raise FileError(file, "files", [problem], advice)
    check_beginning(file, content)
    return content


def check_beginning(file: Path, content: bytes | None = None) -> None:
    """Refuse a file that begins like a Git LFS pointer or a web page, or that is empty.

    Args:
        file: The file.
        content: The first bytes of the file, if they were read already.

    Raises:
        FileError: The file is empty, a Git LFS pointer, or a page that a server sent instead of the file.
        OSError: The file does not exist, or cannot be opened or read. The error names it.
    """
    if content is None:
        with open_regular(file) as stream:
            content = stream.read(_BEGINNING)
    beginning = content[:_BEGINNING].lstrip().lower()
    for mark, found, advice in _IMPOSTORS:
        if beginning.startswith(mark):
            problem = Problem("not the file", file.name, f"expected its content, found {found}")
            raise FileError(file, "files", [problem], advice)
    if not content:
        problem = Problem("empty", file.name, "expected its content, found 0 bytes")
        raise FileError(file, "files", [problem], "Download it again: the download was cut off before it began.")
