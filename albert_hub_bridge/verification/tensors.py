"""Check that two checkpoints have the same tensors, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.formats.lazy_tensors import STORED_DTYPES, LazyTensor
from albert_hub_bridge.mapping.weights import POOLER, WeightRule
from albert_hub_bridge.verification.progress import StageProgress, ignore_progress, with_progress
from albert_hub_bridge.verification.report import TensorsCheck


_BLOCK_BYTES = 4 << 20


def check_tensors(source: Checkpoint, target: Checkpoint, progress: StageProgress = ignore_progress) -> TensorsCheck:
    """Compare the bits of all tensors, in the source's layout.

    The target's tensors are moved to the source's layout with the weight table. The source's tensors are read as its
    file has them, without the table. If the dtypes differ, the source's values are cast first. One tensor is in memory
    at a time, and blocks of 4 MB are compared.

    A pooler of zeros that only one side has is not a failure: KerasHub needs a pooler, and `convert` adds it.
    """
    rules = {rule.albert_hub: rule for side in (source, target) for rule in (*side.encoder_rules, *side.head_rules)}
    different = _mapping_problems(source, "source", rules) | _mapping_problems(target, "target", rules)
    absent, num_values = [], 0
    for name, rule in with_progress([*rules.items()], "tensors", progress):
        source_weight, target_weight = source.weights.get(name), target.weights.get(name)
        if source_weight is not None and target_weight is not None:
            num_values += int(np.prod(source_weight.shape))
            if (difference := _difference(rule, source.sizes, source_weight, target_weight)) is not None:
                different[name] = difference
        elif name in POOLER and _is_zero(source_weight or target_weight):
            absent.append(name)
        else:
            sides = [
                side for side, weight in (("source", source_weight), ("target", target_weight)) if weight is not None
            ]
            different[name] = f"only in the {sides[0]}" if sides else "on neither side"
    cast = _cast(source, target)
    summary = f"{len(rules) - len(absent)} tensors of {num_values:,} values, compared bit for bit"
    return TensorsCheck(
        summary=summary + (f" after the source's values were {cast}" if cast else ""),
        failures=tuple(f"{name}: {difference}" for name, difference in sorted(different.items())),
        not_measured=tuple(f"{name}: zeros on one side, absent on the other" for name in absent),
        different_tensors=sorted(different),
    )


def _mapping_problems(checkpoint: Checkpoint, side: str, rules: Mapping[str, WeightRule]) -> dict[str, str]:
    """Return the weights that have no row in the table, and those that share a tensor of the file with another."""
    problems = {name: f"only in the {side}, and not in the table" for name in checkpoint.weights if name not in rules}
    readers: dict[int, str] = {}
    for name, weight in checkpoint.weights.items():
        if weight.source_tensor is None:
            continue
        first = readers.setdefault(id(weight.source_tensor.weight), name)
        if first != name:
            problems[name] = f"read from {weight.source_tensor.name} in the {side}, and so is {first}"
    return problems


def _is_zero(weight: LazyTensor | None) -> bool:
    return weight is None or not weight.read().any()


def _cast(source: Checkpoint, target: Checkpoint) -> str:
    """Describe how the source's values are changed before the comparison; empty if they are not."""
    casts = []
    if source.is_dequantized:
        casts.append("int8 divided by its scales")
    if source.dtype != target.dtype:
        exact = source.dtype != "float32" and target.dtype == "float32"
        casts.append(f"{source.dtype} {'widened' if exact else 'rounded'} to {target.dtype}")
    return ", ".join(casts)


def _difference(rule: WeightRule, sizes: Mapping[str, int], source: LazyTensor, target: LazyTensor) -> str | None:
    """Return how many values of a tensor differ, and where the first is; None if all bits are equal."""
    in_file = source.source_tensor
    expected, found = (in_file.weight if in_file is not None else source).read(), target.read()
    if source.shape == target.shape and in_file is not None:
        found = rule.move(found, "albert_hub", in_file.dialect, sizes)
    if expected.shape != found.shape:
        return f"{expected.shape} in the source, {found.shape} in the target"
    count, first = 0, ""
    for start, expected_block, found_block in _blocks(expected, found, STORED_DTYPES[target.dtype]):
        bits = f"u{found_block.itemsize}"  # as integers, NaN equals NaN, and -0.0 differs from 0.0
        unequal = expected_block.view(bits) != found_block.view(bits)
        if unequal.any() and not count:
            place = np.unravel_index(int(np.argmax(unequal)), unequal.shape)
            index = [start + int(place[0]), *map(int, place[1:])]
            values = f"{float(expected_block[place]):.9g} and {float(found_block[place]):.9g}"
            first = f"the first at {index} of the source: {values}"
        count += int(np.count_nonzero(unequal))
    return f"{count:,} of {expected.size:,} values differ, {first}" if count else None


def _blocks(expected: np.ndarray, found: np.ndarray, dtype: np.dtype) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield the first row of each block, and the block of both arrays, `expected` cast to a dtype."""
    rows = max(1, _BLOCK_BYTES * len(expected) // expected.nbytes)
    for start in range(0, len(expected), rows):
        with np.errstate(over="ignore"):
            block = expected[start : start + rows].astype(dtype, copy=False)
        yield start, np.ascontiguousarray(block), np.ascontiguousarray(found[start : start + rows])
