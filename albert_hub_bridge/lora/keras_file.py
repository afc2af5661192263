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
from albert_hub_bridge.lora.adapter import (
    CHECK_BASE,
    Adapter,
    Pair,
    check_pair,
    dtypes_of,
    read_pair,
    with_source_tensors,
)
from albert_hub_bridge.lora.factors import DEFAULT_LAYERS, LoraLayer, from_keras, lora_layers, pad_rank, to_keras
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.model.architecture import Architecture


KERAS_SUFFIX = ".lora.h5"

_RANK, _RANK_DTYPES = "lora/vars/rank", ("int32", "int64")
_KERNEL = re.compile(r"lora/(\d+)/vars/lora_kernel_([ab])")


# `lora_kernel_a` and `lora_kernel_b` of every adapted layer, in float32.
KerasFactors = Mapping[LoraLayer, tuple[np.ndarray, np.ndarray]]


def _kernel_names(layer: LoraLayer) -> dict[str, str]:
    return {part: f"lora/{layer.number}/vars/lora_kernel_{part}" for part in "ab"}


def read_keras_adapter(file: Path, architecture: Architecture) -> Adapter:
    """Read a file of KerasHub's `save_lora_weights`.

    Args:
        file: A `.lora.h5` file.
        architecture: The architecture of the base. It maps the numbers in the file to layers.

    Raises:
        CheckpointError: The file is damaged, or does not fit this base. All problems are listed.
    """
    sizes = axis_sizes(architecture)
    with ExitStack() as resources:
        pairs = _read_pairs(file, architecture, resources)
        factors = {layer: from_keras(layer, *read_pair(pair), sizes) for layer, pair in pairs.items()}
        return Adapter(factors, dtypes=dtypes_of(pairs.values()))


def read_keras_factors(file: Path, architecture: Architecture) -> KerasFactors:
    """Read the factors in a file of KerasHub's `save_lora_weights` as Keras has them. The arguments are the same.

    Raises:
        CheckpointError: As `read_keras_adapter`.
    """
    with ExitStack() as resources:
        return {layer: read_pair(pair) for layer, pair in _read_pairs(file, architecture, resources).items()}


def _read_pairs(file: Path, architecture: Architecture, resources: ExitStack) -> dict[LoraLayer, Pair]:
    """Return the checked pairs of a file by their layers, unread, in the order of Keras' numbers."""
    sizes = axis_sizes(architecture)
    tensors = with_source_tensors(file, "keras", read_datasets(file, resources))
    rank = _rank_in(tensors.pop(_RANK, None))
    pairs, problems = _pairs_by_layer(tensors, architecture)
    if rank < 1:
        problems.insert(0, Problem("wrong rank", _RANK, "expected a positive integer, found none"))
    # Keras adapts either all layers of a name or none of them.
    names = {layer.keras for layer in pairs}
    layers = [layer for layer in lora_layers(architecture) if layer.keras in names]
    for layer in layers:
        shapes = layer.keras_shapes(rank, sizes) if rank > 0 else None
        problems += check_pair(_kernel_names(layer), pairs.get(layer, {}), shapes)
    if not layers and not problems:
        problems.append(Problem("missing", "lora", "expected an adapter of some layer, found none"))
    if problems:
        raise CheckpointError(file, "adapter", problems, CHECK_BASE)
    return {layer: pairs[layer] for layer in layers}


def _rank_in(tensor: LazyTensor | None) -> int:
    """Return the rank that the file states; 0 if it states none."""
    if tensor is None or tensor.shape != () or tensor.dtype not in _RANK_DTYPES:
        return 0
    return int(tensor.load())


def _pairs_by_layer(
    tensors: Mapping[str, LazyTensor], architecture: Architecture
) -> tuple[dict[LoraLayer, Pair], list[Problem]]:
    """Sort the factors by their layers; the names that belong to no layer are problems."""
    layers = {layer.number: layer for layer in lora_layers(architecture)}
    numbers = ", ".join(map(str, layers))
    pairs: dict[LoraLayer, Pair] = {}
    problems = []
    for name, tensor in tensors.items():
        match = _KERNEL.fullmatch(name)
        if match is None:
            problems.append(Problem("unexpected", name, f"expected no such dataset, found {tensor.shape}"))
        elif (layer := layers.get(int(match[1]))) is None:
            problems.append(Problem("no such layer", name, f"expected a number of {numbers}, found {match[1]}"))
        else:
            pairs.setdefault(layer, {})[match[2]] = tensor
    return pairs, problems


def write_keras_adapter(adapter: Adapter, file: Path, architecture: Architecture) -> dict[LoraLayer, int]:
    """Write an adapter for KerasHub's `load_lora_weights`, which expects one rank and all layers of a name.

    Query and value are always written, because KerasHub expects them by default. Layers without factors get zeros.

    Args:
        adapter: The adapter.
        file: The file to create.
        architecture: The architecture of the base.

    Returns:
        The rank of every layer before it was padded to the rank of the file; 0 for layers of zeros.
    """
    sizes = axis_sizes(architecture)
    names = DEFAULT_LAYERS | {layer.keras for layer in adapter.factors}
    pairs = {
        layer: to_keras(layer, adapter.factors[layer], sizes)
        if layer in adapter.factors
        else tuple(np.zeros(shape, np.float32) for shape in layer.keras_shapes(0, sizes))
        for layer in lora_layers(architecture)
        if layer.keras in names
    }
    ranks = {layer: len(b) for layer, (_, b) in pairs.items()}
    rank = max(ranks.values())
    write_keras_factors({layer: pad_rank(a, b, rank) for layer, (a, b) in pairs.items()}, file)
    return ranks


def write_keras_factors(factors: KerasFactors, file: Path) -> None:
    """Write factors as Keras has them, all of one rank, for KerasHub's `load_lora_weights`."""
    import h5py

    memory = io.BytesIO()  # libhdf5 does not handle a full disk well
    with h5py.File(memory, "w", track_times=False) as h5:
        h5[_RANK] = np.int64(rank_of(factors))
        for layer, pair in factors.items():
            for name, values in zip(_kernel_names(layer).values(), pair, strict=True):
                h5[name] = values
    write_file(file, memory.getvalue())


def rank_of(factors: KerasFactors) -> int:
    """Return the rank of factors as Keras has them, which is the same for all layers."""
    return len(next(iter(factors.values()))[1])
