"""LoRA inside an `AlbertHubModel`, with the factors of Keras: what is trained here is what a file of KerasHub holds.

A factor is added to its kernel by torch's parametrizations. So the layer computes with the sum wherever it is called,
and gradients reach both factors. PEFT's factors have other shapes (`lora/factors.py`): those that it trained need a
higher rank in a file of KerasHub.

Source:
    keras/src/layers/core/{dense,einsum_dense}.py, `enable_lora`; keras_hub/src/models/backbone.py, `enable_lora`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod, sqrt
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils import parametrize

from albert_hub_bridge.lora.factors import LoraLayer, lora_layers
from albert_hub_bridge.lora.keras_file import KerasFactors
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.model.architecture import Architecture


if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class LoraKernel(nn.Module):
    """Adds the product of two factors to the weight of a linear layer.

    Args:
        a: The shape of Keras' `lora_kernel_a`: that of the kernel, with the rank as last axis.
        b: The shape of Keras' `lora_kernel_b`: (rank, last axis of the kernel).
        device: Where the factors are stored. They are float32, whatever the kernel is, and start as Keras starts them.
    """

    def __init__(self, a: tuple[int, ...], b: tuple[int, ...], device: torch.device) -> None:
        super().__init__()
        limit = sqrt(6 / prod(a[:-1]))  # Keras' "he_uniform"
        self.a = nn.Parameter(torch.empty(a, device=device).uniform_(-limit, limit))
        self.b = nn.Parameter(torch.zeros(b, device=device))

    def forward(self, weight: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        """Return the weight with the product of the factors, computed in the dtype of the weight."""
        product = self.a.to(weight.dtype) @ self.b.to(weight.dtype)
        # In every kernel of Keras, the axes of the input come before those of the output.
        return weight + product.reshape(weight.shape[::-1]).T


def enable_lora(model: nn.Module, architecture: Architecture, rank: int, names: Collection[str]) -> None:
    """Freeze a model, and add LoRA to all layers of these names. Their biases stay trainable, as in Keras.

    Args:
        model: An `AlbertHubModel`.
        architecture: Its architecture.
        rank: The rank of the factors.
        names: Names of layers in Keras, such as `query`.

    Raises:
        ValueError: The rank is not a positive integer, LoRA is enabled already, or a name belongs to no layer.
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank must be a positive integer, not {rank!r}.")
    if lora_kernels(model, architecture):
        raise ValueError("LoRA is enabled already. Load the backbone again to enable it with another rank or layers.")
    known = dict.fromkeys(layer.keras for layer in lora_layers(architecture))
    if not names or (unknown := [name for name in names if name not in known]):
        found = ", ".join(unknown) if names else "nothing"
        raise ValueError(f"LoRA adapts layers called {', '.join(known)}, not {found}.")
    layers = [layer for layer in lora_layers(architecture) if layer.keras in names]
    sizes = axis_sizes(architecture)
    model.requires_grad_(False)
    for layer in layers:
        linear = model.get_submodule(layer.module("albert_hub"))
        kernel = LoraKernel(*layer.keras_shapes(rank, sizes), device=next(linear.parameters()).device)
        parametrize.register_parametrization(linear, "weight", kernel, unsafe=True)  # unsafe: not computed here
        linear.requires_grad_(True)
        linear.parametrizations["weight"].original.requires_grad_(False)  # type: ignore[index, union-attr]


def lora_kernels(model: nn.Module, architecture: Architecture) -> dict[LoraLayer, LoraKernel]:
    """Return the factors in a model by their layers, in the order of Keras' numbers. Empty without LoRA."""
    kernels = {}
    for layer in lora_layers(architecture):
        for parametrization in _weight_parametrizations(model.get_submodule(layer.module("albert_hub"))):
            if isinstance(parametrization, LoraKernel):
                kernels[layer] = parametrization
    return kernels


def _weight_parametrizations(module: nn.Module) -> list[nn.Module]:
    if not parametrize.is_parametrized(module, "weight"):
        return []
    return list(module.parametrizations["weight"])  # type: ignore[index]


def factors_as_arrays(kernels: Mapping[LoraLayer, LoraKernel]) -> KerasFactors:
    """Return the factors as arrays in float32."""
    return {
        layer: (kernel.a.detach().float().cpu().numpy(), kernel.b.detach().float().cpu().numpy())
        for layer, kernel in kernels.items()
    }


def set_factors(kernels: Mapping[LoraLayer, LoraKernel], factors: KerasFactors) -> None:
    """Replace the factors of all layers."""
    with torch.no_grad():
        for layer, kernel in kernels.items():
            for parameter, values in zip((kernel.a, kernel.b), factors[layer], strict=True):
                parameter.copy_(torch.from_numpy(values))
