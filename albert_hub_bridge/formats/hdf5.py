"""Untrusted HDF5 files: a separate process lists the datasets, and this process maps their values from the file.

libhdf5 is not memory-safe, so it never opens a source in this process. Keras and TensorFlow write each dataset in one
run of bytes, which can be mapped without libhdf5. Other datasets (chunks, gzip, big-endian numbers) are copied by the
separate process when the first of them is read.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from albert_hub_bridge.disk.regular_files import check_beginning, open_regular
from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.formats.lazy_tensors import STORED_DTYPES, LazyTensor, TensorLocation, tensors_at
from albert_hub_bridge.formats.sandbox import Sandbox, SandboxError, encode_path
from albert_hub_bridge.text import first_few


_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LIST_SECONDS = 5  # for each file
_COPIED_BYTES_PER_SECOND = 5_000_000  # at least
# Datasets of more bytes than this are not copied. gzip makes a file of weights a tenth smaller, and one of zeros a
# thousand times.
_MAX_COPIED_BYTES, _MAX_COPIED_RATIO = 128 << 20, 16


class _Dataset(NamedTuple):
    """A dataset as the separate process describes it."""

    dtype: str
    shape: tuple[int, ...]
    offset: int | None  # in the file; None where the dataset has to be copied


class Hdf5Files:
    """The HDF5 files of one checkpoint, which one separate process reads; it starts at once.

    Args:
        files: At least one.
        resources: Ends the process, and removes copies of datasets, when it closes.

    Raises:
        FileError, WeightsError: As `check_superblock`.
    """

    def __init__(self, files: Sequence[Path], resources: ExitStack) -> None:
        for file in files:
            check_superblock(file)
        self._resources = resources.enter_context(ExitStack())
        self._sandbox = Sandbox("hdf5", files, _LIST_SECONDS, self._resources)
        self._copies: dict[Path, Mapping[str, LazyTensor]] = {}
        self._lock = threading.Lock()  # for copies

    def datasets(self, file: Path) -> dict[str, LazyTensor]:
        """Return the datasets of a file by their paths, unread.

        Raises:
            WeightsError: The file is damaged, or has what no writer of weights uses: links other than hard ones, two
                names for one object, values in other files, filters other than gzip, shuffle and fletcher32, chunks
                that were never written, values that overlap. All problems are listed.
        """
        try:
            answer = self._sandbox.answer(file)
            problems = [Problem(*map(str, problem)) for problem in answer["problems"]]
            found = {str(n): _Dataset(str(d), tuple(map(int, s)), o) for n, d, s, o in answer["datasets"]}
        except SandboxError as error:
            raise _damaged(file, str(error)) from error
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(file, "a file that makes the HDF5 library return nonsense") from error
        if problems:
            raise WeightsError(file, "weights", problems)
        mapped = {n: TensorLocation(d, s, o) for n, (d, s, o) in found.items() if o is not None}
        tensors = tensors_at(file, mapped)
        to_copy = {name: dataset for name, dataset in found.items() if name not in mapped}

        def read(name: str) -> np.ndarray:
            with self._lock:
                if file not in self._copies:
                    self._copies[file] = self._copy(file, to_copy)
            return self._copies[file][name].load()

        tensors |= {n: LazyTensor(each.shape, each.dtype, partial(read, n)) for n, each in to_copy.items()}
        return {name: tensors[name] for name in found}

    def _copy(self, file: Path, datasets: Mapping[str, _Dataset]) -> dict[str, LazyTensor]:
        """Have datasets of a file copied, one after the other, and return them."""
        locations: dict[str, TensorLocation] = {}
        size = 0
        for name, (dtype, shape, _) in datasets.items():
            if dtype in STORED_DTYPES:
                locations[name] = TensorLocation(dtype, shape, size)
                size += prod(shape) * STORED_DTYPES[dtype].itemsize
        names = first_few(list(locations), 3)
        if size > (limit := _MAX_COPIED_BYTES + _MAX_COPIED_RATIO * file.stat().st_size):
            detail = f"expected at most {limit:,} bytes in chunks or in big-endian order, found {size:,}"
            raise WeightsError(file, "weights", [Problem("too large", names, detail)])
        folder = self._resources.enter_context(TemporaryDirectory(prefix="albert-hub-bridge-"))
        target = Path(folder) / "values"
        if shutil.disk_usage(folder).free < size:
            raise OSError(errno.ENOSPC, "No space left on device for a copy of values", str(target))
        options: dict[str, Any] = {"names": list(locations), "target": encode_path(target)}
        seconds = _LIST_SECONDS + size / _COPIED_BYTES_PER_SECOND
        try:
            with ExitStack() as process:
                answer = Sandbox("hdf5", [file], seconds, process, written=size, **options).answer(file)
            again = {str(name): (str(dtype), tuple(map(int, shape))) for name, dtype, shape, _ in answer["datasets"]}
            if any(again.get(name) != (dtype, shape) for name, (dtype, shape, _) in datasets.items()):
                raise SandboxError("other datasets than before: the file was changed")
            if (found := target.stat().st_size) != size:
                raise SandboxError(f"{found:,} bytes of values instead of {size:,}")
        except (SandboxError, FileNotFoundError) as error:
            raise _damaged(file, f"{error}, when the values of {names} were copied") from error
        return tensors_at(target, locations)


def read_datasets(file: Path, resources: ExitStack) -> dict[str, LazyTensor]:
    """Return the datasets of a file, such as `tf_model.h5`, by their paths, unread.

    Raises:
        FileError, WeightsError: As `Hdf5Files` and its `datasets`.
    """
    return Hdf5Files([file], resources).datasets(file)


def check_superblock(file: Path) -> None:
    """Refuse a file that is not an HDF5 file from its first byte to its last.

    Raises:
        FileError: It is not a regular file, or has the content of another kind of file.
        WeightsError: It does not begin as HDF5 files do, is truncated, or has more before or after it.

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
    # Version -> offsets of the size of addresses, and of the address of the file's end.
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
