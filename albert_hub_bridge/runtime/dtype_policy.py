"""Keras' dtype policies: in which dtype parameters are stored, and in which dtype the model computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from albert_hub_bridge.choices import DTYPE_NAMES, choose
from albert_hub_bridge.formats.lazy_tensors import DTYPES, dtype_name


POLICIES = (*DTYPES, "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True, slots=True)
class DTypePolicy:
    """A dtype policy, with the properties of Keras' `DTypePolicy`.

    Args:
        name: One of `POLICIES`. A mixed policy stores float32.
    """

    name: str

    @property
    def compute_dtype(self) -> str:
        """The dtype of computations and outputs. Softmax and layer norm compute in float32 inside."""
        return self.name.removeprefix("mixed_")

    @property
    def variable_dtype(self) -> str:
        """The dtype of the parameters."""
        return "float32" if self.name.startswith("mixed_") else self.name


def dtype_policy(dtype: Any) -> DTypePolicy:
    """Return a policy from what Keras takes as `dtype`.

    Args:
        dtype: A name of `POLICIES`, a dtype of torch or NumPy, a policy of Keras or its configuration, or None for
            float32.

    Raises:
        ValueError: The policy is another one.
    """
    name = "float32" if dtype is None else dtype
    if isinstance(dtype, Mapping):  # as Keras serializes it
        config = dtype.get("config")
        name = config.get("name") if isinstance(config, Mapping) else None
    elif isinstance(getattr(dtype, "name", None), str):
        name = dtype.name
    try:
        return DTypePolicy(choose("dtype", dtype_name(name), POLICIES, DTYPE_NAMES))
    except ValueError as error:
        advice = "from_preset dequantizes int8 presets, and AlbertHubModel.from_preset(..., dtype='int8') keeps them."
        raise ValueError(f"{error} {advice}") from error


class _Cast(nn.Module):
    """Gives a module its parameter in another dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, parameter: Tensor) -> Tensor:
        return parameter.to(self.dtype)


def apply_policy(model: nn.Module, policy: DTypePolicy) -> None:
    """Store the parameters of a model in one dtype, and compute in the other."""
    model.to(getattr(torch, policy.variable_dtype))
    if policy.compute_dtype != policy.variable_dtype:
        for module in list(model.modules()):
            for name, _ in list(module.named_parameters(recurse=False)):
                cast = _Cast(getattr(torch, policy.compute_dtype))
                parametrize.register_parametrization(module, name, cast, unsafe=True)  # the dtype changes


def policy_of(module: nn.Module, name: str) -> DTypePolicy:
    """Return the policy of a parameter, which `to`, `half` and the like may have changed since it was applied."""
    compute = str(getattr(module, name).dtype).removeprefix("torch.")
    stored = module.parametrizations[name].original if parametrize.is_parametrized(module, name) else None  # type: ignore[index, union-attr]
    is_mixed = stored is not None and stored.dtype != getattr(torch, compute)
    return DTypePolicy(f"mixed_{compute}" if is_mixed else compute)
