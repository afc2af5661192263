"""Convert between torch's tensors and ours. torch is imported when it is used: most conversions do not need it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from albert_hub_bridge.formats.lazy_tensors import DTYPES, LazyTensor, dtype_name


if TYPE_CHECKING:
    import torch


def as_tensor(array: np.ndarray, share: bool = False) -> torch.Tensor:
    """Return an array as a tensor.

    Args:
        array: The array.
        share: Whether the tensor may have the memory of the array, and its strides. Otherwise it has a copy of its own.
    """
    import torch

    if not (share and array.flags.writeable):  # torch needs memory that can be written, and a mapped array is read-only
        array = np.array(array, order="C")
    if array.dtype == DTYPES["bfloat16"]:  # torch does not support bfloat16 of NumPy; the bits are the same
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as an array with its strides; on a CPU they share memory. bfloat16 becomes that of ml_dtypes."""
    import torch

    cpu = tensor.detach().cpu()
    return cpu.view(torch.int16).numpy().view(DTYPES["bfloat16"]) if cpu.dtype == torch.bfloat16 else cpu.numpy()


def as_weight(tensor: torch.Tensor) -> LazyTensor:
    """Return a tensor as a lazy tensor; on a CPU they share memory.

    The dtype of a tensor without plain values of its own says so, and is then no key of `DTYPES`.
    """
    dtype = f"{dtype_name(tensor.dtype)}{_obstacle(tensor)}"
    return LazyTensor(tuple(tensor.shape), dtype, partial(as_array, tensor))


def _obstacle(tensor: torch.Tensor) -> str:
    """Return why a tensor has no plain values of its own, such as a shard or a quantized tensor; empty if it has."""
    import torch

    if tensor.is_meta:
        return " without values, on torch's meta device"
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return f" in a {type(tensor).__name__}"
    return "" if tensor.layout == torch.strided else f" in the layout {str(tensor.layout).removeprefix('torch.')}"
