"""A LoRA adapter in memory, and what the readers of both formats share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from albert_hub_bridge.checkpoint import DroppedTensor
from albert_hub_bridge.errors import Problem
from albert_hub_bridge.formats.lazy_tensors import DTYPES, LazyTensor, SourceTensor
from albert_hub_bridge.lora.factors import Factors, LoraLayer
from albert_hub_bridge.mapping.configs import IgnoredKey
from albert_hub_bridge.mapping.weights import Dialect


CHECK_BASE = "Check that the adapter was made for this base."

Pair = dict[str, LazyTensor]  # the tensors "a" and "b" of a layer


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter of an encoder.

    Args:
        factors: The factors of every adapted layer, in float32.
        with_head: Whether it is for a model with a head; None if the file does not say.
        head: Tensors that replace those of the base's head, by their names in the model.
        task_type: PEFT's name of the task.
        dropped: Tensors that are not converted.
        ignored: Configuration keys that are not converted.
        dtypes: The dtypes in the file.
    """

    factors: Mapping[LoraLayer, Factors]
    with_head: bool | None = None
    head: Mapping[str, np.ndarray] = field(default_factory=dict)
    task_type: str | None = None
    dropped: Sequence[DroppedTensor] = ()
    ignored: Sequence[IgnoredKey] = ()
    dtypes: frozenset[str] = frozenset()


def with_source_tensors(file: Path, dialect: Dialect, weights: Mapping[str, LazyTensor]) -> dict[str, LazyTensor]:
    """Return the tensors of a file with their origin, which error messages name."""
    return {
        name: replace(weight, source_tensor=SourceTensor(file, name, dialect, weight))
        for name, weight in weights.items()
    }


def check_pair(
    names: Mapping[str, str], pair: Mapping[str, LazyTensor], shapes: tuple[tuple[int, ...], tuple[int, ...]] | None
) -> list[Problem]:
    """Check the two factors of a layer.

    Args:
        names: The names of "a" and "b" in the file, for messages.
        pair: The factors that the file has.
        shapes: The expected shapes of "a" and "b"; None if they are not known.
    """
    problems = []
    for part, shape in zip("ab", shapes or (None, None), strict=True):
        if part not in pair:
            problems.append(Problem("missing", names[part], f"expected {shape or 'a factor'}, found none"))
        elif shape is not None and pair[part].shape != shape:
            problems.append(Problem("wrong shape", names[part], f"expected {shape}, found {pair[part].shape}"))
        elif pair[part].dtype not in DTYPES:
            detail = f"expected {', '.join(DTYPES)}, found {pair[part].dtype}"
            problems.append(Problem("wrong dtype", names[part], detail))
    return problems


def read_pair(pair: Mapping[str, LazyTensor]) -> tuple[np.ndarray, np.ndarray]:
    """Read both factors of a layer, in float32."""
    a, b = (np.array(pair[part].read(), dtype=np.float32) for part in "ab")
    return a, b


def dtypes_of(pairs: Iterable[Mapping[str, LazyTensor]]) -> frozenset[str]:
    """Return the dtypes of all factors."""
    return frozenset(weight.dtype for pair in pairs for weight in pair.values())
