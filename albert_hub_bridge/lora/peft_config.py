"""PEFT's adapters: how it names layers, and what `adapter_config.json` says and has to say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from math import sqrt
from typing import Any

from albert_hub_bridge.lora.factors import Factors
from albert_hub_bridge.mapping.configs import BOOLEAN, Constant, Ignored, Renamed, Table, Validator
from albert_hub_bridge.mapping.heads import HEADS
from albert_hub_bridge.mapping.weights import TorchDialect, head_rules


PREFIX = "base_model.model."  # PEFT's own model, and its tuner's

_COUNT = Validator("a positive integer", lambda value: type(value) is int and value > 0)
_NUMBER = Validator("a number below a billion", lambda value: type(value) in (int, float) and abs(value) < 1e9)
_TEXT = Validator("a text, or null", lambda value: value is None or isinstance(value, str))


# PEFT matches names with whatever expression stands there. One with groups can take longer than anybody waits, and names
# of layers need none: `attention.(query|key)` can be written as two.
_SIMPLE = re.compile(r"[\w.\\^$|*+?\[\]-]{1,200}")
_MOST_REPEATS, _MOST_PATTERNS = 3, 1000


def _is_pattern(key: str) -> bool:
    if _SIMPLE.fullmatch(key) is None or len(re.findall(r"[*+?]", key)) > _MOST_REPEATS:
        return False
    try:
        return bool(re.compile(key))
    except re.error:
        return False


def _by_pattern(value: Any, *kinds: type) -> bool:
    few = isinstance(value, dict) and len(value) <= _MOST_PATTERNS
    return few and all(_is_pattern(key) and type(value[key]) in kinds for key in value)


_PATTERNS = f"at most {_MOST_PATTERNS:,} simple patterns of names (no groups, at most {_MOST_REPEATS} repeats)"
_RANKS = Validator(f"an object of ranks by {_PATTERNS}", lambda value: _by_pattern(value, int))
_ALPHAS = Validator(
    f"an object of numbers by {_PATTERNS}",
    lambda value: _by_pattern(value, int, float) and all(map(_NUMBER.accepts, value.values())),
)

_TRAINING = "only says how it was trained"
_ANOTHER = "a variant of LoRA that adds something else"
_TENSORS = "the tensors say which layers there are"

# adapter_config.json, as PEFT 0.2 to 0.21 wrote it.
# fmt: off
PEFT: Table = {
    "peft_type":               Constant(("LORA",), "only LoRA has a place in KerasHub"),
    "bias":                    Constant(("none",), "Keras' LoRA trains no biases", "none"),
    "use_dora":                Constant((False,), "DoRA also scales the kernel that it is added to", False),
    "use_qalora":              Constant((False,), _ANOTHER, False),
    "lora_bias":               Constant((False,), "Keras' LoRA has no bias of its own", False),
    "init_lora_weights":       Constant((True, False, "gaussian", "eva", "orthogonal"), "the base is another one then: save the adapter with path_initial_model_for_weight_conversion", True),
    "layer_replication":       Constant((None, []), "ALBERT's layers are not replicated", None),
    "trainable_token_indices": Constant((None, [], {}), "Keras' LoRA trains no tokens", None),
    "target_parameters":       Constant((None, []), "ALBERT's layers are modules", None),
    "alora_invocation_tokens": Constant((None,), _ANOTHER, None),
    "use_bdlora":              Constant((None,), _ANOTHER, None),
    "arrow_config":            Constant((None,), _ANOTHER, None),
    "kasa_config":             Constant((None,), _ANOTHER, None),
    "monteclora_config":       Constant((None,), _ANOTHER, None),
    "velora_config":           Constant((None,), "VeLoRA saves tensors that only its training uses", None),
    "r":                       Renamed("rank", 8, _COUNT),
    "lora_alpha":              Renamed("alpha", 8, _NUMBER),
    "use_rslora":              Renamed("rank_stabilized", False, BOOLEAN),
    "rank_pattern":            Renamed("ranks", {}, _RANKS),
    "alpha_pattern":           Renamed("alphas", {}, _ALPHAS),
    "task_type":               Renamed("task_type", None, _TEXT),
    "modules_to_save":         Ignored(_TENSORS),
    "target_modules":          Ignored(_TENSORS),
    "exclude_modules":         Ignored(_TENSORS),
    "layers_to_transform":     Ignored(_TENSORS),
    "layers_pattern":          Ignored(_TENSORS),
    "fan_in_fan_out":          Ignored("ALBERT's layers are all of torch's usual kind"),
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
    "enable_lora":             Ignored("only merged layers, which ALBERT has none of, use it"),
    "merge_weights":           Ignored(_TRAINING),
    "auto_mapping":            Ignored("names the base's class"),
    "base_model_name_or_path": Ignored("the base is given"),
    "revision":                Ignored("the base is given"),
    "peft_version":            Ignored("says where the file came from"),
}
# fmt: on


@dataclass(frozen=True, slots=True)
class PeftSettings:
    """What adapter_config.json says of ranks and scales.

    Args:
        rank: Of all layers but those that `ranks` names.
        alpha: What the scale is made of, of all layers but those that `alphas` names.
        rank_stabilized: Whether the scale is alpha / sqrt(rank), instead of alpha / rank.
        ranks: By patterns of names.
        alphas: By patterns of names.
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
        """Return what a layer's product is multiplied by."""
        rank = self.rank_of(module)
        return float(_first_match(self.alphas, module, self.alpha)) / (sqrt(rank) if self.rank_stabilized else rank)


def _first_match(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """Look a layer up as PEFT does. Source: peft/utils/other.py, `get_pattern_key`."""
    return next((value for key, value in patterns.items() if _compiled(key).match(module)), default)


@lru_cache(maxsize=2 * _MOST_PATTERNS)  # of ranks and of alphas
def _compiled(key: str) -> re.Pattern[str]:
    return re.compile(rf"(.*\.)?({key})$")


def peft_config(
    factors: Mapping[str, Factors], modules_to_save: list[str] | None = None, task_type: str | None = None
) -> dict[str, Any]:
    """Return adapter_config.json for an adapter.

    Args:
        factors: By the layers' names in the model that the adapter is for; each scale times its rank is an alpha.
        modules_to_save: Layers that the adapter replaces as a whole.
        task_type: PEFT's name of the task.
    """
    ranks = {name: layer.rank for name, layer in factors.items()}
    alphas = {name: _plain(layer.scale * layer.rank) for name, layer in factors.items()}
    rank, alpha = (max(found.values(), key=list(found.values()).count) for found in (ranks, alphas))
    return {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": None,
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


def _plain(number: float) -> float:
    """Return a whole number where only rounding hides one: (5 / 49) * 49 is not quite 5."""
    return round(number) if abs(number - round(number)) < 1e-9 else number


@cache
def head_modules(dialect: TorchDialect) -> frozenset[str]:
    """Return the first part of the names of every head's tensors."""
    return frozenset(rule.name(dialect).partition(".")[0] for kind in HEADS for rule in head_rules(kind))
