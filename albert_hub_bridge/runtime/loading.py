"""Models of this package, made from any preset or repository without converting it first."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.formats.torch_tensors import as_tensor
from albert_hub_bridge.layouts.hub.head import head_fields
from albert_hub_bridge.layouts.registry import pull, read_checkpoint
from albert_hub_bridge.mapping.heads import HEADS


if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_preset(
    model_class: type[PreTrainedModel], preset: str | Path, dtype: str = "float32", allow_pickle: bool = False
) -> Any:
    """Make a model of a preset or repository, for inference.

    Args:
        model_class: `AlbertHubModel`, or a class with a head, which the preset has to have too.
        preset: As `albert_hub.convert` takes its source.
        dtype: Of the parameters.
        allow_pickle: As `albert_hub.convert` takes it.

    Raises:
        SourceError, CheckpointError: The preset cannot be found, or is wrong, or has another head.
        ValueError: There is no such dtype.
    """
    import torch

    name = model_class.__name__
    folder = pull(preset).folder
    with read_checkpoint(folder, drop_head=name == "AlbertHubModel", allow_pickle=allow_pickle) as checkpoint:
        found = HEADS[checkpoint.head.kind].albert_hub if checkpoint.head is not None else "AlbertHubModel"
        if name not in (found, "AlbertHubModel"):
            problem = Problem("other head", "architecture", f"expected that of {name}, found that of {found}")
            raise ConfigurationError(checkpoint.folder, "configuration", [problem], f"Load it with {found}.")
        model = load_model(checkpoint)
        model = model.base_model if name == "AlbertHubModel" else model
        return model.to(getattr(torch, dtype)) if dtype != "float32" else model


def load_model(checkpoint: Checkpoint) -> Any:
    """Make this package's model of a checkpoint: `AlbertHubModel`, or one with a head; in float32, for inference."""
    import torch

    import albert_hub_bridge

    head = checkpoint.head
    fields = asdict(checkpoint.architecture)
    if head is not None:
        fields |= head_fields(head)
    config = albert_hub_bridge.AlbertHubConfig(**fields)
    with torch.device("meta"):  # no random weights are drawn that would be replaced at once
        if head is None:
            model: Any = albert_hub_bridge.AlbertHubModel(config, add_pooling_layer=checkpoint.has_pooler)
        else:
            model = getattr(albert_hub_bridge, HEADS[head.kind].albert_hub)(config)
    prefix = "" if head is None else "backbone."
    names = {rule.albert_hub: prefix + rule.albert_hub for rule in checkpoint.encoder_rules}
    names |= {rule.albert_hub: rule.albert_hub for rule in checkpoint.head_rules}
    present = set(model.state_dict())  # a masked LM has no place for a pooler
    state = {
        names[name]: as_tensor(weight.read()).float()
        for name, weight in checkpoint.weights.items()
        if names[name] in present
    }
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    if empty := [name for name, parameter in model.named_parameters() if parameter.is_meta]:
        raise ValueError(f"{checkpoint.folder} leaves {', '.join(empty)} without values.")
    return model.eval()
