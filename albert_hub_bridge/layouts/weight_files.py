"""Moving tensors between files: mapped from where they lie, written to where they belong, transposed on the way.

Both formats keep a tensor's values in one run of bytes. So a reader only needs the offset, a writer lays the file out
first and fills it afterwards, and all cores can fill it at once. Afterwards it is read once, to be hashed and to be
compared with the checkpoint. Nothing is held in memory but a few megabytes a core:
the libraries' own writers take a whole checkpoint as contiguous arrays, which costs its size again in memory, and a
transposed copy that follows the target row by row costs three to five times as long (`benchmarks/convert.py`).
"""

from __future__ import annotations

import hashlib
import heapq
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import FileIO
from math import prod
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint, Progress
from albert_hub_bridge.disk.durable import naming, read_back_wrong, to_disk, write_all
from albert_hub_bridge.errors import TargetError
from albert_hub_bridge.formats.blocks import ContiguousCopier, row_blocks
from albert_hub_bridge.formats.lazy_tensors import DTYPES, are_finite, not_finite
from albert_hub_bridge.mapping.weights import Dialect, WeightRule


class WeightFilePlan(NamedTuple):
    """A file of weights before it is written: all of it but the values."""

    file: Path
    size: int  # in bytes
    frame: Mapping[int, bytes]  # what lies around the values, by offset; with them it fills the file
    values: Sequence[tuple[WeightRule, int]]  # the offset where those of each weight begin, in the order of the file


def write_weights(
    checkpoint: Checkpoint, files: Iterable[WeightFilePlan], dialect: Dialect, progress: Progress | None
) -> dict[Path, str]:
    """Write files with weights of a checkpoint, and compare what the disk gives back, bit for bit.

    Args:
        checkpoint: Whose weights to write.
        files: To make.
        dialect: The layout of the files.
        progress: Called after every tensor.

    Returns:
        The SHA-256 of every file, of what was read back, in hexadecimal.

    Raises:
        WeightsError: A value is NaN or infinite; all tensors with such values are listed.
        OSError: The system did not write a file, or gave back something else.
    """
    done, sums = 0, {}
    for plan in files:
        with naming(plan.file), plan.file.open("xb", buffering=0) as stream:
            stream.truncate(plan.size)
            for offset, piece in plan.frame.items():
                stream.seek(offset)
                write_all(stream, piece)
        with ParallelWriter(plan.file) as filler:
            for rule, offset in plan.values:
                array = _values(checkpoint, rule, dialect)
                if not filler.fill(array, offset):
                    raise not_finite(checkpoint.weights.values())
                done += array.nbytes
                if progress is not None:
                    progress(done, checkpoint.nbytes)
        sums[plan.file] = _read_back(plan, checkpoint, dialect)
    return sums


def _values(checkpoint: Checkpoint, rule: WeightRule, dialect: Dialect) -> np.ndarray:
    array = checkpoint.read(rule, dialect)
    if array.dtype != DTYPES[checkpoint.dtype]:  # it would be written over its neighbours
        raise ValueError(f"{rule.albert_hub} should be {checkpoint.dtype}, and is {array.dtype}.")
    return array


def _read_back(plan: WeightFilePlan, checkpoint: Checkpoint, dialect: Dialect) -> str:
    """Read a file once: one thread hashes it, another compares it with its frame and with the checkpoint."""
    digest, compact, at = hashlib.sha256(), ContiguousCopier(), 0
    room = np.empty(0, np.uint8)
    with ExitStack() as resources:
        with naming(plan.file):
            stream = resources.enter_context(plan.file.open("rb", buffering=0))
            to_disk(stream)
        comparing = resources.enter_context(ThreadPoolExecutor(1))
        for offset, expected in _contents(plan, checkpoint, dialect):
            if room.size < expected.nbytes:
                room = np.empty(expected.nbytes, np.uint8)
            found = room[: expected.nbytes]
            with naming(plan.file):
                is_whole = offset == at and _read_into(stream, found)
            same = comparing.submit(lambda: np.array_equal(found, compact(expected).reshape(-1).view(np.uint8)))  # noqa: B023
            digest.update(found.data)
            at += expected.nbytes
            if not (same.result() and is_whole):
                raise read_back_wrong(plan.file)
        with naming(plan.file):
            if at != plan.size or stream.read(1):
                raise read_back_wrong(plan.file)
    return digest.hexdigest()


def _contents(plan: WeightFilePlan, checkpoint: Checkpoint, dialect: Dialect) -> Iterator[tuple[int, np.ndarray]]:
    """Return what a file should have, with its offsets, from its beginning to its end."""
    frame = [(offset, np.frombuffer(piece, np.uint8)) for offset, piece in plan.frame.items()]
    values = (part for rule, offset in plan.values for part in row_blocks(_values(checkpoint, rule, dialect), offset))
    return heapq.merge(sorted(frame, key=itemgetter(0)), values, key=itemgetter(0))


def _read_into(stream: FileIO, room: np.ndarray) -> bool:
    """Read until an array of bytes is full, and tell whether the file had as many."""
    left = room.data
    while left:
        count = stream.readinto(left)
        if not count:
            return False
        left = left[count:]
    return True


def shards_of(checkpoint: Checkpoint, rules: Sequence[WeightRule], max_bytes: int | None) -> list[list[WeightRule]]:
    """Split weights into files, in order: a new one where the next weight would make it larger than `max_bytes`.

    Raises:
        TargetError: One weight alone is larger than that.
    """
    if max_bytes is None:
        return [list(rules)]
    itemsize, sizes = DTYPES[checkpoint.dtype].itemsize, checkpoint.sizes
    shards: list[list[WeightRule]] = [[]]
    filled = 0
    for rule in rules:
        nbytes = prod(rule.shape("albert_hub", sizes)) * itemsize
        if nbytes > max_bytes:
            raise TargetError(
                f"A shard may have {max_bytes:,} bytes, and {rule.albert_hub} alone has {nbytes:,}. Allow larger shards."
            )
        if filled + nbytes > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(rule)
        filled += nbytes
    return shards


class ParallelWriter:
    """Writes arrays of any strides into a file, in C order, with as many threads as there are cores."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._local = threading.local()  # a handle, and the buffer of `_in_order`, for each thread
        self._resources = ExitStack()

    def __enter__(self) -> ParallelWriter:
        self._pool = self._resources.enter_context(ThreadPoolExecutor(os.cpu_count()))
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def fill(self, array: np.ndarray, offset: int) -> bool:
        """Write one array at an offset, and tell whether all is finite; raises what writing raises, such as OSError."""
        return all(self._pool.map(self._write, row_blocks(array, offset)))

    def _write(self, part: tuple[int, np.ndarray]) -> bool:
        offset, block = part
        if not hasattr(self._local, "compact"):
            self._local.compact = ContiguousCopier()
        compact = self._local.compact(block)
        finite = are_finite(compact)  # while it is in the cache
        content = compact.reshape(-1).view(np.uint8).data
        with naming(self._file):
            if not hasattr(self._local, "handle"):
                self._local.handle = self._resources.enter_context(self._file.open("r+b", buffering=0))
            self._local.handle.seek(offset)
            write_all(self._local.handle, content)
        return finite
