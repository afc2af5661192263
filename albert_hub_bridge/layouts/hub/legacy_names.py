"""Rename and transpose tensors of weights that transformers wrote for PyTorch, TensorFlow and Flax before safetensors.

transformers 5 loads only PyTorch's. Sources of the formats: torch.save, Keras 2 and its `save_weights`, and
flax/serialization.py (msgpack with arrays as extension type 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from albert_hub_bridge.checkpoint import DroppedTensor
from albert_hub_bridge.errors import Problem
from albert_hub_bridge.formats.lazy_tensors import LazyTensor, TiedPair, transposed


# Old last part of a name -> current one. PyTorch's files have the first two, from versions before 1.0.
_LAYER_NORMS = {"gamma": "weight", "beta": "bias"}
_LEAVES = _LAYER_NORMS | {"kernel": "weight", "scale": "weight", "embedding": "weight", "embeddings": "weight"}


def rename_legacy_tensors(
    file: Path, found: Mapping[str, LazyTensor], oldest: bool
) -> tuple[dict[str, LazyTensor], list[DroppedTensor], list[TiedPair]]:
    """Return the tensors of a file under their current names and in PyTorch's layout.

    Kernels of TensorFlow and Flax are transposed. `gamma` and `beta` are the first names of layer norms in all three
    libraries. TensorFlow's files have some tensors twice. The masked LM has two biases, `predictions.bias` and the
    decoder's. The oldest versions add both, later TensorFlow adds only the decoder's, and PyTorch ties them.

    Args:
        file: The file, for the message.
        found: Its tensors.
        oldest: Whether transformers before 2.5 wrote it, which adds both biases.

    Returns:
        The renamed tensors, the unused ones, and pairs of tensors that became one and must have the same values.
    """
    tensors: dict[str, LazyTensor] = {}
    dropped, tied_pairs = [], []
    # PyTorch's files always have a name with this end, and files of TensorFlow and Flax never do.
    is_pytorch = any(name.endswith(".weight") for name in found)
    leaves = _LAYER_NORMS if is_pytorch else _LEAVES
    for name, stored in found.items():
        if not is_pytorch and name.endswith("predictions/bias:0") and not oldest:
            reason = "TensorFlow's ALBERT adds predictions/decoder/bias instead"
            dropped.append(DroppedTensor(name, stored.shape, reason))
            continue
        *path, leaf = name.split(".") if is_pytorch else _split_name(name)
        current = ".".join([*path, leaves.get(leaf, leaf)])
        tensor = transposed(stored) if not is_pytorch and leaf == "kernel" else stored
        if current in tensors:
            detail = f"expected the values of the other tensor that is {current}, found others"
            tied_pairs.append(TiedPair(Problem("contradiction", name, detail), tensors[current], tensor))
        tensors[current] = tensor
    bias, decoder_bias = tensors.get("predictions.bias"), tensors.get("predictions.decoder.bias")
    if oldest and bias is not None and decoder_bias is not None and bias.shape == decoder_bias.shape:
        tensors["predictions.bias"] = _sum(bias, decoder_bias)
        del tensors["predictions.decoder.bias"]
    return tensors, dropped, tied_pairs


def _split_name(name: str) -> list[str]:
    """Split a name of TensorFlow or Flax into its parts, without the names of the models that own the tensor."""
    parts = name.removesuffix(":0").replace("/", ".").replace("_._", ".").split(".")
    owners = [index for index, part in enumerate(parts) if part.startswith("tf_albert")]
    return parts[owners[-1] + 1 :] if owners else parts


def _sum(first: LazyTensor, second: LazyTensor) -> LazyTensor:
    return LazyTensor(first.shape, first.dtype, lambda: first.load() + second.load())
