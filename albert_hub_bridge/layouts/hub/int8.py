"""Int8 weights of a repository in the albert_hub layout: integers, and the scales of their rows beside them.

`quantization_config` of `config.json` names the layers, so that transformers makes them as int8 layers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from albert_hub_bridge.errors import ConfigurationError, Problem, WeightsError
from albert_hub_bridge.formats.lazy_tensors import Int8Weight, LazyTensor, checked_scales, dequantized
from albert_hub_bridge.mapping.weights import scale_of
from albert_hub_bridge.text import first_few, short_repr


QUANTIZATION_CONFIG = "quantization_config"
_METHOD = "keras_int8"  # as model/int8.py registers it
_WEIGHT = ".weight"
_POSITIONS = "position_embedding."  # KerasHub does not quantize it


def check_quantization_config(file: Path, config: Any, int8: Collection[str], weights: Collection[str]) -> None:
    """Refuse a `quantization_config` that does not name the layers with int8 weights.

    It may name layers without weights: transformers keeps the names when a model is saved without its head.

    Args:
        file: The `config.json`, for the message.
        config: The value of its key; None if there is none.
        int8: The albert_hub names of the int8 weights.
        weights: The albert_hub names of all weights.

    Raises:
        ConfigurationError: transformers would make other layers.
    """
    detail = f"expected none, because no tensor is int8, found {short_repr(config)}" if config is not None else ""
    if int8:
        detail = _difference(config, int8, weights)
    if detail:
        raise ConfigurationError(file, "configuration", [Problem("contradiction", QUANTIZATION_CONFIG, detail)])


def _difference(config: Any, int8: Collection[str], weights: Collection[str]) -> str:
    modules = config.get("modules") if isinstance(config, dict) and config.get("quant_method") == _METHOD else None
    if not isinstance(modules, list) or not all(isinstance(name, str) for name in modules):
        wanted = f"quant_method {_METHOD!r} and a list of modules, because {len(int8)} tensors are int8"
        return f"expected {wanted}, found {short_repr(config)}"
    if missing := [name for name in modules_of(int8) if name not in modules]:
        return f"expected {first_few(missing, 3)} in modules, because the weights are int8, found no such name"
    if others := [name for name in modules if name + _WEIGHT in weights and name + _WEIGHT not in int8]:
        return f"expected only layers with int8 weights in modules, found {first_few(others, 3)}"
    return ""


def quantization_config_of(int8: Iterable[str]) -> dict[str, Any]:
    """Return the `quantization_config` for the albert_hub names of int8 weights."""
    return {"quant_method": _METHOD, "modules": modules_of(int8)}


def modules_of(int8: Iterable[str]) -> list[str]:
    """Return the names of the layers of int8 weights."""
    return [name.removesuffix(_WEIGHT) for name in int8]


def dequantize(file: Path, tensors: Mapping[str, LazyTensor]) -> tuple[dict[str, LazyTensor], dict[str, Int8Weight]]:
    """Turn int8 weights into float32: each value is an integer divided by the scale of its row.

    Args:
        file: The file of the weights, for the message.
        tensors: Every tensor, by its name in the file.

    Returns:
        The tensors without the scales; and those that were quantized, with their scales.

    Raises:
        WeightsError: A scale is missing or does not fit.
    """
    result, int8, problems = dict(tensors), {}, []
    for name, values in tensors.items():
        if values.dtype != "int8" or not name.endswith(_WEIGHT) or len(values.shape) != 2 or _POSITIONS in name:
            continue
        scales = result.pop(scale_of(name), None)
        if scales is None or (scales.dtype, scales.shape) != ("float32", values.shape[:1]):
            found = "none" if scales is None else f"{scales.dtype} {scales.shape}"
            detail = f"expected float32 {values.shape[:1]}, one for each row of {name}, found {found}"
            problems.append(Problem("wrong scale", scale_of(name), detail))
            continue
        int8[name] = Int8Weight(values, checked_scales(file, scale_of(name), scales))
        result[name] = dequantized(int8[name], (-1, 1))
    if problems:
        raise WeightsError(file, "weights", problems)
    return result, int8
