"""What makes a repository a model for sentence-transformers: an encoder, and how its states become one vector.

The files are those that `SentenceTransformer.save` writes since 5.4, beside the files that transformers reads.
Source: sentence_transformers/base/model.py, base/modules/transformer.py and sentence_transformer/modules/pooling.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.disk.durable import write_file
from albert_hub_bridge.disk.json_files import read_json, write_json
from albert_hub_bridge.disk.regular_files import read_bytes
from albert_hub_bridge.disk.strict_json import parse
from albert_hub_bridge.errors import ConfigurationError, Problem, SourceError
from albert_hub_bridge.text import first_few


Pooling = Literal["mean", "cls"]

MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
TRANSFORMER, POOLING = "sentence_bert_config.json", "1_Pooling/config.json"
FILES = frozenset({MODULES, SETTINGS, TRANSFORMER, POOLING})

_MOST_BYTES = 1 << 20  # of `modules.json`, which has some hundred
_OLDEST_READER = "5.4.0"  # the first that knows these classes and keys; older ones say so to their user

_CLASSES = {
    "": "sentence_transformers.base.modules.transformer.Transformer",
    "1_Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
}


def encoder_of(checkpoint: Checkpoint, source: str | Path, drop_head: bool) -> Checkpoint:
    """Return what sentence-transformers loads of a checkpoint: the encoder.

    Args:
        checkpoint: What was read.
        source: Its name, for the message.
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
    return checkpoint.without(checkpoint.head_rules, None, "sentence-transformers has no place for it")


def write_sentence_transformers(folder: Path, pooling: Pooling, hidden_dim: int) -> None:
    """Write the files of a model for sentence-transformers beside those of a repository.

    Args:
        folder: Of the repository, which is not in its place yet.
        pooling: What a text's vector is: the `mean` of the states of its tokens, `[CLS]` and `[SEP]` among them, or the
            state of `[CLS]` alone. Padding does not count.
        hidden_dim: Width of the states.
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
    write_json(folder / SETTINGS, settings)


def dropped_settings(folder: Path) -> list[str]:
    """Say what of a repository's files for sentence-transformers is not carried over.

    Returns:
        A note, or none where there are no such files.

    Raises:
        ConfigurationError: `modules.json` or the pooling's configuration cannot be read.
    """
    file = folder / MODULES
    if not file.is_file():
        return []
    try:
        modules = [str(module["type"]).rpartition(".")[2][:80] for module in parse(read_bytes(file, _MOST_BYTES))]
    except (ValueError, TypeError, KeyError) as error:
        problem = Problem("unusable", MODULES, f"expected a list of modules with their type, found {error!r}")
        raise ConfigurationError(file, "configuration", [problem]) from error
    modes = ""
    if (folder / POOLING).is_file():
        config = read_json(folder / POOLING)
        modes = f", pooling {_pooling_modes(config)}"
    return [
        f"{MODULES} makes it a model for sentence-transformers ({first_few(modules, 10)}{modes[:200]}), and that is "
        "not carried over. A repository becomes one with --sentence-transformers mean or cls."
    ]


def _pooling_modes(config: dict[str, Any]) -> str:
    """Return how states become one vector, as writers of all years say it: one mode, several, or a switch for each."""
    modes = config.get("pooling_mode") or [
        key.removeprefix("pooling_mode_") for key, value in config.items() if key.startswith("pooling_mode_") and value
    ]
    return " and ".join(map(str, modes)) or "mean" if isinstance(modes, list) else str(modes)
