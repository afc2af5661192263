"""The tasks of KerasHub: an encoder with a head, in three generations of presets.

| written by | the task's configuration | its head's weights |
|---|---|---|
| keras-hub from 0.27 on | `task.json` | `task.weights.h5` |
| keras-nlp 0.12 to keras-hub 0.26 | `task.json` | `task.weights.h5`, with a copy of the encoder |
| keras-nlp before 0.12 | `config.json` | `model.weights.h5`, with the encoder one level down |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from albert_hub_bridge.checkpoint import DROPPED_HEAD, OPTIMIZER, DroppedTensor
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.formats.lazy_tensors import LazyTensor, TiedPair
from albert_hub_bridge.layouts.configuration import Configuration, read_fields
from albert_hub_bridge.layouts.keras.files import CONFIG, TASK, TASK_WEIGHTS
from albert_hub_bridge.layouts.keras.objects import MODULES, check_objects, config_of, serialized
from albert_hub_bridge.layouts.keras.weights import KerasTensors
from albert_hub_bridge.mapping.configs import KERAS, KERAS_TASKS, read_keys
from albert_hub_bridge.mapping.heads import HEADS, Head, HeadKind, kind_of_class
from albert_hub_bridge.mapping.weights import head_rules
from albert_hub_bridge.model.architecture import KERAS_FIELDS, architecture_problems


_OLD_TASKS = {"AlbertClassifier": "AlbertTextClassifier"}  # the name in keras-nlp
_ENCODER = "layers/albert_backbone/"
# KerasHub does not store the names of a classifier's labels. It accepts a task.json with one more key.
_LABELS = "labels"

_HEAD_GROUPS = {rule.keras.rpartition("/")[0] for kind in HEADS for rule in head_rules(kind) if rule.keras}


@dataclass(frozen=True, slots=True)
class Task:
    """The task of a preset.

    Args:
        file: The file that describes the task.
        head: The head on the encoder; None if it is unknown or has no weights, and may be dropped.
        preprocessor: The configuration of the preprocessor that is nested in the task, if there is one.
    """

    file: Path
    head: Head | None
    preprocessor: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class TaskTensors:
    """The datasets of a preset, by what they belong to.

    Args:
        encoder: The encoder's, by their names in `model.weights.h5`.
        head: The head's, by their names in `task.weights.h5`.
        head_file: The file of the head's.
        copies: A copy of the encoder in the file of the head, each tensor with its original.
        dropped: Datasets that belong to neither.
        notes: Notes for the report.
    """

    encoder: Mapping[str, LazyTensor]
    head: Mapping[str, LazyTensor]
    head_file: Path
    copies: Sequence[TiedPair] = ()
    dropped: Sequence[DroppedTensor] = ()
    notes: Sequence[str] = ()


def is_task(content: Mapping[str, Any]) -> bool:
    """Return whether a serialized object is a task of KerasHub's ALBERT."""
    return _kind(content) is not None


def _kind(content: Mapping[str, Any]) -> HeadKind | None:
    name = str(content.get("class_name"))
    return kind_of_class(_OLD_TASKS.get(name, name))


def read_task(source: SourceFolder, configuration: Configuration, drop_head: bool) -> Task | None:
    """Read the task of a preset; return None if the preset is only an encoder.

    Raises:
        ConfigurationError: The task is unknown, has no weights or contradicts `config.json`.
    """
    name, has_weights = TASK, TASK_WEIGHTS in source
    if TASK not in source:
        if has_weights:
            problem = Problem("missing", TASK, f"expected beside {TASK_WEIGHTS}, found none")
            raise ConfigurationError(source.folder / TASK, "configuration", [problem])
        name = CONFIG
        if not is_task(source.json(CONFIG)):
            return None
    file, content = source.path(name), source.json(name)
    config, kind = content.get("config"), _kind(content)
    if kind is None or not isinstance(config, dict) or (name == TASK and not has_weights):
        if drop_head:
            return Task(file, None, None)
        advice = "Pass --drop-head (drop_head=True) to convert the encoder alone."
        raise ConfigurationError(file, "configuration", [_unusable_task(content, kind)], advice)
    check_objects(file, content)
    _check_backbone(file, config, configuration)
    fields, _ = read_fields(file, KERAS_TASKS[HEADS[kind].keras], _with_plain_activation(config))
    head = Head(kind=kind)
    if kind == "sequence_classification":
        head = replace(
            head,
            num_labels=fields["num_labels"],
            labels=_labels(file, content, fields["num_labels"]),
            dropout=fields["classifier_dropout"],
            activation=fields["classifier_activation"],
        )
    nested = config.get("preprocessor")
    return Task(file, head, None if nested is None else config_of(file, nested, "Preprocessor", "preprocessor"))


def _unusable_task(content: Mapping[str, Any], kind: HeadKind | None) -> Problem:
    found = content.get("class_name")
    if kind is None:
        detail = f"expected AlbertMaskedLM or AlbertTextClassifier, found {found!r}"
        return Problem("unknown task", "class_name", detail)
    if not isinstance(content.get("config"), dict):
        return Problem("missing key", "config", "expected an object, found none")
    return Problem("missing", TASK_WEIGHTS, f"expected the weights of the head of {found}, found none")


def _check_backbone(file: Path, config: Mapping[str, Any], configuration: Configuration) -> None:
    """Refuse a task with another backbone than `config.json`: only one of them can be right."""
    backbone = config.get("backbone")
    keys = backbone.get("config") if isinstance(backbone, dict) else None
    if isinstance(backbone, dict) and backbone.get("class_name") != "AlbertBackbone":
        keys = None
    if not isinstance(keys, dict):
        raise ConfigurationError(
            file, "configuration", [Problem("missing key", "backbone", "expected an AlbertBackbone, found none")]
        )
    fields, _, problems = read_keys(KERAS, keys)
    problems = [replace(problem, where=f"backbone.{problem.where}") for problem in problems]
    problems += [
        Problem("contradiction", f"backbone.{name}", f"expected {value!r} as in {CONFIG}, found {fields[name]!r}")
        for name, value in configuration.architecture.keras_arguments.items()
        if name in fields and fields[name] != value
    ]
    if not problems:  # in Python true equals 1 and 2.0 equals 2, but KerasHub needs the right types
        impossible = architecture_problems({name: fields[name] for name in KERAS_FIELDS})
        problems = [
            Problem("impossible", "backbone", f"expected the one of {CONFIG}, found: {why}") for why in impossible
        ]
    if problems:
        raise ConfigurationError(file, "configuration", problems)


def _with_plain_activation(keys: dict[str, Any]) -> dict[str, Any]:
    """Return a task's keys with its activation as a plain name. Keras calls no activation "linear"."""
    activation = keys.get("activation")
    if isinstance(activation, dict) and activation.get("class_name") == "function":
        activation = activation.get("config")
    return keys if "activation" not in keys else {**keys, "activation": None if activation == "linear" else activation}


def _labels(file: Path, task: Mapping[str, Any], count: int) -> tuple[str, ...] | None:
    labels = task.get(_LABELS)
    if labels is None:
        return None
    if not isinstance(labels, list) or len(labels) != count or not all(isinstance(label, str) for label in labels):
        problem = Problem("wrong value", _LABELS, f"expected a list of {count} texts, found {labels!r}")
        raise ConfigurationError(file, "configuration", [problem])
    return tuple(labels)


def split_tensors(weights: KerasTensors, task: Task | None) -> TaskTensors:
    """Separate the encoder, the head and the rest.

    Args:
        weights: The tensors of the preset.
        task: The task of the preset.

    Raises:
        WeightsError: A file is damaged, or the index of the shards is wrong.
    """
    encoder, file = weights.read_model(), weights.head_file
    if task is None:
        return TaskTensors(encoder, {}, file)
    notes, copies = [], []
    if task.file.name == CONFIG:
        encoder, rest = _split_encoder(encoder)
        file = weights.file
    else:
        copy, rest = _split_encoder(weights.read_head())
        if copy:
            notes.append(f"{TASK_WEIGHTS} has a copy of the encoder, with the same values.")
        detail = "expected the values of model.weights.h5, found others: which of them is right cannot be told"
        copies = [
            TiedPair(Problem("contradiction", name, detail), tensor, encoder.get(name)) for name, tensor in copy.items()
        ]
    optimizer = {name: tensor for name, tensor in rest.items() if name.startswith("optimizer/")}
    head = {name: tensor for name, tensor in rest.items() if name not in optimizer}
    dropped = [DroppedTensor(f"{file.name}:{n}", t.shape, OPTIMIZER) for n, t in optimizer.items()]
    if task.head is None:
        known = {name for name in head if name.rpartition("/")[0] in _HEAD_GROUPS}
        dropped += [DroppedTensor(f"{file.name}:{name}", head[name].shape, DROPPED_HEAD) for name in sorted(known)]
        head = {name: tensor for name, tensor in head.items() if name not in known}
    return TaskTensors(encoder, head, file, copies, dropped, notes)


def _split_encoder(found: Mapping[str, LazyTensor]) -> tuple[dict[str, LazyTensor], dict[str, LazyTensor]]:
    encoder = {name.removeprefix(_ENCODER): tensor for name, tensor in found.items() if name.startswith(_ENCODER)}
    return encoder, {name: tensor for name, tensor in found.items() if not name.startswith(_ENCODER)}


def task_object(head: Head, backbone: dict[str, Any], preprocessor: dict[str, Any] | None) -> dict[str, Any]:
    """Return the content of `task.json`."""
    class_name = HEADS[head.kind].keras
    config: dict[str, Any] = {"backbone": backbone, "preprocessor": preprocessor, "name": MODULES[class_name]}
    if head.kind == "sequence_classification":
        config |= {
            "num_classes": head.num_labels,
            "activation": head.activation or "linear",
            "dropout": head.dropout if head.dropout is not None else backbone["config"]["dropout"],
        }
    task = serialized(class_name, config)
    return task if head.labels is None else {**task, _LABELS: list(head.labels)}


def new_optimizer(head: Head) -> dict[str, np.generic]:
    """Return the state of a new optimizer. KerasHub warns when it loads a task without one.

    KerasHub compiles a task when it makes it, so its files have at least a step count and the learning rate.

    Source:
        keras_hub/src/models/{masked_lm,albert/albert_text_classifier}.py, `compile`.
    """
    rate = 5e-5 if head.kind == "masked_lm" else 1e-5
    return {"optimizer/vars/0": np.int32(0), "optimizer/vars/1": np.float32(rate)}
