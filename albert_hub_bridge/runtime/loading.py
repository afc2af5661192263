"""Load a preset or repository of any layout into this package's models."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.choices import DTYPE_NAMES, Dtype, choose
from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.formats.lazy_tensors import dtype_name
from albert_hub_bridge.formats.torch_tensors import as_tensor
from albert_hub_bridge.layouts.hub.head import head_fields
from albert_hub_bridge.layouts.hub.int8 import modules_of
from albert_hub_bridge.layouts.layout import ReadOptions
from albert_hub_bridge.layouts.registry import pull, read_checkpoint
from albert_hub_bridge.mapping.heads import HEADS, kind_of_class
from albert_hub_bridge.mapping.weights import ENCODERS
from albert_hub_bridge.runtime.live_keras import read_keras_model, shares_tensors
from albert_hub_bridge.runtime.live_transformers import copied, make_transformers_model, shared


if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def load_preset(
    model_class: type[PreTrainedModel],
    preset: str | Path,
    dtype: str | torch.dtype = "float32",
    allow_pickle: bool = False,
) -> Any:
    """Load a preset or repository into a model of this package, in inference mode.

    Args:
        model_class: `AlbertHubModel`, or the class for the head of the preset.
        preset: A source, as in `albert_hub.convert`.
        dtype: The dtype of the parameters: `"float32"`, `"bfloat16"` or `"float16"`, or that of torch. `"int8"` keeps
            the int8 weights of a preset that is quantized.
        allow_pickle: Whether to read weights that are pickled.

    Returns:
        An instance of `model_class`.

    Raises:
        SourceError: The preset cannot be found.
        CheckpointError: The preset is not valid, or has another head.
        ValueError: The dtype is another one, or is int8, and the preset is not quantized.
    """
    import torch

    name: Dtype = choose("dtype", dtype_name(dtype), get_args(Dtype), DTYPE_NAMES)
    kind = kind_of_class(model_class.__name__)
    options = ReadOptions(drop_head=kind is None, head=kind, allow_pickle=allow_pickle)
    with read_checkpoint(pull(preset).folder, options) as checkpoint:
        _check_class(model_class, checkpoint)
        if name == "int8" and not checkpoint.int8:
            raise ValueError(f"dtype must be that of floats, because {preset} has no int8 weights, not 'int8'.")
        model = load_model(checkpoint.in_int8() if name == "int8" else checkpoint)
    model = model.base_model if kind is None else model
    return model if name in ("float32", "int8") else model.to(getattr(torch, name))


def load_keras_model(model_class: type[PreTrainedModel], keras_model: Any) -> Any:
    """Load a live model of KerasHub into a model of this package, in inference mode, in the dtype of its variables.

    The two share memory where Keras runs on torch.

    Args:
        model_class: `AlbertHubModel`, or the class for the head of the model.
        keras_model: An `AlbertBackbone` of keras_hub, or a task with one.

    Returns:
        An instance of `model_class`.

    Raises:
        SourceError, CheckpointError: It is another model, has another head, or cannot be converted.
    """
    kind = kind_of_class(model_class.__name__)
    checkpoint = read_keras_model(keras_model, ReadOptions(drop_head=kind is None))
    _check_class(model_class, checkpoint)
    for note in checkpoint.notes:
        warnings.warn(note, stacklevel=3)
    model = make_transformers_model(checkpoint, "albert_hub", shared if shares_tensors() else copied)
    return model.base_model if kind is None else model


def _check_class(model_class: type[PreTrainedModel], checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint with another head than a class. The class without a head takes any."""
    name = model_class.__name__
    found = HEADS[checkpoint.head.kind].albert_hub if checkpoint.head is not None else "AlbertHubModel"
    if kind_of_class(name) is not None and name != found:
        problem = Problem("other head", "architecture", f"expected that of {name}, found that of {found}")
        raise ConfigurationError(checkpoint.folder, "configuration", [problem], f"Load it with {found}.")


def load_model(checkpoint: Checkpoint) -> Any:
    """Load a checkpoint into `AlbertHubModel` or the class for its head, in inference mode.

    Its parameters are float32. If the checkpoint is that of `Checkpoint.in_int8`, it has int8 layers.
    """
    model = _model_without_weights(checkpoint)
    prefix = "" if checkpoint.head is None else ENCODERS["albert_hub"]
    names = {rule.albert_hub: prefix + rule.albert_hub for rule in checkpoint.encoder_rules}
    names |= {rule.albert_hub: rule.albert_hub for rule in checkpoint.head_rules}
    expected = set(model.state_dict())  # Some heads have no pooler, but their checkpoints may have one.
    state = {
        names[name]: as_tensor(weight.read()) if weight.dtype == "int8" else as_tensor(weight.read()).float()
        for name, weight in checkpoint.weights.items()
        if names[name] in expected
    }
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    if missing := [name for name, tensor in model.state_dict().items() if tensor.is_meta]:
        raise ValueError(f"{checkpoint.folder} has no weights for {', '.join(missing)}.")
    return model.eval()


def _model_without_weights(checkpoint: Checkpoint) -> Any:
    """Return the model on torch's meta device, so that no random weights are made only to be replaced."""
    import torch

    import albert_hub_bridge
    from albert_hub_bridge.model.int8 import KerasInt8Config, KerasInt8Quantizer

    head = checkpoint.head
    fields = asdict(checkpoint.architecture) | (head_fields(head) if head is not None else {})
    config = albert_hub_bridge.AlbertHubConfig(**fields)
    with torch.device("meta"):
        if head is None:
            model = albert_hub_bridge.AlbertHubModel(config, add_pooling_layer=checkpoint.has_pooler)
        else:
            model = getattr(albert_hub_bridge, HEADS[head.kind].albert_hub)(config)
    if checkpoint.dtype == "int8":
        quantizer = KerasInt8Quantizer(KerasInt8Config(modules_of(checkpoint.int8)))
        quantizer.preprocess_model(model)
        quantizer.postprocess_model(model)
    return model
