"""Convert between torch's tensors and ours. torch is imported when it is used: most conversions do not need it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from albert_hub_bridge.formats.lazy_tensors import DTYPES, LazyTensor


if TYPE_CHECKING:
    import torch


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """Return a tensor with a copy of an array."""
    import torch

    array = np.array(array, order="C")  # a mapped array is read-only, and torch needs memory that can be written
    if array.dtype == DTYPES["bfloat16"]:  # torch does not support bfloat16 of NumPy; the bits are the same
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def as_weight(tensor: torch.Tensor) -> LazyTensor:
    """Return a tensor as a lazy tensor; on a CPU they share memory."""
    import torch

    dtype = str(tensor.dtype).removeprefix("torch.")

    def read() -> np.ndarray:
        cpu = tensor.detach().cpu().contiguous()
        return cpu.view(torch.int16).numpy().view(DTYPES[dtype]) if dtype == "bfloat16" else cpu.numpy()

    return LazyTensor(tuple(tensor.shape), dtype, read)
