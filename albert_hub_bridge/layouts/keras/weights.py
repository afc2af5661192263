"""Read the weights of a KerasHub preset: HDF5 files, one or in shards.

Keras 3 and its predecessors wrote them.

Source:
    keras/src/saving/saving_lib.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.formats.hdf5 import Hdf5Files
from albert_hub_bridge.formats.lazy_tensors import LazyTensor
from albert_hub_bridge.layouts.files import FileRow
from albert_hub_bridge.layouts.keras.files import INDEX, SHARDS, TASK_WEIGHTS, WEIGHTS
from albert_hub_bridge.text import first_few


_SHARD = FileRow((SHARDS,), "weights")

# Keras 2.15 wrote the attributes of objects, with their underscores, where Keras 3 writes other names.
_OLD_NAMES = (
    (re.compile(r"^_layer_checkpoint_dependencies/"), "layers/"),
    (re.compile(r"^token_embedding/"), "layers/reversible_embedding/"),
    (re.compile(r"/_(query|key|value|output)_dense/"), r"/\1_dense/"),
)


class KerasTensors(Protocol):
    """The tensors of a model of KerasHub, from files or from memory.

    Attributes:
        file: Where those of the model are, for messages.
        head_file: Where those of the head are, for messages.
    """

    file: Path
    head_file: Path

    def read_model(self) -> Mapping[str, LazyTensor]:
        """Return the tensors of the encoder by the names of the weight table, unread."""

    def read_head(self) -> Mapping[str, LazyTensor]:
        """Return the tensors of the head by the names of the weight table, unread; none without a head."""


class PresetWeights:
    """The opened files of a preset's weights, and of its head's.

    Attributes:
        file: The file of the weights, or the index of its shards.
        head_file: The file of the head's weights, whether it exists or not.

    Args:
        source: The preset.
        resources: Closes the files, and ends the process that parses them.

    Raises:
        FileError: A file has other content.
        WeightsError: There are no weights, or both one file and an index, or a file or the index is wrong.
    """

    def __init__(self, source: SourceFolder, resources: ExitStack) -> None:
        name = _weights_name(source)
        self.file = source.path(name)
        self._weight_map = _read_weight_map(source) if name == INDEX else None
        shards = [name] if self._weight_map is None else sorted(set().union(*self._weight_map.values()))
        if missing := [shard for shard in shards if shard not in source]:
            detail = f"expected the shard that {name} lists, found no such file"
            raise WeightsError(self.file, "weights", [Problem("missing", shard, detail) for shard in missing])
        self._shards = [source.path(shard) for shard in shards]
        self._has_head = TASK_WEIGHTS in source
        self.head_file = source.path(TASK_WEIGHTS)
        self._files = Hdf5Files([*self._shards, *([self.head_file] if self._has_head else [])], resources)

    def read_model(self) -> dict[str, LazyTensor]:
        """Return every dataset of the model's files by its current name, unread.

        Raises:
            WeightsError: A file is damaged, or two files have the same dataset, or the index is wrong.
        """
        found = self._read(self._shards)
        if self._weight_map is not None:
            self._check_index(self._weight_map)
        return found

    def read_head(self) -> dict[str, LazyTensor]:
        """Return every dataset of `task.weights.h5` by its current name, unread; none if there is no such file.

        Raises:
            WeightsError: The file is damaged.
        """
        return self._read([self.head_file]) if self._has_head else {}

    def _read(self, files: Sequence[Path]) -> dict[str, LazyTensor]:
        tensors: dict[str, LazyTensor] = {}
        problems = []
        for file in files:
            for name, tensor in self._files.datasets(file).items():
                current = current_name(name)
                if current in tensors:
                    detail = f"expected once, found again in {file.name}, perhaps under an older name"
                    problems.append(Problem("twice", name, detail))
                tensors[current] = tensor
        if problems:
            raise WeightsError(files[-1], "weights", problems)
        return tensors

    def _check_index(self, weight_map: dict[str, set[str]]) -> None:
        """Compare the index with the shards: each group has to be in exactly the shards that the index names."""
        found: dict[str, set[str]] = {}
        for shard in self._shards:
            for name in self._files.datasets(shard):
                found.setdefault("/" + name.rpartition("/")[0], set()).add(shard.name)
        problems = [
            Problem("missing", group, f"expected in {first_few(sorted(names), 5) or 'a shard'}, found none")
            for group, names in weight_map.items()
            if group not in found
        ]
        for group, shards in found.items():
            expected = weight_map.get(group, set())
            if wrong := sorted(shards - expected):
                listed = first_few(sorted(expected), 5) or "no shard"
                problems.append(Problem("unexpected", group, f"expected in {listed}, found in {wrong[0]}"))
        if problems:
            raise WeightsError(self.file, "weights", problems)


def _weights_name(source: SourceFolder) -> str:
    present = [name for name in (WEIGHTS, INDEX) if name in source]
    if len(present) == 1:
        return present[0]
    if present:
        detail = f"expected one of the two, found it beside {WEIGHTS}: one is left over from another save"
        problem = Problem("ambiguous", INDEX, detail)
    else:
        others = ", ".join(source.matching("*.weights.*")) or "no weights at all"
        problem = Problem("missing", WEIGHTS, f"expected the weights, found {others}")
    raise WeightsError(source.folder / WEIGHTS, "weights", [problem])


def _read_weight_map(source: SourceFolder) -> dict[str, set[str]]:
    """Return the shards of each group of the index."""
    index = source.folder / INDEX
    weight_map = source.json(INDEX).get("weight_map")
    if not isinstance(weight_map, dict):
        raise WeightsError(index, "weights", [Problem("missing key", "weight_map", "expected an object, found none")])
    listed = {group: names if isinstance(names, list) else [names] for group, names in weight_map.items()}
    if not listed or not all(isinstance(name, str) for names in listed.values() for name in names):
        problem = Problem("wrong value", "weight_map", "expected names of files, found others or none")
        raise WeightsError(index, "weights", [problem])
    by_group = {group: set(names) for group, names in listed.items()}
    if wrong := sorted(name for name in set().union(*by_group.values()) if not _SHARD.matches(name)):
        detail = "expected names such as model_00000.weights.h5, of files beside the index, found another"
        raise WeightsError(index, "weights", [Problem("wrong name", name, detail) for name in wrong])
    return by_group


def current_name(name: str) -> str:
    """Return the name that Keras 3 gives to a dataset."""
    for pattern, replacement in _OLD_NAMES:
        name = pattern.sub(replacement, name)
    return name
