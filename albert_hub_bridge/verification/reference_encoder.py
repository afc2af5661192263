"""The reference encoder: ALBERT in NumPy and float64, independent of the rest of the package.

It was written from the paper and from KerasHub's source. It imports nothing of this package, and it states all names
and axes again. A mistake in the model or in the weight table can therefore not be repeated here by the same line.

In float64, two correct implementations differ by about 1e-15 of the largest value. A transposed square matrix, another
epsilon or another GELU changes the outputs by 1e-9 or more, which float32 could hide.

Source:
    Lan et al., 2019, https://arxiv.org/abs/1909.11942; keras_hub/src/models/albert/albert_backbone.py and
    keras_hub/src/layers/modeling/transformer_encoder.py; keras/src/layers/activations/softmax.py for the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import erf, pi, sqrt
from typing import Literal

import numpy as np


ReadTensor = Callable[[str], np.ndarray]  # from a name in the file to the tensor, in the file's layout
Pair = tuple[np.ndarray, np.ndarray]  # kernel and bias, or gamma and beta

_DIALECTS = ("keras", "albert_hub", "albert")

# fmt: off
# The name of each layer in each dialect.
_NAMES = {
    "token":           ("layers/reversible_embedding", "token_embedding",       "embeddings.word_embeddings"),
    "position":        ("layers/position_embedding",   "position_embedding",    "embeddings.position_embeddings"),
    "segment":         ("layers/embedding",            "segment_embedding",     "embeddings.token_type_embeddings"),
    "embeddings norm": ("layers/layer_normalization",  "embeddings_layer_norm", "embeddings.LayerNorm"),
    "projection":      ("layers/dense",                "embeddings_projection", "encoder.embedding_hidden_mapping_in"),
    "pooler":          ("layers/dense_1",              "pooled_dense",          "pooler"),
}
_LAYER_NAMES = {
    "query":          ("_self_attention_layer/query_dense",  "self_attention_layer.query_dense",  "attention.query"),
    "key":            ("_self_attention_layer/key_dense",    "self_attention_layer.key_dense",    "attention.key"),
    "value":          ("_self_attention_layer/value_dense",  "self_attention_layer.value_dense",  "attention.value"),
    "output":         ("_self_attention_layer/output_dense", "self_attention_layer.output_dense", "attention.dense"),
    "attention norm": ("_self_attention_layer_norm",         "self_attention_layer_norm",         "attention.LayerNorm"),
    "intermediate":   ("_feedforward_intermediate_dense",    "feedforward_intermediate_dense",    "ffn"),
    "feedforward":    ("_feedforward_output_dense",          "feedforward_output_dense",          "ffn_output"),
    "norm":           ("_feedforward_layer_norm",            "feedforward_layer_norm",            "full_layer_layer_norm"),
}
_ACTIVATIONS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "gelu_pytorch_tanh": lambda x: 0.5 * x * (1 + np.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))),
    "gelu":              lambda x: 0.5 * x * (1 + np.vectorize(erf)(x / sqrt(2))),
    "quick_gelu":        lambda x: x / (1 + np.exp(-1.702 * x)),
    "relu":              lambda x: np.maximum(x, 0),
    "silu":              lambda x: x / (1 + np.exp(-x)),
    "tanh":              np.tanh,
}
# fmt: on


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceEncoder:
    """An ALBERT encoder in float64. It reads weights when it needs them, and holds one group of layers at a time.

    Args:
        read: Reads a tensor by its name in the file.
        dialect: The names and axes of the file: `keras`, `albert_hub`, or `albert` for transformers' ALBERT.
        num_layers: How many times the input runs through a group of layers.
        num_heads: Number of attention heads.
        num_groups: Number of groups.
        num_inner_repetitions: Number of layers in a group.
        activation: The activation of the feed-forward blocks: a key of `_ACTIVATIONS`.
        epsilon: The epsilon of the layer norms.
    """

    read: ReadTensor
    dialect: Literal["keras", "albert_hub", "albert"]
    num_layers: int
    num_heads: int
    num_groups: int = 1
    num_inner_repetitions: int = 1
    activation: str = "gelu_pytorch_tanh"
    epsilon: float = 1e-12

    def encode(
        self, token_ids: np.ndarray, segment_ids: np.ndarray, padding_mask: np.ndarray, pooler: bool = True
    ) -> dict[str, np.ndarray]:
        """Encode a batch.

        Args:
            token_ids: (batch, seq), in [0, vocabulary_size).
            segment_ids: (batch, seq), in [0, num_segments).
            padding_mask: (batch, seq), 1 for tokens and 0 for padding.
            pooler: Whether to compute the pooled output.

        Returns:
            `sequence_output` (batch, seq, hidden), and `pooled_output` (batch, hidden) if `pooler`.

        Raises:
            KeyError: `read` does not find a tensor.
        """
        tokens, positions, segments = (self._tensor(self._name(what), 0) for what in ("token", "position", "segment"))
        x = tokens[token_ids].astype(np.float64) + positions[: token_ids.shape[1]] + segments[segment_ids]
        x = self._norm(x, self._pair(self._name("embeddings norm")))
        x = _dense(x, self._dense_pair(self._name("projection")))
        visible = padding_mask.astype(bool)[:, None, None, :]  # (batch, heads, queries, keys)
        for group in range(self.num_groups):
            layers = [self._layer_pairs(group, inner) for inner in range(self.num_inner_repetitions)]
            for _ in range(self.num_layers // self.num_groups):
                for layer in layers:
                    x = self._layer(x, visible, layer)
        outputs = {"sequence_output": x}
        if pooler:
            outputs["pooled_output"] = np.tanh(_dense(x[:, 0], self._dense_pair(self._name("pooler"))))
        return outputs

    def _layer(self, x: np.ndarray, visible: np.ndarray, layer: Mapping[str, Pair]) -> np.ndarray:
        """Run one layer: attention, residual, layer norm; feed-forward block, residual, layer norm."""
        batch, seq, hidden = x.shape
        query, key, value = (
            _dense(x, layer[name]).reshape(batch, seq, self.num_heads, -1).swapaxes(1, 2)
            for name in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(-1, -2) / sqrt(hidden // self.num_heads)
        attended = _softmax(scores, visible) @ value
        attended = _dense(attended.swapaxes(1, 2).reshape(batch, seq, hidden), layer["output"])
        x = self._norm(x + attended, layer["attention norm"])
        intermediate = _ACTIVATIONS[self.activation](_dense(x, layer["intermediate"]))
        return self._norm(x + _dense(intermediate, layer["feedforward"]), layer["norm"])

    def _norm(self, x: np.ndarray, pair: Pair) -> np.ndarray:
        gamma, beta = pair
        centered: np.ndarray = x - x.mean(-1, keepdims=True)
        variance: np.ndarray = (centered**2).mean(-1, keepdims=True)
        normal: np.ndarray = centered / np.sqrt(variance + self.epsilon) * gamma + beta
        return normal

    def _layer_pairs(self, group: int, inner: int) -> dict[str, Pair]:
        count = group * self.num_inner_repetitions + inner
        before = {
            "keras": "layers/transformer_encoder" + (f"_{count}" if count else "") + "/",
            "albert_hub": f"transformer_layers.{group}.{inner}.",
            "albert": f"encoder.albert_layer_groups.{group}.albert_layers.{inner}.",
        }[self.dialect]
        names = {what: before + row[_DIALECTS.index(self.dialect)] for what, row in _LAYER_NAMES.items()}
        return {
            what: self._pair(name) if what.endswith("norm") else self._dense_pair(name) for what, name in names.items()
        }

    def _name(self, what: str) -> str:
        return _NAMES[what][_DIALECTS.index(self.dialect)]

    def _tensor(self, layer: str, index: int) -> np.ndarray:
        return self.read(f"{layer}/vars/{index}" if self.dialect == "keras" else f"{layer}.{('weight', 'bias')[index]}")

    def _pair(self, layer: str) -> Pair:
        return self._tensor(layer, 0).astype(np.float64), self._tensor(layer, 1).astype(np.float64)

    def _dense_pair(self, layer: str) -> Pair:
        """Return a kernel (inputs, outputs) and its bias. torch stores (outputs, inputs); KerasHub may split by heads."""
        kernel, bias = self._pair(layer)
        return kernel if self.dialect == "keras" else kernel.T, bias


def _dense(x: np.ndarray, pair: Pair) -> np.ndarray:
    kernel, bias = pair
    rows = x.reshape(-1, x.shape[-1])  # one product of matrices: NumPy would compute one for each row of the batch
    y: np.ndarray = rows @ kernel.reshape(x.shape[-1], -1) + bias.reshape(-1)
    return y.reshape(*x.shape[:-1], -1)


def _softmax(scores: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Return the softmax over the visible keys; zeros if no key is visible."""
    scores = np.where(visible, scores, -np.inf)
    peaks = scores.max(-1, keepdims=True)
    powers = np.exp(scores - np.where(np.isfinite(peaks), peaks, 0))
    total = powers.sum(-1, keepdims=True)
    probabilities: np.ndarray = powers / np.where(total > 0, total, 1)
    return probabilities
