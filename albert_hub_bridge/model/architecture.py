"""The eleven numbers that define an ALBERT encoder, under KerasHub's names, and what other ALBERTs do otherwise.

This module is pure: no torch, no transformers. The configuration checks itself with it, and so does everything that
converts without ever building a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The constructor arguments of `keras_hub.models.AlbertBackbone`, checked.

    Args:
        vocabulary_size: Number of rows of the token embedding.
        num_layers: How many times the input runs through a group. Divisible by `num_groups`.
        num_heads: Attention heads. Divides `hidden_dim`.
        embedding_dim: Width of the factorized embeddings.
        hidden_dim: Width of the encoder and the pooler.
        intermediate_dim: Width of the feed-forward block.
        num_groups: Number of groups; the layers of one group share their parameters.
        num_inner_repetitions: Encoder layers within one group.
        dropout: Dropout rate of embeddings, attention and feed-forward, in [0, 1).
        max_sequence_length: Number of position embeddings.
        num_segments: Number of segment (token type) embeddings.

    Raises:
        ValueError: The numbers cannot be an ALBERT; the message names every impossible value.

    Source:
        Lan et al., 2019, https://arxiv.org/abs/1909.11942; keras_hub/src/models/albert/albert_backbone.py.
    """

    vocabulary_size: int
    num_layers: int
    num_heads: int
    embedding_dim: int
    hidden_dim: int
    intermediate_dim: int
    num_groups: int = 1
    num_inner_repetitions: int = 1
    dropout: float = 0.0
    max_sequence_length: int = 512
    num_segments: int = 2

    def __post_init__(self) -> None:
        check_architecture(asdict(self))

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_dim // self.num_heads

    @property
    def num_inner_layers(self) -> int:
        """Number of encoder layers that have parameters of their own."""
        return self.num_groups * self.num_inner_repetitions


FIELDS = tuple(field.name for field in fields(Architecture))

ACTIVATIONS = ("gelu_pytorch_tanh", "gelu", "quick_gelu", "relu", "silu", "tanh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What every KerasHub ALBERT does in one way, the defaults here, and other ALBERTs may do otherwise.

    Args:
        activation: Of the feed-forward blocks and the masked-LM head: one of `ACTIVATIONS`, transformers' names.
        layer_norm_epsilon: Of all layer norms but the masked-LM head's. Positive.
        attention_dropout: Dropout rate of the attention probabilities, in [0, 1); None for that of all the rest.

    Raises:
        ValueError: A value is impossible; the message names every one.
    """

    activation: str = "gelu_pytorch_tanh"
    layer_norm_epsilon: float = 1e-12
    attention_dropout: float | None = None

    def __post_init__(self) -> None:
        if problems := variant_problems(asdict(self)):
            raise ValueError("Impossible ALBERT: " + "; ".join(problems) + ".")


VARIANT_FIELDS = tuple(field.name for field in fields(Variant))


def check_architecture(values: Mapping[str, Any]) -> None:
    """Refuse what cannot be an ALBERT.

    Raises:
        ValueError: Names every impossible value of `values`, a mapping that has all of `FIELDS`.
    """
    if problems := architecture_problems(values):
        raise ValueError("Impossible ALBERT architecture: " + "; ".join(problems) + ".")


def architecture_problems(values: Mapping[str, Any]) -> list[str]:
    """Say everything that is impossible about `values`, a mapping that has all of `FIELDS`."""
    problems = []
    for name in FIELDS:
        value = values[name]
        if name == "dropout":
            if not is_rate(value):
                problems.append(f"dropout must be a number in [0, 1), not {value!r}")
        elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
            problems.append(f"{name} must be a positive integer, not {value!r}")
    if problems:  # the two rules below need numbers
        return problems
    for whole, part in (("num_layers", "num_groups"), ("hidden_dim", "num_heads")):
        if values[whole] % values[part]:
            problems.append(f"{whole}={values[whole]} must be divisible by {part}={values[part]}")
    return problems


def variant_problems(values: Mapping[str, Any]) -> list[str]:
    """Say everything that is impossible about `values`, a mapping that has all of `VARIANT_FIELDS`."""
    problems = []
    if values["activation"] not in ACTIVATIONS:
        problems.append(f"activation must be one of {', '.join(ACTIVATIONS)}, not {values['activation']!r}")
    epsilon = values["layer_norm_epsilon"]
    if not is_epsilon(epsilon):
        problems.append(f"layer_norm_epsilon must be a positive number up to 1, not {epsilon!r}")
    if values["attention_dropout"] is not None and not is_rate(values["attention_dropout"]):
        problems.append(f"attention_dropout must be a number in [0, 1) or None, not {values['attention_dropout']!r}")
    return problems


def is_rate(value: Any) -> bool:
    """Tell whether a value can be a dropout rate: a number in [0, 1)."""
    return type(value) in (int, float) and 0.0 <= value < 1.0


def is_epsilon(value: Any) -> bool:
    """Tell whether a value can be added to a variance: a positive number up to 1."""
    return type(value) in (int, float) and 0.0 < value <= 1.0
