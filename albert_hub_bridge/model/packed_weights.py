"""Weights of linear layers in the order in which oneDNN reads them.

oneDNN copies a weight into an order of its own before each product. For a few rows this takes as long as the product.
`pack` makes this copy once. `packed_weight` returns it as long as it is the copy of the layer's weight: the weight has
the same memory, dtype and version as when it was packed.

torch counts changes of a tensor in its version, for example steps of an optimizer and `load_state_dict`. It does not
count changes through `Tensor.data` or through an array that shares the memory. So packing is the choice of a caller,
who knows that the weights stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class _Packed:
    """A packed weight, and what it is a copy of.

    Args:
        weight: The copy, in oneDNN's own layout.
        source: The weight that was packed. It keeps the memory alive, so that no other weight gets the same address.
        version: The version of the source then.
    """

    weight: torch.Tensor
    source: torch.Tensor
    version: int

    def is_copy_of(self, weight: torch.Tensor) -> bool:
        """Return whether the weight is the source, and unchanged."""
        return (
            self.source.data_ptr() == weight.data_ptr()
            and self.source.dtype == weight.dtype
            and self.source.shape == weight.shape
            and self.version == weight._version
        )


# Not an attribute of the layer: a deep copy or a pickle of a model has its weights alone.
_packed: WeakKeyDictionary[nn.Module, _Packed] = WeakKeyDictionary()

_ROWS = 128  # oneDNN asks for a number of rows, and takes the same order for 16 to 1024


def pack(linear: nn.Linear) -> None:
    """Pack the weight of a layer. If it is packed already, pack it again.

    Args:
        linear: A layer on a CPU, in float32 or bfloat16. Its weight must not have been created in inference mode.
    """
    # Tensors that are made in inference mode have no version, and cannot be used outside it.
    with torch.inference_mode(mode=False), torch.no_grad():
        source = linear.weight.detach()
        weight = torch.ops.mkldnn._reorder_linear_weight.default(source, _ROWS)
    _packed[linear] = _Packed(weight, source, source._version)


def packed_weight(linear: nn.Linear) -> torch.Tensor:
    """Return the packed weight of a layer, or its weight if it is not packed or has changed since."""
    packed = _packed.get(linear)
    if packed is None:
        return linear.weight
    if packed.is_copy_of(linear.weight):
        return packed.weight
    del _packed[linear]
    return linear.weight
