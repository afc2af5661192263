"""Live models of KerasHub: read one into a checkpoint, and make one from a checkpoint.

A live model is read as the preset that it would be saved as, and made as KerasHub makes it from a preset. So it has the
same names, and the same refusals. No file is written.

Source:
    keras/src/saving/saving_lib.py, and keras_hub/src/utils/preset_utils.py.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint, TokenizerSpec
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.disk.strict_json import json_bytes
from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.formats.lazy_tensors import LazyTensor
from albert_hub_bridge.formats.torch_tensors import as_tensor, as_weight
from albert_hub_bridge.layouts.keras.compatibility import with_pooler
from albert_hub_bridge.layouts.keras.files import CONFIG, PREPROCESSOR, TASK, TASK_WEIGHTS, TOKENIZER, VOCABULARY
from albert_hub_bridge.layouts.keras.preset import (
    backbone_object,
    check_supported,
    read_opened_preset,
    read_preset_configuration,
)
from albert_hub_bridge.layouts.keras.task import task_object
from albert_hub_bridge.layouts.keras.tokenizer import preprocessor_object
from albert_hub_bridge.layouts.layout import DEFAULT_READING, ReadOptions
from albert_hub_bridge.mapping.heads import kind_of_class
from albert_hub_bridge.mapping.vocabulary import bake_normalization
from albert_hub_bridge.mapping.weights import WeightRule, head_rules, weight_rules
from albert_hub_bridge.model.architecture import Architecture


# What Keras adds to a serialized object of a live model, and KerasHub leaves out of a preset.
_NOT_SAVED = ("build_config", "compile_config")
_ALIGNMENT = 64  # bytes, of arrays of JAX


def is_keras_model(model: Any) -> bool:
    """Return whether an object is a model of Keras. Keras is not imported for it."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(model, keras.Model)


def shares_tensors() -> bool:
    """Return whether the tensors of live models of Keras are tensors of torch."""
    import keras

    return bool(keras.backend.backend() == "torch")


def read_keras_model(model: Any, options: ReadOptions = DEFAULT_READING, preprocessor: Any = None) -> Checkpoint:
    """Read a live model of KerasHub. Its values are read when they are asked for, and shared where torch has them.

    As in a file of Keras, LoRA is merged into the kernels.

    Args:
        model: An `AlbertBackbone` of keras_hub, or a task with one.
        options: How to read it.
        preprocessor: A preprocessor or tokenizer of keras_hub; that of the task by default.

    Raises:
        SourceError: It is another model.
        ConfigurationError, WeightsError, VocabularyError: As for a preset.
    """
    if not is_keras_model(model):
        raise SourceError(
            f"expected an AlbertBackbone of keras_hub, or a task with one, found an object of {type(model).__name__}. "
            "convert reads files."
        )
    task, backbone = model, getattr(model, "backbone", None)
    if backbone is None:
        task, backbone = None, model
    elif preprocessor is None:
        preprocessor = task.preprocessor
    if task is not None and options.drop_head and kind_of_class(type(task).__name__) is None:
        task = None
    folder = Path(f"<{type(model).__name__}>")
    source = SourceFolder.in_memory(folder, _contents(backbone, task, preprocessor))
    configuration = read_preset_configuration(source)
    tensors = _LiveTensors(folder, backbone, task, configuration.architecture)
    checkpoint = read_opened_preset(source, options, configuration, tensors)
    if preprocessor is None:  # then it is no news that there is no vocabulary
        return replace(checkpoint, notes=[note for note in checkpoint.notes if VOCABULARY not in note])
    return checkpoint


def _contents(backbone: Any, task: Any, preprocessor: Any) -> dict[str, bytes]:
    """Return the files that KerasHub would save, by their names, without the weights."""
    contents = {CONFIG: _serialized(backbone)}
    tokenizer = getattr(preprocessor, "tokenizer", preprocessor)
    if preprocessor is not tokenizer:
        contents[PREPROCESSOR] = _serialized(preprocessor)
    if tokenizer is not None:
        proto = getattr(tokenizer, "proto", None)
        if not isinstance(proto, bytes):
            raise SourceError(
                "expected an AlbertTokenizer of keras_hub with a vocabulary, or a preprocessor with one, found an "
                f"object of {type(tokenizer).__name__} without a SentencePiece vocabulary."
            )
        contents |= {TOKENIZER: _serialized(tokenizer), VOCABULARY: proto}
    if task is not None:
        contents |= {TASK: _serialized(task), TASK_WEIGHTS: b""}
    return contents


def _serialized(thing: Any) -> bytes:
    import keras

    return json_bytes(_as_saved(keras.saving.serialize_keras_object(thing)))


def _as_saved(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_saved(each) for each in value]
    if isinstance(value, dict):
        return {key: _as_saved(each) for key, each in value.items() if key not in _NOT_SAVED}
    return value


class _LiveTensors:
    """The tensors of a live model, as a `KerasTensors`."""

    def __init__(self, folder: Path, backbone: Any, task: Any, architecture: Architecture) -> None:
        self.file = self.head_file = folder
        self._backbone, self._task, self._architecture = backbone, task, architecture

    def read_model(self) -> dict[str, LazyTensor]:
        """Return the tensors of the encoder, and the weights that no ALBERT has by their paths."""
        return _tensors(self._backbone, weight_rules(self._architecture), ())

    def read_head(self) -> dict[str, LazyTensor]:
        """Return the tensors of the head, and the weights that it should not have by their paths."""
        if self._task is None:
            return {}
        kind = kind_of_class(type(self._task).__name__)
        return _tensors(self._task, head_rules(kind) if kind is not None else (), self._backbone.weights)


def _tensors(model: Any, rules: Iterable[WeightRule], others: Iterable[Any]) -> dict[str, LazyTensor]:
    found: dict[str, LazyTensor] = {}
    seen = {id(variable) for variable in others}
    for path, layer in layers_of(model, rules).items():
        variables: dict[str, Any] = {}
        layer.save_own_variables(variables)  # what Keras saves, so with merged LoRA
        found |= {f"{path}/vars/{index}": _lazy(value) for index, value in variables.items()}
        seen |= {id(variable) for variable in layer.weights}
    return found | {each.path: _lazy(each) for each in model.weights if id(each) not in seen}


def layers_of(model: Any, rules: Iterable[WeightRule]) -> dict[str, Any]:
    """Return the layers that rows of the weight table are about, by their paths in a file of Keras.

    Keras saves the layers of a model as `layers/` and the name of the class with a number, and the layers in a layer by
    the attributes that hold them.
    """
    by_name: dict[str, Any] = {}
    counts: Counter[str] = Counter()
    for layer in model.layers:
        name = _snake_case(type(layer).__name__)
        by_name[f"{name}_{counts[name]}" if counts[name] else name] = layer
        counts[name] += 1
    layers = {}
    for path in dict.fromkeys(rule.keras.partition("/vars/")[0] for rule in rules if rule.keras):
        _, name, *attributes = path.split("/")
        if name in by_name:
            layers[path] = reduce(getattr, attributes, by_name[name])
    return layers


def _snake_case(name: str) -> str:
    """Return the name that Keras makes of a class: `MaskedLMHead` becomes `masked_lm_head`."""
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()


def _lazy(value: Any) -> LazyTensor:
    """Return a variable of Keras, or a tensor of its backend, as a lazy tensor."""
    import keras

    tensor = value.value if isinstance(value, keras.Variable) else value
    if shares_tensors():
        return as_weight(tensor)
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    if not getattr(tensor, "is_fully_addressable", True):  # an array of JAX on several machines
        dtype += " in shards, some of which belong to other processes"
    return LazyTensor(tuple(tensor.shape), dtype, partial(keras.ops.convert_to_numpy, tensor))


def make_keras_model(checkpoint: Checkpoint) -> Any:
    """Make a live model of KerasHub: an `AlbertBackbone`, or a task if the checkpoint has a head.

    The variables share the memory of the checkpoint's values where Keras runs on torch, and are copies elsewhere. No
    random values are made first, except for the head.

    Raises:
        ConfigurationError: KerasHub cannot compute the checkpoint; all reasons are listed.
        WeightsError: A value is NaN or infinite.
    """
    check_supported(checkpoint)
    checkpoint = with_pooler(checkpoint)
    head, tokenizer = checkpoint.head, checkpoint.tokenizer
    checkpoint.check_values()
    content = backbone_object(checkpoint.architecture, checkpoint.dtype)
    backbone = _make_backbone(content, checkpoint)
    if head is None:
        return backbone
    packing = preprocessor_object(tokenizer, checkpoint.architecture, head) if tokenizer is not None else None
    task = task_object(head, content, packing)
    task["config"]["backbone"] = backbone
    model = _deserialized(task)
    for rule, variable in _variables(model, checkpoint.head_rules).items():
        if shares_tensors():
            variable.value.data = _value(checkpoint, rule).to(variable.value.device)
        else:
            variable.assign(_value(checkpoint, rule))
    if tokenizer is not None:
        _set_vocabulary(model.preprocessor, tokenizer)
    return model


def make_keras_preprocessor(checkpoint: Checkpoint) -> Any:
    """Make the preprocessor of KerasHub for a checkpoint.

    Raises:
        ConfigurationError: KerasHub cannot compute the checkpoint or hold its tokenizer; all reasons are listed.
        SourceError: The checkpoint has no SentencePiece vocabulary.
    """
    check_supported(checkpoint)
    if checkpoint.tokenizer is None:
        raise SourceError(
            f"The tokenizer of {checkpoint.folder} has no SentencePiece vocabulary, which KerasHub needs."
        )
    content = preprocessor_object(checkpoint.tokenizer, checkpoint.architecture, checkpoint.head)
    preprocessor = _deserialized(content)
    _set_vocabulary(preprocessor, checkpoint.tokenizer)
    return preprocessor


def _deserialized(content: dict[str, Any]) -> Any:
    import keras
    import keras_hub  # noqa: F401 (it registers its classes with Keras)

    return keras.saving.deserialize_keras_object(content)


def _set_vocabulary(preprocessor: Any, tokenizer: TokenizerSpec) -> None:
    preprocessor.tokenizer.set_proto(bake_normalization(tokenizer.proto, tokenizer.normalization))


def _make_backbone(content: dict[str, Any], checkpoint: Checkpoint) -> Any:
    """Make an `AlbertBackbone` from its serialized object. Its variables are initialized with the checkpoint's values.

    In a stateless scope, Keras notes how a new variable is initialized, and does that at the end of the scope.
    """
    import keras

    with keras.StatelessScope():
        backbone = _deserialized(content)
        for rule, variable in _variables(backbone, checkpoint.encoder_rules).items():
            variable._initializer = partial(_value, checkpoint, rule)
    return backbone


def _variables(model: Any, rules: Iterable[WeightRule]) -> dict[WeightRule, Any]:
    """Return the variables of a model by the rows of the weight table."""
    found: dict[str, Any] = {}
    for path, layer in layers_of(model, rules).items():
        own: dict[str, Any] = {}
        layer.save_own_variables(own)
        found |= {f"{path}/vars/{index}": variable for index, variable in own.items()}
    return {rule: found[rule.keras] for rule in rules}


def _value(checkpoint: Checkpoint, rule: WeightRule, *_: Any, **__: Any) -> Any:
    """Return a weight as a variable has it: a tensor with the same memory where Keras runs on torch, else a copy.

    The other arguments are those of an initializer of Keras: a shape, a dtype and a layout.
    """
    array = rule.move(checkpoint.weights[rule.albert_hub].load(), "albert_hub", "keras", checkpoint.sizes)
    return as_tensor(array, share=True) if shares_tensors() else _aligned_copy(array)


def _aligned_copy(array: np.ndarray) -> np.ndarray:
    """Return a copy that nobody else has. JAX takes the memory of an aligned array as its own, and copies others."""
    memory = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
