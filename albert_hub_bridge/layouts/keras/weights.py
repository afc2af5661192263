"""The weights of a KerasHub preset: HDF5 files, one or in shards, as Keras 3 and its ancestors wrote them.

Read and written with h5py alone. Source of the format: keras/src/saving/saving_lib.py.
"""

from __future__ import annotations

import io
import mmap
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import prod
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.disk.json_files import read_json, write_json
from albert_hub_bridge.errors import ConfigurationError, Problem, WeightsError
from albert_hub_bridge.formats.hdf5 import Hdf5Files
from albert_hub_bridge.formats.lazy_tensors import DTYPES, LazyTensor
from albert_hub_bridge.layouts.weight_files import WeightFilePlan, shards_of
from albert_hub_bridge.mapping.weights import WeightRule
from albert_hub_bridge.text import first_few


if TYPE_CHECKING:
    from typing_extensions import Buffer


WEIGHTS, INDEX = "model.weights.h5", "model.weights.json"
SHARD = re.compile(r"model_\d{5}\.weights\.h5")


def check_policy(file: Path, policy: Any) -> None:
    """Refuse a dtype policy whose weights are not read: all floats are, and int8.

    Raises:
        ConfigurationError: The policy has another quantization, or is not one.
    """
    if policy is None or isinstance(policy, str):
        return  # the weights carry their own dtype
    policies = [policy]
    if isinstance(policy, dict) and policy.get("class_name") == "DTypePolicyMap":
        inner = policy.get("config")
        table = inner.get("policy_map") if isinstance(inner, dict) else None
        policies = list(table.values()) if isinstance(table, dict) else [None]
    for each in policies:
        name, config = (each.get("class_name"), each.get("config")) if isinstance(each, dict) else (each, None)
        mode = config.get("mode") if isinstance(config, dict) else None
        if name != "DTypePolicy" and (name, mode) != ("QuantizedDTypePolicy", "int8"):
            detail = f"expected DTypePolicy, or QuantizedDTypePolicy of mode int8, found {name}"
            detail += f" of mode {mode}" if mode is not None else ""
            raise ConfigurationError(file, "configuration", [Problem("unsupported value", "dtype", detail)])


def weights_among(names: Iterable[str]) -> list[str]:
    """Return those files of a preset that have its weights, or its head's."""
    weights = {WEIGHTS, INDEX, "task.weights.h5"}
    return sorted(name for name in names if name in weights or SHARD.fullmatch(name))


def weights_file(folder: Path) -> Path:
    """Return the file that has a preset's weights: `model.weights.h5`, or the index of its shards.

    Raises:
        WeightsError: There is neither, or both, so that one of them is stale.
    """
    present = [folder / name for name in (WEIGHTS, INDEX) if (folder / name).is_file()]
    if len(present) == 1:
        return present[0]
    if present:
        problem = Problem(
            "ambiguous",
            INDEX,
            f"expected one of the two, found it beside {WEIGHTS}: one is left over from another save",
        )
    else:
        others = ", ".join(sorted(path.name for path in folder.glob("*.weights.*"))) or "no weights at all"
        problem = Problem("missing", WEIGHTS, f"expected the weights, found {others}")
    raise WeightsError(folder / WEIGHTS, "weights", [problem])


def files_of(file: Path) -> list[Path]:
    """Return the HDF5 files that have a preset's weights: the file itself, or all shards that an index names.

    Args:
        file: What `weights_file` returned.

    Raises:
        WeightsError: A shard is missing, or the index is wrong.
    """
    if file.suffix != ".json":
        return [file]
    shards = _shards_in(file)
    if missing := [shard.name for shard in shards if not shard.is_file()]:
        detail = f"expected, for {file.name} names it; found none"
        raise WeightsError(file, "weights", [Problem("missing", name, detail) for name in missing])
    return shards


def read_weights(files: Sequence[Path], opened: Hdf5Files) -> dict[str, LazyTensor]:
    """Return every dataset of some files by today's name, unread.

    Args:
        files: One, or the shards of an index.
        opened: What has them.

    Raises:
        WeightsError: A file is damaged, or two have the same dataset.
    """
    weights: dict[str, LazyTensor] = {}
    problems = []
    for file in files:
        for name, weight in opened.datasets(file).items():
            if _todays_name(name) in weights:
                detail = f"expected once, found in {file.name} and under that name before"
                problems.append(Problem("twice", name, detail))
            weights[_todays_name(name)] = weight
    if problems:
        raise WeightsError(files[-1], "weights", problems)
    return weights


def _shards_in(index: Path) -> list[Path]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict):
        raise WeightsError(index, "weights", [Problem("missing key", "weight_map", "expected an object, found none")])
    listed = [names if isinstance(names, list) else [names] for names in shards.values()]
    found = {name for names in listed for name in names if isinstance(name, str)}
    if not shards or len(found) != len({str(name) for names in listed for name in names}):
        raise WeightsError(
            index, "weights", [Problem("wrong value", "weight_map", "expected names of files, found others or none")]
        )
    if strangers := sorted(name for name in found if not SHARD.fullmatch(name)):
        detail = "expected names such as model_00000.weights.h5, of files beside the index, found another"
        raise WeightsError(index, "weights", [Problem("wrong name", name, detail) for name in strangers])
    return [index.with_name(name) for name in sorted(found)]


def check_index(index: Path, shards: Sequence[Path], opened: Hdf5Files) -> None:
    """Compare the index of a preset's shards with what is in them.

    Args:
        index: Of the shards.
        shards: As `files_of` returned them.
        opened: What has them.

    Raises:
        WeightsError: It names what is in none of them, or a dataset is in a shard that it does not name.
    """
    listed = {
        group: {names} if isinstance(names, str) else set(names)
        for group, names in read_json(index)["weight_map"].items()
    }
    found: dict[str, set[str]] = {}
    for shard in shards:
        for name in opened.datasets(shard):
            found.setdefault("/" + name.rpartition("/")[0], set()).add(shard.name)
    problems = [
        Problem("missing", group, f"expected in {first_few(sorted(names), 5) or 'a shard'}, found none")
        for group, names in listed.items()
        if group not in found
    ]
    problems += [
        Problem("unexpected", group, f"expected in {first_few(sorted(names), 5) or 'no shard'}, found in {wrong[0]}")
        for group in found
        for names in [listed.get(group, set())]
        if (wrong := sorted(found[group] - names))
    ]
    if problems:
        raise WeightsError(index, "weights", problems)


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


def dequantized(file: Path, found: Mapping[str, LazyTensor]) -> tuple[dict[str, LazyTensor], bool]:
    """Turn int8 kernels and embeddings into float32, as Keras does: the value divided by its scale.

    Keras stores the scale after the layer's other variables: `vars/1` of an embedding, `vars/2` of a dense layer, after
    its bias. It has one value a row of an embedding, one an output of a dense layer, and leading ones for einsums.

    Args:
        file: Of the weights, for the message.
        found: Every dataset, by name.

    Returns:
        The weights without the scales, and whether there was anything to do. Where there was, biases and layer norms
        in half precision become float32 too, which holds them exactly: a checkpoint has one dtype.

    Raises:
        WeightsError: A scale is missing, or does not fit.

    Source:
        keras/src/layers/core/{dense,einsum_dense,embedding}.py, `_int8_call`.
    """
    weights, problems = dict(found), []
    for name, quantized in found.items():
        if quantized.dtype != "int8" or not name.endswith("/vars/0"):
            continue
        layer = name.removesuffix("0")
        embedding = layer.split("/")[-3].endswith("embedding")
        scale = weights.pop(layer + ("1" if embedding else "2"), None)
        shape = () if scale is None else (*scale.shape, 1) if embedding else scale.shape[-len(quantized.shape) :]
        if scale is None or scale.dtype not in DTYPES or not _fits(scale.shape, shape, quantized.shape):
            found_scale = "none" if scale is None else f"{scale.dtype} {scale.shape}"
            expected = f"expected float32 scales beside it, one a row or output, found {found_scale}"
            problems.append(Problem("wrong scale", name, expected))
            continue
        weights[name] = LazyTensor(quantized.shape, "float32", partial(_divide, quantized, scale, shape))
    if problems:
        raise WeightsError(file, "weights", problems)
    if len(weights) == len(found):
        return weights, False
    halves = {name: weight for name, weight in weights.items() if weight.dtype in ("bfloat16", "float16")}
    return weights | {name: _widened(weight) for name, weight in halves.items()}, True


def _widened(weight: LazyTensor) -> LazyTensor:
    return LazyTensor(weight.shape, "float32", lambda: weight.load().astype(np.float32))


def _fits(source_tensor: tuple[int, ...], scale: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    try:
        return prod(source_tensor) == prod(scale) and np.broadcast_shapes(scale, shape) == shape
    except ValueError:
        return False


def _divide(quantized: LazyTensor, scale: LazyTensor, shape: tuple[int, ...]) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):  # by zero: refused as not finite
        return quantized.load().astype(np.float32) / scale.load().astype(np.float32).reshape(shape)


def plan_weights(checkpoint: Checkpoint, folder: Path, max_shard_bytes: int | None) -> list[WeightFilePlan]:
    """Lay out the files of an encoder's weights, and write the index where there are several."""
    shards = shards_of(checkpoint, checkpoint.encoder_rules, max_shard_bytes)
    if len(shards) == 1:
        return [plan_file(checkpoint, folder / WEIGHTS, shards[0])]
    files = []
    weight_map: dict[str, str | list[str]] = {}
    for number, rules in enumerate(shards):
        name = f"model_{number:05}.weights.h5"
        files.append(plan_file(checkpoint, folder / name, rules))
        for rule in rules:
            group = "/" + rule.keras.rpartition("/")[0]
            before = weight_map.get(group, name)
            weight_map[group] = before if before == name else [*([before] if isinstance(before, str) else before), name]
    write_json(folder / INDEX, {"metadata": {"total_size": checkpoint.nbytes}, "weight_map": weight_map})
    return files


def plan_file(
    checkpoint: Checkpoint, file: Path, rules: Sequence[WeightRule], scalars: Mapping[str, np.generic] | None = None
) -> WeightFilePlan:
    """Lay out an HDF5 file that has a dataset for every row, and some with a number.

    libhdf5 does it in memory, so that it never meets a full disk, which it is not good at.
    """
    import h5py

    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    bfloat16 = checkpoint.dtype == "bfloat16"
    dtype = np.dtype("V2") if bfloat16 else DTYPES[checkpoint.dtype].newbyteorder("<")
    shapes = {rule: rule.shape("keras", checkpoint.sizes) for rule in rules}
    sizes = {rule: prod(shape) * dtype.itemsize for rule, shape in shapes.items()}
    memory = SparseMemoryFile(sum(sizes.values()) + (len(rules) + 64) * _BYTES_AROUND_A_DATASET)
    values = []
    with h5py.File(memory, "w", track_times=False) as h5:
        for rule, shape in shapes.items():
            dataset = h5.create_dataset(rule.keras, shape, dtype, dcpl=early)
            if bfloat16:
                dataset.attrs["dtype"] = "bfloat16"
            values.append((rule, dataset.id.get_offset()))
        for name, number in (scalars or {}).items():
            h5[name] = number
    values.sort(key=itemgetter(1))
    ends = [0, *(offset + sizes[rule] for rule, offset in values)]
    begins = [*(offset for _, offset in values), memory.size]
    frame = {end: memory.read_at(end, begin) for end, begin in zip(ends, begins, strict=True) if end < begin}
    return WeightFilePlan(file, memory.size, frame, values)


_BYTES_AROUND_A_DATASET = 1 << 14  # more than its names, groups and headers ever take


class SparseMemoryFile(io.RawIOBase):
    """A file in memory, of which only those pages cost anything that something is written to."""

    def __init__(self, most: int) -> None:
        self._memory, self._at, self.size = mmap.mmap(-1, most), 0, 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def readinto(self, room: Buffer) -> int:
        view = memoryview(room).cast("B")
        view[:] = self._memory[self._at : self._at + len(view)]
        self._at += len(view)
        return len(view)

    def write(self, content: Buffer) -> int:
        view = memoryview(content).cast("B")
        self._memory[self._at : self._at + len(view)] = view
        self._at += len(view)
        self.size = max(self.size, self._at)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        self.size = self._at if size is None else size
        return self.size

    def read_at(self, begin: int, end: int) -> bytes:
        return self._memory[begin:end]
