"""Weights that transformers wrote for PyTorch, TensorFlow and Flax before safetensors, under its PyTorch names.

transformers 5 loads only the first of them. Sources of the formats: torch.save, Keras 2 and its `save_weights`, and
flax/serialization.py (msgpack with arrays as extension type 1).
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.stores.checkpoint import DTYPES, DroppedTensor, Weight
from albert_hub_bridge.stores.hdf5 import read_datasets
from albert_hub_bridge.stores.torch_tensors import as_weight


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
) -> tuple[dict[str, Weight], list[DroppedTensor]]:
    """Return the tensors of a file under today's PyTorch names and in PyTorch's layout, and those that nobody uses.

    Kernels of TensorFlow and Flax are transposed; `gamma` and `beta` are the first names of layer norms in all three.
    TensorFlow's files have some tensors twice. The masked LM has two biases, `predictions.bias` and the decoder's: the
    oldest versions add both, TensorFlow later only the decoder's, and PyTorch ties them.

    Args:
        file: The file, for the message.
        found: Its tensors.
        oldest: Whether a version of transformers wrote it that adds both biases: one before 2.5.

    Raises:
        WeightsError: Two tensors become one name and have different values.
    """
    weights: dict[str, Weight] = {}
    dropped, problems = [], []
    for name, weight in found.items():
        if name.endswith("predictions/bias:0") and not oldest:
            reason = "TensorFlow's ALBERT adds predictions/decoder/bias instead"
            dropped.append(DroppedTensor(name, weight.shape, reason))
            continue
        parts = name.removesuffix(":0").replace("/", ".").replace("_._", ".").split(".")
        owners = [index for index, part in enumerate(parts) if part.startswith("tf_albert")]
        *path, leaf = parts[owners[-1] + 1 :] if owners else parts
        todays = ".".join([*path, _LEAVES.get(leaf, leaf)])
        tensor = _transposed(weight) if leaf == "kernel" else weight
        if todays in weights and not same_values(weights[todays], tensor):
            problems.append(Problem("contradiction", name, f"another tensor that is {todays} too has other values"))
        weights[todays] = tensor
    if problems:
        raise WeightsError(file, "weights", problems)
    both = (weights.get("predictions.bias"), weights.get("predictions.decoder.bias"))
    if oldest and both[0] is not None and both[1] is not None:
        weights["predictions.bias"] = _sum(both[0], both[1])
        del weights["predictions.decoder.bias"]
    return weights, dropped


def _sum(one: Weight, other: Weight) -> Weight:
    return Weight(one.shape, one.dtype, lambda: one.read() + other.read())


def _transposed(weight: Weight) -> Weight:
    return Weight(weight.shape[::-1], weight.dtype, lambda: weight.read().T)


def same_values(one: Weight, other: Weight) -> bool:
    """Tell whether two tensors are the same, which reads both."""
    return (one.shape, one.dtype) == (other.shape, other.dtype) and np.array_equal(one.read(), other.read())


def read_pytorch(file: Path, resources: ExitStack) -> dict[str, Weight]:
    """Read `pytorch_model.bin`: a pickle of which only tensors are unpickled.

    Raises:
        WeightsError: It has something else, or is damaged.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it says of how it was pickled: what counts is what comes out
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # damaged pickles raise whatever the damage leads to
        reason = (str(error) or type(error).__name__).splitlines()[0]
        detail = f"only tensors are unpickled, for nothing else is safe: {reason}"
        raise WeightsError(file, "weights", [Problem("not tensors", file.name, detail)]) from error
    if not isinstance(content, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in content.values()):
        raise WeightsError(file, "weights", [Problem("not tensors", file.name, "expected a table of tensors")])
    return {str(name): as_weight(tensor) for name, tensor in content.items()}


def read_tensorflow(file: Path, resources: ExitStack) -> dict[str, Weight]:
    """Read `tf_model.h5`.

    Raises:
        WeightsError: h5py finds it damaged.
    """
    return read_datasets(file, resources)


def read_flax(file: Path, resources: ExitStack) -> dict[str, Weight]:
    """Read `flax_model.msgpack`.

    Raises:
        WeightsError: It is not a tree of arrays, or is damaged.
    """
    import msgpack

    try:
        tree = msgpack.unpackb(file.read_bytes(), ext_hook=_flax_array)
    except (ValueError, msgpack.UnpackException, OSError) as error:
        raise WeightsError(file, "weights", [Problem("not msgpack", file.name, str(error))]) from error
    weights: dict[str, Weight] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, Weight):
            weights[path] = node
        elif isinstance(node, dict):
            for key, child in node.items():
                walk(child, f"{path}/{key}" if path else str(key))
        else:
            detail = f"expected an array, found {type(node).__name__}"
            raise WeightsError(file, "weights", [Problem("not a tensor", path, detail)])

    walk(tree, "")
    return weights


def _flax_array(code: int, data: bytes) -> Weight:
    import msgpack

    if code != 1:
        raise ValueError(f"an extension of type {code}, which is not an array")
    shape, dtype, values = msgpack.unpackb(data)
    kind = DTYPES.get(dtype, np.dtype("V"))  # another dtype is refused by its name before anything is read
    if dtype in DTYPES and prod(shape) * kind.itemsize != len(values):
        raise ValueError(f"an array {shape} of {dtype} that has {len(values)} bytes")
    return Weight(tuple(shape), dtype, partial(_as_array, values, kind, shape))


def _as_array(values: bytes, kind: np.dtype, shape: list[int]) -> np.ndarray:
    return np.frombuffer(values, kind).reshape(shape)
