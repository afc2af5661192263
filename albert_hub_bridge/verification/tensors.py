"""Compare the tensors of two checkpoints, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.formats.lazy_tensors import DTYPES, LazyTensor
from albert_hub_bridge.mapping.weights import POOLER, WeightRule
from albert_hub_bridge.verification.report import Check


def check_tensors(tensors: TensorComparison) -> Check:
    figure = f"{tensors.tensors} tensors of {tensors.values:,} values, compared bit for bit"
    figure += f" after the source's were {tensors.cast}" if tensors.cast else ""
    absent = [f"{name}, which is zeros on one side and absent on the other" for name in tensors.absent]
    return Check.of(figure, [f"{name}: {how}" for name, how in tensors.different.items()], not_measured=absent)


_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class TensorComparison:
    """Which tensors of two checkpoints are the same.

    Args:
        different: What is not, by albert_hub names, and how.
        tensors: How many were compared.
        values: How many values they have.
        cast: What was done to the source's values before, because the target has another dtype; or None.
        absent: Tensors that only one side has, all zeros: a pooler that KerasHub needs.
    """

    different: dict[str, str]
    tensors: int
    values: int
    cast: str | None
    absent: tuple[str, ...]


def compare_tensors(one: Checkpoint, other: Checkpoint) -> TensorComparison:
    """Read every tensor of the target back through the table, into the source's own layout, and compare the bits.

    What is compared with is what the source's file has, which did not go through the table. One tensor is held at a
    time, of which 4 MB are compared at a time.
    """
    rules = {rule.albert_hub: rule for side in (one, other) for rule in (*side.encoder_rules, *side.head_rules)}
    different = _not_a_bijection(one, "source", rules) | _not_a_bijection(other, "target", rules)
    absent, values = [], 0
    for name, rule in rules.items():
        ours, theirs = one.weights.get(name), other.weights.get(name)
        if ours is not None and theirs is not None:
            values += int(np.prod(ours.shape))
            if (how := _difference(rule, one, ours, theirs)) is not None:
                different[name] = how
        elif name in POOLER and not any(weight.read().any() for weight in (ours, theirs) if weight is not None):
            absent.append(name)
        else:
            sides = [side for side, weight in (("source", ours), ("target", theirs)) if weight is not None]
            different[name] = f"only in the {sides[0]}" if sides else "on neither side"
    cast = None
    if one.dtype != other.dtype:
        exact = one.dtype != "float32" and other.dtype == "float32"
        cast = f"{one.dtype} {'widened' if exact else 'rounded'} to {other.dtype}"
    if one.quantized:
        cast = "int8 divided by its scales" + (f", {cast}" if cast else "")
    return TensorComparison(dict(sorted(different.items())), len(rules) - len(absent), values, cast, tuple(absent))


def _not_a_bijection(checkpoint: Checkpoint, side: str, rules: Mapping[str, WeightRule]) -> dict[str, str]:
    """Name the weights that no row of the table has, and those that share a tensor of the file with another."""
    problems = {name: f"in the {side}, where nothing has it" for name in checkpoint.weights if name not in rules}
    taken: dict[int, str] = {}
    for name, weight in checkpoint.weights.items():
        if (
            weight.source_tensor is not None
            and (before := taken.setdefault(id(weight.source_tensor.weight), name)) != name
        ):
            problems[name] = f"read from {weight.source_tensor.name} in the {side}, as {before} is"
    return problems


def _difference(rule: WeightRule, one: Checkpoint, ours: LazyTensor, theirs: LazyTensor) -> str | None:
    """Say how many values of a tensor are not the same, bit for bit, and which is the first; None where all are."""
    original = ours.source_tensor.weight if ours.source_tensor is not None else ours
    dialect = ours.source_tensor.dialect if ours.source_tensor is not None else "albert_hub"
    expected, found = original.read(), theirs.read()
    if ours.shape == theirs.shape:
        found = rule.move(found, "albert_hub", dialect, one.sizes)
    if expected.shape != found.shape:
        return f"{expected.shape} in the source, {found.shape} in the target"
    count, first = 0, ""
    for top, (a, b) in _blocks(expected, found):
        with np.errstate(over="ignore"):
            a = np.ascontiguousarray(a.astype(DTYPES[theirs.dtype], copy=False))  # noqa: PLW2901 (the same cast)
        b = np.ascontiguousarray(b)  # noqa: PLW2901
        bits = f"u{a.itemsize}"  # NaN and -0.0 too must be themselves
        unlike = a.view(bits) != b.view(bits)
        if found_here := int(np.count_nonzero(unlike)):
            if not count:
                place = np.unravel_index(int(np.argmax(unlike)), unlike.shape)
                index = [int(top + place[0]), *(int(each) for each in place[1:])]
                first = f"the first at {index} of the source: {float(a[place]):.9g} and {float(b[place]):.9g}"
            count += found_here
    return f"{count:,} of {expected.size:,} values differ, {first}" if count else None


def _blocks(one: np.ndarray, other: np.ndarray) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
    rows = max(1, _BLOCK_BYTES * len(one) // one.nbytes)
    for top in range(0, len(one), rows):
        yield top, (one[top : top + rows], other[top : top + rows])
