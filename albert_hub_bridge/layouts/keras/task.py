"""The tasks of KerasHub: an encoder with a head, as today's presets have it, and as those of keras-nlp did.

| written by | the task's configuration | its head's weights |
|---|---|---|
| keras-hub from 0.27 on | `task.json` | `task.weights.h5` |
| keras-nlp 0.12 to keras-hub 0.26 | `task.json` | `task.weights.h5`, with a copy of the encoder |
| keras-nlp before 0.12 | `config.json` | `model.weights.h5`, with the encoder one level down |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from albert_hub_bridge.checkpoint import DroppedTensor
from albert_hub_bridge.disk.json_files import read_json
from albert_hub_bridge.errors import ConfigurationError, Problem, WeightsError
from albert_hub_bridge.formats.hdf5 import Hdf5Files
from albert_hub_bridge.formats.lazy_tensors import LazyTensor
from albert_hub_bridge.layouts.configuration import Configuration, read_fields
from albert_hub_bridge.layouts.keras.objects import MODULES, check_objects, config_of, serialized
from albert_hub_bridge.layouts.keras.weights import read_weights
from albert_hub_bridge.mapping.configs import KERAS, KERAS_TASKS, read_keys
from albert_hub_bridge.mapping.heads import HEADS, Head, HeadKind, kind_of_class
from albert_hub_bridge.model.architecture import KERAS_FIELDS, architecture_problems


CONFIG, TASK, TASK_WEIGHTS = "config.json", "task.json", "task.weights.h5"
_OLD_TASKS = {"AlbertClassifier": "AlbertTextClassifier"}  # keras-nlp's name of it
_ENCODER = "layers/albert_backbone/"
# KerasHub has no place for the names of a classifier's labels, and reads a task.json that has a key more.
_LABELS = "labels"


@dataclass(frozen=True, slots=True)
class Task:
    """What a preset says of its task.

    Args:
        file: That says it.
        head: What is on the encoder; None where it is not known or has no weights, and may be dropped.
        preprocessor: The configuration of the preprocessor that is nested in it, if one is.
    """

    file: Path
    head: Head | None
    preprocessor: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Parts:
    """The datasets of a preset, by what they belong to.

    Args:
        encoder: By the names of today's `model.weights.h5`.
        head: By the names of today's `task.weights.h5`.
        head_file: Where the head's are.
        copy: The encoder once more, from the head's file; it has to be the same (`check_copy`).
        dropped: What belongs to neither.
        notes: What else the user should know.
    """

    encoder: Mapping[str, LazyTensor]
    head: Mapping[str, LazyTensor]
    head_file: Path
    copy: Mapping[str, LazyTensor] = field(default_factory=dict)
    dropped: Sequence[DroppedTensor] = ()
    notes: Sequence[str] = ()


def is_task(content: Mapping[str, Any]) -> bool:
    """Tell whether a serialized object is a task of KerasHub's ALBERT."""
    return _kind(content) is not None


def _kind(content: Mapping[str, Any]) -> HeadKind | None:
    name = str(content.get("class_name"))
    return kind_of_class(_OLD_TASKS.get(name, name))


def read_task(folder: Path, configuration: Configuration, drop_head: bool) -> Task | None:
    """Read what a preset says of its task; None where it is only an encoder.

    Raises:
        ConfigurationError: The task is not known, has no weights or contradicts `config.json`.
    """
    file = folder / TASK
    if not file.is_file():
        if (folder / TASK_WEIGHTS).is_file():
            problem = Problem("missing", TASK, f"expected beside {TASK_WEIGHTS}, found none")
            raise ConfigurationError(file, "configuration", [problem])
        file = folder / CONFIG
        if not is_task(read_json(file)):
            return None
    content = read_json(file)
    config, kind = content.get("config"), _kind(content)
    weightless = file.name == TASK and not (folder / TASK_WEIGHTS).is_file()
    if kind is None or not isinstance(config, dict) or weightless:
        if drop_head:
            return Task(file, None, None)
        found = content.get("class_name")
        problem = Problem("missing", TASK_WEIGHTS, f"expected the weights of the head of {found}, found none")
        if kind is None:
            detail = f"expected AlbertMaskedLM or AlbertTextClassifier, found {found!r}"
            problem = Problem("unknown task", "class_name", detail)
        elif not isinstance(config, dict):
            problem = Problem("missing key", "config", "expected an object, found none")
        advice = "Pass --drop-head (drop_head=True) to convert the encoder alone."
        raise ConfigurationError(file, "configuration", [problem], advice)
    check_objects(file, content)
    _check_backbone(file, config, configuration)
    fields, _ = read_fields(file, KERAS_TASKS[HEADS[kind].keras], _plain_activation(config))
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


def _check_backbone(file: Path, config: Mapping[str, Any], configuration: Configuration) -> None:
    """Refuse a task whose own backbone is not the one of `config.json`: only one of them can be right."""
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
    if not problems:  # true is 1, and 2.0 is 2, but not in KerasHub
        impossible = architecture_problems({name: fields[name] for name in KERAS_FIELDS})
        problems = [
            Problem("impossible", "backbone", f"expected the one of {CONFIG}, found: {why}") for why in impossible
        ]
    if problems:
        raise ConfigurationError(file, "configuration", problems)


def _plain_activation(keys: dict[str, Any]) -> dict[str, Any]:
    """Return a task's keys with its activation as a plain name; Keras calls no activation "linear"."""
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


def split_task(folder: Path, found: Mapping[str, LazyTensor], task: Task | None, opened: Hdf5Files) -> Parts:
    """Tell apart the encoder, the head and the rest.

    Args:
        folder: Of the preset.
        found: The datasets of `model.weights.h5`.
        task: What the preset says of its task.
        opened: What has `task.weights.h5`, where there is one.

    Raises:
        WeightsError: A file is damaged.
    """
    if task is None:
        return Parts(found, {}, folder / TASK_WEIGHTS)
    notes = []
    encoder: Mapping[str, LazyTensor] = found
    copy: Mapping[str, LazyTensor] = {}
    if task.file.name == CONFIG:
        encoder, rest = _split(found)
        file = folder / "model.weights.h5"
    else:
        file = folder / TASK_WEIGHTS
        copy, rest = _split(read_weights([file], opened) if file.is_file() else {})
        if copy:
            notes.append(f"{TASK_WEIGHTS} has the encoder once more, with the same values.")
    optimizer = {name: weight for name, weight in rest.items() if name.startswith("optimizer/")}
    head = {name: weight for name, weight in rest.items() if name not in optimizer}
    dropped = [DroppedTensor(f"{file.name}:{n}", w.shape, "the optimizer's state") for n, w in optimizer.items()]
    if task.head is None:
        dropped += [DroppedTensor(f"{file.name}:{n}", w.shape, "its head is dropped") for n, w in head.items()]
        head = {}
    return Parts(encoder, head, file, copy, dropped, notes)


def _split(found: Mapping[str, LazyTensor]) -> tuple[dict[str, LazyTensor], dict[str, LazyTensor]]:
    inner = {name.removeprefix(_ENCODER): weight for name, weight in found.items() if name.startswith(_ENCODER)}
    return inner, {name: weight for name, weight in found.items() if not name.startswith(_ENCODER)}


def check_copy(parts: Parts) -> None:
    """Compare the encoder in `task.weights.h5` with that of `model.weights.h5`, whose shapes are known to be right.

    Raises:
        WeightsError: They differ.
    """
    copy, encoder = parts.copy, parts.encoder

    def differs(name: str) -> bool:
        if name not in encoder or (copy[name].shape, copy[name].dtype) != (encoder[name].shape, encoder[name].dtype):
            return True
        return not np.array_equal(copy[name].load(), encoder[name].load())

    if wrong := [name for name in copy if differs(name)]:
        detail = "expected the values of model.weights.h5, found others: which of them is right cannot be told"
        raise WeightsError(parts.head_file, "weights", [Problem("contradiction", name, detail) for name in wrong])


def task_object(head: Head, backbone: dict[str, Any], preprocessor: dict[str, Any] | None) -> dict[str, Any]:
    """Lay out `task.json`."""
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
    """Return the state of an optimizer that has done nothing, without which KerasHub warns when it loads a task.

    A task is compiled when it is made, so what KerasHub saves has at least a step count and the learning rate.

    Source:
        keras_hub/src/models/{masked_lm,albert/albert_text_classifier}.py, `compile`.
    """
    rate = 5e-5 if head.kind == "masked_lm" else 1e-5
    return {"optimizer/vars/0": np.int32(0), "optimizer/vars/1": np.float32(rate)}
