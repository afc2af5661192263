"""KerasHub presets: a folder with `config.json`, `model.weights.h5` and `assets/tokenizer/vocabulary.spm`.

A task also has `task.json` and `task.weights.h5`.

Source:
    keras_hub/src/utils/preset_utils.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from albert_hub_bridge.checkpoint import (
    Checkpoint,
    Progress,
    check_layers,
    closed_on_failure,
    leave_out,
    match_int8,
    match_weights,
)
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.disk.strict_json import write_json
from albert_hub_bridge.errors import ConfigurationError, Problem, SourceError, WeightsError
from albert_hub_bridge.formats.lazy_tensors import Int8Weight, LazyTensor, check_tied
from albert_hub_bridge.layouts.configuration import Configuration, read_configuration
from albert_hub_bridge.layouts.keras.compatibility import (
    advice_on_unsupported,
    unsupported_by_keras,
    unsupported_tokenizer,
    with_pooler,
)
from albert_hub_bridge.layouts.keras.files import CONFIG, FILES, METADATA, TASK, TASK_WEIGHTS
from albert_hub_bridge.layouts.keras.objects import check_objects, policy, serialized
from albert_hub_bridge.layouts.keras.quantization import check_policy, check_quantized, dequantize, policy_name
from albert_hub_bridge.layouts.keras.task import (
    TaskTensors,
    is_task,
    new_optimizer,
    read_task,
    split_tensors,
    task_object,
)
from albert_hub_bridge.layouts.keras.tokenizer import read_tokenizer, write_tokenizer
from albert_hub_bridge.layouts.keras.weight_plans import plan_file, plan_weights
from albert_hub_bridge.layouts.keras.weights import KerasTensors, PresetWeights
from albert_hub_bridge.layouts.layout import Layout, ReadOptions, WriteOptions
from albert_hub_bridge.layouts.weight_files import write_weights
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.mapping.configs import KERAS, write_keys
from albert_hub_bridge.mapping.heads import HEADS, Head
from albert_hub_bridge.mapping.weights import head_rules, parameter_count, weight_rules
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.text import short_repr


# The versions whose format is written. KerasHub looks for them in `metadata.json`.
_FORMAT = {"keras_version": "3.15.1", "keras_hub_version": "0.32.0"}


def is_preset(source: SourceFolder) -> bool:
    """Return whether a folder has the `config.json` of a KerasHub preset."""
    return CONFIG in source and bool({"registered_name", "class_name"} & set(source.json(CONFIG)))


def read_preset(source: SourceFolder, options: ReadOptions) -> Checkpoint:
    """Read a preset. The weights stay on the disk until they are asked for.

    Args:
        source: A folder that `is_preset`.
        options: How to read it.

    Raises:
        SourceError: The preset is of another architecture.
        ConfigurationError, WeightsError, VocabularyError: The preset is wrong; all problems are listed.
    """
    configuration = read_preset_configuration(source)
    with closed_on_failure() as resources:
        checkpoint = read_opened_preset(source, options, configuration, PresetWeights(source, resources))
        return replace(checkpoint, resources=resources)


def read_opened_preset(
    source: SourceFolder, options: ReadOptions, configuration: Configuration, files: KerasTensors
) -> Checkpoint:
    """Read a preset whose configuration was read, and whose weights were opened.

    Raises:
        ConfigurationError, WeightsError, VocabularyError: The preset is wrong; all problems are listed.
    """
    architecture = configuration.architecture
    task = read_task(source, configuration, options.drop_head)
    tokenizer, ignored, notes = read_tokenizer(source, architecture, task)
    tensors = split_tensors(files, task)
    if options.drop_unknown:
        tensors = _without_unknown(files.file, tensors, options.drop_unknown, architecture)
    head = task.head if task is not None else None
    weights, dtype, int8 = _match_tensors(files.file, tensors, architecture, head)
    check_quantized(source.path(CONFIG), _backbone(source).get("dtype"), bool(int8))
    stored = {tensor.dtype for tensor in tensors.encoder.values()}
    notes += _computation_notes(_backbone(source).get("dtype"), dtype, stored if int8 else set())
    return Checkpoint(
        layout="keras",
        folder=source.folder,
        architecture=architecture,
        weights=weights,
        dtype=dtype,
        head=head,
        tokenizer=tokenizer,
        dropped=tensors.dropped,
        ignored=[*configuration.ignored, *ignored],
        notes=[*notes, *tensors.notes],
        weights_file=files.file,
        int8=int8,
    )


def read_preset_configuration(source: SourceFolder) -> Configuration:
    """Read the encoder's configuration from a preset's `config.json`.

    Raises:
        SourceError: The preset is of another architecture.
        ConfigurationError: The configuration is wrong; all problems are listed.
    """
    return read_configuration(source.path(CONFIG), KERAS, _backbone(source))


def _backbone(source: SourceFolder) -> dict[str, Any]:
    """Return the configuration of the backbone that is in `config.json`, or in the task there.

    Raises:
        SourceError, ConfigurationError: As `read_preset_configuration`.
    """
    file, content = source.path(CONFIG), source.json(CONFIG)
    backbone: Any = content
    if is_task(content):  # keras-nlp before 0.12 wrote a whole task there
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


def _without_unknown(file: Path, tensors: TaskTensors, names: Sequence[str], architecture: Architecture) -> TaskTensors:
    """Return the datasets without those that a user named. Encoder and head share no name that is unknown to both."""
    check_layers(file, architecture, len(tensors.encoder))
    known = {rule.keras for kind in HEADS for rule in (*weight_rules(architecture), *head_rules(kind))}
    _, dropped = leave_out(file, {**tensors.encoder, **tensors.head}, names, known)
    encoder, head = (
        {name: tensor for name, tensor in found.items() if name not in names}
        for found in (tensors.encoder, tensors.head)
    )
    return replace(tensors, encoder=encoder, head=head, dropped=[*tensors.dropped, *dropped])


def _match_tensors(
    file: Path, tensors: TaskTensors, architecture: Architecture, head: Head | None
) -> tuple[dict[str, LazyTensor], str, dict[str, Int8Weight]]:
    """Match the datasets of encoder and head with the table.

    Returns:
        The weights by albert_hub names, their dtype, and those that are quantized.
    """
    encoder, quantized = dequantize(file, tensors.encoder)
    check_layers(file, architecture, len(encoder))
    expected = {rule.keras: rule for rule in weight_rules(architecture)}
    weights = match_weights(file, encoder, expected, axis_sizes(architecture), "keras")
    int8 = match_int8(file, quantized, expected, axis_sizes(architecture), "keras")
    check_tied(tensors.head_file, tensors.copies)
    dtype = next(iter(weights.values())).dtype
    if head is not None or tensors.head:
        found, quantized = dequantize(tensors.head_file, tensors.head)
        expected = {rule.keras: rule for rule in (head_rules(head.kind) if head is not None else ())}
        sizes = axis_sizes(architecture, head.num_labels if head is not None else 2)
        head_weights = match_weights(tensors.head_file, found, expected, sizes, "keras")
        if wrong := [name for name, weight in head_weights.items() if weight.dtype != dtype]:
            problems = [Problem("wrong dtype", name, f"expected {dtype}, as the encoder has") for name in wrong]
            raise WeightsError(tensors.head_file, "weights", problems)
        weights |= head_weights
        int8 |= match_int8(tensors.head_file, quantized, expected, sizes, "keras")
    return weights, dtype, int8


def _computation_notes(dtype_policy: Any, dtype: str, quantized: set[str]) -> list[str]:
    """Return notes on a preset that Keras computes in another dtype than that of the weights.

    `quantized` are the stored dtypes of a preset with int8 weights.
    """
    notes = []
    if (name := policy_name(dtype_policy)).startswith("mixed_"):
        half = name.removeprefix("mixed_")
        notes.append(
            f"The preset's policy {name} computes in {half}; the target computes in {dtype}, its weights' own."
        )
    if halves := quantized & {"bfloat16", "float16"}:
        notes.append(
            f"The layers of the quantized preset compute in {', '.join(sorted(halves))}, as their biases are stored; "
            "the target computes in float32."
        )
    return notes


def write_preset(
    checkpoint: Checkpoint,
    folder: Path,
    progress: Progress | None = None,
    max_shard_bytes: int | None = None,
    *,
    beside_repository: bool = False,
) -> dict[Path, str]:
    """Write a checkpoint as a preset for `keras_hub.models.Backbone.from_preset`, or for a task's `from_preset`.

    Args:
        checkpoint: The checkpoint to write. If it has no pooler, one of zeros is written, because KerasHub needs one.
        folder: An existing, empty folder.
        progress: Called after every tensor.
        max_shard_bytes: The largest size of the values in one file of weights, in bytes; None for one file.
        beside_repository: Whether the folder has the files of a repository too. Its `config.json` then has what
            `backbone_object` returns, and is not written here.

    Returns:
        The SHA-256 of every file of weights, computed from what was read back, in hexadecimal.

    Raises:
        ConfigurationError: KerasHub cannot compute the checkpoint; all reasons are listed.
        TargetError: One weight alone is larger than a shard may be.
        OSError: The system did not write a file, which it names.
    """
    check_supported(checkpoint)
    checkpoint = with_pooler(checkpoint)
    head = checkpoint.head
    backbone = backbone_object(checkpoint.architecture, checkpoint.dtype)
    if not beside_repository:
        write_json(folder / CONFIG, backbone)
    write_json(folder / METADATA, _metadata(checkpoint.architecture))
    preprocessor = None
    if checkpoint.tokenizer is not None:
        preprocessor = write_tokenizer(
            checkpoint.tokenizer, checkpoint.architecture, head, folder, beside_repository=beside_repository
        )
    plans = plan_weights(checkpoint, folder, max_shard_bytes)
    if head is not None:
        write_json(folder / TASK, task_object(head, backbone, preprocessor))
        plans.append(plan_file(checkpoint, folder / TASK_WEIGHTS, checkpoint.head_rules, new_optimizer(head)))
    return write_weights(checkpoint, plans, "keras", progress)


def check_supported(checkpoint: Checkpoint, *, keeps_files: bool = False) -> None:
    """Refuse a checkpoint that KerasHub cannot compute.

    Args:
        checkpoint: The checkpoint.
        keeps_files: Whether it is a folder that keeps its files, so that nothing can be left out.

    Raises:
        ConfigurationError: All reasons are listed.
    """
    problems = unsupported_by_keras(checkpoint.architecture, checkpoint.head)
    if problems := [*problems, *unsupported_tokenizer(checkpoint.tokenizer_files)]:
        advice = advice_on_unsupported(checkpoint, problems, keeps_files=keeps_files)
        raise ConfigurationError(checkpoint.folder / CONFIG, "configuration, for KerasHub,", problems, advice)


def backbone_object(architecture: Architecture, dtype: str) -> dict[str, Any]:
    """Return the encoder as a serialized object: the content of a preset's `config.json`."""
    config = {"name": "albert_backbone", "trainable": True, "dtype": policy(dtype)}
    return serialized("AlbertBackbone", config | write_keys(KERAS, architecture.keras_arguments))


def _metadata(architecture: Architecture) -> Mapping[str, Any]:
    return {**_FORMAT, "parameter_count": parameter_count(architecture), "tasks": ["MaskedLM", "TextClassifier"]}


def _write(checkpoint: Checkpoint, folder: Path, options: WriteOptions) -> dict[Path, str]:
    return write_preset(checkpoint, folder, options.progress, options.max_shard_bytes)


PRESET = Layout("keras", FILES, is_preset, read_preset_configuration, read_preset, _write)
