"""HDF5 files of strangers: another process says what is in them, and values are mapped from where they lie.

libhdf5 is not memory-safe, so it never sees a file that is read in this process (`sandbox`). Here only the frame of a
file is looked at, and the values of datasets that lie in it in one run, as all do that Keras and TensorFlow write, are
mapped; the others come through a pipe. What a file must not have is refused before any value is read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from albert_hub_bridge.disk.regular_files import check_beginning, open_regular
from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.formats.blocks import map_tensor
from albert_hub_bridge.formats.lazy_tensors import DTYPES, LazyTensor
from albert_hub_bridge.formats.sandbox import Sandbox, SandboxError


_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_WALK_SECONDS = 5  # for each file
_BYTES_PER_SECOND = 5_000_000  # at least, of values that come through the pipe

# What is mapped or read; datasets of other dtypes are refused by their names.
_MAPPED = {**DTYPES, **{name: np.dtype(name) for name in ("int8", "int16", "int32", "int64")}}


class _Row(NamedTuple):
    """What the process says of a dataset."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int | None  # of the values, where they lie in one run


class Hdf5Files:
    """The HDF5 files of one checkpoint, parsed by one process, which begins at once.

    Args:
        files: To parse; at least one.
        resources: What ends the process.

    Raises:
        FileError: A file is not a regular one, or is something else by its content.
        WeightsError: A file does not begin as HDF5 files do, is truncated, or has something before or after it.
    """

    def __init__(self, files: Sequence[Path], resources: ExitStack) -> None:
        for file in files:
            _check_frame(file)
        self._files = list(files)
        self._rows: dict[Path, list[_Row]] = {}
        self._lock = threading.Lock()  # one dataset at a time comes through the pipe
        names = [os.fsencode(os.path.abspath(file)).hex() for file in files]
        self._sandbox = Sandbox({"task": "hdf5", "files": names}, resources)

    def datasets(self, file: Path) -> dict[str, LazyTensor]:
        """Return every dataset of a file by its path, unread.

        Raises:
            WeightsError: The file is damaged, or has what no writer of weights does: links other than hard ones, two
                names for one object, values in other files, filters other than gzip, shuffle and fletcher32, chunks
                that were never written, values that overlap. All are listed.
        """
        if not self._rows:
            for each in self._files:
                self._rows[each] = self._describe(each)
            if all(row.offset is not None for rows in self._rows.values() for row in rows):
                self._sandbox.end()
        number = self._files.index(file)
        return {row.name: self._weight(number, row) for row in self._rows[file]}

    def _describe(self, file: Path) -> list[_Row]:
        try:
            answer = self._sandbox.answer(_WALK_SECONDS)
            problems = [Problem(*map(str, problem)) for problem in answer["problems"]]
            rows = [_Row(str(n), tuple(map(int, s)), str(d), o) for n, s, d, o in answer["datasets"]]
        except SandboxError as error:
            raise _damaged(file, str(error)) from error
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(file, "a file that leads the HDF5 library astray") from error
        if problems:
            raise WeightsError(file, "weights", problems)
        return rows

    def _weight(self, number: int, row: _Row) -> LazyTensor:
        dtype = _MAPPED.get(row.dtype)
        if row.offset is not None and dtype is not None:
            read = partial(map_tensor, self._files[number], row.offset, row.shape, dtype.newbyteorder("<"))
            return LazyTensor(row.shape, row.dtype, read)
        return LazyTensor(row.shape, row.dtype, partial(self._read, number, row))

    def _read(self, number: int, row: _Row) -> np.ndarray:
        """Read a dataset through the pipe."""
        file, dtype = self._files[number], _MAPPED[row.dtype]
        size = prod(row.shape) * dtype.itemsize
        seconds = _WALK_SECONDS + size / _BYTES_PER_SECOND
        try:
            with self._lock:
                self._sandbox.ask([number, row.name])
                if self._sandbox.answer(seconds).get("bytes") != size:
                    raise SandboxError("values of another size than the file says")
                values = np.empty(row.shape, dtype)
                self._sandbox.read_into(values.reshape(-1).view(np.uint8).data, seconds)
                return values
        except SandboxError as error:
            raise _damaged(file, f"{error}, in {row.name}") from error


def read_datasets(file: Path, resources: ExitStack) -> dict[str, LazyTensor]:
    """Return every dataset of a file by its path, unread.

    Args:
        file: To read.
        resources: What closes it.

    Raises:
        FileError, WeightsError: As `Hdf5Files` and its `datasets`.
    """
    return Hdf5Files([file], resources).datasets(file)


def _check_frame(file: Path) -> None:
    """Refuse a file that is not an HDF5 file from its first byte to its last.

    Source:
        https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html, "Disk Format: Level 0A".
    """
    check_beginning(file)
    with open_regular(file) as stream:
        beginning = stream.read(4096)
        size = os.fstat(stream.fileno()).st_size
    if not beginning.startswith(_SIGNATURE):
        if (block := beginning.find(_SIGNATURE)) >= 512:
            raise _damaged(file, f"a user block of {block} bytes before it")
        raise _damaged(file, f"one that begins with {beginning[:8]!r}")
    # Version -> where the size of addresses is, and the address of the file's end.
    places = {0: (13, 40), 1: (13, 44), 2: (9, 28), 3: (9, 28)}.get(beginning[8] if len(beginning) > 8 else -1)
    if places is None or len(beginning) < places[1] + 8 or beginning[places[0]] != 8:
        raise _damaged(file, "a superblock that is damaged, or of an unknown version")
    end = int.from_bytes(beginning[places[1] : places[1] + 8], "little")
    if size < end:
        raise _damaged(file, f"one that is truncated at {size:,} of {end:,} bytes")
    if size > end:
        raise _damaged(file, f"{size - end:,} bytes after its end at byte {end:,}")


def _damaged(file: Path, found: str) -> WeightsError:
    return WeightsError(file, "weights", [Problem("not HDF5", file.name, f"expected a whole HDF5 file, found {found}")])


def read_tensorflow(file: Path, resources: ExitStack) -> dict[str, LazyTensor]:
    """Read `tf_model.h5`.

    Raises:
        WeightsError: h5py finds it damaged.
    """
    return read_datasets(file, resources)
