"""Weights that transformers wrote for PyTorch, TensorFlow and Flax before safetensors, under its PyTorch names.

transformers 5 loads only the first of them. Sources of the formats: torch.save, Keras 2 and its `save_weights`, and
flax/serialization.py (msgpack with arrays as extension type 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from albert_hub_bridge.checkpoint import DroppedTensor
from albert_hub_bridge.errors import Problem
from albert_hub_bridge.formats.lazy_tensors import LazyTensor, TiedPair, transposed


# The last part of a name, then and today. PyTorch's files have the first two of them, in versions before 1.0.
_LAYER_NORMS = {"gamma": "weight", "beta": "bias"}
_LEAVES = _LAYER_NORMS | {"kernel": "weight", "scale": "weight", "embedding": "weight", "embeddings": "weight"}


def rename_legacy_tensors(
    file: Path, found: Mapping[str, LazyTensor], oldest: bool
) -> tuple[dict[str, LazyTensor], list[DroppedTensor], list[TiedPair]]:
    """Return a file's tensors under today's names and in PyTorch's layout, those that nobody uses, and copies.

    Kernels of TensorFlow and Flax are transposed; `gamma` and `beta` are the first names of layer norms in all three.
    TensorFlow's files have some tensors twice. The masked LM has two biases, `predictions.bias` and the decoder's: the
    oldest versions add both, TensorFlow later only the decoder's, and PyTorch ties them.

    Args:
        file: The file, for the message.
        found: Its tensors.
        oldest: Whether a version of transformers wrote it that adds both biases: one before 2.5.
    """
    weights: dict[str, LazyTensor] = {}
    dropped, tied_pairs = [], []
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
            tied_pairs.append(TiedPair(Problem("contradiction", name, detail), weights[todays], tensor))
        weights[todays] = tensor
    both = (weights.get("predictions.bias"), weights.get("predictions.decoder.bias"))
    if oldest and both[0] is not None and both[1] is not None and both[0].shape == both[1].shape:
        weights["predictions.bias"] = _sum(both[0], both[1])
        del weights["predictions.decoder.bias"]
    return weights, dropped, tied_pairs


def _sum(one: LazyTensor, other: LazyTensor) -> LazyTensor:
    return LazyTensor(one.shape, one.dtype, lambda: one.load() + other.load())
