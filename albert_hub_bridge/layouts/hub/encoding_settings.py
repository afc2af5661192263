"""How sentence-transformers encodes a text with a repository: prompt, largest length, pooling and normalization."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from albert_hub_bridge.checkpoint import SentenceModules
from albert_hub_bridge.choices import Pooling
from albert_hub_bridge.layouts.hub.files import MODULES, POOLING, SENTENCE_TRANSFORMERS, TRANSFORMER


@dataclass(frozen=True, slots=True)
class EncodingSettings:
    """What `SentenceTransformer.encode` does by default.

    Args:
        pooling: How the states of tokens become one vector.
        normalize: Whether vectors are divided by their length.
        prompt: What is put before each text.
        max_length: The largest number of tokens; None if the files have no limit.
        obstacles: What it also does, and this package does not.
    """

    pooling: Pooling = "mean"
    normalize: bool = False
    prompt: str = ""
    max_length: int | None = None
    obstacles: tuple[str, ...] = ()


def encoding_settings(modules: SentenceModules | None, prompt: str | None = None) -> EncodingSettings:
    """Return the settings in the files of sentence-transformers, or its defaults if there are none.

    Args:
        modules: The files, as they were read.
        prompt: What is put before each text. By default the prompt that the files choose.

    Source:
        sentence_transformers/sentence_transformer/model.py and sentence_transformer/modules/pooling.py.
    """
    if modules is None:
        return EncodingSettings(prompt=prompt or "")
    if modules.obstacle:
        return EncodingSettings(prompt=prompt or "", obstacles=(modules.obstacle,))
    classes = [str(module["type"]).rpartition(".")[2] for module in json.loads(modules.contents[MODULES])]
    model, transformer, pooling = (_settings(modules, name) for name in (SENTENCE_TRANSFORMERS, TRANSFORMER, POOLING))
    if prompt is None:
        prompt = (model.get("prompts") or {}).get(model.get("default_prompt_name")) or ""
    obstacles = [
        f"a module {name}" for name in classes if name not in ("Transformer", "Pooling", "Normalize", "Dropout")
    ]
    if modules.pooling is None and "Pooling" in classes:
        obstacles.append(f"another pooling than mean and cls ({modules.description})")
    if prompt and pooling.get("include_prompt") is False:
        obstacles.append("pooling without the tokens of the prompt")
    if transformer.get("do_lower_case"):
        obstacles.append(f"lower-casing ({TRANSFORMER})")
    length = transformer.get("max_seq_length")
    return EncodingSettings(
        pooling=modules.pooling or "mean",
        normalize="Normalize" in classes,
        prompt=prompt,
        max_length=length if isinstance(length, int) else None,
        obstacles=tuple(obstacles),
    )


def _settings(modules: SentenceModules, name: str) -> Mapping[str, Any]:
    """Return the content of a file of settings, which was checked when it was read; nothing if there is none."""
    found = json.loads(modules.contents[name]) if name in modules.contents else {}
    return found if isinstance(found, dict) else {}
