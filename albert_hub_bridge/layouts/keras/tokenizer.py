"""The tokenizer and the preprocessor of a KerasHub preset."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from albert_hub_bridge.checkpoint import TokenizerSpec
from albert_hub_bridge.disk.durable import write_file
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.disk.strict_json import write_json
from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.formats.sentencepiece import read_vocabulary
from albert_hub_bridge.layouts.configuration import read_fields
from albert_hub_bridge.layouts.keras.files import KERAS_TOKENIZER as TOKENIZER_BESIDE_REPOSITORY
from albert_hub_bridge.layouts.keras.files import PREPROCESSOR, TASK, TOKENIZER, VOCABULARY
from albert_hub_bridge.layouts.keras.objects import MODULES, config_of, policy, read_keras_config, serialized
from albert_hub_bridge.layouts.keras.task import Task
from albert_hub_bridge.mapping.configs import DEFAULT_MASKING, KERAS_TOKENIZER, IgnoredKey
from albert_hub_bridge.mapping.configs import PREPROCESSOR as PREPROCESSOR_KEYS
from albert_hub_bridge.mapping.heads import HEADS, Head
from albert_hub_bridge.mapping.vocabulary import bake_normalization
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.model.sentencepiece_unigram import TextNormalization


DEFAULT_LENGTH = 512  # of a packed input


def keras_truncate(tokenizer: TokenizerSpec) -> str:
    """Return how KerasHub cuts pairs. It has no `longest_first`; `round_robin` is the nearest."""
    return "waterfall" if tokenizer.truncate == "waterfall" else "round_robin"


def packed_length(tokenizer: TokenizerSpec, architecture: Architecture) -> int:
    """Return the number of tokens of a packed input: of the tokenizer, or KerasHub's default, if the model has them."""
    return min(tokenizer.sequence_length or DEFAULT_LENGTH, architecture.max_sequence_length)


def read_tokenizer(
    source: SourceFolder, architecture: Architecture, task: Task | None
) -> tuple[TokenizerSpec | None, list[IgnoredKey], list[str]]:
    """Read the tokenizer of a preset, if it has one.

    Returns:
        The tokenizer, the settings that are not converted, and notes for the report.

    Raises:
        FileError, ConfigurationError, VocabularyError: A file is wrong, or two files contradict each other.
    """
    if VOCABULARY not in source:
        return None, [], [f"The preset has no {VOCABULARY}: the result has no tokenizer."]
    proto, vocabulary = read_vocabulary(source.path(VOCABULARY), architecture, partial(source.read, VOCABULARY))
    if TOKENIZER in source:
        read_fields(source.path(TOKENIZER), KERAS_TOKENIZER, read_keras_config(source, TOKENIZER, "Tokenizer"))
    found = []
    if PREPROCESSOR in source:
        keys = read_keras_config(source, PREPROCESSOR, "Preprocessor")
        found.append(_read_preprocessor(source.path(PREPROCESSOR), keys))
    if task is not None and task.preprocessor is not None:
        found.append(_read_preprocessor(task.file, task.preprocessor))
    packing, ignored = found[0] if found else ({}, [])
    problems = [
        Problem("contradiction", key, f"expected {value!r} as {TASK} has, found {packing[key]!r}")
        for key, value in (found[-1][0].items() if found else ())
        if value != packing[key]
    ]
    if problems:
        raise ConfigurationError(source.folder / PREPROCESSOR, "configuration", problems)
    return TokenizerSpec(proto, vocabulary, TextNormalization(), **packing), ignored, []


def _read_preprocessor(file: Path, keys: Mapping[str, Any]) -> tuple[dict[str, Any], list[IgnoredKey]]:
    """Read how inputs are packed, and check the tokenizer that is nested in the preprocessor."""
    fields, ignored = read_fields(file, PREPROCESSOR_KEYS, keys)
    if (tokenizer := keys.get("tokenizer")) is not None:
        read_fields(file, KERAS_TOKENIZER, config_of(file, tokenizer, "Tokenizer", "tokenizer"))
    return fields, [key for key in ignored if key.key != "tokenizer"]  # it was read just now


def write_tokenizer(
    tokenizer: TokenizerSpec,
    architecture: Architecture,
    head: Head | None,
    folder: Path,
    *,
    beside_repository: bool = False,
) -> dict[str, Any] | None:
    """Write the tokenizer of a preset, and its preprocessor where it needs one.

    Args:
        tokenizer: The tokenizer.
        architecture: The architecture of the encoder, which limits the length of inputs.
        head: The head; None if the preset is an encoder alone.
        folder: The folder of the preset.
        beside_repository: Whether the folder has the files of a repository too. KerasHub then finds the tokenizer by
            the preprocessor alone, which is always written.

    Returns:
        The preprocessor as a serialized object, or None if none was written.

    Raises:
        OSError: The system did not write a file, which it names.
    """
    preprocessor = preprocessor_object(tokenizer, architecture, head)
    packing = preprocessor["config"]
    write_json(folder / (TOKENIZER_BESIDE_REPOSITORY if beside_repository else TOKENIZER), packing["tokenizer"])
    (folder / VOCABULARY).parent.mkdir(parents=True)
    write_file(folder / VOCABULARY, bake_normalization(tokenizer.proto, tokenizer.normalization))
    # Without preprocessor.json KerasHub makes a preprocessor with these defaults. A task needs the file.
    is_default = (packing["sequence_length"], packing["truncate"]) == (DEFAULT_LENGTH, "round_robin")
    if head is None and is_default and not beside_repository:
        return None
    write_json(folder / PREPROCESSOR, preprocessor)
    return preprocessor


def preprocessor_object(tokenizer: TokenizerSpec, architecture: Architecture, head: Head | None) -> dict[str, Any]:
    """Return the preprocessor as a serialized object, with its tokenizer, which has no vocabulary yet.

    Args:
        tokenizer: The tokenizer.
        architecture: The architecture of the encoder, which limits the length of inputs.
        head: The head; None if the model is an encoder alone.
    """
    config = {"name": "albert_tokenizer", "trainable": True, "dtype": policy("int32")}
    config |= {"config_file": TOKENIZER, "proto": None, "sequence_length": None, "add_bos": False, "add_eos": False}
    task = HEADS[head.kind].keras if head is not None else "AlbertTextClassifier"
    packing = {
        "name": MODULES[f"{task}Preprocessor"],
        "trainable": True,
        "dtype": policy("float32"),
        "tokenizer": serialized("AlbertTokenizer", config),
        "config_file": PREPROCESSOR,
        "sequence_length": packed_length(tokenizer, architecture),
        "truncate": keras_truncate(tokenizer),
    }
    if task == "AlbertMaskedLM":  # KerasHub's defaults
        packing |= DEFAULT_MASKING
    return serialized(f"{task}Preprocessor", packing)
