"""A LoRA adapter in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from albert_hub_bridge.checkpoint import DroppedTensor
from albert_hub_bridge.errors import Problem
from albert_hub_bridge.formats.lazy_tensors import DTYPES, LazyTensor, SourceTensor
from albert_hub_bridge.lora.factors import (
    Factors,
    LoraLayer,
)
from albert_hub_bridge.mapping.configs import IgnoredKey
from albert_hub_bridge.mapping.weights import Dialect


ANOTHER_BASE = "Is that the base that the adapter was made for?"


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


def with_source(file: Path, dialect: Dialect, weights: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Return the tensors of a file with where they come from, for messages."""
    return {
        name: replace(weight, source_tensor=SourceTensor(file, name, dialect, weight))
        for name, weight in weights.items()
    }


def pair_problems(
    where: Mapping[str, str],
    pair: Mapping[str, LazyTensor],
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


def _read(pair: Mapping[str, LazyTensor]) -> tuple[np.ndarray, np.ndarray]:
    a, b = (np.array(pair[part].read(), dtype=np.float32) for part in "ab")
    return a, b


def fits_float32(a: np.ndarray, b: np.ndarray, scale: float) -> bool:
    """Tell whether no target can overflow: neither `scale * b` nor any sum of `scale * b @ a`."""
    largest = np.abs(b).max(initial=0).astype(np.float64) * abs(scale)
    return bool(largest * max(1.0, len(a) * float(np.abs(a).max(initial=0))) < np.finfo(np.float32).max)


def dtypes_of(pairs: Iterable[Mapping[str, LazyTensor]]) -> frozenset[str]:
    return frozenset(weight.dtype for pair in pairs for weight in pair.values())
