"""Move ALBERT between KerasHub and Hugging Face: the same text in, the same numbers out, nothing lost in silence.

Importing this package teaches transformers' `AutoConfig`, `AutoModel` and `AutoTokenizer` about `albert_hub`, without
importing transformers: the classes are registered in the moment those modules are loaded, or now if they are already.
That keeps conversions, which need neither torch nor transformers, at a fraction of a second.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

import wrapt


if TYPE_CHECKING:
    from albert_hub_bridge.backbone import AlbertBackbone
    from albert_hub_bridge.bridge import convert, inspect, verify
    from albert_hub_bridge.model.configuration_albert_hub import AlbertHubConfig
    from albert_hub_bridge.model.modeling_albert_hub import AlbertHubModel
    from albert_hub_bridge.model.tokenization_albert_hub import AlbertHubTokenizer

__version__ = "0.1.0"

_HOMES = {
    "AlbertBackbone": "backbone",
    "AlbertHubConfig": "model.configuration_albert_hub",
    "AlbertHubModel": "model.modeling_albert_hub",
    "AlbertHubTokenizer": "model.tokenization_albert_hub",
    "convert": "bridge",
    "inspect": "bridge",
    "verify": "bridge",
}

__all__ = [
    "AlbertBackbone",
    "AlbertHubConfig",
    "AlbertHubModel",
    "AlbertHubTokenizer",
    "convert",
    "inspect",
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


@wrapt.when_imported("transformers.models.auto.configuration_auto")
def _register_config(auto: ModuleType) -> None:
    from albert_hub_bridge.model.configuration_albert_hub import AlbertHubConfig

    auto.AutoConfig.register(AlbertHubConfig.model_type, AlbertHubConfig, exist_ok=True)


@wrapt.when_imported("transformers.models.auto.modeling_auto")
def _register_model(auto: ModuleType) -> None:
    from albert_hub_bridge.model.configuration_albert_hub import AlbertHubConfig
    from albert_hub_bridge.model.modeling_albert_hub import AlbertHubModel

    auto.AutoModel.register(AlbertHubConfig, AlbertHubModel, exist_ok=True)


@wrapt.when_imported("transformers.models.auto.tokenization_auto")
def _register_tokenizer(auto: ModuleType) -> None:
    from albert_hub_bridge.model.configuration_albert_hub import AlbertHubConfig
    from albert_hub_bridge.model.tokenization_albert_hub import AlbertHubTokenizer

    auto.AutoTokenizer.register(AlbertHubConfig, tokenizer_class=AlbertHubTokenizer, exist_ok=True)
