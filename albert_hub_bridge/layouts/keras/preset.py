"""KerasHub presets: a folder of `config.json`, `model.weights.h5` and `assets/tokenizer/vocabulary.spm`.

A task has `task.json` and `task.weights.h5` besides. Source of the format: keras_hub/src/utils/preset_utils.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint, Progress, TokenizerSpec, check_layers, match_weights
from albert_hub_bridge.disk.durable import write_file
from albert_hub_bridge.disk.json_files import read_json, write_json
from albert_hub_bridge.errors import ConfigurationError, Problem, SourceError, WeightsError
from albert_hub_bridge.formats.hdf5 import Hdf5Files
from albert_hub_bridge.formats.lazy_tensors import DTYPES, LazyTensor
from albert_hub_bridge.formats.sentencepiece import read_vocabulary
from albert_hub_bridge.layouts.configuration import Configuration, read_configuration, read_fields
from albert_hub_bridge.layouts.keras.objects import MODULES, check_objects, config_of, read_keras_config, serialized
from albert_hub_bridge.layouts.keras.task import (
    CONFIG,
    TASK,
    TASK_WEIGHTS,
    Task,
    check_copy,
    is_task,
    new_optimizer,
    read_task,
    split_task,
    task_object,
)
from albert_hub_bridge.layouts.keras.weights import (
    check_index,
    check_policy,
    dequantized,
    files_of,
    plan_file,
    plan_weights,
    read_weights,
    weights_among,
    weights_file,
)
from albert_hub_bridge.layouts.weight_files import write_weights
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.mapping.configs import (
    KERAS,
    KERAS_TOKENIZER,
    PREPROCESSOR,
    IgnoredKey,
    write_keys,
)
from albert_hub_bridge.mapping.heads import HEADS, Head
from albert_hub_bridge.mapping.vocabulary import bake_normalization
from albert_hub_bridge.mapping.weights import POOLER, head_rules, parameter_count, weight_rules
from albert_hub_bridge.model.architecture import DEFAULTS, Architecture
from albert_hub_bridge.model.sentencepiece_unigram import TextNormalization
from albert_hub_bridge.text import short_repr


METADATA, PREPROCESSING = "metadata.json", "preprocessor.json"
TOKENIZER, VOCABULARY = "tokenizer.json", "assets/tokenizer/vocabulary.spm"
SETTINGS = frozenset({CONFIG, METADATA, PREPROCESSING, TASK, TOKENIZER, VOCABULARY})

# The versions whose format is written; `metadata.json` is where KerasHub looks for them.
_FORMAT = {"keras_version": "3.15.1", "keras_hub_version": "0.32.0"}


def is_checkpoint_file(name: str) -> bool:
    """Tell whether this module writes a file of that name."""
    return name in SETTINGS or bool(weights_among([name]))


def read_preset(folder: Path, drop_head: bool = False) -> Checkpoint:
    """Read a preset. The weights stay on disk until they are asked for.

    Args:
        folder: A folder that has a `config.json` with KerasHub's `class_name`.
        drop_head: Whether to leave out a head that is not known or has no weights, instead of refusing it.

    Raises:
        SourceError: The preset is of another architecture.
        ConfigurationError, WeightsError, VocabularyError: The preset is wrong; all problems are listed.
    """
    configuration = read_config(folder)
    architecture, file = configuration.architecture, weights_file(folder)
    files = files_of(file)
    resources = ExitStack()
    try:
        head_file = [folder / TASK_WEIGHTS] if (folder / TASK_WEIGHTS).is_file() else []
        opened = Hdf5Files([*files, *head_file], resources)
        task = read_task(folder, configuration, drop_head)
        text, text_ignored, notes = _read_text(folder, architecture, task)
        found = read_weights(files, opened)
        if file.suffix == ".json":
            check_index(file, files, opened)
        parts = split_task(folder, found, task, opened)
        encoder, quantized = dequantized(file, parts.encoder)
        check_layers(file, architecture, len(encoder))
        expected = {rule.keras: rule for rule in weight_rules(architecture)}
        weights = match_weights(file, encoder, expected, axis_sizes(architecture), "keras")
        check_copy(parts)
        dtype = next(iter(weights.values())).dtype
        if task is not None and task.head is not None:
            head, _ = dequantized(parts.head_file, parts.head)
            expected = {rule.keras: rule for rule in head_rules(task.head.kind)}
            sizes = axis_sizes(architecture, task.head.num_labels)
            head_weights = match_weights(parts.head_file, head, expected, sizes, "keras")
            if wrong := [name for name, weight in head_weights.items() if weight.dtype != dtype]:
                problems = [Problem("wrong dtype", name, f"expected {dtype}, as the encoder has") for name in wrong]
                raise WeightsError(parts.head_file, "weights", problems)
            weights |= head_weights
    except BaseException:
        resources.close()
        raise
    if (policy := _policy_name(_backbone(folder / CONFIG).get("dtype"))).startswith("mixed_"):
        half = policy.removeprefix("mixed_")
        notes.append(
            f"The preset's policy {policy} computes in {half}; the target computes in {dtype}, its weights' own."
        )
    if quantized:
        notes.append(
            "The preset is quantized to int8. Its weights are dequantized to float32, as Keras computes them; Keras "
            "also rounds what goes into each layer when it runs, which no other library does."
        )
    return Checkpoint(
        layout="keras",
        folder=folder,
        architecture=architecture,
        weights=weights,
        dtype=dtype,
        head=task.head if task is not None else None,
        tokenizer=text,
        dropped=parts.dropped,
        ignored=[*configuration.ignored, *text_ignored],
        notes=[*notes, *parts.notes],
        weights_file=file,
        quantized=quantized,
        resources=resources,
    )


def read_config(folder: Path) -> Configuration:
    """Read what a preset's `config.json` says of the encoder.

    Raises:
        SourceError: The preset is of another architecture.
        ConfigurationError: The configuration is wrong; all problems are listed.
    """
    file = folder / CONFIG
    return read_configuration(file, KERAS, _backbone(file))


def _backbone(file: Path) -> dict[str, Any]:
    """Return the configuration of the backbone that a `config.json` describes, or that is nested in its task.

    Raises:
        SourceError, ConfigurationError: As `read_config`.
    """
    content = read_json(file)
    backbone: Any = content
    if is_task(content):  # keras-nlp before 0.12 wrote tasks in one piece
        config = content.get("config")
        backbone = config.get("backbone") if isinstance(config, dict) else None
    found = backbone.get("class_name") if isinstance(backbone, dict) else None
    if found != "AlbertBackbone":
        raise SourceError(
            f"{file} describes another model: expected an AlbertBackbone, found {short_repr(found)[:200]}. "
            "This package only converts ALBERT."
        )
    keys = backbone.get("config")
    if not isinstance(keys, dict):
        problem = Problem("missing key", "config", "expected an object, found none")
        raise ConfigurationError(file, "configuration", [problem])
    check_policy(file, keys.get("dtype"))
    check_objects(file, content)
    return keys


def _read_text(
    folder: Path, architecture: Architecture, task: Task | None
) -> tuple[TokenizerSpec | None, list[IgnoredKey], list[str]]:
    if not (folder / VOCABULARY).is_file():
        return None, [], [f"The preset has no {VOCABULARY}: the result has no tokenizer."]
    proto, vocabulary = read_vocabulary(folder / VOCABULARY, architecture)
    if (file := folder / TOKENIZER).is_file():
        read_fields(file, KERAS_TOKENIZER, read_keras_config(file, "Tokenizer"))
    found = []
    if (file := folder / PREPROCESSING).is_file():
        found.append(_read_preprocessor(file, read_keras_config(file, "Preprocessor")))
    if task is not None and task.preprocessor is not None:
        found.append(_read_preprocessor(task.file, task.preprocessor))
    packing, ignored = found[0] if found else ({}, [])
    problems = [
        Problem("contradiction", key, f"expected {other!r} as {TASK} has, found {packing[key]!r}")
        for key, other in (found[-1][0].items() if found else ())
        if other != packing[key]
    ]
    if problems:
        raise ConfigurationError(folder / PREPROCESSING, "configuration", problems)
    return TokenizerSpec(proto, vocabulary, TextNormalization(), **packing), ignored, []


def _read_preprocessor(file: Path, keys: Mapping[str, Any]) -> tuple[dict[str, Any], list[IgnoredKey]]:
    """Read what a file says of packing, and see that the tokenizer nested in it does what `tokenizer.json` says."""
    fields, ignored = read_fields(file, PREPROCESSOR, keys)
    if (tokenizer := keys.get("tokenizer")) is not None:
        read_fields(file, KERAS_TOKENIZER, config_of(file, tokenizer, "Tokenizer", "tokenizer"))
    return fields, [key for key in ignored if key.key != "tokenizer"]  # nested, long, and no news


def unsupported_by_keras(architecture: Architecture, head: Head | None) -> list[Problem]:
    """Say what KerasHub's ALBERT cannot compute."""
    problems = [
        Problem(
            "unsupported value", name, f"expected {DEFAULTS[name]!r}, found {value!r}: KerasHub computes nothing else"
        )
        for name, value in architecture.differences_from_keras.items()
    ]
    if head is not None and not HEADS[head.kind].keras:
        lacking = "sentence-order head" if head.kind == "pretraining" else HEADS[head.kind].description
        problems.append(Problem("unsupported", "head", f"KerasHub's ALBERT has no {lacking}"))
    return problems


def write_preset(
    checkpoint: Checkpoint, folder: Path, progress: Progress | None = None, max_shard_bytes: int | None = None
) -> dict[Path, str]:
    """Write a checkpoint as a preset that `keras_hub.models.Backbone.from_preset` loads, or a task's `from_preset`.

    Args:
        checkpoint: What to write. Where it has no pooler, one of zeros is written: KerasHub needs one.
        folder: An existing, empty folder.
        progress: Called after every tensor.
        max_shard_bytes: Size of the values in one file of weights; None for one file.

    Returns:
        The SHA-256 of every file of weights, as it was read back, in hexadecimal.

    Raises:
        ConfigurationError: KerasHub cannot compute what the checkpoint is; all reasons are listed.
        TargetError: One weight alone is larger than a shard may be.
        OSError: The system did not write a file, which it names.
    """
    if problems := unsupported_by_keras(checkpoint.architecture, checkpoint.head):
        advice = "Convert to the albert_hub layout instead, which can compute it"
        advice += ", or pass --drop-head (drop_head=True)." if problems[-1].where == "head" else "."
        raise ConfigurationError(checkpoint.folder / CONFIG, "configuration, for KerasHub,", problems, advice)
    checkpoint = with_pooler(checkpoint)
    architecture, head = checkpoint.architecture, checkpoint.head
    config = {"name": "albert_backbone", "trainable": True, "dtype": _policy(checkpoint.dtype)}
    config |= write_keys(KERAS, architecture.keras_arguments)
    backbone = serialized("AlbertBackbone", config)
    write_json(folder / CONFIG, backbone)
    metadata = {**_FORMAT, "parameter_count": parameter_count(architecture), "tasks": ["MaskedLM", "TextClassifier"]}
    write_json(folder / METADATA, metadata)
    preprocessor = _write_text(checkpoint.tokenizer, head, folder) if checkpoint.tokenizer is not None else None
    files = plan_weights(checkpoint, folder, max_shard_bytes)
    if head is not None:
        write_json(folder / TASK, task_object(head, backbone, preprocessor))
        files.append(plan_file(checkpoint, folder / TASK_WEIGHTS, checkpoint.head_rules, new_optimizer(head)))
    return write_weights(checkpoint, files, "keras", progress)


def with_heads_of_keras(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint without what KerasHub has no head for; the masked LM of a pretraining head stays."""
    head = checkpoint.head
    if head is None or HEADS[head.kind].keras:
        return checkpoint
    kept = replace(head, kind="masked_lm") if head.kind == "pretraining" else None
    rules_kept = head_rules("masked_lm") if kept is not None else ()
    rules = [rule for rule in checkpoint.head_rules if rule not in rules_kept]
    return checkpoint.without(rules, kept, "KerasHub has no place for it")


def with_pooler(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with a pooler: of zeros, where it has none."""
    if checkpoint.has_pooler:
        return checkpoint
    pooler = {
        rule.albert_hub: LazyTensor(shape, checkpoint.dtype, partial(np.zeros, shape, DTYPES[checkpoint.dtype]))
        for rule in weight_rules(checkpoint.architecture)
        if rule.albert_hub in POOLER and (shape := rule.shape("albert_hub", checkpoint.sizes))
    }
    return replace(checkpoint, weights={**checkpoint.weights, **pooler})


def _write_text(text: TokenizerSpec, head: Head | None, folder: Path) -> dict[str, Any] | None:
    """Write a preset's tokenizer, and return its preprocessor, where it is written too."""
    tokenizer_config = {"name": "albert_tokenizer", "trainable": True, "dtype": _policy("int32")}
    tokenizer_config |= {"config_file": TOKENIZER, "proto": None, "sequence_length": None}
    tokenizer_config |= {"add_bos": False, "add_eos": False}
    tokenizer = serialized("AlbertTokenizer", tokenizer_config)
    write_json(folder / TOKENIZER, tokenizer)
    (folder / VOCABULARY).parent.mkdir(parents=True)
    write_file(folder / VOCABULARY, bake_normalization(text.proto, text.normalization))
    # KerasHub makes a preprocessor with its defaults where a preset has none; write one to say something else, or for
    # a task. `longest_first` is not among what it can say; `round_robin` comes nearest.
    truncate = "waterfall" if text.truncate == "waterfall" else "round_robin"
    if head is None and text.sequence_length in (None, 512) and truncate == "round_robin":
        return None
    task = HEADS[head.kind].keras if head is not None else "AlbertTextClassifier"
    config = {
        "name": MODULES[f"{task}Preprocessor"],
        "trainable": True,
        "dtype": _policy("float32"),
        "tokenizer": tokenizer,
    }
    config |= {"config_file": PREPROCESSING, "sequence_length": text.sequence_length or 512, "truncate": truncate}
    if task == "AlbertMaskedLM":  # KerasHub's defaults
        config |= {"mask_selection_rate": 0.15, "mask_selection_length": 96}
        config |= {"mask_token_rate": 0.8, "random_token_rate": 0.1}
    preprocessor = serialized(f"{task}Preprocessor", config)
    write_json(folder / PREPROCESSING, preprocessor)
    return preprocessor


def _policy_name(policy: Any) -> str:
    """Return the name of a serialized dtype policy; empty where it has none."""
    if isinstance(policy, dict):
        config = policy.get("config")
        policy = config.get("name") if isinstance(config, dict) else None
    return policy if isinstance(policy, str) else ""


def _policy(name: str) -> dict[str, Any]:
    return {"module": "keras", "class_name": "DTypePolicy", "config": {"name": name}, "registered_name": None}
