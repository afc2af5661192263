"""PEFT's `adapter_config.json`: its keys, and how PEFT derives ranks and scales from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import Any, NamedTuple

from albert_hub_bridge.lora.factors import Factors
from albert_hub_bridge.mapping.configs import BOOLEAN, COUNT, Constant, Ignored, Renamed, Table, Validator


# PEFT matches the names of layers with regular expressions. A malicious expression can take exponential time, so groups
# are not supported and repeats are few. `attention.(query|key)` can be written as two patterns.
_SIMPLE_PATTERN = re.compile(r"[\w.\\^$|*+?\[\]-]{1,200}")
_MAX_REPEATS, _MAX_PATTERNS = 3, 1000


def _is_simple_pattern(key: str) -> bool:
    if _SIMPLE_PATTERN.fullmatch(key) is None or len(re.findall(r"[*+?]", key)) > _MAX_REPEATS:
        return False
    try:
        return bool(re.compile(key))
    except re.error:
        return False


def _has_patterns(value: Any, *types: type) -> bool:
    """Return whether a value is an object with patterns as keys, and values of these types."""
    if not isinstance(value, dict) or len(value) > _MAX_PATTERNS:
        return False
    return all(_is_simple_pattern(key) and type(value[key]) in types for key in value)


_NUMBER = Validator("a number below a billion", lambda value: type(value) in (int, float) and abs(value) < 1e9)
_STRING = Validator("a string, or null", lambda value: value is None or isinstance(value, str))
_PATTERNS = f"at most {_MAX_PATTERNS:,} simple patterns of names (no groups, at most {_MAX_REPEATS} repeats)"
_RANKS = Validator(
    f"an object of positive ranks by {_PATTERNS}",
    lambda value: _has_patterns(value, int) and all(map(COUNT.accepts, value.values())),
)
_ALPHAS = Validator(
    f"an object of numbers by {_PATTERNS}",
    lambda value: _has_patterns(value, int, float) and all(map(_NUMBER.accepts, value.values())),
)

_TRAINING = "only used in training"
_VARIANT = "this variant of LoRA computes something else"
_TENSORS = "the tensors define it"

# Written by PEFT 0.2 to 0.21.
# fmt: off
PEFT: Table = {
    "peft_type":               Constant(("LORA",), "KerasHub supports only LoRA"),
    "bias":                    Constant(("none",), "LoRA in Keras has no biases", "none"),
    "use_dora":                Constant((False,), "DoRA also scales the kernel", False),
    "use_qalora":              Constant((False,), _VARIANT, False),
    "lora_bias":               Constant((False,), "LoRA in Keras has no biases", False),
    "init_lora_weights":       Constant((True, False, "gaussian", "eva", "orthogonal"), "it changes the base: save the adapter with path_initial_model_for_weight_conversion", True),
    "layer_replication":       Constant((None, []), "ALBERT has no replicated layers", None),
    "trainable_token_indices": Constant((None, [], {}), "LoRA in Keras trains no tokens", None),
    "target_parameters":       Constant((None, []), "ALBERT has modules, not bare parameters", None),
    "alora_invocation_tokens": Constant((None,), _VARIANT, None),
    "use_bdlora":              Constant((None,), _VARIANT, None),
    "arrow_config":            Constant((None,), _VARIANT, None),
    "kasa_config":             Constant((None,), _VARIANT, None),
    "monteclora_config":       Constant((None,), _VARIANT, None),
    "velora_config":           Constant((None,), "VeLoRA saves tensors of its training", None),
    "r":                       Renamed("rank", 8, COUNT),
    "lora_alpha":              Renamed("alpha", 8, _NUMBER),
    "use_rslora":              Renamed("rank_stabilized", False, BOOLEAN),
    "rank_pattern":            Renamed("ranks", {}, _RANKS),
    "alpha_pattern":           Renamed("alphas", {}, _ALPHAS),
    "task_type":               Renamed("task_type", None, _STRING),
    "modules_to_save":         Ignored(_TENSORS),
    "target_modules":          Ignored(_TENSORS),
    "exclude_modules":         Ignored(_TENSORS),
    "layers_to_transform":     Ignored(_TENSORS),
    "layers_pattern":          Ignored(_TENSORS),
    "fan_in_fan_out":          Ignored("ALBERT uses nn.Linear"),
    "lora_dropout":            Ignored(_TRAINING),
    "inference_mode":          Ignored(_TRAINING),
    "loftq_config":            Ignored(_TRAINING),
    "eva_config":              Ignored(_TRAINING),
    "corda_config":            Ignored(_TRAINING),
    "lora_ga_config":          Ignored(_TRAINING),
    "ensure_weight_tying":     Ignored(_TRAINING),
    "runtime_config":          Ignored(_TRAINING),
    "megatron_config":         Ignored(_TRAINING),
    "megatron_core":           Ignored(_TRAINING),
    "qalora_group_size":       Ignored("only QALoRA uses it"),
    "enable_lora":             Ignored("only merged layers use it, and ALBERT has none"),
    "merge_weights":           Ignored(_TRAINING),
    "auto_mapping":            Ignored("the class of the base"),
    "base_model_name_or_path": Ignored("the base is an argument"),
    "revision":                Ignored("the base is an argument"),
    "peft_version":            Ignored("the origin of the file"),
}
# fmt: on


@dataclass(frozen=True, slots=True)
class PeftSettings:
    """The ranks and scales in an `adapter_config.json`.

    Args:
        rank: The rank of the layers without a pattern in `ranks`.
        alpha: The numerator of the scale, for the layers without a pattern in `alphas`.
        rank_stabilized: Whether the scale is alpha / sqrt(rank), instead of alpha / rank.
        ranks: Ranks by patterns of names.
        alphas: Alphas by patterns of names.
    """

    rank: int
    alpha: float
    rank_stabilized: bool
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]

    def rank_of(self, module: str) -> int:
        """Return the rank of a layer."""
        return int(_first_match(self.ranks, module, self.rank))

    def scale_of(self, module: str) -> float:
        """Return the scale of a layer."""
        rank = self.rank_of(module)
        return float(_first_match(self.alphas, module, self.alpha)) / (sqrt(rank) if self.rank_stabilized else rank)


def _first_match(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """Return the value of the first pattern that matches. Source: peft/utils/other.py, `get_pattern_key`."""
    return next((value for key, value in patterns.items() if _compiled(key).match(module)), default)


@lru_cache(maxsize=2 * _MAX_PATTERNS)  # ranks and alphas
def _compiled(key: str) -> re.Pattern[str]:
    return re.compile(rf"(.*\.)?({key})$")


class BaseName(NamedTuple):
    """How PEFT loads the base of an adapter.

    Args:
        name: A folder, or a repository on Hugging Face; None if it is not known.
        revision: Of the repository, if it is pinned.
    """

    name: str | None = None
    revision: str | None = None


UNKNOWN_BASE = BaseName()


def make_peft_config(
    factors: Mapping[str, Factors],
    modules_to_save: list[str] | None = None,
    task_type: str | None = None,
    base: BaseName = UNKNOWN_BASE,
) -> dict[str, Any]:
    """Return the content of `adapter_config.json`.

    Args:
        factors: The factors by the names of the layers in the model.
        modules_to_save: Layers that the adapter replaces.
        task_type: PEFT's name of the task.
        base: Of the base.
    """
    ranks = {name: layer.rank for name, layer in factors.items()}
    alphas = {name: _round_whole(layer.scale * layer.rank) for name, layer in factors.items()}
    rank, alpha = (max(found.values(), key=list(found.values()).count) for found in (ranks, alphas))
    return {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base.name,
        "revision": base.revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
        "target_modules": list(factors),
        "modules_to_save": modules_to_save,
        "bias": "none",
        "lora_dropout": 0.0,
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
    }


def _round_whole(number: float) -> float:
    """Undo rounding errors of whole numbers: (5 / 49) * 49 is not exactly 5."""
    return round(number) if abs(number - round(number)) < 1e-9 else number
