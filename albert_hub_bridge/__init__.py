"""Convert ALBERT between KerasHub and Hugging Face: the same text in, the same numbers out.

Importing this package registers its classes with transformers' `AutoConfig`, `AutoModel` and `AutoTokenizer`
(`_registration`). It imports neither torch nor transformers, because conversions need neither.
"""

from __future__ import annotations

from albert_hub_bridge import _interrupts


if _interrupts.is_command():
    _interrupts.end_without_traceback()

import importlib
from typing import TYPE_CHECKING, Any

from albert_hub_bridge._on_import import register_when_imported
from albert_hub_bridge._requirements import explain_failed_import
from albert_hub_bridge._version import __version__ as __version__


register_when_imported()


# Every public name, by the module that defines it.
_PUBLIC = {
    "_registration": ("register",),
    "commands.complete": ("complete",),
    "commands.convert": ("convert",),
    "commands.embed": ("embed",),
    "commands.export_onnx": ("export_onnx",),
    "commands.in_memory": ("to_keras", "to_keras_preprocessor", "to_transformers"),
    "commands.inspect": ("inspect",),
    "commands.publish": ("card", "push"),
    "commands.verify": ("check", "verify"),
    "errors": ("AlbertHubBridgeError",),
    "lora.convert": ("convert_adapter",),
    "model.configuration_albert_hub": ("AlbertHubConfig",),
    "model.modeling_albert_hub": (
        "AlbertHubForMaskedLM",
        "AlbertHubForMultipleChoice",
        "AlbertHubForPreTraining",
        "AlbertHubForQuestionAnswering",
        "AlbertHubForSequenceClassification",
        "AlbertHubForTokenClassification",
        "AlbertHubModel",
    ),
    "model.tokenization_albert_hub": ("AlbertHubTokenizer",),
    "runtime.backbone": ("AlbertBackbone", "Backbone"),
    "runtime.embedding": ("Embedder",),
}
_MODULES = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = list(_MODULES)

if TYPE_CHECKING:  # type checkers do not read the table; a test compares the two
    from albert_hub_bridge._registration import register as register  # noqa: I001 (one import for each module)
    from albert_hub_bridge.commands.complete import complete as complete
    from albert_hub_bridge.commands.convert import convert as convert
    from albert_hub_bridge.commands.embed import embed as embed
    from albert_hub_bridge.commands.export_onnx import export_onnx as export_onnx
    from albert_hub_bridge.commands.in_memory import (
        to_keras as to_keras,
        to_keras_preprocessor as to_keras_preprocessor,
        to_transformers as to_transformers,
    )
    from albert_hub_bridge.commands.inspect import inspect as inspect
    from albert_hub_bridge.commands.publish import card as card, push as push
    from albert_hub_bridge.commands.verify import check as check, verify as verify
    from albert_hub_bridge.errors import AlbertHubBridgeError as AlbertHubBridgeError
    from albert_hub_bridge.lora.convert import convert_adapter as convert_adapter
    from albert_hub_bridge.model.configuration_albert_hub import AlbertHubConfig as AlbertHubConfig
    from albert_hub_bridge.model.modeling_albert_hub import (
        AlbertHubForMaskedLM as AlbertHubForMaskedLM,
        AlbertHubForMultipleChoice as AlbertHubForMultipleChoice,
        AlbertHubForPreTraining as AlbertHubForPreTraining,
        AlbertHubForQuestionAnswering as AlbertHubForQuestionAnswering,
        AlbertHubForSequenceClassification as AlbertHubForSequenceClassification,
        AlbertHubForTokenClassification as AlbertHubForTokenClassification,
        AlbertHubModel as AlbertHubModel,
    )
    from albert_hub_bridge.model.tokenization_albert_hub import AlbertHubTokenizer as AlbertHubTokenizer
    from albert_hub_bridge.runtime.backbone import AlbertBackbone as AlbertBackbone, Backbone as Backbone
    from albert_hub_bridge.runtime.embedding import Embedder as Embedder


def __getattr__(name: str) -> Any:
    """Import a public name from its module when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
    except Exception as error:
        if (message := explain_failed_import()) is None:
            raise
        raise ImportError(message) from error
    value = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
