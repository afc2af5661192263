"""The folder of a source: listed once, checked once, with every JSON file parsed once."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from albert_hub_bridge.disk.regular_files import describe_mode, read_bytes
from albert_hub_bridge.disk.strict_json import MAX_JSON_BYTES, read_json
from albert_hub_bridge.errors import FileError, Problem


_CONFIG = "config.json"


class SourceFolder:
    """A preset, repository, release or adapter on this machine, opened for reading.

    Files that can be read must be regular files of the folder itself. The cache of Hugging Face's client is the
    exception: the files of `snapshots/REVISION` are links into `blobs`.

    The object notes which files were asked for, by `in`, `path`, `read` or `json`. The others are `unread`.

    Args:
        folder: The folder. It may be a link itself, because the user named it.
        is_read: Returns whether a file of that name is read. Names are relative, in POSIX form.
        nested: The names in subfolders that are read.
        kept: The names of files that are needed several times, as bytes and parsed. They are read once.

    Raises:
        FileError: A name that is read is a pipe, a socket, a device, a folder or a link to outside; lists them all.
        OSError: The folder cannot be listed.
    """

    def __init__(
        self,
        folder: Path,
        is_read: Callable[[str], bool],
        nested: Sequence[str] = (),
        kept: Collection[str] = (),
    ) -> None:
        self.folder, self._kept = folder, kept
        self._contents: dict[str, bytes] = {}
        self._top, self._subfolders, others = _scan(folder, "")
        # A subfolder may be a link, which a listing does not follow, so nested names are looked up one by one.
        self._nested = [name for name in nested if os.path.lexists(folder / name)]
        _check_kinds(folder, [*sorted(filter(is_read, {*self._top, *self._subfolders, *others})), *self._nested])
        self._own = {*self._top, *self._nested}
        self._asked: set[str] = set()
        self._parsed: dict[str, dict[str, Any]] = {}

    @classmethod
    def in_memory(cls, folder: Path, contents: Mapping[str, bytes]) -> SourceFolder:
        """Return the files of a model that is in no folder.

        Args:
            folder: Named in messages. Nothing is read from it.
            contents: The content of each file, by its name.
        """
        source = cls.__new__(cls)
        source.folder, source._kept, source._contents = folder, frozenset(contents), dict(contents)
        source._top, source._subfolders, source._nested = sorted(contents), [], []
        source._own, source._asked, source._parsed = set(contents), set(), {}
        return source

    @cached_property
    def names(self) -> list[str]:
        """The names of all files, in subfolders too, sorted; links to folders are not followed."""
        return sorted([*self._top, *_files_below(self.folder, self._subfolders)])

    def matching(self, pattern: str) -> list[str]:
        """Return the names of the folder's own files that match a glob pattern, sorted."""
        return sorted(name for name in self._top if fnmatchcase(name, pattern))

    def __contains__(self, name: str) -> bool:
        """Return whether the folder has a file of that name."""
        self._asked.add(name)
        return name in self._own

    def path(self, name: str) -> Path:
        """Return the path of a file, for a library that opens it."""
        self._asked.add(name)
        return self.folder / name

    def read(self, name: str, max_bytes: int) -> bytes:
        """Read a file of at most `max_bytes` bytes.

        Raises:
            FileError, OSError: As `read_bytes`.
        """
        if name not in self._contents:
            content = read_bytes(self.path(name), max_bytes)
            if name not in self._kept:
                return content
            self._contents[name] = content
        return self._contents[name]

    def json(self, name: str, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
        """Read a JSON object. `config.json` and the kept files are read once, and parsed once if they are small.

        Other files are needed once. They are not kept, because an index or a tokenizer can be large.

        Returns:
            A new dictionary in each call. The values in it are shared, and must not be changed.

        Raises:
            FileError, ConfigurationError: As `read_json`.
        """
        if name in self._parsed:
            return dict(self._parsed[name])
        content = read_json(self.path(name), max_bytes, partial(self.read, name) if name in self._kept else None)
        if name == _CONFIG or (name in self._kept and max_bytes <= MAX_JSON_BYTES):
            self._parsed[name] = content
        return dict(content)

    @property
    def unread(self) -> list[str]:
        """The names of the files that were not asked for so far."""
        return [name for name in self.names if name not in self._asked]


def list_files(folder: Path) -> list[str]:
    """Return the names of all files of a folder and its subfolders, relative and in POSIX form, sorted.

    Links to files are listed. Links to folders are not followed. A subfolder that cannot be listed has no files.
    """
    files, subfolders, _ = _scan(folder, "")
    return sorted([*files, *_files_below(folder, subfolders)])


def _files_below(folder: Path, subfolders: Sequence[str]) -> list[str]:
    found, pending = [], list(subfolders)
    while pending:
        try:
            files, more, _ = _scan(folder, f"{pending.pop()}/")
        except OSError:
            continue
        found += files
        pending += more
    return found


def _scan(folder: Path, prefix: str) -> tuple[list[str], list[str], list[str]]:
    """List one folder. Return its files, its subfolders, and everything else."""
    files: list[str] = []
    subfolders: list[str] = []
    others: list[str] = []
    with os.scandir(folder / prefix) as entries:
        for entry in entries:
            kind = files if _is_file(entry) else subfolders if entry.is_dir(follow_symlinks=False) else others
            kind.append(prefix + entry.name)
    return files, subfolders, others


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # such as a link to itself
        return False


def _check_kinds(folder: Path, names: Sequence[str]) -> None:
    root = folder.resolve()
    allowed = [root]
    if root.parent.name == "snapshots":  # MODEL/snapshots/REVISION/config.json -> MODEL/blobs/...
        allowed.append(root.parent.parent / "blobs")
    problems = [
        Problem("not a file", name, f"expected a regular file of this folder, found {found}")
        for name in names
        if (found := _wrong_kind(folder / name, allowed)) is not None
    ]
    if problems:
        raise FileError(folder, "files", problems, "Replace it by the file itself, or remove it.")


def _wrong_kind(file: Path, allowed: Sequence[Path]) -> str | None:
    """Return what a name stands for if it is not a regular file below an allowed folder, else None."""
    try:
        target = file.resolve(strict=True)
        mode = target.stat().st_mode
    except (OSError, RuntimeError):  # links in a circle are a RuntimeError before Python 3.13
        if file.is_symlink():
            return f"a link to {os.readlink(file)}, where nothing is"
        return "what cannot be opened"
    if not any(target.is_relative_to(folder) for folder in allowed):
        return f"a link to {target}, outside of it"
    return None if stat.S_ISREG(mode) else describe_mode(mode)
