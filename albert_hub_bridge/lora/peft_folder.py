"""PEFT's folder of an adapter."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from albert_hub_bridge.checkpoint import DroppedTensor
from albert_hub_bridge.disk.durable import write_file
from albert_hub_bridge.disk.strict_json import read_json, write_json
from albert_hub_bridge.errors import CheckpointError, Problem
from albert_hub_bridge.formats.lazy_tensors import DTYPES, LazyTensor
from albert_hub_bridge.formats.pytorch import read_pytorch, refuse_pickle
from albert_hub_bridge.formats.safetensors import read_safetensors
from albert_hub_bridge.lora.adapter import (
    ANOTHER_BASE,
    Adapter,
    _read,
    dtypes_of,
    fits_float32,
    pair_problems,
    with_source,
)
from albert_hub_bridge.lora.factors import (
    Factors,
    lora_layers,
)
from albert_hub_bridge.lora.peft_config import PEFT, PREFIX, PeftSettings, head_modules, peft_config
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.mapping.configs import read_keys
from albert_hub_bridge.mapping.weights import ENCODERS, TorchDialect
from albert_hub_bridge.model.architecture import Architecture


CONFIG, WEIGHTS, OLD_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"


def is_checkpoint_file(name: str) -> bool:
    """Tell whether this module writes a file of that name into a folder."""
    return name in (CONFIG, WEIGHTS)


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
        found = with_source(file, "albert_hub", read(file, resources))
        dialect, prefix = _names_in(found, architecture)
        layers = {prefix + layer.module(dialect): layer for layer in lora_layers(architecture)}
        parts = _sort_tensors(found, layers, dialect, keep_head, drop_head)
        problems += parts.problems
        factors = {}
        for module, pair in parts.pairs.items():
            shapes = layers[module].torch_shapes(settings.rank_of(module), sizes) if settings is not None else None
            where = {part.lower(): f"{PREFIX}{module}.lora_{part}.weight" for part in "AB"}
            wrong = pair_problems(where, pair, shapes)
            problems += wrong
            if settings is not None and not wrong:
                read_pair, scale = _read(pair), settings.scale_of(module)
                factors[layers[module]] = Factors(*read_pair, scale)
                if not fits_float32(*read_pair, scale):
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
    return Adapter(in_order, bool(prefix), head, task, parts.dropped, ignored, dtypes_of(parts.pairs.values()))


@dataclass(frozen=True, slots=True)
class _Parts:
    """The tensors of a PEFT adapter, by what they belong to."""

    pairs: dict[str, dict[str, LazyTensor]] = field(default_factory=dict)  # the factors, by the layer's name
    head: dict[str, LazyTensor] = field(default_factory=dict)  # by the name in the model
    dropped: list[DroppedTensor] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def _sort_tensors(
    found: Mapping[str, LazyTensor], layers: Container[str], dialect: TorchDialect, keep_head: bool, drop_head: bool
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


def _names_in(found: Mapping[str, LazyTensor], architecture: Architecture) -> tuple[TorchDialect, str]:
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


def _wrong_heads(head: Mapping[str, LazyTensor], hidden_dim: int) -> list[Problem]:
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
    return ANOTHER_BASE if kinds & {"unexpected", "wrong shape"} else ""


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
