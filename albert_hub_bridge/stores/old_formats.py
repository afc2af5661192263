"""Weights that transformers wrote for PyTorch, TensorFlow and Flax before safetensors, under its PyTorch names.

transformers 5 loads only the first of them. Sources of the formats: torch.save, Keras 2 and its `save_weights`, and
flax/serialization.py (msgpack with arrays as extension type 1).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError

from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.stores.checkpoint import DTYPES, DroppedTensor, Weight
from albert_hub_bridge.stores.flax_file import read_tree
from albert_hub_bridge.stores.hdf5 import read_datasets
from albert_hub_bridge.stores.safetensors_file import read_header
from albert_hub_bridge.stores.sandbox import Sandbox, SandboxError
from albert_hub_bridge.stores.source_files import check_beginning
from albert_hub_bridge.stores.tensors import map_tensor


_SECONDS, _BYTES_PER_SECOND = 30, 10_000_000  # for a pickle; and more for each of its bytes


# The last part of a name, then and today. PyTorch's files have the first two of them, in versions before 1.0.
_LAYER_NORMS = {"gamma": "weight", "beta": "bias"}
_LEAVES = _LAYER_NORMS | {"kernel": "weight", "scale": "weight", "embedding": "weight", "embeddings": "weight"}


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
    # PyTorch's files all have some name with this end, and the others' have none: then nothing is taken for theirs.
    of_others = not any(name.endswith(".weight") for name in found)
    leaves = _LEAVES if of_others else _LAYER_NORMS
    for name, weight in found.items():
        if of_others and name.endswith("predictions/bias:0") and not oldest:
            reason = "TensorFlow's ALBERT adds predictions/decoder/bias instead"
            dropped.append(DroppedTensor(name, weight.shape, reason))
            continue
        parts = name.split(".")
        if of_others:
            parts = name.removesuffix(":0").replace("/", ".").replace("_._", ".").split(".")
            owners = [index for index, part in enumerate(parts) if part.startswith("tf_albert")]
            parts = parts[owners[-1] + 1 :] if owners else parts
        *path, leaf = parts
        todays = ".".join([*path, leaves.get(leaf, leaf)])
        tensor = transposed(weight) if of_others and leaf == "kernel" else weight
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
    return _weights_at(file, header)


def _weights_at(file: Path, found: Mapping[str, tuple[str, tuple[int, ...], int]]) -> dict[str, Weight]:
    """Return tensors by their dtypes, shapes and offsets in a file."""
    weights = {}
    for name, (dtype, shape, offset) in found.items():
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
    try:
        return _weights_at(file, read_tree(file))
    except ValueError as error:
        detail = f"expected a tree of arrays in msgpack, found {error}"
        raise WeightsError(file, "weights", [Problem("not msgpack", file.name, detail)]) from error
