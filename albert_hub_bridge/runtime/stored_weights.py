"""The weights of a model as they are stored, whatever it computes with: mixed dtypes and LoRA change that."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.formats.lazy_tensors import LazyTensor
from albert_hub_bridge.formats.torch_tensors import as_tensor, as_weight
from albert_hub_bridge.lora.torch_layers import lora_kernels
from albert_hub_bridge.mapping.weights import weight_rules
from albert_hub_bridge.model.architecture import Architecture


_STORED = re.compile(r"\.parametrizations\.(\w+)\.original$")  # how torch names a parameter behind parametrizations


def stored_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of an `AlbertHubModel` by the names that they have without parametrizations."""
    named = {_STORED.sub(r".\1", name): parameter for name, parameter in model.named_parameters()}
    return {name: parameter for name, parameter in named.items() if ".parametrizations." not in name}


def set_weights(model: nn.Module, architecture: Architecture, weights: Mapping[str, LazyTensor]) -> None:
    """Replace the weights of a model. LoRA adds nothing to the new ones, until it is trained or loaded again.

    Args:
        model: An `AlbertHubModel`.
        architecture: Its architecture.
        weights: The weights by albert_hub names.
    """
    parameters = stored_parameters(model)
    tensors = {name: as_tensor(weight.read()) for name, weight in weights.items()}  # all or nothing
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)
        for kernel in lora_kernels(model, architecture).values():
            kernel.b.zero_()  # Keras sets both factors to zero, and such factors get no gradients


def as_checkpoint(model: nn.Module, architecture: Architecture, folder: Path) -> Checkpoint:
    """Return the weights of a model as a checkpoint. As in Keras, LoRA is merged into the kernels.

    Args:
        model: An `AlbertHubModel`.
        architecture: Its architecture.
        folder: The folder to name in messages.
    """
    parameters: dict[str, torch.Tensor] = dict(stored_parameters(model))
    with torch.no_grad():
        for layer, kernel in lora_kernels(model, architecture).items():
            weight = parameters[layer.rule.albert_hub]
            exact = weight.to(torch.promote_types(weight.dtype, torch.float32))  # the sum is rounded once
            parameters[layer.rule.albert_hub] = kernel(exact).to(weight.dtype)
    weights = {rule.albert_hub: as_weight(parameters[rule.albert_hub]) for rule in weight_rules(architecture)}
    dtype = weights["token_embedding.weight"].dtype
    return Checkpoint("albert_hub", folder, architecture, weights, dtype)
