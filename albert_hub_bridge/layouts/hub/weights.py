"""The weights of a Hub repository: safetensors, or what was there before, in one file or in shards with an index."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from math import prod
from pathlib import Path

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.disk.json_files import read_json, write_json
from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.formats.flax import read_flax
from albert_hub_bridge.formats.hdf5 import read_datasets
from albert_hub_bridge.formats.lazy_tensors import DTYPES, LazyTensor
from albert_hub_bridge.formats.pytorch import read_pytorch, refuse_pickle
from albert_hub_bridge.formats.safetensors import plan_header, read_safetensors
from albert_hub_bridge.layouts.weight_files import WeightFilePlan, shards_of
from albert_hub_bridge.mapping.weights import Dialect


WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


def weights_among(names: Iterable[str]) -> list[str]:
    """Return those files of a repository that have its weights, in the format that `open_weights` would read."""
    for name in _READERS:
        stem, _, suffix = name.rpartition(".")
        pattern = re.compile(rf"{re.escape(stem)}(-\d{{5}}-of-\d{{5}})?\.{suffix}(\.index\.json)?")
        if found := sorted(other for other in names if pattern.fullmatch(other)):
            return found
    return []


def open_weights(folder: Path, resources: ExitStack, allow_pickle: bool = False) -> tuple[Path, dict[str, LazyTensor]]:
    """Return the file that has a repository's weights, or the index of its shards, and every tensor, unread.

    Where a repository has its weights in several formats, as official ones do, the first of `_READERS` is read.

    Args:
        folder: Of the repository.
        resources: What closes the files.
        allow_pickle: Whether a pickle is read.

    Raises:
        FileError: A file is something else by its content.
        WeightsError: There are no weights, or two saves in one format, or a file is damaged, or a pickle that is not
            allowed.
    """
    for name, read in _READERS.items():
        single, index = folder / name, folder / f"{name}.index.json"
        if single.is_file() and index.is_file():
            problem = Problem(
                "ambiguous",
                index.name,
                f"expected one of the two, found it beside {name}: one is left over from another save",
            )
            raise WeightsError(index, "weights", [problem])
        if read is read_pytorch and not allow_pickle and (single.is_file() or index.is_file()):
            raise refuse_pickle(single if single.is_file() else index)
        if single.is_file():
            return single, read(single, resources)
        if index.is_file():
            return index, _read_shards(index, read, resources)
    present = ", ".join(sorted(path.name for path in folder.glob("*") if path.suffix in _SUFFIXES)) or "no weights"
    raise WeightsError(
        folder / WEIGHTS, "weights", [Problem("missing", WEIGHTS, f"expected the weights, found {present}")]
    )


_READERS: dict[str, Callable[[Path, ExitStack], dict[str, LazyTensor]]] = {
    WEIGHTS: read_safetensors,
    "pytorch_model.bin": read_pytorch,
    "tf_model.h5": read_datasets,
    "flax_model.msgpack": read_flax,
}
_SUFFIXES = {".safetensors", ".bin", ".h5", ".msgpack"}


def _read_shards(
    index: Path, read: Callable[[Path, ExitStack], dict[str, LazyTensor]], resources: ExitStack
) -> dict[str, LazyTensor]:
    """Read all shards of an index, which has to name every tensor and the file that it is in."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        problem = Problem("missing key", "weight_map", "expected an object of file names, found none")
        raise WeightsError(index, "weights", [problem])
    stem, _, suffix = index.name.removesuffix(".index.json").rpartition(".")
    pattern = re.compile(rf"{stem}-\d{{5}}-of-\d{{5}}\.{suffix}")
    named: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        named.setdefault(shard, set()).add(name)
    weights: dict[str, LazyTensor] = {}
    problems = []
    for shard in sorted(named):
        if not pattern.fullmatch(shard):
            detail = f"expected names such as {stem}-00001-of-00002.{suffix}, of files beside the index, found another"
            problems.append(Problem("wrong name", shard, detail))
        elif not index.with_name(shard).is_file():
            problems.append(Problem("missing", shard, f"expected, for {index.name} names it; found none"))
        else:
            found = read(index.with_name(shard), resources)
            # TensorFlow's index names a tensor with the name of the model before it, and its shards do without.
            promised = named[shard]
            promised |= {name.partition("/")[2] for name in promised if name.startswith("tf_albert")}
            shorter = {name for name in promised if not name.startswith("tf_albert")}
            missing, other = sorted(shorter - set(found)), [name for name in found if name not in promised]
            problems += [Problem("missing", name, f"expected in {shard}, found none") for name in missing]
            problems += [
                Problem("unexpected", name, f"found in {shard}, expected {weight_map.get(name, 'nothing of it')}")
                for name in other
            ]
            weights |= {name: weight for name, weight in found.items() if name in promised}
    if problems:
        raise WeightsError(index, "weights", problems)
    return weights


def plan_weights(
    checkpoint: Checkpoint, folder: Path, dialect: Dialect, prefix: str, max_shard_bytes: int | None
) -> list[WeightFilePlan]:
    """Lay out the files of a checkpoint's weights, and write the index where there are several.

    Args:
        checkpoint: What to write.
        folder: Where to.
        dialect: Of the names.
        prefix: What the encoder's names begin with.
        max_shard_bytes: Size of the values in one file; None for one file.
    """
    names = {rule: prefix + rule.name(dialect) for rule in checkpoint.encoder_rules}
    names |= {rule: rule.name(dialect) for rule in checkpoint.head_rules}
    shards = shards_of(checkpoint, list(names), max_shard_bytes)
    files = []
    weight_map: dict[str, str] = {}
    for number, rules in enumerate(shards, start=1):
        file = folder / (WEIGHTS if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors")
        shapes = {names[rule]: rule.shape(dialect, checkpoint.sizes) for rule in rules}
        before, offsets = plan_header(shapes, checkpoint.dtype)
        size = len(before) + sum(prod(shape) for shape in shapes.values()) * DTYPES[checkpoint.dtype].itemsize
        files.append(WeightFilePlan(file, size, {0: before}, [(rule, offsets[names[rule]]) for rule in rules]))
        weight_map |= dict.fromkeys(shapes, file.name)
    if len(shards) > 1:
        write_json(folder / INDEX, {"metadata": {"total_size": checkpoint.nbytes}, "weight_map": weight_map})
    return files
