"""The files of a source, which strangers made: each is looked at before it is opened.

A preset or repository may have anything under the names that are read: a pipe that nobody writes to, a device, a link
to a file of somebody else, gigabytes where a kilobyte belongs. Only regular files of the folder itself are opened. The
cache of Hugging Face's client is the exception: what lies in `snapshots/REVISION` there are links into `blobs`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from albert_hub_bridge.disk.durable import naming
from albert_hub_bridge.errors import FileError, Problem


# fmt: off
_KINDS = (
    (stat.S_ISDIR,  "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR,  "a device"),
    (stat.S_ISBLK,  "a device"),
)

# What lies where a file should be, by its first bytes in lower case: what it is, and what helps.
_PAGE = "It is the page about the file, or of an error. Download the file itself, logged in where that is needed."
_POINTER = "The file itself was not downloaded: run `git lfs pull` in the clone, or download it from the hub."
_IMPOSTORS = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer", _POINTER),
    (b"<!doctype html",                           "an HTML page",      _PAGE),
    (b"<html",                                    "an HTML page",      _PAGE),
    (b"<?xml",                                    "an XML document",   _PAGE),
)
# fmt: on
_BEGINNING = 64


def check_files(folder: Path, is_read: Callable[[str], bool], nested: tuple[str, ...] = ()) -> None:
    """Refuse a folder in which something that would be read is not a regular file of its own.

    Args:
        folder: Of a preset, a repository or an adapter; it may be a link itself, because the user named it.
        is_read: Tells which names in the folder are read.
        nested: Names in folders of the folder that are read.

    Raises:
        FileError: There is a pipe, a socket, a device, a folder, or a link to outside; lists them all.
    """
    root = folder.resolve()
    own = [root]
    if root.parent.name == "snapshots":  # MODEL/snapshots/REVISION/config.json -> MODEL/blobs/...
        own.append(root.parent.parent / "blobs")
    names = sorted(name for name in os.listdir(folder) if is_read(name)) + list(nested)
    problems = []
    for name in names:
        if (found := _wrong_kind(folder / name, own)) is not None:
            problems.append(Problem("not a file", name, f"expected a regular file of this folder, found {found}"))
    if problems:
        raise FileError(folder, "files", problems, "Replace it by the file itself, or remove it.")


def _wrong_kind(file: Path, own: list[Path]) -> str | None:
    """Say what a name stands for instead of a regular file of its own folder; None where all is well."""
    if not os.path.lexists(file):
        return None
    try:
        target = file.resolve(strict=True)
        mode = target.stat().st_mode
    except (OSError, RuntimeError):  # links in a circle are a RuntimeError before Python 3.13
        return f"a link to {os.readlink(file)}, where nothing is" if file.is_symlink() else "what cannot be opened"
    if not any(target.is_relative_to(folder) for folder in own):
        return f"a link to {target}, outside of it"
    return None if stat.S_ISREG(mode) else _kind_of(mode)


def _kind_of(mode: int) -> str:
    return next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")


@contextmanager
def open_regular(file: Path) -> Iterator[BinaryIO]:
    """Open a regular file for reading, and nothing else: a pipe would block, and a device do whatever it does.

    Raises:
        FileError: It is not one.
        OSError: It cannot be opened, or is not there, or cannot be read. The error names it.
    """
    mode = os.stat(file).st_mode
    if stat.S_ISREG(mode):
        handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        mode = os.fstat(handle).st_mode
        if stat.S_ISREG(mode):  # nobody put something else there in between
            with naming(file), os.fdopen(handle, "rb") as stream:
                yield stream
            return
        os.close(handle)
    problem = Problem("not a file", file.name, f"expected a regular file, found {_kind_of(mode)}")
    raise FileError(file, "files", [problem], "Replace it by the file itself.")


def read_bytes(file: Path, most: int) -> bytes:
    """Read a file of at most so many bytes.

    Raises:
        FileError: It is larger, or is not a regular file, or is an impostor (`check_beginning`).
        OSError: It cannot be opened, or is not there, or cannot be read. The error names it.
    """
    with open_regular(file) as stream:
        content = stream.read(most + 1)
        size = os.fstat(stream.fileno()).st_size
    if len(content) > most:
        problem = Problem("too large", file.name, f"expected at most {most:,} bytes, found {size:,}")
        raise FileError(file, "files", [problem], "No ALBERT has one of that size: get the source once more.")
    check_beginning(file, content)
    return content


def check_beginning(file: Path, content: bytes | None = None) -> None:
    """Say what lies where a file should be, where its first bytes give it away.

    Args:
        file: The file.
        content: Its first bytes, where they were read.

    Raises:
        FileError: It is empty, or a pointer of Git LFS, or a page that a server sent instead.
        OSError: It cannot be opened, or is not there, or cannot be read. The error names it.
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
        raise FileError(file, "files", [problem], "Download it once more: the download was cut off before it began.")
