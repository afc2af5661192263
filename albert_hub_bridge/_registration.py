"""Register this package's classes with transformers' Auto classes and with KerasHub, without importing either.

wrapt calls back when transformers loads the module of an Auto class, or at once where it is loaded already.
transformers imports itself in circles, so a hook waits until nothing that our class needs is half loaded.
`tests/test_package.py` tries the orders.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

import wrapt


def register() -> None:
    """Do nothing: importing this package registers its classes.

    It is for programs that start workers and call a function in each, such as Ray (`worker_process_setup_hook`) and
    `multiprocessing` (`initializer`). They import the package to find it.
    """


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
        getattr(auto, head.auto).register(AlbertHubConfig, getattr(ours, head.albert_hub), exist_ok=True)


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


def _add_exporters(keras_hub: ModuleType) -> None:
    """Let KerasHub's `export_to_transformers` write ALBERT. It refuses ALBERT, and its tasks have no such method.

    KerasHub's own table of exporters (`keras_hub/src/utils/transformers/export/hf_exporter.py`) is private, and what it
    writes has no heads and no `tokenizer.json`. So its public classes get the method. If a later version
    of KerasHub defines it in `AlbertBackbone`, that stays.
    """

    def export_to_transformers(self: Any, path: Any, *, preprocessor: Any = None, overwrite: bool = False) -> None:
        """Write a repository for transformers: see `albert_hub_bridge.commands.in_memory`."""
        in_memory = importlib.import_module("albert_hub_bridge.commands.in_memory")  # by name: this room has no floor
        in_memory.export_to_transformers(self, path, preprocessor=preprocessor, overwrite=overwrite)

    def refuse_tokenizer(self: Any, path: Any) -> NoReturn:
        """Raise: the files of a tokenizer depend on its model."""
        raise ValueError(
            "The tokenizer of an ALBERT is written with its model: call export_to_transformers of the task, or "
            "backbone.export_to_transformers(path, preprocessor=...)."
        )

    models = getattr(keras_hub, "models", None)
    exporters = {
        "AlbertBackbone": export_to_transformers,
        "AlbertTextClassifier": export_to_transformers,
        "AlbertMaskedLM": export_to_transformers,
        "AlbertTokenizer": refuse_tokenizer,
    }
    if missing := [name for name in exporters if not isinstance(getattr(models, name, None), type)]:
        warnings.warn(
            f"KerasHub {getattr(keras_hub, '__version__', '')} has no {', '.join(missing)}, so that albert_hub_bridge "
            "adds no export_to_transformers to its ALBERT. Save a preset, and convert it.",
            stacklevel=2,
        )
        return
    for name, exporter in exporters.items():
        if "export_to_transformers" not in vars(getattr(models, name)):
            setattr(getattr(models, name), "export_to_transformers", exporter)  # noqa: B010 (mypy knows no such class)


wrapt.register_post_import_hook(_add_exporters, "keras_hub")
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
