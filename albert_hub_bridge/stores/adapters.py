"""LoRA adapters in files: KerasHub's `.lora.h5`, and PEFT's folder.

Sources of the formats: keras_hub/src/models/backbone.py, `save_lora_weights`; peft/utils/save_and_load.py.
"""

from __future__ import annotations

import io
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from albert_hub_bridge.errors import CheckpointError, Problem, SourceError
from albert_hub_bridge.mapping.adapters import (
    KERAS_DEFAULT,
    Factors,
    LoraLayer,
    filled_up,
    from_keras,
    lora_layers,
    to_keras,
)
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.mapping.configs import IgnoredKey, read_keys
from albert_hub_bridge.mapping.peft import (
    PEFT,
    PREFIX,
    PeftSettings,
    head_modules,
    peft_config,
)
from albert_hub_bridge.mapping.weights import ENCODERS, Dialect, TorchDialect
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.stores.checkpoint import DTYPES, DroppedTensor, Stored, Weight
from albert_hub_bridge.stores.configurations import read_json, write_json
from albert_hub_bridge.stores.files import write_file
from albert_hub_bridge.stores.hdf5 import read_datasets
from albert_hub_bridge.stores.old_formats import read_pytorch, read_safetensors, refuse_pickle
from albert_hub_bridge.stores.source_files import check_files


KERAS_SUFFIX = ".lora.h5"
CONFIG, WEIGHTS, OLD_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"

_KERNEL = re.compile(r"lora/(\d+)/vars/lora_kernel_([ab])")
_RANK, _RANK_DTYPES = "lora/vars/rank", ("int32", "int64")
_ANOTHER_BASE = "Is that the base that the adapter was made for?"


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter of an encoder, wherever it came from.

    Args:
        factors: Of every layer that it has, in float32.
        with_head: Whether it is for a model with a head; None where the file does not say.
        head: What it puts in place of a head's own tensors, by their names in the model.
        task_type: PEFT's name of the task.
        dropped: Tensors that were found and are not carried over.
        ignored: Configuration keys that were found and are not carried over.
        dtypes: Of the tensors in the file.
    """

    factors: Mapping[LoraLayer, Factors]
    with_head: bool | None = None
    head: Mapping[str, np.ndarray] = field(default_factory=dict)
    task_type: str | None = None
    dropped: Sequence[DroppedTensor] = ()
    ignored: Sequence[IgnoredKey] = ()
    dtypes: frozenset[str] = frozenset()


def is_known_file(name: str) -> bool:
    """Tell whether this module writes a file of that name into a folder."""
    return name in (CONFIG, WEIGHTS)


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
    pairs: dict[int, dict[str, Weight]] = {}
    with ExitStack() as resources:
        found = _stored(file, "keras", read_datasets(file, resources))
        stored = found.pop(_RANK, None)
        rank = int(stored.load()) if stored is not None and stored.shape == () and stored.dtype in _RANK_DTYPES else 0
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
                wrong = _wrong_pair(where, pairs.get(number, {}), shapes)
                problems += wrong
                if not wrong and not problems:
                    factors[layer] = from_keras(layer, *_read(pairs[number]), sizes)
        if not pairs and not problems:
            problems.append(Problem("missing", "lora", "expected an adapter of some layer, found none"))
        if problems:
            raise CheckpointError(file, "adapter", problems, _ANOTHER_BASE)
        return Adapter(factors, dtypes=_dtypes(pairs.values()))


def _stored(file: Path, dialect: Dialect, weights: Mapping[str, Weight]) -> dict[str, Weight]:
    """Return the tensors of a file with where they come from, for messages."""
    return {name: replace(weight, stored=Stored(file, name, dialect, weight)) for name, weight in weights.items()}


def _numbers(layers: Mapping[int, LoraLayer]) -> str:
    return ", ".join(str(number) for number in layers)


def _wrong_pair(
    where: Mapping[str, str],
    pair: Mapping[str, Weight],
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None,
) -> list[Problem]:
    """Say what is wrong with the two factors of a layer; shapes that are not known are not compared."""
    problems = []
    for part, shape in zip("ab", shapes or (None, None), strict=True):
        if part not in pair:
            problems.append(Problem("missing", where[part], f"expected {shape or 'a factor'}, found none"))
        elif shape is not None and pair[part].shape != shape:
            problems.append(Problem("wrong shape", where[part], f"expected {shape}, found {pair[part].shape}"))
        elif pair[part].dtype not in DTYPES:
            detail = f"expected {', '.join(DTYPES)}, found {pair[part].dtype}"
            problems.append(Problem("wrong dtype", where[part], detail))
    return problems


def _read(pair: Mapping[str, Weight]) -> tuple[np.ndarray, np.ndarray]:
    a, b = (np.array(pair[part].read(), dtype=np.float32) for part in "ab")
    return a, b


def _fits_float32(a: np.ndarray, b: np.ndarray, scale: float) -> bool:
    """Tell whether no target can overflow: neither `scale * b` nor any sum of `scale * b @ a`."""
    largest = np.abs(b).max(initial=0).astype(np.float64) * abs(scale)
    return bool(largest * max(1.0, len(a) * float(np.abs(a).max(initial=0))) < np.finfo(np.float32).max)


def _dtypes(pairs: Iterable[Mapping[str, Weight]]) -> frozenset[str]:
    return frozenset(weight.dtype for pair in pairs for weight in pair.values())


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


def read_peft_adapter(
    folder: Path, architecture: Architecture, keep_head: bool, drop_head: bool, allow_pickle: bool = False
) -> Adapter:
    """Read what PEFT's `save_pretrained` wrote for AlbertModel, AlbertHubModel, or a model with a head on either.

    Args:
        folder: Which has an `adapter_config.json`.
        architecture: Of the base.
        keep_head: Whether the target has a place for a classifier that the adapter puts in place of the base's.
        drop_head: Whether to leave out what the target has no place for, instead of refusing it.
        allow_pickle: Whether to read weights that are a pickle.

    Raises:
        CheckpointError: The adapter is damaged, is not LoRA alone, or is not of this base; all problems are listed.
    """
    keys = read_json(folder / CONFIG)
    if (kind := keys.get("peft_type")) != "LORA":
        problem = Problem(
            "refused value", "peft_type", f"expected 'LORA', found {kind!r}: only LoRA has a place in Keras"
        )
        raise CheckpointError(folder, "adapter", [problem])
    fields, ignored, problems = read_keys(PEFT, keys)
    task_type = fields.pop("task_type", None)
    settings = None if problems else PeftSettings(**fields)
    file, read = folder / WEIGHTS, read_safetensors
    if not file.is_file() and (folder / OLD_WEIGHTS).is_file():
        file, read = folder / OLD_WEIGHTS, read_pytorch
        if not allow_pickle:
            raise refuse_pickle(file)
    if not file.is_file():
        raise CheckpointError(
            folder, "adapter", [*problems, Problem("missing", WEIGHTS, "expected the weights, found none")]
        )
    sizes = axis_sizes(architecture)
    with ExitStack() as resources:
        found = _stored(file, "bridge", read(file, resources))
        dialect, prefix = _names_in(found, architecture)
        layers = {prefix + layer.module(dialect): layer for layer in lora_layers(architecture)}
        parts = _sort_tensors(found, layers, dialect, keep_head, drop_head)
        problems += parts.problems
        factors = {}
        for module, pair in parts.pairs.items():
            shapes = layers[module].torch_shapes(settings.rank_of(module), sizes) if settings is not None else None
            where = {part.lower(): f"{PREFIX}{module}.lora_{part}.weight" for part in "AB"}
            wrong = _wrong_pair(where, pair, shapes)
            problems += wrong
            if settings is not None and not wrong:
                read_pair, scale = _read(pair), settings.scale_of(module)
                factors[layers[module]] = Factors(*read_pair, scale)
                if not _fits_float32(*read_pair, scale):
                    detail = f"expected a product that float32 holds, found a larger one, times {scale:g}"
                    problems.append(Problem("overflow", module, detail))
        problems += _wrong_heads(parts.head, sizes["hidden"])
        if not parts.pairs:
            problems.append(Problem("missing", file.name, "expected an adapter of some layer of this base, found none"))
        if problems:
            raise CheckpointError(folder, "adapter", problems, _advice(problems))
        head = {name: np.array(weight.read(), dtype=np.float32) for name, weight in parts.head.items()}
    in_order = {layer: factors[layer] for layer in lora_layers(architecture) if layer in factors}
    task = task_type if head else None  # PEFT expects the head's tensors of a task that has one
    return Adapter(in_order, bool(prefix), head, task, parts.dropped, ignored, _dtypes(parts.pairs.values()))


@dataclass(frozen=True, slots=True)
class _Parts:
    """The tensors of a PEFT adapter, by what they belong to."""

    pairs: dict[str, dict[str, Weight]] = field(default_factory=dict)  # the factors, by the layer's name
    head: dict[str, Weight] = field(default_factory=dict)  # by the name in the model
    dropped: list[DroppedTensor] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def _sort_tensors(
    found: Mapping[str, Weight], layers: Container[str], dialect: TorchDialect, keep_head: bool, drop_head: bool
) -> _Parts:
    """Tell apart the factors of the encoder's layers, what belongs to a head, and what nobody knows."""
    parts = _Parts()
    for name, weight in found.items():
        module, _, factor = name.removeprefix(PREFIX).partition(".lora_")
        if name.startswith(PREFIX) and module in layers and factor in ("A.weight", "B.weight"):
            parts.pairs.setdefault(module, {})[factor[0].lower()] = weight
        elif not name.startswith(PREFIX) or module.partition(".")[0] not in head_modules(dialect):
            detail = f"expected LoRA of a layer of this base, found {weight.shape}"
            parts.problems.append(Problem("unexpected", name, detail))
        elif keep_head and _is_classifier(module) and not factor and weight.dtype in DTYPES:
            parts.head[module] = weight
        elif drop_head:
            reason = "belongs to a head, and the target has no place for it"
            parts.dropped.append(DroppedTensor(name, weight.shape, reason))
        else:
            parts.problems.append(
                Problem("no place", name, f"expected LoRA of the encoder, found {weight.shape}: belongs to a head")
            )
    return parts


def _names_in(found: Mapping[str, Weight], architecture: Architecture) -> tuple[TorchDialect, str]:
    """Tell the dialect of an adapter's names, and what they have before the encoder's, by what most of them have."""
    candidates: list[tuple[TorchDialect, str]] = [(d, p) for d, name in ENCODERS.items() for p in ("", name)]

    def matches(candidate: tuple[TorchDialect, str]) -> int:
        dialect, prefix = candidate
        modules = {PREFIX + prefix + layer.module(dialect) for layer in lora_layers(architecture)}
        return sum(name.partition(".lora_")[0] in modules for name in found)

    return max(candidates, key=matches)


def _is_classifier(name: str) -> bool:
    """Tell whether a tensor is of a head that has the same name in both dialects."""
    module, _, leaf = name.rpartition(".")
    return leaf in ("weight", "bias") and all(module in head_modules(dialect) for dialect in ENCODERS)


def _wrong_heads(head: Mapping[str, Weight], hidden_dim: int) -> list[Problem]:
    """Say which heads an adapter does not put in place as a whole: a row for each label, and a bias for each row."""
    problems = []
    for module in dict.fromkeys(name.rpartition(".")[0] for name in head):
        parts = {leaf: head[f"{module}.{leaf}"].shape for leaf in ("weight", "bias") if f"{module}.{leaf}" in head}
        labels = parts.get("bias", ())
        if parts.get("weight") != (*labels, hidden_dim) or len(labels) != 1 or labels == (0,):
            found = " and ".join(f"{leaf} {shape}" for leaf, shape in parts.items())
            detail = f"expected weight (labels, {hidden_dim}) and bias (labels,), found {found}"
            problems.append(Problem("wrong shape", PREFIX + module, detail))
    return problems


def _advice(problems: Sequence[Problem]) -> str:
    kinds = {problem.kind for problem in problems}
    if "no place" in kinds:
        return (
            "In KerasHub a head is part of the model, not of an adapter. Pass --drop-head (drop_head=True) to convert "
            "the adapter of the encoder alone, or merge it with PEFT's merge_and_unload, and convert the model."
        )
    return _ANOTHER_BASE if kinds & {"unexpected", "wrong shape"} else ""


def write_peft_adapter(adapter: Adapter, folder: Path, dialect: TorchDialect, with_head: bool) -> None:
    """Write an adapter as PEFT's `PeftModel.from_pretrained` reads it.

    Args:
        adapter: What to write.
        folder: An existing, empty folder.
        dialect: Of the model that it is for.
        with_head: Whether that model has a head.
    """
    prefix = ENCODERS[dialect] if with_head else ""
    factors = {prefix + layer.module(dialect): each for layer, each in adapter.factors.items()}
    tensors = {}
    for module, each in factors.items():
        tensors[f"{PREFIX}{module}.lora_A.weight"] = np.ascontiguousarray(each.a)
        tensors[f"{PREFIX}{module}.lora_B.weight"] = np.ascontiguousarray(each.b)
    tensors |= {PREFIX + name: values for name, values in adapter.head.items()}
    modules = sorted({name.rpartition(".")[0] for name in adapter.head})
    write_json(folder / CONFIG, peft_config(factors, modules or None, adapter.task_type))
    write_file(folder / WEIGHTS, save(tensors, {"format": "pt"}))


def adapter_at(source: Path) -> bool:
    """Tell whether a source is KerasHub's file, and not PEFT's folder.

    Raises:
        SourceError: It is neither.
        FileError: What would be read in the folder is not a regular file of it.
    """
    if source.is_dir():
        check_files(source, lambda name: name in (CONFIG, WEIGHTS, OLD_WEIGHTS))
    elif not source.is_file():
        raise SourceError(f"{source} is neither: expected a {KERAS_SUFFIX} file or a folder, found a pipe or a device.")
    if source.is_file():
        if not source.name.endswith(KERAS_SUFFIX):
            raise SourceError(f"{source} is a file that does not end in {KERAS_SUFFIX}. Of PEFT, pass the folder.")
        return True
    if not (source / CONFIG).is_file():
        raise SourceError(
            f"{source} has no {CONFIG}: expected a {KERAS_SUFFIX} file or the folder of a PEFT adapter, found neither."
        )
    return False
