"""Convert between torch's tensors and ours. torch is imported when it is used: most conversions do not need it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from albert_hub_bridge.formats.lazy_tensors import DTYPES, LazyTensor, dtype_name


if TYPE_CHECKING:
    import torch


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """Return a tensor with a copy of an array."""
    import torch

    array = np.array(array, order="C")  # a mapped array is read-only, and torch needs memory that can be written
    if array.dtype == DTYPES["bfloat16"]:  # torch does not support bfloat16 of NumPy; the bits are the same
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as an array; on a CPU they share memory. bfloat16 becomes that of ml_dtypes, as in Keras."""
    import torch

    cpu = tensor.detach().cpu().contiguous()
    return cpu.view(torch.int16).numpy().view(DTYPES["bfloat16"]) if cpu.dtype == torch.bfloat16 else cpu.numpy()


def as_weight(tensor: torch.Tensor) -> LazyTensor:
    """Return a tensor as a lazy tensor; on a CPU they share memory."""
    return LazyTensor(tuple(tensor.shape), dtype_name(tensor.dtype), partial(as_array, tensor))
