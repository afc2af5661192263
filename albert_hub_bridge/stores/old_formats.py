"""Weights that transformers wrote for PyTorch, TensorFlow and Flax before safetensors, under its PyTorch names.

transformers 5 loads only the first of them. Sources of the formats: torch.save, Keras 2 and its `save_weights`, and
flax/serialization.py (msgpack with arrays as extension type 1).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError

from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.stores.checkpoint import DTYPES, DroppedTensor, Weight
from albert_hub_bridge.stores.hdf5 import read_datasets
from albert_hub_bridge.stores.safetensors_file import read_header
from albert_hub_bridge.stores.sandbox import Sandbox, SandboxError
from albert_hub_bridge.stores.source_files import check_beginning, open_regular
from albert_hub_bridge.stores.tensors import map_tensor


_SECONDS, _BYTES_PER_SECOND = 30, 10_000_000  # for a pickle; and more for each of its bytes


_LEAVES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "scale": "weight",
    "embedding": "weight",
    "embeddings": "weight",
}


def in_todays_names(
    file: Path, found: Mapping[str, Weight], oldest: bool
) -> tuple[dict[str, Weight], list[DroppedTensor], list[Copy]]:
    """Return a file's tensors under today's names and in PyTorch's layout, those that nobody uses, and copies.

    Kernels of TensorFlow and Flax are transposed; `gamma` and `beta` are the first names of layer norms in all three.
    TensorFlow's files have some tensors twice. The masked LM has two biases, `predictions.bias` and the decoder's: the
    oldest versions add both, TensorFlow later only the decoder's, and PyTorch ties them.

    Args:
        file: The file, for the message.
        found: Its tensors.
        oldest: Whether a version of transformers wrote it that adds both biases: one before 2.5.
    """
    weights: dict[str, Weight] = {}
    dropped, copies = [], []
    for name, weight in found.items():
        if name.endswith("predictions/bias:0") and not oldest:
            reason = "TensorFlow's ALBERT adds predictions/decoder/bias instead"
            dropped.append(DroppedTensor(name, weight.shape, reason))
            continue
        parts = name.removesuffix(":0").replace("/", ".").replace("_._", ".").split(".")
        owners = [index for index, part in enumerate(parts) if part.startswith("tf_albert")]
        *path, leaf = parts[owners[-1] + 1 :] if owners else parts
        todays = ".".join([*path, _LEAVES.get(leaf, leaf)])
        tensor = transposed(weight) if leaf == "kernel" else weight
        if todays in weights:
            detail = f"expected the values of the other tensor that is {todays}, found others"
            copies.append(Copy(Problem("contradiction", name, detail), weights[todays], tensor))
        weights[todays] = tensor
    both = (weights.get("predictions.bias"), weights.get("predictions.decoder.bias"))
    if oldest and both[0] is not None and both[1] is not None and both[0].shape == both[1].shape:
        weights["predictions.bias"] = _sum(both[0], both[1])
        del weights["predictions.decoder.bias"]
    return weights, dropped, copies


class Copy(NamedTuple):
    """Two tensors that have to have the same values, and what is wrong where they have not."""

    problem: Problem
    one: Weight
    other: Weight


def check_copies(file: Path, copies: Sequence[Copy]) -> None:
    """Refuse a file in which copies are none. It reads them, so their shapes have to be known to be the table's.

    Raises:
        WeightsError: There are such; all are listed.
    """
    if problems := [copy.problem for copy in copies if not same_values(copy.one, copy.other)]:
        raise WeightsError(file, "weights", problems)


def _sum(one: Weight, other: Weight) -> Weight:
    return Weight(one.shape, one.dtype, lambda: one.load() + other.load())


def transposed(weight: Weight) -> Weight:
    """Return a matrix the other way round."""
    return Weight(weight.shape[::-1], weight.dtype, lambda: weight.load().T)


def same_values(one: Weight, other: Weight) -> bool:
    """Tell whether two tensors are the same, which reads both."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    ours, theirs = (np.ascontiguousarray(weight.load()) for weight in (one, other))
    return ours.tobytes() == theirs.tobytes()  # NaN and -0.0 too must be themselves


def read_pytorch(file: Path, resources: ExitStack) -> dict[str, Weight]:
    """Read `pytorch_model.bin`: a pickle, of which another process unpickles tensors and nothing else.

    Raises:
        FileError: It is not a regular file, or is something else by its content.
        WeightsError: It has something else, or is damaged.
    """
    check_beginning(file)
    target = Path(resources.enter_context(TemporaryDirectory(prefix="albert-hub-bridge-"))) / "tensors.safetensors"
    job = {"task": "pytorch", "file": os.fsencode(os.path.abspath(file)).hex(), "target": os.fsencode(target).hex()}
    try:
        with ExitStack() as process:
            Sandbox(job, process).answer(_SECONDS + file.stat().st_size / _BYTES_PER_SECOND)
    except SandboxError as error:
        detail = f"expected a table of tensors, of which nothing else is unpickled, found: {error}"
        raise WeightsError(file, "weights", [Problem("not tensors", file.name, detail)]) from error
    return read_safetensors(target, resources)


def refuse_pickle(file: Path) -> WeightsError:
    """Return what to raise of a pickle that nobody allowed."""
    problem = Problem("a pickle", file.name, "expected safetensors, found a pickle, which is a program that is run")
    advice = (
        "Ask for its safetensors. Or pass --allow-pickle (allow_pickle=True): then another process unpickles its "
        "tensors, and nothing else."
    )
    return WeightsError(file, "weights", [problem], advice)


def read_safetensors(file: Path, resources: ExitStack) -> dict[str, Weight]:
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
    weights = {}
    for name, (dtype, shape, offset) in header.items():
        values = DTYPES.get(dtype, np.dtype("V"))  # another dtype is refused by its name before anything is read
        weights[name] = Weight(shape, dtype, partial(map_tensor, file, offset, shape, values))
    return weights


def read_tensorflow(file: Path, resources: ExitStack) -> dict[str, Weight]:
    """Read `tf_model.h5`.

    Raises:
        WeightsError: h5py finds it damaged.
    """
    return read_datasets(file, resources)


def read_flax(file: Path, resources: ExitStack) -> dict[str, Weight]:
    """Read `flax_model.msgpack`.

    Raises:
        FileError: It is not a regular file, or is something else by its content.
        WeightsError: It is not a tree of arrays, or is damaged.
    """
    import msgpack

    check_beginning(file)
    limits = {"max_array_len": 0, "max_str_len": 200, "max_bin_len": 0, "max_map_len": 10_000}
    try:
        with open_regular(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            content = msgpack.Unpacker(
                stream,
                ext_hook=_flax_array,
                object_pairs_hook=_NodeCounter(),
                max_buffer_size=size,
                max_ext_len=size,
                **limits,
            )
            tree = content.unpack()
            if content.tell() != size:
                raise ValueError(f"{size - content.tell():,} bytes after its end")
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        found = str(error) or f"one that is truncated ({type(error).__name__})"
        detail = f"expected a tree of arrays in msgpack, found {found}"
        raise WeightsError(file, "weights", [Problem("not msgpack", file.name, detail)]) from error
    weights: dict[str, Weight] = {}
    problems = []
    nodes = [("", tree, 0)]
    while nodes:
        path, node, level = nodes.pop()
        if len(path) > _LONGEST_NAME:
            detail = f"expected a name of at most {_LONGEST_NAME} characters, found {len(path)}"
            problems.append(Problem("too long", path[:80], detail))
        elif isinstance(node, Weight):
            weights[path] = node
        elif isinstance(node, dict) and level < _MOST_LEVELS:
            nodes += [(f"{path}/{key}" if path else str(key), child, level + 1) for key, child in node.items()]
        else:
            found = f"{_MOST_LEVELS} levels of names" if isinstance(node, dict) else type(node).__name__
            problems.append(Problem("not a tensor", path[:200], f"expected an array, found {found}"))
    if problems:
        raise WeightsError(file, "weights", problems)
    return weights


_MOST_LEVELS, _MOST_NODES, _LONGEST_NAME = 16, 100_000, 300


class _NodeCounter:
    """Makes the nodes of a tree, up to a number of names that no model has."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        self._count += len(pairs)
        if self._count > _MOST_NODES:
            raise ValueError(f"more than {_MOST_NODES:,} names")
        node = {str(name): value for name, value in pairs}
        if len(node) < len(pairs):
            raise ValueError("a name more than once in one node")
        return node


def _flax_array(code: int, data: bytes) -> Weight:
    import msgpack

    if code != 1:
        raise ValueError(f"an extension of type {code}, which is not an array")
    content = msgpack.unpackb(data, max_map_len=0, max_ext_len=0, max_array_len=8, max_str_len=32)
    if not isinstance(content, list) or len(content) != 3:
        raise ValueError("an array that is not a shape, a dtype and values")
    shape, dtype, values = content
    is_shape = isinstance(shape, list) and all(type(size) is int and 0 <= size < 1 << 48 for size in shape)
    if not is_shape or not isinstance(dtype, str) or not isinstance(values, bytes):
        raise ValueError("an array that is not a shape, a dtype and values")
    kind = DTYPES.get(dtype, np.dtype("V"))  # another dtype is refused by its name before anything is read
    if dtype in DTYPES and prod(shape) * kind.itemsize != len(values):
        raise ValueError(f"an array {shape} of {dtype} that has {len(values)} bytes")
    return Weight(tuple(shape), dtype, partial(_as_array, values, kind, shape))


def _as_array(values: bytes, kind: np.dtype, shape: list[int]) -> np.ndarray:
    return np.frombuffer(values, kind).reshape(shape)
