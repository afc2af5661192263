"""The factors of LoRA: which layers have them, how Keras numbers these layers, and how to convert the factors.

LoRA adds the product of two small factors to a kernel. KerasHub and PEFT factorize kernels differently:

- PEFT factorizes the matrix of torch: `scale * b @ a`, with *shapes* (out, rank) and (rank, in).
- Keras factorizes the kernel along its last axis. For dense layers and for the output of the attention this is the
  factorization of PEFT. The kernels of query, key and value have the axes "hidden heads head_dim": each head has its
  own factor `a`, and all heads share `b`. As a matrix, `b` is block diagonal and has the rank heads * rank.
- Keras stores one rank per file, and no scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from albert_hub_bridge.mapping.axes import parse
from albert_hub_bridge.mapping.weights import Dialect, WeightRule, weight_rules
from albert_hub_bridge.model.architecture import Architecture


# Keras numbers the layers with weights in the order of `_flatten_layers`: the layers of the backbone in calling order,
# each followed by its sublayers, the most recent first. The rows are in this order. Each has the path of the layer, and
# its name if LoRA can adapt it.
# Source: keras/src/layers/layer.py; keras_hub/src/models/backbone.py, `enable_lora`.
# fmt: off
_STEM = (
    ("reversible_embedding",                ""),  # KerasHub 0.32 cannot save LoRA of an embedding
    ("position_embedding",                  ""),
    ("embedding",                           ""),
    ("layer_normalization",                 ""),
    ("dense",                               "embedding_projection"),
)
_ENCODER = (
    ("",                                    ""),
    ("/_feedforward_output_dense",          "feedforward_output_dense"),
    ("/_feedforward_intermediate_dense",    "feedforward_intermediate_dense"),
    ("/_feedforward_layer_norm",            ""),
    ("/_self_attention_layer_norm",         ""),
    ("/_self_attention_layer",              ""),
    ("/_self_attention_layer/output_dense", "attention_output"),
    ("/_self_attention_layer/value_dense",  "value"),
    ("/_self_attention_layer/key_dense",    "key"),
    ("/_self_attention_layer/query_dense",  "query"),
)
_POOLER = (
    ("dense_1",                             "pooled_dense"),
)
# fmt: on

# The layers that `load_lora_weights` expects in a file, unless `enable_lora` selected others.
DEFAULT_LAYERS = frozenset({"query", "value"})


@dataclass(frozen=True, slots=True)
class LoraLayer:
    """A layer that LoRA can adapt.

    Args:
        number: Its number in a file of Keras.
        keras: Its name in Keras, for `enable_lora`. The layers of all groups have the same names.
        rule: The row of its kernel in the table of weights.
    """

    number: int
    keras: str
    rule: WeightRule

    def module(self, dialect: Dialect) -> str:
        """Return the name of the layer in a model."""
        return self.rule.name(dialect).rpartition(".")[0]

    @property
    def per_head(self) -> bool:
        """Whether each head has its own factor `a` in Keras: the last axis is not the whole output."""
        return parse(self.rule.keras_axes)[-1] != parse(self.rule.torch_axes)[0]

    def torch_shapes(self, rank: int, sizes: Mapping[str, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of PEFT's `a` and `b`: (rank, in) and (out, rank)."""
        outputs, inputs = self.rule.shape("albert_hub", sizes)
        return (rank, inputs), (outputs, rank)

    def keras_shapes(self, rank: int, sizes: Mapping[str, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of Keras' `a` and `b`: the kernel's with the rank as last axis, and (rank, last axis)."""
        *rest, last = self.rule.shape("keras", sizes)
        return (*rest, rank), (rank, last)


@cache
def lora_layers(architecture: Architecture) -> tuple[LoraLayer, ...]:
    """Return all layers that LoRA can adapt, in the order of their numbers in Keras."""
    rules = {rule.keras: rule for rule in weight_rules(architecture)}
    inner = range(architecture.num_inner_layers)
    encoders = [f"transformer_encoder_{count}" if count else "transformer_encoder" for count in inner]
    in_encoders = [(encoder + path, name) for encoder in encoders for path, name in _ENCODER]
    rows = (*_STEM, *in_encoders, *_POOLER)
    return tuple(
        LoraLayer(number, name, rules[f"layers/{path}/vars/0"]) for number, (path, name) in enumerate(rows) if name
    )


@dataclass(frozen=True, slots=True)
class Factors:
    """The factors of one layer, in the layout of torch. The adapter adds `scale * b @ a` to the kernel.

    Args:
        a: *Shape:* (rank, in).
        b: *Shape:* (out, rank).
        scale: The scale of the product.
    """

    a: np.ndarray
    b: np.ndarray
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """Number of rows of `a` and of columns of `b`."""
        return int(self.a.shape[0])

    def fits_float32(self) -> bool:
        """Return whether neither `scale * b` nor any sum in `scale * b @ a` can overflow."""
        largest = np.abs(self.b).max(initial=0).astype(np.float64) * abs(self.scale)
        largest_a = float(np.abs(self.a).max(initial=0))
        return bool(largest * max(1.0, self.rank * largest_a) < np.finfo(np.float32).max)


def from_keras(layer: LoraLayer, a: np.ndarray, b: np.ndarray, sizes: Mapping[str, int]) -> Factors:
    """Convert the factors of Keras to those of PEFT. The values stay the same.

    Trailing ranks that are zero in both factors are removed: Keras pads all layers to the rank of the file.

    Args:
        layer: The layer.
        a: *Shape:* as `layer.keras_shapes`; (hidden, heads, rank) for query, key and value.
        b: *Shape:* (rank, last axis of the kernel).
        sizes: Size of every axis.

    Returns:
        Factors of the same rank. For query, key and value the rank is heads * rank, or the original rank if `to_keras`
        made the factors.
    """
    used = np.flatnonzero(a.reshape(-1, a.shape[-1]).any(axis=0) | b.any(axis=1))
    rank = int(used[-1]) + 1 if used.size else 1
    a, b = a[..., :rank], b[:rank]
    if not layer.per_head:
        return Factors(a.reshape(-1, rank).T, b.T)
    heads, head_dim = sizes["heads"], sizes["head_dim"]
    if rank % heads == 0 and rank < head_dim:
        blocks = a.reshape(-1, heads, heads, rank // heads).transpose(1, 2, 3, 0)  # head, block, rank, hidden
        if _is_block_diagonal(blocks):  # made by `to_keras`
            return Factors(
                blocks[0, 0], b.reshape(heads, -1, head_dim).transpose(0, 2, 1).reshape(heads * head_dim, -1)
            )
    diagonal = np.zeros((heads, head_dim, heads, rank), b.dtype)
    for head in range(heads):
        diagonal[head, :, head] = b.T
    return Factors(a.transpose(1, 2, 0).reshape(heads * rank, -1), diagonal.reshape(heads * head_dim, heads * rank))


def to_keras(layer: LoraLayer, factors: Factors, sizes: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Convert the factors of PEFT to those of Keras, multiplied by the scale.

    In Keras, the heads of query, key and value share `b`. The new rank is the first of these that applies:

    - the rank of one block, if `from_keras` made the factors;
    - heads * rank, if that is less than head_dim: each head uses only its own rows of the shared `b`;
    - head_dim, which is enough for any kernel: `b` is the identity, and `a` is the product.

    Args:
        layer: The layer.
        factors: Its factors.
        sizes: Size of every axis.

    Returns:
        `a` and `b`, with *shapes* as `layer.keras_shapes` for the new rank. Only the scaled values and the product are
        rounded.
    """
    a, b = factors.a, factors.b
    if factors.scale != 1.0:
        b = (b.astype(np.float64) * factors.scale).astype(b.dtype)
    if not layer.per_head:
        (*first, _), _ = layer.keras_shapes(factors.rank, sizes)
        return a.T.reshape(*first, factors.rank), b.T
    heads, head_dim, rank = sizes["heads"], sizes["head_dim"], factors.rank
    if rank % heads == 0:
        blocks = b.reshape(heads, head_dim, heads, rank // heads).transpose(0, 2, 1, 3)
        if _is_block_diagonal(blocks):
            return a.reshape(heads, rank // heads, -1).transpose(2, 0, 1), blocks[0, 0].T
    if heads * rank < head_dim:
        first_factor = np.zeros((a.shape[1], heads, heads, rank), a.dtype)
        for head in range(heads):
            first_factor[:, head, head] = a.T
        shared = b.reshape(heads, head_dim, rank).transpose(0, 2, 1)
        return first_factor.reshape(-1, heads, heads * rank), shared.reshape(heads * rank, head_dim)
    product = (factors.scale * (factors.b.astype(np.float64) @ a.astype(np.float64))).astype(a.dtype)
    return product.reshape(heads, head_dim, -1).transpose(2, 0, 1), np.eye(head_dim, dtype=b.dtype)


def _is_block_diagonal(blocks: np.ndarray) -> bool:
    """Return whether all diagonal blocks are the same and all others are zero. *Shape:* (row, column, ...)."""
    diagonal = np.arange(len(blocks))
    on_diagonal = blocks[diagonal, diagonal]
    others = blocks.copy()
    others[diagonal, diagonal] = 0
    return not others.any() and bool((on_diagonal == on_diagonal[0]).all())


def pad_rank(a: np.ndarray, b: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Pad the factors of Keras with zeros to a higher rank. The product does not change."""
    missing = rank - len(b)
    return np.pad(a, [*[(0, 0)] * (a.ndim - 1), (0, missing)]), np.pad(b, [(0, missing), (0, 0)])
