"""KerasHub's file of LoRA weights, `NAME.lora.h5`."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from albert_hub_bridge.disk.durable import write_file
from albert_hub_bridge.errors import CheckpointError, Problem
from albert_hub_bridge.formats.hdf5 import read_datasets
from albert_hub_bridge.formats.lazy_tensors import LazyTensor
from albert_hub_bridge.lora.adapter import ANOTHER_BASE, Adapter, _read, dtypes_of, pair_problems, with_source
from albert_hub_bridge.lora.factors import (
    KERAS_DEFAULT,
    LoraLayer,
    filled_up,
    from_keras,
    lora_layers,
    to_keras,
)
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.model.architecture import Architecture


KERAS_SUFFIX = ".lora.h5"

_KERNEL = re.compile(r"lora/(\d+)/vars/lora_kernel_([ab])")
_RANK, _RANK_DTYPES = "lora/vars/rank", ("int32", "int64")


def read_keras_adapter(file: Path, architecture: Architecture) -> Adapter:
    """Read what KerasHub's `save_lora_weights` wrote.

    Args:
        file: A `.lora.h5` file.
        architecture: Of the base, which says what the numbers in the file mean.

    Raises:
        CheckpointError: The file is damaged, or is not of this base; all problems are listed.
    """
    layers = {layer.number: layer for layer in lora_layers(architecture)}
    sizes = axis_sizes(architecture)
    problems: list[Problem] = []
    pairs: dict[int, dict[str, LazyTensor]] = {}
    with ExitStack() as resources:
        found = with_source(file, "keras", read_datasets(file, resources))
        source_tensor = found.pop(_RANK, None)
        rank = (
            int(source_tensor.load())
            if source_tensor is not None and source_tensor.shape == () and source_tensor.dtype in _RANK_DTYPES
            else 0
        )
        if rank < 1:
            problems.append(Problem("wrong rank", _RANK, "expected a positive integer, found none"))
        for name, weight in found.items():
            match = _KERNEL.fullmatch(name)
            if match is None:
                problems.append(Problem("unexpected", name, f"expected no such dataset, found {weight.shape}"))
            elif int(match[1]) not in layers:
                problems.append(
                    Problem("no such layer", name, f"expected a number of {_numbers(layers)}, found {match[1]}")
                )
            else:
                pairs.setdefault(int(match[1]), {})[match[2]] = weight
        names = {layers[number].keras for number in pairs}
        factors = {}
        for number, layer in layers.items():
            if layer.keras in names:  # Keras has them of all layers of a name, or of none
                shapes = layer.keras_shapes(rank, sizes) if rank else None
                where = {part: f"lora/{number}/vars/lora_kernel_{part}" for part in "ab"}
                wrong = pair_problems(where, pairs.get(number, {}), shapes)
                problems += wrong
                if not wrong and not problems:
                    factors[layer] = from_keras(layer, *_read(pairs[number]), sizes)
        if not pairs and not problems:
            problems.append(Problem("missing", "lora", "expected an adapter of some layer, found none"))
        if problems:
            raise CheckpointError(file, "adapter", problems, ANOTHER_BASE)
        return Adapter(factors, dtypes=dtypes_of(pairs.values()))


def _numbers(layers: Mapping[int, LoraLayer]) -> str:
    return ", ".join(str(number) for number in layers)


def write_keras_adapter(adapter: Adapter, file: Path, architecture: Architecture) -> dict[LoraLayer, int]:
    """Write an adapter as KerasHub's `load_lora_weights` reads it: one rank, and all layers of a name.

    Query and value are always there, because KerasHub looks for them by itself; where the adapter has no factors for a
    layer they are zeros.

    Args:
        adapter: What to write.
        file: Which does not exist yet.
        architecture: Of the base.

    Returns:
        The rank of every layer before it was filled up to that of the file; 0 where there are only zeros.
    """
    sizes = axis_sizes(architecture)
    names = KERAS_DEFAULT | {layer.keras for layer in adapter.factors}
    pairs = {layer: to_keras(layer, factors, sizes) for layer, factors in adapter.factors.items()}
    rank = max(len(b) for _, b in pairs.values())
    ranks = {}
    import h5py

    memory = io.BytesIO()  # where libhdf5 never meets a full disk, which it is not good at
    with h5py.File(memory, "w", track_times=False) as h5:
        h5[_RANK] = np.int64(rank)
        for layer in lora_layers(architecture):
            if layer.keras in names:
                a, b = pairs.get(layer) or (np.zeros(shape, np.float32) for shape in layer.keras_shapes(0, sizes))
                ranks[layer] = len(b)
                full_a, full_b = filled_up(a, b, rank)
                h5[f"lora/{layer.number}/vars/lora_kernel_a"] = full_a
                h5[f"lora/{layer.number}/vars/lora_kernel_b"] = full_b
    write_file(file, memory.getvalue())
    return ranks
