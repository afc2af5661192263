"""The files of sentence-transformers: an encoder, and how its states become one vector.

This module writes what `SentenceTransformer.save` writes since 5.4, next to the files of transformers.

Source:
    sentence_transformers/base/model.py, base/modules/transformer.py and sentence_transformer/modules/pooling.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.disk.durable import write_file
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.disk.strict_json import parse, write_json
from albert_hub_bridge.errors import ConfigurationError, Problem, SourceError
from albert_hub_bridge.layouts.hub.files import MODULES, POOLING, POOLING_FILES, SENTENCE_TRANSFORMERS, TRANSFORMER
from albert_hub_bridge.layouts.layout import Pooling
from albert_hub_bridge.text import first_few


_MAX_MODULES_BYTES = 1 << 20  # `modules.json` has some hundred bytes
_OLDEST_READER = "5.4.0"  # the first version that knows these classes and keys; older ones report that

_CLASSES = {
    "": "sentence_transformers.base.modules.transformer.Transformer",
    "1_Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
}


def encoder_of(checkpoint: Checkpoint, source: str | Path, drop_head: bool) -> Checkpoint:
    """Return what sentence-transformers loads of a checkpoint: the encoder.

    Args:
        checkpoint: The checkpoint.
        source: The name of the source, for the message.
        drop_head: Whether to leave out a head instead of refusing it.

    Raises:
        SourceError: There is a head, or no vocabulary.
    """
    if checkpoint.tokenizer is None:
        raise SourceError(f"{source} has no vocabulary that is read, and sentence-transformers takes texts.")
    if checkpoint.head is None:
        return checkpoint
    if not drop_head:
        raise SourceError(
            f"{source} has a head ({checkpoint.head.description}), and sentence-transformers loads the encoder alone. "
            "Pass --drop-head (drop_head=True) to convert that."
        )
    return checkpoint.without(checkpoint.head_rules, None, "unsupported by sentence-transformers")


def write_sentence_transformers(folder: Path, pooling: Pooling, hidden_dim: int) -> None:
    """Write the files of sentence-transformers into a repository.

    Args:
        folder: The folder of the repository.
        pooling: What the vector of a text is: the `mean` of the states of all its tokens, `[CLS]` and `[SEP]` too, or
            the state of `[CLS]` alone (`cls`). Padding does not count.
        hidden_dim: The width of the states.
    """
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": name}
        for index, (path, name) in enumerate(_CLASSES.items())
    ]
    write_file(folder / MODULES, f"{json.dumps(modules, indent=2)}\n".encode())
    states = {"method": "forward", "method_output_name": "last_hidden_state"}
    transformer = {"transformer_task": "feature-extraction", "modality_config": {"text": states}}
    write_json(folder / TRANSFORMER, transformer | {"module_output_name": "token_embeddings"})
    (folder / POOLING).parent.mkdir()
    write_json(folder / POOLING, {"embedding_dimension": hidden_dim, "pooling_mode": pooling, "include_prompt": True})
    settings = {
        "__version__": {"sentence_transformers": _OLDEST_READER},
        "default_prompt_name": None,
        "model_type": "SentenceTransformer",
        "prompts": {"document": "", "query": ""},
        "similarity_fn_name": "cosine",
    }
    write_json(folder / SENTENCE_TRANSFORMERS, settings)


def dropped_pooling(source: SourceFolder) -> list[str]:
    """Return a note on the files of sentence-transformers, which are not converted; empty if there are none.

    Raises:
        ConfigurationError: `modules.json` or the configuration of the pooling cannot be read.
    """
    if MODULES not in source:
        return []
    present = [name for name in POOLING_FILES if name in source]  # this note is about all of them
    try:
        listed = parse(source.read(MODULES, _MAX_MODULES_BYTES))
        modules = [str(module["type"]).rpartition(".")[2][:80] for module in listed]
    except (ValueError, TypeError, KeyError) as error:
        problem = Problem("unusable", MODULES, f"expected a list of modules with their type, found {error!r}")
        raise ConfigurationError(source.path(MODULES), "configuration", [problem]) from error
    modes = f", pooling {_pooling_modes(source.json(POOLING))}" if POOLING in present else ""
    return [
        f"{MODULES} makes it a model for sentence-transformers ({first_few(modules, 10)}{modes[:200]}), and that is "
        "not converted. A repository becomes one with --sentence-transformers mean or cls."
    ]


def _pooling_modes(config: Mapping[str, Any]) -> str:
    """Return the modes of pooling. Versions of the library wrote one mode, a list, or a switch for each mode."""
    modes = config.get("pooling_mode") or [
        key.removeprefix("pooling_mode_") for key, value in config.items() if key.startswith("pooling_mode_") and value
    ]
    return " and ".join(map(str, modes)) or "mean" if isinstance(modes, list) else str(modes)
