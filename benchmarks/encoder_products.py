"""The linear layers of the encoder alone, and the operations that engines are measured by. See `encoder.py`."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


LAYERS, HIDDEN, INTERMEDIATE, VOCABULARY = 12, 768, 3072, 30000  # of the base model
BFLOAT16, INT8 = "bfloat16", "int8"
PEAK_SIZE = 8192  # of the square matrices whose product shows the rate of a GPU

Run = Callable[[np.ndarray, np.ndarray], np.ndarray | None]  # ids and mask to the first positions, (batch, hidden)
Product = Callable[[Any, int], Callable[[Any], Any]]  # from a layer and a number of rows

SHAPES = [(HIDDEN, HIDDEN)] * 4 + [(HIDDEN, INTERMEDIATE), (INTERMEDIATE, HIDDEN)]  # of the linear layers of one run
LINEAR_FLOPS = 2 * LAYERS * sum(math.prod(shape) for shape in SHAPES)  # of one token


def torch_product(layer: Any, _rows: int) -> Callable[[Any], Any]:
    return layer


def onednn_product(layer: Any, _rows: int) -> Callable[[Any], Any]:
    from albert_hub_bridge.model.fast_linear import fast_linear

    return lambda states: fast_linear(layer, states)


def packed_onednn_product(layer: Any, _rows: int) -> Callable[[Any], Any]:
    from albert_hub_bridge.model.packed_weights import pack

    pack(layer)
    return onednn_product(layer, _rows)


def packed_mkl_product(layer: Any, rows: int) -> Callable[[Any], Any]:
    import torch

    packed = torch.ops.mkl._mkl_reorder_linear_weight(layer.weight.detach(), rows)  # for so many rows only
    return lambda states: torch.ops.mkl._mkl_linear(
        states.flatten(0, -2), packed, layer.weight, layer.bias, rows
    ).unflatten(0, states.shape[:-1])


def int8_product(layer: Any, rows: int) -> Callable[[Any], Any]:
    """Return a product of integers of the same shapes. Rounding the states is not part of it."""
    import torch

    from albert_hub_bridge.model.int8 import multiply_int8

    states = torch.ones(rows, layer.in_features, dtype=torch.int8)
    weight = torch.ones(layer.out_features, layer.in_features, dtype=torch.int8)
    return lambda each: multiply_int8(states, weight).unflatten(0, each.shape[:-1])


def products(device: str, dtype: str, make: Product) -> Run:
    """Make an engine of the linear layers alone. `make` makes a product of a layer and the number of rows."""
    import torch

    # The int8 product has states and weights of its own, in the shapes of the layers.
    options: dict[str, Any] = {"device": device, "dtype": getattr(torch, "float32" if dtype == INT8 else dtype)}
    layers = [torch.nn.Linear(*shape, **options) for shape in SHAPES]

    @functools.cache
    def products_for(rows: int) -> list[Callable[[Any], Any]]:
        with torch.inference_mode(mode=False), torch.no_grad():
            return [make(layer, rows) for layer in layers]

    @torch.inference_mode()
    def run(ids: np.ndarray, _mask: np.ndarray) -> None:
        states = {width: torch.ones(*ids.shape, width, **options) for width in (HIDDEN, INTERMEDIATE)}
        for _ in range(LAYERS):
            for (width, _), product in zip(SHAPES, products_for(ids.size), strict=True):
                outputs = product(states[width])
        outputs[0, 0, 0].item()  # waits for a GPU

    return run


def numpy_products(_folder: Path, _device: str) -> Run:
    weights = [np.ones(shape, dtype=np.float32) for shape in SHAPES]

    def run(ids: np.ndarray, _mask: np.ndarray) -> None:
        states = {width: np.ones((ids.size, width), dtype=np.float32) for width in (HIDDEN, INTERMEDIATE)}
        for _ in range(LAYERS):
            for weight in weights:
                states[len(weight)] @ weight

    return run


def flops(mask: np.ndarray) -> float:
    """Return the operations of all layers for the tokens that the mask shows."""
    lengths = mask.sum(1).astype(float)
    return float(LINEAR_FLOPS * lengths.sum() + 4 * LAYERS * HIDDEN * (lengths**2).sum())


def peak_rate(device: str) -> float | None:
    """Return the operations per second of one large product on a GPU, in bfloat16."""
    if device == "cpu":
        return None
    import torch

    matrices = torch.randn(2, PEAK_SIZE, PEAK_SIZE, device=device, dtype=torch.bfloat16)
    seconds = []
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        matrices[0] @ matrices[1]
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return float(2 * PEAK_SIZE**3 / np.median(seconds))
