"""Move ALBERT between KerasHub and Hugging Face: the same text in, the same numbers out, nothing lost in silence.

Importing this package teaches transformers' `AutoConfig`, `AutoModel` and `AutoTokenizer` about `albert_hub`, without
importing transformers: the classes are registered in the moment those modules are loaded, or now if they are already.
That keeps conversions, which need neither torch nor transformers, at a fraction of a second.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import wrapt


if TYPE_CHECKING:
    from albert_hub_bridge.adapters import convert_adapter
    from albert_hub_bridge.backbone import AlbertBackbone
    from albert_hub_bridge.bridge import convert, inspect
    from albert_hub_bridge.model.configuration_albert_hub import AlbertHubConfig
    from albert_hub_bridge.model.modeling_albert_hub import (
        AlbertHubForMaskedLM,
        AlbertHubForMultipleChoice,
        AlbertHubForPreTraining,
        AlbertHubForQuestionAnswering,
        AlbertHubForSequenceClassification,
        AlbertHubForTokenClassification,
        AlbertHubModel,
    )
    from albert_hub_bridge.model.tokenization_albert_hub import AlbertHubTokenizer
    from albert_hub_bridge.publish import card, check, push
    from albert_hub_bridge.verification import verify

__version__ = "0.1.0"

_HOMES = {
    "AlbertBackbone": "backbone",
    "AlbertHubConfig": "model.configuration_albert_hub",
    "AlbertHubForMaskedLM": "model.modeling_albert_hub",
    "AlbertHubForMultipleChoice": "model.modeling_albert_hub",
    "AlbertHubForPreTraining": "model.modeling_albert_hub",
    "AlbertHubForQuestionAnswering": "model.modeling_albert_hub",
    "AlbertHubForSequenceClassification": "model.modeling_albert_hub",
    "AlbertHubForTokenClassification": "model.modeling_albert_hub",
    "AlbertHubModel": "model.modeling_albert_hub",
    "AlbertHubTokenizer": "model.tokenization_albert_hub",
    "card": "publish",
    "check": "publish",
    "convert": "bridge",
    "convert_adapter": "adapters",
    "inspect": "bridge",
    "push": "publish",
    "verify": "verification",
}

__all__ = [
    "AlbertBackbone",
    "AlbertHubConfig",
    "AlbertHubForMaskedLM",
    "AlbertHubForMultipleChoice",
    "AlbertHubForPreTraining",
    "AlbertHubForQuestionAnswering",
    "AlbertHubForSequenceClassification",
    "AlbertHubForTokenClassification",
    "AlbertHubModel",
    "AlbertHubTokenizer",
    "card",
    "check",
    "convert",
    "convert_adapter",
    "inspect",
    "push",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register_config() -> None:
    from transformers.models.auto.configuration_auto import AutoConfig

    from albert_hub_bridge.model.configuration_albert_hub import AlbertHubConfig

    AutoConfig.register(AlbertHubConfig.model_type, AlbertHubConfig, exist_ok=True)


def _register_model() -> None:
    from transformers.models.auto import modeling_auto as auto

    from albert_hub_bridge.mapping.heads import HEADS
    from albert_hub_bridge.model import modeling_albert_hub as ours
    from albert_hub_bridge.model.configuration_albert_hub import AlbertHubConfig

    auto.AutoModel.register(AlbertHubConfig, ours.AlbertHubModel, exist_ok=True)
    for head in HEADS.values():
        getattr(auto, head.auto).register(AlbertHubConfig, getattr(ours, head.bridge), exist_ok=True)


def _register_tokenizer() -> None:
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    from albert_hub_bridge.model.configuration_albert_hub import AlbertHubConfig
    from albert_hub_bridge.model.tokenization_albert_hub import AlbertHubTokenizer

    AutoTokenizer.register(AlbertHubConfig, tokenizer_class=AlbertHubTokenizer, exist_ok=True)


def _when_imported(register: Callable[[], None], auto: str, *needed: str) -> None:
    """Call `register` once the Auto class's module is loaded and nothing that our class needs is half loaded."""
    loaded = set()

    def check(module: ModuleType) -> None:
        loaded.add(module.__name__)
        if auto in loaded and all(name in loaded for name in needed if name in sys.modules):
            register()

    for name in (auto, *needed):
        wrapt.register_post_import_hook(check, name)


_when_imported(
    _register_config,
    "transformers.models.auto.configuration_auto",
    "albert_hub_bridge.model.configuration_albert_hub",
)
_when_imported(
    _register_model,
    "transformers.models.auto.modeling_auto",
    "transformers.modeling_layers",  # imports the Auto classes before it defines what our model needs
    "albert_hub_bridge.model.modeling_albert_hub",
)
_when_imported(
    _register_tokenizer,
    "transformers.models.auto.tokenization_auto",
    "albert_hub_bridge.model.tokenization_albert_hub",
)
