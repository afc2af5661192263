"""The eleven numbers that define an ALBERT encoder, under KerasHub's names.

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
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < 1.0:
                problems.append(f"dropout must be a number in [0, 1), not {value!r}")
        elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
            problems.append(f"{name} must be a positive integer, not {value!r}")
    if problems:  # the two rules below need numbers
        return problems
    for whole, part in (("num_layers", "num_groups"), ("hidden_dim", "num_heads")):
        if values[whole] % values[part]:
            problems.append(f"{whole}={values[whole]} must be divisible by {part}={values[part]}")
    return problems
