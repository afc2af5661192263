"""The folder of a PEFT adapter: `adapter_config.json` and the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
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
    CHECK_BASE,
    Adapter,
    Pair,
    check_pair,
    dtypes_of,
    read_pair,
    with_source_tensors,
)
from albert_hub_bridge.lora.factors import Factors, LoraLayer, lora_layers
from albert_hub_bridge.lora.peft_config import PEFT, UNKNOWN_BASE, BaseName, PeftSettings, make_peft_config
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.mapping.configs import IgnoredKey, read_keys
from albert_hub_bridge.mapping.heads import HEADS
from albert_hub_bridge.mapping.weights import ENCODERS, TorchDialect, head_rules
from albert_hub_bridge.model.architecture import Architecture


CONFIG, WEIGHTS, OLD_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"

_PREFIX = "base_model.model."  # of all names: PeftModel.base_model is a LoraModel, whose .model is the base


def is_checkpoint_file(name: str) -> bool:
    """Return whether `write_peft_adapter` writes a file of this name."""
    return name in (CONFIG, WEIGHTS)


def _factor_names(module: str) -> dict[str, str]:
    return {part.lower(): f"{_PREFIX}{module}.lora_{part}.weight" for part in "AB"}


def read_peft_adapter(
    folder: Path, architecture: Architecture, *, keep_head: bool, drop_head: bool, allow_pickle: bool = False
) -> Adapter:
    """Read a folder of PEFT's `save_pretrained`.

    The base is AlbertModel, AlbertHubModel, or a model with a head on one of them.

    Args:
        folder: The folder with `adapter_config.json`.
        architecture: The architecture of the base.
        keep_head: Whether the target can have a classifier that replaces that of the base.
        drop_head: Whether to drop tensors that the target does not support, instead of refusing them.
        allow_pickle: Whether to read weights that are a pickle.

    Raises:
        CheckpointError: The adapter is damaged, is not plain LoRA, or does not fit this base. All problems are listed.
    """
    config = _read_config(folder)
    file = _weights_file(folder, config, allow_pickle)
    with ExitStack() as resources:
        read = read_pytorch if file.name == OLD_WEIGHTS else read_safetensors
        tensors = with_source_tensors(file, "albert_hub", read(file, resources))
        dialect, prefix = _names_in(tensors, architecture)
        layers = {prefix + layer.module(dialect): layer for layer in lora_layers(architecture)}
        parts = _sort_tensors(tensors, layers, dialect, keep_head=keep_head, drop_head=drop_head)
        factors, problems = _read_factors(parts.pairs, layers, config.settings, axis_sizes(architecture))
        problems = [*config.problems, *parts.problems, *problems, *_check_heads(parts.head, architecture.hidden_dim)]
        if not parts.pairs:
            problems.append(Problem("missing", file.name, "expected an adapter of some layer of this base, found none"))
        if problems:
            raise CheckpointError(folder, "adapter", problems, _advice(problems))
        head = {name: np.array(weight.read(), dtype=np.float32) for name, weight in parts.head.items()}
    return Adapter(
        factors=factors,
        with_head=bool(prefix),
        head=head,
        task_type=config.task_type if head else None,  # With a task type, PEFT expects the tensors of its head.
        dropped=parts.dropped,
        ignored=config.ignored,
        dtypes=dtypes_of(parts.pairs.values()),
    )


@dataclass(frozen=True, slots=True)
class _Config:
    """The content of `adapter_config.json`; the settings are None if there are problems."""

    settings: PeftSettings | None
    task_type: str | None
    ignored: Sequence[IgnoredKey]
    problems: Sequence[Problem]


def _read_config(folder: Path) -> _Config:
    keys = read_json(folder / CONFIG)
    if (kind := keys.get("peft_type")) != "LORA":
        detail = f"expected 'LORA', found {kind!r}: KerasHub supports only LoRA"
        raise CheckpointError(folder, "adapter", [Problem("unsupported value", "peft_type", detail)])
    fields, ignored, problems = read_keys(PEFT, keys)
    task_type = fields.pop("task_type", None)
    return _Config(None if problems else PeftSettings(**fields), task_type, ignored, problems)


def _weights_file(folder: Path, config: _Config, allow_pickle: bool) -> Path:
    if (file := folder / WEIGHTS).is_file():
        return file
    if not (file := folder / OLD_WEIGHTS).is_file():
        missing = Problem("missing", WEIGHTS, "expected the weights, found none")
        raise CheckpointError(folder, "adapter", [*config.problems, missing])
    if not allow_pickle:
        raise refuse_pickle(file)
    return file


def _names_in(tensors: Mapping[str, LazyTensor], architecture: Architecture) -> tuple[TorchDialect, str]:
    """Return the dialect of the names, and the prefix of the encoder: the pair that matches most of the names."""
    candidates: list[tuple[TorchDialect, str]] = [(d, p) for d, name in ENCODERS.items() for p in ("", name)]

    def matches(candidate: tuple[TorchDialect, str]) -> int:
        dialect, prefix = candidate
        modules = {_PREFIX + prefix + layer.module(dialect) for layer in lora_layers(architecture)}
        return sum(name.partition(".lora_")[0] in modules for name in tensors)

    return max(candidates, key=matches)


@dataclass(frozen=True, slots=True)
class _Parts:
    """The sorted tensors: factors by the name of their layer, and tensors of a head by their names in the model."""

    pairs: dict[str, Pair] = field(default_factory=dict)
    head: dict[str, LazyTensor] = field(default_factory=dict)
    dropped: list[DroppedTensor] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def _sort_tensors(
    tensors: Mapping[str, LazyTensor],
    layers: Mapping[str, LoraLayer],
    dialect: TorchDialect,
    *,
    keep_head: bool,
    drop_head: bool,
) -> _Parts:
    parts = _Parts()
    for name, weight in tensors.items():
        module, _, factor = name.removeprefix(_PREFIX).partition(".lora_")
        if name.startswith(_PREFIX) and module in layers and factor in ("A.weight", "B.weight"):
            parts.pairs.setdefault(module, {})[factor[0].lower()] = weight
        elif not name.startswith(_PREFIX) or module.partition(".")[0] not in _head_modules(dialect):
            detail = f"expected LoRA of a layer of this base, found {weight.shape}"
            parts.problems.append(Problem("unexpected", name, detail))
        elif keep_head and _is_classifier(module) and not factor and weight.dtype in DTYPES:
            parts.head[module] = weight
        elif drop_head:
            reason = "belongs to a head, which the target does not support"
            parts.dropped.append(DroppedTensor(name, weight.shape, reason))
        else:
            detail = f"expected LoRA of the encoder, found {weight.shape}: belongs to a head"
            parts.problems.append(Problem("unsupported", name, detail))
    return parts


@cache
def _head_modules(dialect: TorchDialect) -> frozenset[str]:
    """Return the names of the top-level modules of all heads."""
    return frozenset(rule.name(dialect).partition(".")[0] for kind in HEADS for rule in head_rules(kind))


def _is_classifier(name: str) -> bool:
    """Return whether a tensor belongs to a classifier, which has the same name in both dialects."""
    module, _, leaf = name.rpartition(".")
    return leaf in ("weight", "bias") and all(module in _head_modules(dialect) for dialect in ENCODERS)


def _read_factors(
    pairs: Mapping[str, Pair],
    layers: Mapping[str, LoraLayer],
    settings: PeftSettings | None,
    sizes: Mapping[str, int],
) -> tuple[dict[LoraLayer, Factors], list[Problem]]:
    """Read the factors, in the order of `layers`. Without settings, only check them."""
    factors, problems = {}, []
    for module in (module for module in layers if module in pairs):
        layer, pair = layers[module], pairs[module]
        shapes = None if settings is None else layer.torch_shapes(settings.rank_of(module), sizes)
        wrong = check_pair(_factor_names(module), pair, shapes)
        if settings is not None and not wrong:
            factors[layer] = Factors(*read_pair(pair), settings.scale_of(module))
            if not factors[layer].fits_float32():
                detail = (
                    f"expected a product in the range of float32, found a larger one, times {factors[layer].scale:g}"
                )
                wrong.append(Problem("overflow", module, detail))
        problems += wrong
    return factors, problems


def _check_heads(head: Mapping[str, LazyTensor], hidden_dim: int) -> list[Problem]:
    """Check that each classifier has a weight with one row per label, and a bias with one value per label."""
    problems = []
    for module in dict.fromkeys(name.rpartition(".")[0] for name in head):
        shapes = {leaf: head[f"{module}.{leaf}"].shape for leaf in ("weight", "bias") if f"{module}.{leaf}" in head}
        labels = shapes.get("bias", ())
        if shapes.get("weight") != (*labels, hidden_dim) or len(labels) != 1 or labels == (0,):
            found = " and ".join(f"{leaf} {shape}" for leaf, shape in shapes.items())
            detail = f"expected weight (labels, {hidden_dim}) and bias (labels,), found {found}"
            problems.append(Problem("wrong shape", _PREFIX + module, detail))
    return problems


def _advice(problems: Sequence[Problem]) -> str:
    kinds = {problem.kind for problem in problems}
    if "unsupported" in kinds:
        return (
            "In KerasHub, a head is part of the model, not of an adapter. Pass --drop-head (drop_head=True) to convert "
            "only the adapter of the encoder. Or merge the adapter with PEFT's merge_and_unload, and convert the model."
        )
    return CHECK_BASE if kinds & {"unexpected", "wrong shape"} else ""


def write_peft_adapter(
    adapter: Adapter, folder: Path, dialect: TorchDialect, with_head: bool, base: BaseName = UNKNOWN_BASE
) -> None:
    """Write an adapter for PEFT's `PeftModel.from_pretrained`.

    Args:
        adapter: The adapter.
        folder: An empty folder.
        dialect: The dialect of the base.
        with_head: Whether the base has a head.
        base: How PEFT loads the base.
    """
    prefix = ENCODERS[dialect] if with_head else ""
    factors = {prefix + layer.module(dialect): each for layer, each in adapter.factors.items()}
    tensors = {}
    for module, each in factors.items():
        for name, values in zip(_factor_names(module).values(), (each.a, each.b), strict=True):
            tensors[name] = np.ascontiguousarray(values)
    tensors |= {_PREFIX + name: values for name, values in adapter.head.items()}
    modules = sorted({name.rpartition(".")[0] for name in adapter.head})
    write_json(folder / CONFIG, make_peft_config(factors, modules or None, adapter.task_type, base))
    write_file(folder / WEIGHTS, save(tensors, {"format": "pt"}))
