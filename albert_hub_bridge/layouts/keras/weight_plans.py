"""Plan the HDF5 files of a preset: libhdf5 writes the metadata in memory, and the values are filled in later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from operator import itemgetter
from pathlib import Path

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.disk.strict_json import write_json
from albert_hub_bridge.formats.lazy_tensors import DTYPES
from albert_hub_bridge.formats.sparse_memory_file import SparseMemoryFile
from albert_hub_bridge.layouts.keras.files import INDEX, WEIGHTS
from albert_hub_bridge.layouts.weight_files import WeightFilePlan, split_into_shards
from albert_hub_bridge.mapping.weights import WeightRule


_METADATA_BYTES = 1 << 14  # per dataset; its name, groups and headers take less


def plan_weights(checkpoint: Checkpoint, folder: Path, max_shard_bytes: int | None) -> list[WeightFilePlan]:
    """Plan the files of an encoder's weights. Where there are several, write the index."""
    shards = split_into_shards(checkpoint, checkpoint.encoder_rules, max_shard_bytes)
    if len(shards) == 1:
        return [plan_file(checkpoint, folder / WEIGHTS, shards[0])]
    plans = []
    weight_map: dict[str, str | list[str]] = {}
    for number, rules in enumerate(shards):
        name = f"model_{number:05}.weights.h5"
        plans.append(plan_file(checkpoint, folder / name, rules))
        for rule in rules:
            group = "/" + rule.keras.rpartition("/")[0]
            before = weight_map.get(group, name)
            weight_map[group] = before if before == name else [*([before] if isinstance(before, str) else before), name]
    write_json(folder / INDEX, {"metadata": {"total_size": checkpoint.nbytes}, "weight_map": weight_map})
    return plans


def plan_file(
    checkpoint: Checkpoint, file: Path, rules: Sequence[WeightRule], scalars: Mapping[str, np.generic] | None = None
) -> WeightFilePlan:
    """Plan one HDF5 file. libhdf5 works in memory, because it handles a full disk badly.

    Args:
        checkpoint: The checkpoint to write.
        file: The file to make.
        rules: The weights in it.
        scalars: Further datasets with one number each, by name.
    """
    import h5py

    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    is_bfloat16 = checkpoint.dtype == "bfloat16"
    dtype = np.dtype("V2") if is_bfloat16 else DTYPES[checkpoint.dtype].newbyteorder("<")
    shapes = {rule: rule.shape("keras", checkpoint.sizes) for rule in rules}
    nbytes = {rule: prod(shape) * dtype.itemsize for rule, shape in shapes.items()}
    memory = SparseMemoryFile(sum(nbytes.values()) + (len(rules) + 64) * _METADATA_BYTES)
    values = []
    with h5py.File(memory, "w", track_times=False) as h5:
        for rule, shape in shapes.items():
            dataset = h5.create_dataset(rule.keras, shape, dtype, dcpl=early)
            if is_bfloat16:
                dataset.attrs["dtype"] = "bfloat16"
            values.append((rule, dataset.id.get_offset()))
        for name, number in (scalars or {}).items():
            h5[name] = number
    values.sort(key=itemgetter(1))
    ends = [0, *(offset + nbytes[rule] for rule, offset in values)]
    begins = [*(offset for _, offset in values), memory.size]
    chunks = {end: memory.read_at(end, begin) for end, begin in zip(ends, begins, strict=True) if end < begin}
    return WeightFilePlan(file, memory.size, chunks, values)
