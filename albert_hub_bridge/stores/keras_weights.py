"""The weights of a KerasHub preset: HDF5 files, one or in shards, as Keras 3 and its ancestors wrote them.

Read and written with h5py alone. Source of the format: keras/src/saving/saving_lib.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.mapping.weights import WeightRule
from albert_hub_bridge.stores.checkpoint import DTYPES, Checkpoint, Weight
from albert_hub_bridge.stores.configurations import read_json, write_json
from albert_hub_bridge.stores.tensors import Placed, map_tensor, shards_of


WEIGHTS, INDEX = "model.weights.h5", "model.weights.json"
SHARD = re.compile(r"model_\d{5}\.weights\.h5")


def weights_file(folder: Path) -> Path:
    """Return the file that has a preset's weights: `model.weights.h5`, or the index of its shards.

    Raises:
        WeightsError: There is neither, or both, so that one of them is stale.
    """
    present = [folder / name for name in (WEIGHTS, INDEX) if (folder / name).is_file()]
    if len(present) == 1:
        return present[0]
    if present:
        problem = Problem("ambiguous", INDEX, f"found beside {WEIGHTS}: one of them is left over from another save")
    else:
        others = ", ".join(sorted(path.name for path in folder.glob("*.weights.*"))) or "no weights at all"
        problem = Problem("missing", WEIGHTS, f"found {others}")
    raise WeightsError(folder / WEIGHTS, "weights", [problem])


def open_weights(file: Path, resources: ExitStack) -> dict[str, Weight]:
    """Open an HDF5 file, or all shards that an index names, and return every dataset by today's name, unread.

    Args:
        file: What `weights_file` returned, or `task.weights.h5`.
        resources: What closes the files.

    Raises:
        WeightsError: A file is missing or damaged, or two shards have the same dataset.
    """
    if file.suffix != ".json":
        return {_todays_name(name): weight for name, weight in _open_file(file, resources).items()}
    weights: dict[str, Weight] = {}
    problems = []
    for shard in _shards_in(file):
        if not shard.is_file():
            problems.append(Problem("missing", shard.name, f"{file.name} names it"))
            continue
        for name, weight in _open_file(shard, resources).items():
            if _todays_name(name) in weights:
                problems.append(Problem("twice", name, f"in {shard.name} and in a shard before it"))
            weights[_todays_name(name)] = weight
    if problems:
        raise WeightsError(file, "weights", problems)
    return weights


def _shards_in(index: Path) -> list[Path]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict):
        raise WeightsError(index, "weights", [Problem("missing key", "weight_map", "expected an object")])
    listed = [names if isinstance(names, list) else [names] for names in shards.values()]
    found = {name for names in listed for name in names if isinstance(name, str)}
    if not shards or len(found) != len({str(name) for names in listed for name in names}):
        raise WeightsError(index, "weights", [Problem("wrong value", "weight_map", "expected names of files")])
    if strangers := sorted(name for name in found if not SHARD.fullmatch(name)):
        detail = "expected names such as model_00000.weights.h5, beside the index"
        raise WeightsError(index, "weights", [Problem("wrong name", name, detail) for name in strangers])
    return [index.with_name(name) for name in sorted(found)]


# Keras 2.15 wrote the attributes of objects, with their underscores, where Keras 3 has names of its own.
_OLD_NAMES = (
    (re.compile(r"^_layer_checkpoint_dependencies/"), "layers/"),
    (re.compile(r"^token_embedding/"), "layers/reversible_embedding/"),
    (re.compile(r"/_(query|key|value|output)_dense/"), r"/\1_dense/"),
)


def _todays_name(name: str) -> str:
    for pattern, replacement in _OLD_NAMES:
        name = pattern.sub(replacement, name)
    return name


def _open_file(file: Path, resources: ExitStack) -> dict[str, Weight]:
    datasets: dict[str, Weight] = {}

    def collect(name: str | bytes, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            datasets[name if isinstance(name, str) else name.decode(errors="backslashreplace")] = _as_weight(item, file)

    try:
        resources.enter_context(h5py.File(file, "r")).visititems(collect)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # what h5py raises on damaged files
        raise WeightsError(file, "weights", [Problem("not HDF5", file.name, str(error))]) from error
    return datasets


def _as_weight(dataset: h5py.Dataset, file: Path) -> Weight:
    if dataset.external or dataset.is_virtual:  # its values are in another file, which is nobody's weights
        return Weight(dataset.shape, "values in another file", dataset.__array__)
    # HDF5 has no bfloat16: Keras stores two opaque bytes and says so in an attribute.
    if dataset.dtype == np.dtype("V2") and str(dataset.attrs.get("dtype")) == "bfloat16":
        name, dtype = "bfloat16", DTYPES["bfloat16"]
    else:
        name, dtype = dataset.dtype.name, dataset.dtype
    offset = dataset.id.get_offset() if dtype.isnative and not dataset.file.userblock_size else None
    if offset is not None:  # the values lie in the file as they are, in one run
        return Weight(dataset.shape, name, partial(map_tensor, file, offset, dataset.shape, dtype))

    def read() -> np.ndarray:
        values: np.ndarray = dataset[()]
        return values.view(dtype) if name == "bfloat16" else values.astype(dtype.newbyteorder("="), copy=False)

    return Weight(dataset.shape, name, read)


def lay_out_weights(checkpoint: Checkpoint, folder: Path, max_shard_bytes: int | None) -> list[Placed]:
    """Make the files of an encoder's weights, and return where the values of each belong; they are not written yet."""
    shards = shards_of(checkpoint, checkpoint.encoder_rules, max_shard_bytes)
    if len(shards) == 1:
        return lay_out_file(checkpoint, folder / WEIGHTS, shards[0])
    placed = []
    weight_map: dict[str, str | list[str]] = {}
    for number, rules in enumerate(shards):
        name = f"model_{number:05}.weights.h5"
        placed += lay_out_file(checkpoint, folder / name, rules)
        for rule in rules:
            group = "/" + rule.keras.rpartition("/")[0]
            before = weight_map.get(group, name)
            weight_map[group] = before if before == name else [*([before] if isinstance(before, str) else before), name]
    write_json(folder / INDEX, {"metadata": {"total_size": checkpoint.nbytes}, "weight_map": weight_map})
    return placed


def lay_out_file(checkpoint: Checkpoint, file: Path, rules: Sequence[WeightRule]) -> list[Placed]:
    """Make an HDF5 file that has a dataset for every row, and return where the values of each belong."""
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    bfloat16 = checkpoint.dtype == "bfloat16"
    dtype = np.dtype("V2") if bfloat16 else DTYPES[checkpoint.dtype].newbyteorder("<")
    sizes: Mapping[str, int] = checkpoint.sizes
    placed = []
    with h5py.File(file, "w") as h5:
        for rule in rules:
            dataset = h5.create_dataset(rule.keras, rule.shape("keras", sizes), dtype, dcpl=early)
            if bfloat16:
                dataset.attrs["dtype"] = "bfloat16"
            placed.append(Placed(rule, file, dataset.id.get_offset()))
    return placed
