"""Untrusted Flax files: a separate process finds the arrays, and this process maps their values from the file.

The separate process (`sandboxed/flax.py`) reads names, shapes and dtypes with msgpack, within limits on memory and
time. It returns offsets instead of values, so that a model takes no memory before its tensors are used.
"""

from __future__ import annotations

from contextlib import ExitStack
from math import prod
from pathlib import Path

from albert_hub_bridge.disk.regular_files import check_beginning
from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.formats.lazy_tensors import STORED_DTYPES, LazyTensor, TensorLocation, tensors_at
from albert_hub_bridge.formats.sandbox import Sandbox, SandboxError


_SECONDS = 5


def read_flax(file: Path, resources: ExitStack) -> dict[str, LazyTensor]:
    """Return the arrays of `flax_model.msgpack` by their paths, such as `albert/pooler/kernel`, unread.

    Raises:
        FileError: It is not a regular file, or has the content of another kind of file.
        WeightsError: It is not a tree of arrays, or is damaged.
    """
    check_beginning(file)
    try:
        return tensors_at(file, locations_in(Sandbox("flax", [file], _SECONDS, resources), file))
    except (SandboxError, ValueError) as error:
        detail = f"expected a tree of arrays in msgpack, found {error}"
        raise WeightsError(file, "weights", [Problem("not msgpack", file.name, detail)]) from error


def locations_in(sandbox: Sandbox, file: Path) -> dict[str, TensorLocation]:
    """Return where the arrays of a file lie.

    Raises:
        SandboxError: The file is not a tree of arrays, or is damaged.
        ValueError: An array has too many or too few bytes.
    """
    locations = {}
    for name, dtype, shape, offset, size in sandbox.answer(file)["arrays"]:
        if dtype in STORED_DTYPES and prod(shape) * STORED_DTYPES[dtype].itemsize != size:
            raise ValueError(f"{name} of {dtype} and shape {tuple(shape)} in {size:,} bytes")
        locations[name] = TensorLocation(dtype, tuple(shape), offset)
    return locations
