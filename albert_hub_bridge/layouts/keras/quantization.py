"""Quantized presets: int8 weights, and the float32 values that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from albert_hub_bridge.errors import ConfigurationError, Problem, WeightsError
from albert_hub_bridge.formats.lazy_tensors import DTYPES, Int8Weight, LazyTensor, checked_scales, dequantized
from albert_hub_bridge.text import short_repr


# Keras's policies of floats. The weights have their own dtype.
_POLICIES = ("float32", "float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16")


def check_policy(file: Path, policy: Any) -> None:
    """Refuse a dtype policy that Keras does not have, or with weights that this package does not read.

    It reads floats and int8.

    Raises:
        ConfigurationError: The policy has another name or another quantization, or is not a policy.
    """
    for each in _policies(policy):
        config = each.get("config") if isinstance(each, dict) else None
        if _is_int8(each) or (policy_name(each) in _POLICIES and _class_of(each) == "DTypePolicy"):
            continue
        detail = f"expected {', '.join(_POLICIES)}, or a QuantizedDTypePolicy of mode int8, found "
        name = policy_name(each) or (config.get("mode") if isinstance(config, dict) else None)
        detail += f"{short_repr(_class_of(each))} {short_repr(name)}"
        raise ConfigurationError(file, "configuration", [Problem("unsupported value", "dtype", detail)])


def check_quantized(file: Path, policy: Any, is_quantized: bool) -> None:
    """Refuse a quantized policy of weights that are not quantized: Keras would not find their scales.

    Raises:
        ConfigurationError: A policy is of mode int8, and no weight is.
    """
    if not is_quantized and any(map(_is_int8, _policies(policy))):
        detail = f"expected {', '.join(_POLICIES)}, because no weight is int8, found a policy of mode int8"
        raise ConfigurationError(file, "configuration", [Problem("contradiction", "dtype", detail)])


def _policies(policy: Any) -> list[Any]:
    """Return a policy, or those of a map; none if there is no policy."""
    if isinstance(policy, dict) and policy.get("class_name") == "DTypePolicyMap":
        config = policy.get("config")
        table = config.get("policy_map") if isinstance(config, dict) else None
        return list(table.values()) if isinstance(table, dict) else [False]
    return [] if policy is None else [policy]


def _class_of(policy: Any) -> Any:
    return (
        policy.get("class_name") if isinstance(policy, dict) else "DTypePolicy" if isinstance(policy, str) else policy
    )


def _is_int8(policy: Any) -> bool:
    config = policy.get("config") if isinstance(policy, dict) else None
    mode = config.get("mode") if isinstance(config, dict) else None
    return _class_of(policy) == "QuantizedDTypePolicy" and mode == "int8"


def policy_name(policy: Any) -> str:
    """Return the name of a serialized dtype policy; empty if it has none."""
    if isinstance(policy, dict):
        config = policy.get("config")
        policy = config.get("name") if isinstance(config, dict) else None
    return policy if isinstance(policy, str) else ""


def dequantize(file: Path, tensors: Mapping[str, LazyTensor]) -> tuple[dict[str, LazyTensor], dict[str, Int8Weight]]:
    """Turn int8 kernels and embeddings into float32, as Keras does: the value divided by its scale.

    Keras stores the scale after the layer's other variables: as `vars/1` of an embedding, and as `vars/2` of a dense
    layer, after its bias. An embedding has one scale per row, and a dense layer one per output. Scales of an einsum
    layer have leading axes of size 1.

    Args:
        file: The file of the weights, for the message.
        tensors: Every dataset, by name.

    Returns:
        The tensors without the scales; and those that were quantized, with their scales. If there are any, biases and
        layer norms in half precision become float32 too, which is exact, because a checkpoint has one dtype.

    Raises:
        WeightsError: A scale is missing or does not fit.

    Source:
        keras/src/layers/core/{dense,einsum_dense,embedding}.py, `_int8_call`.
    """
    result, problems = dict(tensors), []
    int8: dict[str, Int8Weight] = {}
    for name, values in tensors.items():
        layer, _, number = name.rpartition("/vars/")
        if values.dtype != "int8" or number != "0" or layer.endswith("position_embedding"):
            continue
        is_embedding = layer.endswith("embedding")
        scale_name = f"{layer}/vars/{1 if is_embedding else 2}"
        scale, rows = result.pop(scale_name, None), _rows(layer, values.shape)
        if scale is None or scale.dtype not in DTYPES or not _is_same(scale.shape, rows):
            found = "none" if scale is None else f"{scale.dtype} {scale.shape}"
            detail = f"expected scales {rows} of {', '.join(DTYPES)} beside it, found {found}"
            problems.append(Problem("wrong scale", name, detail))
            continue
        int8[name] = Int8Weight(values, checked_scales(file, scale_name, scale))
        result[name] = dequantized(int8[name], (*rows, 1) if is_embedding else rows)
    if problems:
        raise WeightsError(file, "weights", problems)
    if not int8:
        return result, {}
    halves = {name: tensor for name, tensor in result.items() if tensor.dtype in ("bfloat16", "float16")}
    return result | {name: _as_float32(tensor) for name, tensor in halves.items()}, int8


def _rows(layer: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the axes of an int8 weight that have a scale for each index: the ids, or the outputs."""
    if layer.endswith("embedding"):
        return shape[:1]
    inputs = 2 if layer.endswith("output_dense") and len(shape) == 3 else 1  # heads and their states are inputs there
    return shape[inputs:]


def _is_same(stored: tuple[int, ...], rows: tuple[int, ...]) -> bool:
    """Return whether a stored shape is that of the rows, except for axes of size 1 before it."""
    return stored[len(stored) - len(rows) :] == rows and prod(stored) == prod(rows)


def _as_float32(tensor: LazyTensor) -> LazyTensor:
    return LazyTensor(tensor.shape, "float32", lambda: tensor.load().astype(np.float32))
