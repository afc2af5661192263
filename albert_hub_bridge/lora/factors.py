"""LoRA adapters: which layers they reach, how Keras numbers these, and the factors of one library in the other.

An adapter adds to a kernel the product of two small factors. The product is the same number in both libraries; the
factors are not:

- PEFT factorizes every kernel as the matrix that torch has: `scale * b @ a`, *shape* (out, rank) and (rank, in).
- Keras factorizes a kernel as it is, along its last axis. Of a dense layer, and of what follows the attention, that is
  PEFT's way. The kernels of query, key and value are "hidden heads head_dim": each head has a factor `a` of its own,
  and all heads share `b`. As a matrix that is a block diagonal, of rank heads * rank.
- Keras stores one rank for a whole file, and no scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from albert_hub_bridge.mapping.axes import parse
from albert_hub_bridge.mapping.weights import Dialect, WeightRule, weight_rules
from albert_hub_bridge.model.architecture import Architecture


# Keras numbers the layers that have weights as `_flatten_layers` finds them: those of the backbone in the order that it
# calls them, each followed by its own, the last made first. A layer's place here, and its name where LoRA reaches it.
# Source: keras/src/layers/layer.py; keras_hub/src/models/backbone.py, `enable_lora`.
# fmt: off
_STEM = (
    ("reversible_embedding",                ""),  # KerasHub 0.32 fails to save LoRA of an embedding
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

# What `load_lora_weights` expects in a file, unless `enable_lora` was called before.
KERAS_DEFAULT = frozenset({"query", "value"})


@dataclass(frozen=True, slots=True)
class LoraLayer:
    """A layer that LoRA reaches.

    Args:
        number: In Keras' file.
        keras: Keras' name of it, which `enable_lora` takes; the layers of all groups share it.
        rule: The row of its kernel.
    """

    number: int
    keras: str
    rule: WeightRule

    def module(self, dialect: Dialect) -> str:
        """Return the layer's name in a model: its kernel's without the last part."""
        return self.rule.name(dialect).rpartition(".")[0]

    @property
    def per_head(self) -> bool:
        """Whether Keras' factors are of each head: its last axis is only a part of what the layer puts out."""
        return parse(self.rule.keras_axes)[-1] != parse(self.rule.torch_axes)[0]

    def torch_shapes(self, rank: int, sizes: Mapping[str, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of PEFT's factors: (rank, in) and (out, rank)."""
        outputs, inputs = self.rule.shape("albert_hub", sizes)
        return (rank, inputs), (outputs, rank)

    def keras_shapes(self, rank: int, sizes: Mapping[str, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of Keras' factors: the kernel's with the rank as its last axis, and (rank, last axis)."""
        *rest, last = self.rule.shape("keras", sizes)
        return (*rest, rank), (rank, last)


@cache
def lora_layers(architecture: Architecture) -> tuple[LoraLayer, ...]:
    """Return every layer that LoRA reaches, by Keras' numbers."""
    rules = {rule.keras: rule for rule in weight_rules(architecture)}
    inner = range(architecture.num_inner_layers)
    encoders = [f"transformer_encoder_{count}" if count else "transformer_encoder" for count in inner]
    in_encoders = [(encoder + path, name) for encoder in encoders for path, name in _ENCODER]
    every = (*_STEM, *in_encoders, *_POOLER)
    return tuple(
        LoraLayer(number, name, rules[f"layers/{path}/vars/0"]) for number, (path, name) in enumerate(every) if name
    )


@dataclass(frozen=True, slots=True)
class Factors:
    """What an adapter adds to the kernel of one layer: `scale * b @ a`, in torch's layout.

    Args:
        a: *Shape:* (rank, in).
        b: *Shape:* (out, rank).
        scale: A factor of the product.
    """

    a: np.ndarray
    b: np.ndarray
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """Number of rows of `a`, and of columns of `b`."""
        return int(self.a.shape[0])


def from_keras(layer: LoraLayer, a: np.ndarray, b: np.ndarray, sizes: Mapping[str, int]) -> Factors:
    """Turn Keras' factors into PEFT's, with the same values.

    Ranks at the end that are zero in both factors are left out: they are what fills a layer up to the file's rank.

    Args:
        layer: Which layer.
        a: *Shape:* `layer.keras_shapes`: (hidden, heads, rank) for query, key and value.
        b: *Shape:* (rank, last axis of the kernel).
        sizes: Of the axes.

    Returns:
        Factors of the same rank; of query, key and value, heads * rank, in blocks, or less where `to_keras` made the
        factors of more.
    """
    used = np.flatnonzero(a.reshape(-1, a.shape[-1]).any(axis=0) | b.any(axis=1))
    rank = int(used[-1]) + 1 if used.size else 1
    a, b = a[..., :rank], b[:rank]
    if not layer.per_head:
        return Factors(a.reshape(-1, rank).T, b.T)
    heads, head_dim = sizes["heads"], sizes["head_dim"]
    if rank % heads == 0 and rank < head_dim:
        apart = a.reshape(-1, heads, heads, rank // heads).transpose(1, 2, 3, 0)  # head, block, rank, hidden
        if _is_block_diagonal(apart):
            return Factors(apart[0, 0], b.reshape(heads, -1, head_dim).transpose(0, 2, 1).reshape(heads * head_dim, -1))
    blocks = np.zeros((heads, head_dim, heads, rank), b.dtype)
    for head in range(heads):
        blocks[head, :, head] = b.T
    return Factors(a.transpose(1, 2, 0).reshape(heads * rank, -1), blocks.reshape(heads * head_dim, heads * rank))


def to_keras(layer: LoraLayer, factors: Factors, sizes: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Turn PEFT's factors into Keras', with the scale in them.

    Of query, key and value, whose second factor Keras shares between the heads, the rank is the first of these:

    - that of one block, where the factors are the blocks of Keras' own;
    - heads * rank, where that is less than head_dim: every head brings its rows of `b`, and uses them alone;
    - head_dim, which is enough for any kernel: the second factor is the identity, the first the product itself.

    Args:
        layer: Which layer.
        factors: Of it.
        sizes: Of the axes.

    Returns:
        Both factors, *shapes* as `layer.keras_shapes` says for the rank that results. Nothing is rounded but what the
        scale multiplies, and the product.
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
    """Tell whether blocks, by row and column, are one block along the diagonal and zero elsewhere."""
    diagonal = np.arange(len(blocks))
    on_diagonal = blocks[diagonal, diagonal]
    others = blocks.copy()
    others[diagonal, diagonal] = 0
    return not others.any() and bool((on_diagonal == on_diagonal[0]).all())


def filled_up(a: np.ndarray, b: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Fill Keras' factors up to a rank with zeros, which change nothing."""
    missing = rank - len(b)
    return np.pad(a, [*[(0, 0)] * (a.ndim - 1), (0, missing)]), np.pad(b, [(0, missing), (0, 0)])
