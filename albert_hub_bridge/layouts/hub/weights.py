"""The weights of a Hub repository: safetensors or an older format, in one file or in shards with an index."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from math import prod
from pathlib import Path

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.disk.strict_json import write_json
from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.formats.flax import read_flax
from albert_hub_bridge.formats.hdf5 import read_datasets
from albert_hub_bridge.formats.lazy_tensors import STORED_DTYPES, LazyTensor
from albert_hub_bridge.formats.pytorch import read_pytorch, refuse_pickle
from albert_hub_bridge.formats.safetensors import plan_header, read_safetensors
from albert_hub_bridge.layouts.files import FileRow
from albert_hub_bridge.layouts.hub.files import FLAX, PYTORCH, TENSORFLOW, WEIGHTS, index_of, shards_of
from albert_hub_bridge.layouts.hub.spelling import Spelling
from albert_hub_bridge.layouts.weight_files import WeightFilePlan, split_into_shards
from albert_hub_bridge.mapping.weights import WeightRule


Reader = Callable[[Path, ExitStack], dict[str, LazyTensor]]

# Official repositories have their weights in several formats. The first of these is read.
_READERS: Mapping[str, Reader] = {
    WEIGHTS: read_safetensors,
    PYTORCH: read_pytorch,
    TENSORFLOW: read_datasets,
    FLAX: read_flax,
}


def open_weights(
    source: SourceFolder, resources: ExitStack, allow_pickle: bool = False
) -> tuple[Path, dict[str, LazyTensor]]:
    """Open the weights of a repository.

    Args:
        source: The repository.
        resources: Closes the files.
        allow_pickle: Whether a pickle is read.

    Returns:
        The file of the weights, or the index of its shards, and every tensor, unread.

    Raises:
        FileError: A file has other content.
        WeightsError: There are no weights, or two saves in one format, or a file is damaged, or it is a pickle and
            pickles are not allowed.
    """
    for name, read in _READERS.items():
        present = [each for each in (name, index_of(name)) if each in source]
        if not present:
            continue
        file = source.path(present[0])
        if len(present) == 2:
            detail = f"expected one of the two, found it beside {name}: one is left over from another save"
            raise WeightsError(source.path(present[1]), "weights", [Problem("ambiguous", present[1], detail)])
        if name == PYTORCH and not allow_pickle:
            raise refuse_pickle(file)
        return file, read(file, resources) if present[0] == name else _read_shards(source, name, read, resources)
    found = ", ".join(sorted({name for suffix in _READERS for name in source.matching(f"*{Path(suffix).suffix}")}))
    problem = Problem("missing", WEIGHTS, f"expected the weights, found {found or 'no weights'}")
    raise WeightsError(source.folder / WEIGHTS, "weights", [problem])


def _read_shards(source: SourceFolder, weights: str, read: Reader, resources: ExitStack) -> dict[str, LazyTensor]:
    """Read all shards of an index. The index has to name every tensor, and its shard."""
    name = index_of(weights)
    index, weight_map = source.path(name), source.json(name).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        problem = Problem("missing key", "weight_map", "expected an object of file names, found none")
        raise WeightsError(index, "weights", [problem])
    names_in: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        names_in.setdefault(shard, set()).add(tensor)
    row = FileRow((shards_of(weights),), "weights")
    tensors: dict[str, LazyTensor] = {}
    problems = []
    for shard in sorted(names_in):
        if not row.matches(shard):
            example = shards_of(weights).replace("#####", "00001", 1).replace("#####", "00002")
            detail = f"expected names such as {example}, of files beside the index, found another"
            problems.append(Problem("wrong name", shard, detail))
        elif shard not in source:
            problems.append(Problem("missing", shard, f"expected the shard that {name} lists, found no such file"))
        else:
            found = read(source.path(shard), resources)
            # TensorFlow's index begins names with that of the model. Its shards do not.
            expected = names_in[shard]
            expected |= {tensor.partition("/")[2] for tensor in expected if tensor.startswith("tf_albert")}
            shorter = {tensor for tensor in expected if not tensor.startswith("tf_albert")}
            problems += [
                Problem("missing", tensor, f"expected in {shard}, found none")
                for tensor in sorted(shorter - set(found))
            ]
            problems += [
                Problem("unexpected", tensor, f"found in {shard}, expected {weight_map.get(tensor, 'nothing of it')}")
                for tensor in found
                if tensor not in expected
            ]
            tensors |= {tensor: values for tensor, values in found.items() if tensor in expected}
    if problems:
        raise WeightsError(index, "weights", problems)
    return tensors


def plan_weights(
    checkpoint: Checkpoint, folder: Path, spelling: Spelling, prefix: str, max_shard_bytes: int | None
) -> list[WeightFilePlan]:
    """Plan the files of a checkpoint's weights. Where there are several, write the index.

    Args:
        checkpoint: The checkpoint to write.
        folder: The folder of the files.
        spelling: The names of the layout.
        prefix: What the names of the encoder begin with.
        max_shard_bytes: The largest size of the values in one file, in bytes; None for one file.
    """
    dialect, weights = spelling.dialect, checkpoint.weights
    names: dict[WeightRule, tuple[str, ...]]
    names = {rule: (prefix + rule.name(dialect),) for rule in checkpoint.encoder_rules}
    names |= {rule: _names_in_head(rule, spelling) for rule in checkpoint.head_rules}
    shards = split_into_shards(checkpoint, list(names), max_shard_bytes)
    plans = []
    weight_map: dict[str, str] = {}
    total_size = 0
    for number, rules in enumerate(shards, start=1):
        file = folder / (WEIGHTS if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors")
        by_size = sorted(rules, key=lambda rule: weights[rule.albert_hub].dtype == "int8")  # which needs no alignment
        tensors = {
            name: (rule.shape(dialect, checkpoint.sizes), weights[rule.albert_hub].dtype)
            for rule in by_size
            for name in names[rule]
        }
        header, offsets = plan_header(tensors)
        size = sum(prod(shape) * STORED_DTYPES[dtype].itemsize for shape, dtype in tensors.values())
        values = [(rule, offsets[name]) for rule in by_size for name in names[rule]]
        plans.append(WeightFilePlan(file, len(header) + size, {0: header}, values))
        weight_map |= dict.fromkeys(tensors, file.name)
        total_size += size
    if len(shards) > 1:
        content = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
        write_json(folder / index_of(WEIGHTS), content)
    return plans


def _names_in_head(rule: WeightRule, spelling: Spelling) -> tuple[str, ...]:
    """Return the names of a weight of a head.

    transformers has two names for the masked LM's bias. transformers 4.46 takes the decoder's alone, and zeros where it
    is missing, without a word. So the file has both.
    """
    name = rule.name(spelling.dialect)
    return (name, f"{spelling.decoder}bias") if name == spelling.tied.get("bias") else (name,)
