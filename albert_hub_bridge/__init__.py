"""Move ALBERT between KerasHub and Hugging Face: the same text in, the same numbers out, nothing lost in silence.

Importing this package registers its classes with transformers' `AutoConfig`, `AutoModel` and `AutoTokenizer`. It
imports neither torch nor transformers, because conversions need neither. `_registration` says how.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from albert_hub_bridge import _registration as _registration
from albert_hub_bridge._version import __version__ as __version__


if TYPE_CHECKING:
    from albert_hub_bridge.commands.check import check as check
    from albert_hub_bridge.commands.convert import convert as convert
    from albert_hub_bridge.commands.inspect import inspect as inspect
    from albert_hub_bridge.commands.publish import card as card
    from albert_hub_bridge.commands.publish import push as push
    from albert_hub_bridge.lora.convert import convert_adapter as convert_adapter
    from albert_hub_bridge.model.configuration_albert_hub import AlbertHubConfig as AlbertHubConfig
    from albert_hub_bridge.model.modeling_albert_hub import AlbertHubForMaskedLM as AlbertHubForMaskedLM
    from albert_hub_bridge.model.modeling_albert_hub import AlbertHubForMultipleChoice as AlbertHubForMultipleChoice
    from albert_hub_bridge.model.modeling_albert_hub import AlbertHubForPreTraining as AlbertHubForPreTraining
    from albert_hub_bridge.model.modeling_albert_hub import (
        AlbertHubForQuestionAnswering as AlbertHubForQuestionAnswering,
    )
    from albert_hub_bridge.model.modeling_albert_hub import (
        AlbertHubForSequenceClassification as AlbertHubForSequenceClassification,
    )
    from albert_hub_bridge.model.modeling_albert_hub import (
        AlbertHubForTokenClassification as AlbertHubForTokenClassification,
    )
    from albert_hub_bridge.model.modeling_albert_hub import AlbertHubModel as AlbertHubModel
    from albert_hub_bridge.model.tokenization_albert_hub import AlbertHubTokenizer as AlbertHubTokenizer
    from albert_hub_bridge.runtime.backbone import AlbertBackbone as AlbertBackbone
    from albert_hub_bridge.verification.run import verify as verify

# Every public name, and the module that defines it. Type checkers read the block above; a test compares the two.
# fmt: off
_PUBLIC = {
    "AlbertBackbone":                     "runtime.backbone",
    "AlbertHubConfig":                    "model.configuration_albert_hub",
    "AlbertHubForMaskedLM":               "model.modeling_albert_hub",
    "AlbertHubForMultipleChoice":         "model.modeling_albert_hub",
    "AlbertHubForPreTraining":            "model.modeling_albert_hub",
    "AlbertHubForQuestionAnswering":      "model.modeling_albert_hub",
    "AlbertHubForSequenceClassification": "model.modeling_albert_hub",
    "AlbertHubForTokenClassification":    "model.modeling_albert_hub",
    "AlbertHubModel":                     "model.modeling_albert_hub",
    "AlbertHubTokenizer":                 "model.tokenization_albert_hub",
    "card":                               "commands.publish",
    "check":                              "commands.check",
    "convert":                            "commands.convert",
    "convert_adapter":                    "lora.convert",
    "inspect":                            "commands.inspect",
    "push":                               "commands.publish",
    "verify":                             "verification.run",
}
# fmt: on

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
