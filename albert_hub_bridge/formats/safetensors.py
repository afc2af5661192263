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
from albert_hub_bridge.formats.lazy_tensors import DTYPES, LazyTensor, TensorLocation, tensors_at


_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_DTYPES = {short: name for name, short in _NAMES.items()}
_MAX_HEADER_BYTES = 16 << 20  # of a model of ten thousand layers


def read_header(file: Path) -> dict[str, TensorLocation]:
    """Return every tensor of a file, in the order of the file.

    Raises:
        FileError: It is not a regular file, or is something else by its content.
        ValueError, TypeError: The header is damaged, or says something twice, or its tensors do not fill the file from
            the header's end to the last byte. The message says what was found.
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
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise ValueError("__metadata__ that is not an object of texts")
    placed = {name: _place(name, row, 8 + length) for name, row in header.items()}
    placed = dict(sorted(placed.items(), key=lambda item: (item[1][0].offset, item[1][1])))
    end = 8 + length
    for name, (tensor, stop) in placed.items():
        if tensor.offset != end:
            raise ValueError(f"{name} at byte {tensor.offset:,}, where the tensor before it ends at {end:,}")
        end = stop
    if whole < end:
        raise ValueError(f"one that is truncated at {whole:,} of {end:,} bytes")
    if whole > end:
        raise ValueError(f"{whole - end:,} bytes after its last tensor")
    with safe_open(file, framework="np"):  # the library's own opinion
        pass
    return {name: tensor for name, (tensor, _) in placed.items()}


def _place(name: str, row: Any, start: int) -> tuple[TensorLocation, int]:
    """Return a tensor as the header describes it, and where it ends."""
    if not isinstance(row, dict) or set(row) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} without exactly dtype, shape and data_offsets")
    dtype, shape, offsets = row["dtype"], row["shape"], row["data_offsets"]
    numbers = [shape, offsets] if isinstance(shape, list) and isinstance(offsets, list) else [[None]]
    if not all(type(number) is int and 0 <= number < 1 << 48 for row in numbers for number in row):
        raise ValueError(f"{name} of shape {shape} at {offsets}: not all of them are sizes")
    if not isinstance(dtype, str) or len(offsets) != 2 or len(shape) > 8 or offsets[0] > offsets[1]:
        raise ValueError(f"{name} of {dtype}, shape {shape} at {offsets}")
    todays = _DTYPES.get(dtype, dtype)
    if todays in DTYPES and prod(shape) * DTYPES[todays].itemsize != offsets[1] - offsets[0]:
        raise ValueError(f"{name} of {dtype} and shape {shape} in {offsets[1] - offsets[0]:,} bytes")
    return TensorLocation(todays, tuple(shape), start + offsets[0]), start + offsets[1]


def plan_header(shapes: Mapping[str, tuple[int, ...]], dtype: str) -> tuple[bytes, dict[str, int]]:
    """Return what comes before the values in a file of tensors, and the offsets where the values of each begin.

    Args:
        shapes: Of the tensors, by name, in the order they shall have.
        dtype: Of all tensors: a key of `DTYPES`.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    starts, end = {}, 0
    for name, shape in shapes.items():
        starts[name], end = end, end + prod(shape) * DTYPES[dtype].itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [starts[name], end]}
    content = json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)  # the values begin aligned
    before = len(content).to_bytes(8, "little") + content
    return before, {name: len(before) + start for name, start in starts.items()}


def read_safetensors(file: Path, resources: ExitStack) -> dict[str, LazyTensor]:
    """Return every tensor of a safetensors file, unread.

    Raises:
        FileError: It is not a regular file, or is something else by its content.
        WeightsError: It is damaged.
    """
    try:
        header = read_header(file)
    except (SafetensorError, ValueError, TypeError) as error:
        detail = f"expected a whole safetensors file, found {error}"
        raise WeightsError(file, "weights", [Problem("not safetensors", file.name, detail)]) from error
    return tensors_at(file, header)
