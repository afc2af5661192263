"""Register this package's classes with transformers' Auto classes, without importing transformers.

wrapt calls back when transformers loads the module of an Auto class, or at once where it is loaded already.
transformers imports itself in circles, so a hook waits until nothing that our class needs is half loaded.
`tests/test_package.py` tries the orders.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

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
