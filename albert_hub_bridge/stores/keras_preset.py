"""KerasHub presets: a folder of `config.json`, `model.weights.h5` and `assets/tokenizer/vocabulary.spm`.

A task has `task.json` and `task.weights.h5` besides. Source of the format: keras_hub/src/utils/preset_utils.py.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from albert_hub_bridge.errors import ConfigurationError, Problem, SourceError, WeightsError
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.mapping.configs import (
    KERAS,
    KERAS_TASKS,
    KERAS_TOKENIZER,
    PREPROCESSOR,
    IgnoredKey,
    read_keys,
    write_keys,
)
from albert_hub_bridge.mapping.heads import HEADS, Head, kind_of_class
from albert_hub_bridge.mapping.vocabulary import bake_rules
from albert_hub_bridge.mapping.weights import POOLER, head_rules, parameter_count, weight_rules
from albert_hub_bridge.model.architecture import Architecture, Variant
from albert_hub_bridge.model.sentencepiece_unigram import TextRules
from albert_hub_bridge.stores.checkpoint import (
    DTYPES,
    Checkpoint,
    DroppedTensor,
    Progress,
    Text,
    Weight,
    check_layers,
    fitting_vocabulary,
    match_weights,
)
from albert_hub_bridge.stores.configurations import (
    Configuration,
    read_configuration,
    read_fields,
    read_json,
    read_object,
    write_json,
)
from albert_hub_bridge.stores.keras_weights import (
    INDEX,
    SHARD,
    WEIGHTS,
    lay_out_file,
    lay_out_weights,
    open_weights,
    weights_file,
)
from albert_hub_bridge.stores.tensors import write_weights


CONFIG, METADATA, PREPROCESSING, TASK = "config.json", "metadata.json", "preprocessor.json", "task.json"
TASK_WEIGHTS, TOKENIZER, VOCABULARY = "task.weights.h5", "tokenizer.json", "assets/tokenizer/vocabulary.spm"
KNOWN_FILES = frozenset({CONFIG, METADATA, PREPROCESSING, TASK, WEIGHTS, INDEX, TASK_WEIGHTS, TOKENIZER, VOCABULARY})

_MODULES = "keras_hub.src.models.albert"
# The versions whose format is written; `metadata.json` is where KerasHub looks for them.
_FORMAT = {"keras_version": "3.15.1", "keras_hub_version": "0.32.0"}
# Neither library has a place for the names of a classifier's labels in a preset; both read a JSON with a key more.
_LABELS = "id2label"


def is_known_file(name: str) -> bool:
    """Tell whether this module writes a file of that name."""
    return name in KNOWN_FILES or SHARD.fullmatch(name) is not None


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
    resources = ExitStack()
    try:
        found = open_weights(file, resources)
        check_layers(file, architecture, len(found))
        expected = {rule.keras: rule for rule in weight_rules(architecture)}
        weights = match_weights(file, found, expected, axis_sizes(architecture), "keras")
        head, head_weights, dropped = _read_task(folder, configuration, resources, drop_head)
        dtypes = [sorted({weight.dtype for weight in part.values()}) for part in (weights, head_weights)]
        if head_weights and dtypes[0] != dtypes[1]:
            detail = f"expected {dtypes[0][0]} as {file.name} has, found {', '.join(dtypes[1])}"
            raise WeightsError(folder / TASK_WEIGHTS, "weights", [Problem("wrong dtype", TASK_WEIGHTS, detail)])
        text, text_ignored, notes = _read_text(folder, architecture)
    except BaseException:
        resources.close()
        raise
    return Checkpoint(
        layout="keras",
        folder=folder,
        architecture=architecture,
        weights={**weights, **head_weights},
        dtype=dtypes[0][0],
        head=head,
        text=text,
        dropped=dropped,
        ignored=[*configuration.ignored, *text_ignored],
        notes=notes,
        resources=resources,
    )


def read_config(folder: Path) -> Configuration:
    """Read what a preset's `config.json` says.

    Raises:
        SourceError: The preset is of another architecture.
        ConfigurationError: The configuration is wrong; all problems are listed.
    """
    file = folder / CONFIG
    found = read_json(file).get("class_name")
    if found != "AlbertBackbone":
        raise SourceError(f"{file} describes {found}, not an AlbertBackbone. This package only converts ALBERT.")
    keys = read_object(file, "config")
    policy = keys.get("dtype")
    if isinstance(policy, dict) and policy.get("class_name") != "DTypePolicy":
        detail = f"expected a DTypePolicy, found {policy.get('class_name')}: quantized presets are not read"
        raise ConfigurationError(file, "configuration", [Problem("refused value", "dtype", detail)])
    return read_configuration(file, KERAS, keys)


def _read_task(
    folder: Path, configuration: Configuration, resources: ExitStack, drop_head: bool
) -> tuple[Head | None, dict[str, Weight], list[DroppedTensor]]:
    """Read the head of a task, and list what of its file is not carried over."""
    file, weights = folder / TASK, folder / TASK_WEIGHTS
    if not file.is_file():
        if weights.is_file():
            problem = Problem("missing", TASK, f"expected beside {TASK_WEIGHTS}")
            raise ConfigurationError(file, "configuration", [problem])
        return None, {}, []
    found = open_weights(weights, resources) if weights.is_file() else {}
    head_found = {name: weight for name, weight in found.items() if not name.startswith("optimizer/")}
    dropped = [
        DroppedTensor(f"{TASK_WEIGHTS}:{name}", weight.shape, "the optimizer's state")
        for name, weight in found.items()
        if name not in head_found
    ]
    task = read_json(file)
    kind = kind_of_class(_OLD_TASKS.get(str(task.get("class_name")), str(task.get("class_name"))))
    if kind is None or not head_found:
        if not drop_head:
            tasks = ", ".join(row.keras for row in HEADS.values() if row.keras)
            problem = (
                Problem("unknown task", "class_name", f"expected {tasks}, found {task.get('class_name')}")
                if kind is None
                else Problem(
                    "missing", TASK_WEIGHTS, f"{TASK} says {task.get('class_name')}, and its head has no weights"
                )
            )
            advice = "Pass --drop-head (drop_head=True) to convert the encoder alone."
            raise ConfigurationError(file, "configuration", [problem], advice)
        dropped += [DroppedTensor(f"{TASK_WEIGHTS}:{n}", w.shape, "its head is dropped") for n, w in head_found.items()]
        return None, {}, dropped
    _check_backbone(file, configuration)
    fields, _ = read_fields(file, KERAS_TASKS[HEADS[kind].keras], _plain_activation(read_object(file, "config")))
    head = Head(kind=kind)
    if kind == "sequence_classification":
        head = replace(
            head,
            num_labels=fields["num_labels"],
            labels=_labels(file, task, fields["num_labels"]),
            dropout=fields["classifier_dropout"],
            activation=fields["classifier_activation"],
        )
    expected = {rule.keras: rule for rule in head_rules(kind)}
    sizes = axis_sizes(configuration.architecture, head.num_labels)
    return head, match_weights(weights, head_found, expected, sizes, "keras"), dropped


_OLD_TASKS = {"AlbertClassifier": "AlbertTextClassifier"}  # keras-nlp before 0.15


def _check_backbone(file: Path, configuration: Configuration) -> None:
    """Refuse a task whose own backbone is not the one of `config.json`: only one of them can be right."""
    backbone = read_object(file, "config").get("backbone")
    keys = backbone.get("config") if isinstance(backbone, dict) else None
    if not isinstance(keys, dict):
        raise ConfigurationError(file, "configuration", [Problem("missing key", "backbone", "expected an object")])
    fields, _, problems = read_keys(KERAS, keys)
    problems = [replace(problem, where=f"backbone.{problem.where}") for problem in problems]
    problems += [
        Problem("contradiction", f"backbone.{name}", f"expected {value!r} as in {CONFIG}, found {fields[name]!r}")
        for name, value in asdict(configuration.architecture).items()
        if name in fields and fields[name] != value
    ]
    if problems:
        raise ConfigurationError(file, "configuration", problems)


def _plain_activation(keys: dict[str, Any]) -> dict[str, Any]:
    """Return a task's keys with its activation as a plain name; Keras calls no activation "linear"."""
    activation = keys.get("activation")
    if isinstance(activation, dict) and activation.get("class_name") == "function":
        activation = activation.get("config")
    return keys if "activation" not in keys else {**keys, "activation": None if activation == "linear" else activation}


def _labels(file: Path, task: dict[str, Any], count: int) -> tuple[str, ...] | None:
    labels = task.get(_LABELS)
    if labels is None:
        return None
    if not isinstance(labels, list) or len(labels) != count or not all(isinstance(label, str) for label in labels):
        problem = Problem("wrong value", _LABELS, f"expected a list of {count} texts, found {labels!r}")
        raise ConfigurationError(file, "configuration", [problem])
    return tuple(labels)


def _read_text(folder: Path, architecture: Architecture) -> tuple[Text | None, list[IgnoredKey], list[str]]:
    if not (folder / VOCABULARY).is_file():
        return None, [], [f"The preset has no {VOCABULARY}: the result has no tokenizer."]
    proto = (folder / VOCABULARY).read_bytes()
    vocabulary = fitting_vocabulary(folder / VOCABULARY, proto, architecture)
    if (file := folder / TOKENIZER).is_file():
        read_fields(file, KERAS_TOKENIZER, read_object(file, "config"))
    packing: dict[str, Any] = {}
    ignored: list[IgnoredKey] = []
    if (file := folder / PREPROCESSING).is_file():
        packing, ignored = read_fields(file, PREPROCESSOR, read_object(file, "config"))
        ignored = [key for key in ignored if key.key != "tokenizer"]  # nested, long, and no news
    return Text(proto, vocabulary, TextRules(), **packing), ignored, []


def unrepresentable(variant: Variant, head: Head | None) -> list[Problem]:
    """Say what KerasHub's ALBERT cannot compute."""
    usual = asdict(Variant())
    problems = [
        Problem("refused value", name, f"expected {usual[name]!r}, found {value!r}: KerasHub computes nothing else")
        for name, value in asdict(variant).items()
        if value != usual[name]
    ]
    if head is not None and not HEADS[head.kind].keras:
        problems.append(Problem("no place", "head", f"KerasHub's ALBERT has no {HEADS[head.kind].description}"))
    return problems


def write_preset(
    checkpoint: Checkpoint, folder: Path, progress: Progress | None = None, max_shard_bytes: int | None = None
) -> None:
    """Write a checkpoint as a preset that `keras_hub.models.Backbone.from_preset` loads, or a task's `from_preset`.

    Args:
        checkpoint: What to write. Where it has no pooler, one of zeros is written: KerasHub needs one.
        folder: An existing, empty folder.
        progress: Called after every tensor.
        max_shard_bytes: Size of the values in one file of weights; None for one file.

    Raises:
        ConfigurationError: KerasHub cannot compute what the checkpoint is; all reasons are listed.
        TargetError: One weight alone is larger than a shard may be.
    """
    if problems := unrepresentable(checkpoint.variant, checkpoint.head):
        advice = "Convert to the bridge layout instead, which can compute it"
        advice += ", or pass --drop-head (drop_head=True)." if problems[-1].where == "head" else "."
        raise ConfigurationError(checkpoint.folder / CONFIG, "configuration, for KerasHub,", problems, advice)
    checkpoint = with_pooler(checkpoint)
    architecture, head = checkpoint.architecture, checkpoint.head
    config = {"name": "albert_backbone", "trainable": True, "dtype": _policy(checkpoint.dtype)}
    config |= write_keys(KERAS, asdict(architecture))
    backbone = _serialized("albert_backbone", "AlbertBackbone", config)
    write_json(folder / CONFIG, backbone)
    metadata = {**_FORMAT, "parameter_count": parameter_count(architecture), "tasks": ["MaskedLM", "TextClassifier"]}
    write_json(folder / METADATA, metadata)
    preprocessor = _write_text(checkpoint.text, head, folder) if checkpoint.text is not None else None
    placed = lay_out_weights(checkpoint, folder, max_shard_bytes)
    if head is not None:
        write_json(folder / TASK, _task(head, backbone, preprocessor))
        placed += lay_out_file(checkpoint, folder / TASK_WEIGHTS, checkpoint.head_rules)
    write_weights(checkpoint, placed, "keras", progress)


def with_heads_of_keras(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint without what KerasHub has no head for; the masked LM of a pretraining head stays."""
    head = checkpoint.head
    if head is None or HEADS[head.kind].keras:
        return checkpoint
    kept = replace(head, kind="masked_lm") if head.kind == "pretraining" else None
    rules = set(checkpoint.head_rules) - set(head_rules("masked_lm") if kept is not None else ())
    dropped = [
        DroppedTensor(rule.bridge, checkpoint.weights[rule.bridge].shape, "KerasHub has no place for it")
        for rule in checkpoint.head_rules
        if rule in rules
    ]
    names = {tensor.name for tensor in dropped}
    weights = {name: weight for name, weight in checkpoint.weights.items() if name not in names}
    return replace(checkpoint, head=kept, weights=weights, dropped=[*checkpoint.dropped, *dropped])


def with_pooler(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with a pooler: of zeros, where it has none."""
    if checkpoint.has_pooler:
        return checkpoint
    pooler = {
        rule.bridge: Weight(shape, checkpoint.dtype, partial(np.zeros, shape, DTYPES[checkpoint.dtype]))
        for rule in weight_rules(checkpoint.architecture)
        if rule.bridge in POOLER and (shape := rule.shape("bridge", checkpoint.sizes))
    }
    return replace(checkpoint, weights={**checkpoint.weights, **pooler})


def _task(head: Head, backbone: dict[str, Any], preprocessor: dict[str, Any] | None) -> dict[str, Any]:
    class_name = HEADS[head.kind].keras
    module = _TASK_MODULES[class_name]
    config: dict[str, Any] = {"backbone": backbone, "preprocessor": preprocessor, "name": module}
    if head.kind == "sequence_classification":
        config |= {
            "num_classes": head.num_labels,
            "activation": head.activation or "linear",
            "dropout": head.dropout if head.dropout is not None else backbone["config"]["dropout"],
        }
    task = _serialized(module, class_name, config)
    return task if head.labels is None else {**task, _LABELS: list(head.labels)}


_TASK_MODULES = {"AlbertMaskedLM": "albert_masked_lm", "AlbertTextClassifier": "albert_text_classifier"}


def _write_text(text: Text, head: Head | None, folder: Path) -> dict[str, Any] | None:
    """Write a preset's tokenizer, and return its preprocessor, where it is written too."""
    tokenizer_config = {"name": "albert_tokenizer", "trainable": True, "dtype": _policy("int32")}
    tokenizer_config |= {"config_file": TOKENIZER, "proto": None, "sequence_length": None}
    tokenizer_config |= {"add_bos": False, "add_eos": False}
    tokenizer = _serialized("albert_tokenizer", "AlbertTokenizer", tokenizer_config)
    write_json(folder / TOKENIZER, tokenizer)
    (folder / VOCABULARY).parent.mkdir(parents=True)
    (folder / VOCABULARY).write_bytes(bake_rules(text.proto, text.rules))
    # KerasHub makes a preprocessor with its defaults where a preset has none; write one to say something else, or for
    # a task. `longest_first` is not among what it can say; `round_robin` comes nearest.
    truncate = "waterfall" if text.truncate == "waterfall" else "round_robin"
    if head is None and text.sequence_length in (None, 512) and truncate == "round_robin":
        return None
    task = HEADS[head.kind].keras if head is not None else "AlbertTextClassifier"
    module = f"{_TASK_MODULES[task]}_preprocessor"
    config = {"name": module, "trainable": True, "dtype": _policy("float32"), "tokenizer": tokenizer}
    config |= {"config_file": PREPROCESSING, "sequence_length": text.sequence_length or 512, "truncate": truncate}
    if task == "AlbertMaskedLM":  # KerasHub's defaults
        config |= {"mask_selection_rate": 0.15, "mask_selection_length": 96}
        config |= {"mask_token_rate": 0.8, "random_token_rate": 0.1}
    preprocessor = _serialized(module, f"{task}Preprocessor", config)
    write_json(folder / PREPROCESSING, preprocessor)
    return preprocessor


def _serialized(module: str, class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Lay out a config as Keras serializes an object."""
    return {
        "module": f"{_MODULES}.{module}",
        "class_name": class_name,
        "config": config,
        "registered_name": f"keras_hub>{class_name}",
    }


def _policy(name: str) -> dict[str, Any]:
    return {"module": "keras", "class_name": "DTypePolicy", "config": {"name": name}, "registered_name": None}
