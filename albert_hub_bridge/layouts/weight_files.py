"""Write files of weights without a copy of the checkpoint in memory.

Both formats, safetensors and HDF5, keep the values of a tensor in one run of bytes. So a file is planned first: its
size, its metadata, and the offset of each tensor. Then all cores fill it with values that are mapped from the source
and transposed on the way, in a few megabytes of memory for each core. At last the file is read once, to hash it and to
compare it with the checkpoint.

The libraries' own writers take all tensors as contiguous arrays, which costs the size of the checkpoint in memory
again. A transposed copy that follows the target row by row takes three to five times as long
(`benchmarks/convert.py`).
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import FileIO
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint, Progress
from albert_hub_bridge.disk.durable import add_filename, read_back_error, to_disk, write_all
from albert_hub_bridge.errors import TargetError
from albert_hub_bridge.formats.blocks import ContiguousCopier, row_blocks
from albert_hub_bridge.formats.lazy_tensors import STORED_DTYPES, not_finite
from albert_hub_bridge.formats.parallel_writer import ParallelWriter
from albert_hub_bridge.mapping.weights import Dialect, WeightRule


class WeightFilePlan(NamedTuple):
    """A file of weights before it is written: everything but the values.

    Args:
        file: The file to write.
        size: Its size, in bytes.
        metadata_chunks: All bytes that are not values, by offset.
        values: The weights, each with the offset of its values, in the order of the file.
    """

    file: Path
    size: int
    metadata_chunks: Mapping[int, bytes]
    values: Sequence[tuple[WeightRule, int]]


def write_weights(
    checkpoint: Checkpoint, plans: Iterable[WeightFilePlan], dialect: Dialect, progress: Progress | None
) -> dict[Path, str]:
    """Write the files of a checkpoint's weights, read them back, and compare them bit for bit.

    Args:
        checkpoint: The checkpoint to write.
        plans: The files to make.
        dialect: The dialect of the files.
        progress: Called after every tensor.

    Returns:
        The SHA-256 of every file, computed from what was read back, in hexadecimal.

    Raises:
        WeightsError: A value is NaN or infinite; all tensors with such values are listed.
        OSError: The system did not write a file, or what was read back is different.
    """
    done, digests = 0, {}
    for plan in plans:
        with add_filename(plan.file), plan.file.open("xb", buffering=0) as stream:
            stream.truncate(plan.size)
            for offset, chunk in plan.metadata_chunks.items():
                stream.seek(offset)
                write_all(stream, chunk)
        with ParallelWriter(plan.file) as writer:
            for rule, offset in plan.values:
                array = _values(checkpoint, rule, dialect)
                if not writer.fill(array, offset):
                    raise not_finite(checkpoint.weights.values())
                done += array.nbytes
                if progress is not None:
                    progress(done, checkpoint.nbytes)
        digests[plan.file] = _read_back(plan, checkpoint, dialect)
    return digests


def _values(checkpoint: Checkpoint, rule: WeightRule, dialect: Dialect) -> np.ndarray:
    array = checkpoint.read(rule, dialect)
    planned = checkpoint.weights[rule.albert_hub].dtype
    if array.dtype != STORED_DTYPES[planned]:  # it would overwrite the next tensor
        raise ValueError(f"{rule.albert_hub} should be {planned}, and is {array.dtype}.")
    return array


def _read_back(plan: WeightFilePlan, checkpoint: Checkpoint, dialect: Dialect) -> str:
    """Read a file once. One thread hashes it, while another one compares it with the plan and the checkpoint."""
    digest, copier, position = hashlib.sha256(), ContiguousCopier(), 0
    buffer = np.empty(0, np.uint8)
    with ExitStack() as resources:
        with add_filename(plan.file):
            stream = resources.enter_context(plan.file.open("rb", buffering=0))
            to_disk(stream)
        comparing = resources.enter_context(ThreadPoolExecutor(1))
        for offset, expected in _contents(plan, checkpoint, dialect):
            if buffer.size < expected.nbytes:
                buffer = np.empty(expected.nbytes, np.uint8)
            found = buffer[: expected.nbytes]
            with add_filename(plan.file):
                is_whole = offset == position and _read_into(stream, found)
            same = comparing.submit(lambda: np.array_equal(found, copier(expected).reshape(-1).view(np.uint8)))  # noqa: B023
            digest.update(found.data)
            position += expected.nbytes
            if not (same.result() and is_whole):
                raise read_back_error(plan.file)
        with add_filename(plan.file):
            if position != plan.size or stream.read(1):
                raise read_back_error(plan.file)
    return digest.hexdigest()


def _contents(plan: WeightFilePlan, checkpoint: Checkpoint, dialect: Dialect) -> Iterator[tuple[int, np.ndarray]]:
    """Yield what a file has to contain, with the offsets, from its beginning to its end."""
    chunks = [(offset, np.frombuffer(chunk, np.uint8)) for offset, chunk in plan.metadata_chunks.items()]
    values = (part for rule, offset in plan.values for part in row_blocks(_values(checkpoint, rule, dialect), offset))
    return heapq.merge(sorted(chunks, key=itemgetter(0)), values, key=itemgetter(0))


def _read_into(stream: FileIO, buffer: np.ndarray) -> bool:
    """Fill an array of bytes, and return whether the file had enough bytes."""
    left = buffer.data
    while left:
        count = stream.readinto(left)
        if not count:
            return False
        left = left[count:]
    return True


def split_into_shards(
    checkpoint: Checkpoint, rules: Sequence[WeightRule], max_bytes: int | None
) -> list[list[WeightRule]]:
    """Split weights into files, in order. A new file begins where the next weight would exceed `max_bytes`.

    Raises:
        TargetError: One weight alone is larger than `max_bytes`.
    """
    if max_bytes is None:
        return [list(rules)]
    shards: list[list[WeightRule]] = [[]]
    filled = 0
    for rule in rules:
        nbytes = checkpoint.weights[rule.albert_hub].nbytes
        if nbytes > max_bytes:
            raise TargetError(
                f"A shard may have {max_bytes:,} bytes, and {rule.albert_hub} alone has {nbytes:,}. "
                "Allow larger shards."
            )
        if filled + nbytes > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(rule)
        filled += nbytes
    return shards
