"""The frame of a safetensors file: where the values of each tensor begin.

The library checks a file that is read; what this module adds is laying out a file that is filled afterwards, and
telling offsets, neither of which the library does. Source of the format: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import NamedTuple

from safetensors import safe_open

from albert_hub_bridge.stores.checkpoint import DTYPES


_NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
_DTYPES = {short: name for name, short in _NAMES.items()}


class Tensor(NamedTuple):
    """A tensor in a file."""

    dtype: str  # a key of DTYPES, or safetensors' own name of another dtype
    shape: tuple[int, ...]
    offset: int  # of its first byte, in the file


def read_header(file: Path) -> dict[str, Tensor]:
    """Return every tensor of a file, in the order of the file.

    Raises:
        SafetensorError: The library finds the file damaged.
    """
    with safe_open(file, framework="np"):  # checks the header, and that the tensors fill the file without gaps
        pass
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
    header.pop("__metadata__", None)
    placed = {
        name: Tensor(_DTYPES.get(row["dtype"], row["dtype"]), tuple(row["shape"]), 8 + size + row["data_offsets"][0])
        for name, row in header.items()
    }
    return dict(sorted(placed.items(), key=lambda item: item[1].offset))


def lay_out(shapes: Mapping[str, tuple[int, ...]], dtype: str) -> tuple[bytes, dict[str, int]]:
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
