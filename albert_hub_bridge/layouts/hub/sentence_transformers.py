"""The files of sentence-transformers: an encoder, and how its states become one vector.

This module writes what `SentenceTransformer.save` writes since 5.4, next to the files of transformers.

Source:
    sentence_transformers/base/model.py, base/modules/transformer.py and sentence_transformer/modules/pooling.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from albert_hub_bridge.checkpoint import Checkpoint, SentenceModules
from albert_hub_bridge.choices import Pooling
from albert_hub_bridge.disk.durable import write_file
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.disk.strict_json import parse, write_json
from albert_hub_bridge.errors import ConfigurationError, Problem, SourceError
from albert_hub_bridge.layouts.hub.files import (
    MODULE_KINDS,
    MODULES,
    POOLING,
    POOLING_FILES,
    PYTORCH,
    SENTENCE_TRANSFORMERS,
    TRANSFORMER,
    WEIGHTS,
)
from albert_hub_bridge.text import first_few, one_line, short_repr


_MAX_MODULES_BYTES = 1 << 20  # `modules.json` has some hundred bytes
_MAX_MODULE_BYTES = 64 << 20  # a dense layer of 4096 times 4096 values in float32
_FOLDER = re.compile(rf"[1-9]_({'|'.join(MODULE_KINDS)})")
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
    if not checkpoint.has_tokenizer:
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


def write_modules(folder: Path, modules: SentenceModules) -> None:
    """Write the files of another model for sentence-transformers into a repository, as they are."""
    for name, content in modules.contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        write_file(folder / name, content)


def read_modules(source: SourceFolder) -> SentenceModules | None:
    """Read the files of sentence-transformers, if there are any.

    Raises:
        FileError, ConfigurationError: `modules.json` or a configuration cannot be read.
    """
    if MODULES not in source:
        return None
    try:
        listed = parse(source.read(MODULES, _MAX_MODULES_BYTES))
        rows = [(str(module["type"]), str(module.get("path", ""))) for module in listed]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        problem = Problem("unusable", MODULES, f"expected a list of modules with their type, found {error!r}")
        raise ConfigurationError(source.path(MODULES), "configuration", [problem]) from error
    names = [name for name in (*POOLING_FILES, *_module_files(path for _, path in rows)) if name in source]
    settings = {name: source.json(name) for name in (TRANSFORMER, POOLING) if name in names}
    if SENTENCE_TRANSFORMERS in names:
        _check_prompts(source.path(SENTENCE_TRANSFORMERS), source.json(SENTENCE_TRANSFORMERS))
    description = first_few([type_.rpartition(".")[2][:80] for type_, _ in rows], 10)
    if (modes := _pooling_modes(settings[POOLING]) if POOLING in settings else "") != "":
        description += f", pooling {modes[:200]}"
    if type(length := settings.get(TRANSFORMER, {}).get("max_seq_length")) is int:
        description += f", at most {length} tokens"
    if obstacle := _obstacle(source, rows):
        return SentenceModules(description, {}, obstacle)
    contents = {name: source.read(name, _MAX_MODULE_BYTES) for name in dict.fromkeys(names)}
    found = {"mean": "mean", "mean_tokens": "mean", "cls": "cls", "cls_token": "cls"}.get(modes)
    return SentenceModules(description, contents, pooling=cast("Pooling | None", found))


def _check_prompts(file: Path, settings: Mapping[str, Any]) -> None:
    problems = []
    prompts, name = settings.get("prompts"), settings.get("default_prompt_name")
    # JSON has no other keys than strings.
    if prompts is not None and not isinstance(prompts, dict):
        problems.append(Problem("wrong type", "prompts", f"expected texts by name, found {short_repr(prompts)}"))
    elif prompts:
        problems += [
            Problem("wrong type", f"prompts.{key[:80]}", f"expected a text, found {short_repr(prompt)}")
            for key, prompt in prompts.items()
            if not isinstance(prompt, str | None)
        ]
    if not isinstance(name, str | None):
        detail = f"expected the name of a prompt or null, found {short_repr(name)}"
        problems.append(Problem("wrong type", "default_prompt_name", detail))
    elif name is not None and not problems and name not in {"query", "document", *(prompts or {})}:
        detail = f"expected one of {first_few(list(prompts or {}), 20) or 'query, document'}, found {short_repr(name)}"
        problems.append(Problem("unknown", "default_prompt_name", detail))
    if problems:
        raise ConfigurationError(file, "configuration", problems)


def _module_files(paths: Iterable[str]) -> list[str]:
    """Return the files that modules in subfolders can have."""
    folders = [path for path in paths if _FOLDER.fullmatch(path)]
    return [f"{folder}/{name}" for folder in folders for name in ("config.json", WEIGHTS)]


def _obstacle(source: SourceFolder, rows: Iterable[tuple[str, str]]) -> str:
    """Return why modules cannot be carried over; empty if they can."""
    for class_name, path in rows:
        if not class_name.startswith("sentence_transformers."):
            return f"{one_line(class_name, 100)} is code of the source"
        if path and not _FOLDER.fullmatch(path):
            return f"{one_line(path, 100)} is a module that this package does not know"
        if f"{path}/{PYTORCH}" in source.names and f"{path}/{WEIGHTS}" not in source:
            return f"{path}/{PYTORCH} is a pickle; save the model with safetensors"
    return ""


def _pooling_modes(config: Mapping[str, Any]) -> str:
    """Return the modes of pooling. Versions of the library wrote one mode, a list, or a switch for each mode."""
    modes = config.get("pooling_mode") or [
        key.removeprefix("pooling_mode_") for key, value in config.items() if key.startswith("pooling_mode_") and value
    ]
    return " and ".join(map(str, modes)) or "mean" if isinstance(modes, list) else str(modes)
