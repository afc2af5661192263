"""safetensors files: read where the values of each tensor lie, and plan the header of a new file.

The library accepts two tensors of the same name, returns no offsets, and cannot write a file in pieces, so headers are
read and written here. The library checks every file too.

Source: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from albert_hub_bridge.disk.regular_files import check_beginning, open_regular
from albert_hub_bridge.disk.strict_json import parse_object
from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.formats.lazy_tensors import STORED_DTYPES, LazyTensor, TensorLocation, check_runs, tensors_at


_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "int8": "I8"}
_DTYPES = {short: name for name, short in _NAMES.items()}
_MAX_HEADER_BYTES = 16 << 20  # of a model of ten thousand layers


def read_header(file: Path) -> dict[str, TensorLocation]:
    """Return where the tensors of a file lie, in the order of the file.

    Raises:
        FileError: It is not a regular file, or has the content of another kind of file.
        ValueError, TypeError: The header is damaged, or has a name twice, or its tensors do not fill the file from the
            end of the header to the last byte. The message says what was found.
        SafetensorError: The library finds the file damaged.
    """
    check_beginning(file)
    with open_regular(file) as stream:
        whole = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(8), "little")
        if whole < 8 or length > _MAX_HEADER_BYTES:
            raise ValueError(f"a file of {whole:,} bytes that begins with a header of {length:,}")
        if 8 + length > whole:
            raise ValueError(f"one that is truncated at {whole:,} of {8 + length:,} bytes or more")
        header = parse_object(stream.read(length))
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("__metadata__ that is not an object of strings")
    placed = {name: _locate(name, row, 8 + length) for name, row in header.items()}
    placed = dict(sorted(placed.items(), key=lambda item: (item[1][0].offset, item[1][1])))
    check_runs([(tensor.offset, stop, name) for name, (tensor, stop) in placed.items()], 8 + length, whole)
    with safe_open(file, framework="np"):  # the library checks the file too
        pass
    return {name: tensor for name, (tensor, _) in placed.items()}


def _locate(name: str, row: Any, start: int) -> tuple[TensorLocation, int]:
    """Return where a tensor lies, and where it ends in the file."""
    if not isinstance(row, dict) or set(row) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} without exactly dtype, shape and data_offsets")
    dtype, shape, offsets = row["dtype"], row["shape"], row["data_offsets"]
    numbers = [shape, offsets] if isinstance(shape, list) and isinstance(offsets, list) else [[None]]
    if not all(type(number) is int and 0 <= number < 1 << 48 for row in numbers for number in row):
        raise ValueError(f"{name} of shape {shape} at {offsets}: not all of them are sizes")
    if not isinstance(dtype, str) or len(offsets) != 2 or len(shape) > 8 or offsets[0] > offsets[1]:
        raise ValueError(f"{name} of {dtype}, shape {shape} at {offsets}")
    name_of_numpy, nbytes = _DTYPES.get(dtype, dtype), offsets[1] - offsets[0]
    if name_of_numpy in STORED_DTYPES and prod(shape) * STORED_DTYPES[name_of_numpy].itemsize != nbytes:
        raise ValueError(f"{name} of {dtype} and shape {shape} in {nbytes:,} bytes")
    return TensorLocation(name_of_numpy, tuple(shape), start + offsets[0]), start + offsets[1]


def plan_header(tensors: Mapping[str, tuple[tuple[int, ...], str]]) -> tuple[bytes, dict[str, int]]:
    """Plan a file of tensors.

    Args:
        tensors: Shape and dtype of the tensors by name, in the order of the file. Larger dtypes come first, so that all
            values are aligned.

    Returns:
        The bytes of the file before the values, and the offset of each tensor's values in the file.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts, end = {}, 0
    for name, (shape, dtype) in tensors.items():
        starts[name], end = end, end + prod(shape) * STORED_DTYPES[dtype].itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [starts[name], end]}
    content = json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)  # the values begin aligned
    header_bytes = len(content).to_bytes(8, "little") + content
    return header_bytes, {name: len(header_bytes) + start for name, start in starts.items()}


def read_safetensors(file: Path, resources: ExitStack) -> dict[str, LazyTensor]:
    """Return the tensors of a safetensors file, unread.

    Args:
        file: To read.
        resources: Unused: nothing stays open.

    Raises:
        FileError: It is not a regular file, or has the content of another kind of file.
        WeightsError: It is damaged.
    """
    try:
        header = read_header(file)
    except (SafetensorError, ValueError, TypeError) as error:
        detail = f"expected a whole safetensors file, found {error}"
        raise WeightsError(file, "weights", [Problem("not safetensors", file.name, detail)]) from error
    return tensors_at(file, header)
