"""What defines an ALBERT encoder: the arguments of KerasHub's `AlbertBackbone`, and three settings of other ALBERTs.

This module needs neither torch nor transformers. The model's configuration and every conversion check themselves with
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


ACTIVATIONS = ("gelu_pytorch_tanh", "gelu", "quick_gelu", "relu", "silu", "tanh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The settings of an ALBERT encoder, checked.

    The first eleven are the constructor arguments of `keras_hub.models.AlbertBackbone`. KerasHub has only one value for
    each of the last three: the default here.

    Args:
        vocabulary_size: Number of rows of the token embedding.
        num_layers: Number of times that the input runs through a group. Divisible by `num_groups`.
        num_heads: Number of attention heads. Divides `hidden_dim`.
        embedding_dim: Width of the factorized embeddings.
        hidden_dim: Width of the encoder and the pooler.
        intermediate_dim: Width of the feed-forward block.
        num_groups: Number of groups. The layers of one group share their parameters.
        num_inner_repetitions: Number of encoder layers in one group.
        dropout: Dropout rate of embeddings, attention and feed-forward block, in [0, 1).
        max_sequence_length: Number of position embeddings.
        num_segments: Number of segment (token type) embeddings.
        activation: Activation of the feed-forward block and of the masked-LM head: one of `ACTIVATIONS`, which are
            names of transformers.
        layer_norm_epsilon: Epsilon of all layer norms but that of the masked-LM head, in (0, 1].
        attention_dropout: Dropout rate of the attention probabilities, in [0, 1). `None` stands for `dropout`.

    Raises:
        ValueError: The settings are impossible. The message names every impossible value.

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
    activation: str = "gelu_pytorch_tanh"
    layer_norm_epsilon: float = 1e-12
    attention_dropout: float | None = None

    def __post_init__(self) -> None:
        check_architecture(asdict(self))

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_dim // self.num_heads

    @property
    def num_inner_layers(self) -> int:
        """Number of encoder layers with parameters of their own."""
        return self.num_groups * self.num_inner_repetitions

    @property
    def keras_arguments(self) -> dict[str, Any]:
        """The constructor arguments of KerasHub's `AlbertBackbone`."""
        return {name: getattr(self, name) for name in KERAS_FIELDS}

    @property
    def differences_from_keras(self) -> dict[str, Any]:
        """The settings that KerasHub does not have, where they differ from what KerasHub computes."""
        settings = {name: getattr(self, name) for name in OTHER_FIELDS}
        return {name: value for name, value in settings.items() if value != DEFAULTS[name]}


FIELDS = tuple(field.name for field in fields(Architecture))
OTHER_FIELDS = ("activation", "layer_norm_epsilon", "attention_dropout")
KERAS_FIELDS = tuple(name for name in FIELDS if name not in OTHER_FIELDS)
DEFAULTS: Mapping[str, Any] = {name: Architecture.__dataclass_fields__[name].default for name in OTHER_FIELDS}


def check_architecture(values: Mapping[str, Any]) -> None:
    """Raise if settings cannot belong to an ALBERT.

    Args:
        values: All of `KERAS_FIELDS`. What is absent of `OTHER_FIELDS` has its default.

    Raises:
        ValueError: The settings are impossible. The message names every impossible value.
    """
    if problems := architecture_problems(values):
        raise ValueError("Impossible ALBERT: " + "; ".join(problems) + ".")


def architecture_problems(values: Mapping[str, Any]) -> list[str]:
    """Return everything that is impossible about settings, as `check_architecture` takes them."""
    problems = []
    for name in KERAS_FIELDS:
        value = values[name]
        if name == "dropout":
            if not is_rate(value):
                problems.append(f"dropout must be a number in [0, 1), not {value!r}")
        elif isinstance(value, bool) or not isinstance(value, int) or value < 1:
            problems.append(f"{name} must be a positive integer, not {value!r}")
    if not problems:  # these two rules need numbers
        for whole, part in (("num_layers", "num_groups"), ("hidden_dim", "num_heads")):
            if values[whole] % values[part]:
                problems.append(f"{whole}={values[whole]} must be divisible by {part}={values[part]}")
    return problems + _other_problems({**DEFAULTS, **values})


def _other_problems(values: Mapping[str, Any]) -> list[str]:
    problems = []
    if values["activation"] not in ACTIVATIONS:
        problems.append(f"activation must be one of {', '.join(ACTIVATIONS)}, not {values['activation']!r}")
    if not is_epsilon(epsilon := values["layer_norm_epsilon"]):
        problems.append(f"layer_norm_epsilon must be a positive number up to 1, not {epsilon!r}")
    if values["attention_dropout"] is not None and not is_rate(values["attention_dropout"]):
        problems.append(f"attention_dropout must be a number in [0, 1) or None, not {values['attention_dropout']!r}")
    return problems


def is_rate(value: Any) -> bool:
    """Return whether a value can be a dropout rate: a number in [0, 1)."""
    return type(value) in (int, float) and 0.0 <= value < 1.0


def is_epsilon(value: Any) -> bool:
    """Return whether a value can be an epsilon, which is added to a variance: a number in (0, 1]."""
    return type(value) in (int, float) and 0.0 < value <= 1.0
