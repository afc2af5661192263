"""How far apart the outputs of two libraries are, and how far apart they may be.

In float32 the error of an output grows with its values: each layer adds up products of them. So limits are relative to
the largest absolute value of the source's output. Below 1 they are absolute: a small score is a sum of states that are
not small.

No limit suits every model: some enlarge each rounding error a thousand times, because a small change of a state decides
which token is attended to. So a difference above the limit is compared with the rounding errors of both libraries: how
far each is in float32 from itself in float64. Two libraries that compute the same differ by no more than the sum of
both. The target's error counts only up to some times the source's: a wrong target must not widen its own limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from albert_hub_bridge.verification.engines.common import Engine


ROUNDING_FACTOR = 6  # times the sum of both rounding errors; see docs/verification.md for what was measured
_MOST_OF_TARGET = 8  # times the source's rounding error
_TOO_NOISY = 1e-2  # relative


ComputeRows = Callable[[list[int]], Mapping[str, np.ndarray]]  # from some rows of a batch to their outputs


class Difference(NamedTuple):
    """A difference of two outputs.

    Args:
        relative: The absolute difference, divided by the largest absolute value of the source's output, or by 1 if that
            is larger.
        absolute: The absolute difference.
    """

    relative: float
    absolute: float

    def __str__(self) -> str:
        return f"{self.relative:.1e} relative, {self.absolute:.1e} absolute"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A difference, where it is, and whether it passes.

    Args:
        difference: The difference of one row of an output.
        row: Describes the row.
        limit: The largest relative difference that passes.
        rounding: The rounding errors of both libraries, if they were measured. Some times as much passes too.
    """

    difference: Difference
    row: str
    limit: float
    rounding: Difference | None = None

    @property
    def passes(self) -> bool:
        """Whether the difference is within the limit or explained by rounding. NaN never is."""
        if self.difference.relative <= self.limit:
            return True
        return self.rounding is not None and self.difference.absolute <= ROUNDING_FACTOR * self.rounding.absolute

    @property
    def caveat(self) -> tuple[str, ...]:
        """What `not_measured` says about a difference that passes only because the model enlarges rounding errors."""
        if self.rounding is None or self.rounding.relative < _TOO_NOISY or not self.passes:
            return ()
        return (
            f"outputs in float32: rounding alone changes them by {self.rounding}. The model enlarges rounding errors "
            "so much that only tensors and reference tell whether it is the same",
        )

    def __str__(self) -> str:
        rounding = f" (the rounding errors of both libraries: {self.rounding})" if self.rounding is not None else ""
        return f"{self.difference}{rounding}"


def largest(differences: Iterable[Difference]) -> Difference:
    """Return the largest relative difference. NaN counts as larger than all numbers."""
    return max(differences, key=_size)


def worst(comparisons: Iterable[Comparison]) -> Comparison:
    """Return the largest of the differences that do not pass; if all pass, the largest."""
    return max(comparisons, key=lambda each: (not each.passes, _size(each.difference)))


def _size(difference: Difference) -> tuple[bool, float]:
    return bool(np.isnan(difference.relative)), difference.relative


def compare_engines(
    source: Engine,
    target: Engine,
    inputs: dict[str, np.ndarray],
    rows: Sequence[str],
    limit: float,
    *,
    with_head: bool = True,
    uncounted: Sequence[bool] = (),
) -> tuple[dict[str, Comparison], float]:
    """Compute the same batch with both engines, and return the worst comparison of each output that both have.

    Args:
        source: The source's engine.
        target: The target's engine.
        inputs: The batch, as `Engine.compute` takes it.
        rows: A description of each row.
        limit: The largest relative difference that passes.
        with_head: Whether to compute the head, if there is one.
        uncounted: For each row, whether its finite differences above the limit do not count. By default all count.

    Returns:
        The comparisons by the names of the outputs, and the largest absolute difference that did not count, or 0.
    """
    outputs = source.compute(inputs, with_head), target.compute(inputs, with_head)
    return compare_outputs(
        *outputs,
        rows,
        limit,
        [partial(compute_rows_in_float64, engine, inputs, with_head) for engine in (source, target)],
        uncounted=uncounted,
    )


def compare_outputs(
    source: Mapping[str, np.ndarray],
    target: Mapping[str, np.ndarray],
    rows: Sequence[str],
    limit: float,
    in_float64: Sequence[ComputeRows],
    *,
    uncounted: Sequence[bool] = (),
) -> tuple[dict[str, Comparison], float]:
    """Compare outputs of the same batch. See `compare_engines`.

    Args:
        source: The outputs of the source, each (batch, ...).
        target: The outputs of the target, each (batch, ...).
        rows: A description of each row.
        limit: The largest relative difference that passes.
        in_float64: Compute some rows of the outputs in float64, with the library of the source and of the target. If
            the target's library cannot, its rounding error is taken to be that of the source.
        uncounted: As for `compare_engines`.
    """
    differences, not_counted = row_differences(source, target), 0.0
    for index in np.flatnonzero(uncounted):
        for each in differences.values():
            if limit < each[index].relative < np.inf:
                not_counted = max(not_counted, each[index].absolute)
                each[index] = Difference(0.0, 0.0)
    above = sorted({index for each in differences.values() for index, (gap, _) in enumerate(each) if not gap <= limit})
    rounding: dict[str, Difference] = {}
    if above and not any(np.isnan(gap) for each in differences.values() for gap, _ in each):
        rounding = _rounding_errors(source, target, above, in_float64)
    return {
        name: worst(
            Comparison(
                difference=each, row=row, limit=limit, rounding=rounding.get(name) if each.relative > limit else None
            )
            for each, row in zip(each_row, rows, strict=True)
        )
        for name, each_row in differences.items()
    }, not_counted


def compute_rows_in_float64(
    engine: Engine, inputs: Mapping[str, np.ndarray], with_head: bool, rows: list[int]
) -> dict[str, np.ndarray]:
    """Compute some rows of a batch in float64. See `Engine.compute_in_float64`."""
    return engine.compute_in_float64({name: array[rows] for name, array in inputs.items()}, with_head)


def _rounding_errors(
    source: Mapping[str, np.ndarray],
    target: Mapping[str, np.ndarray],
    rows: list[int],
    in_float64: Sequence[ComputeRows],
) -> dict[str, Difference]:
    """Return the sum of both libraries' rounding errors in some rows, for each output."""
    errors = [
        row_differences({name: array[rows] for name, array in outputs.items()}, compute(rows))
        for outputs, compute in zip((source, target), in_float64, strict=False)
    ]
    own, others = errors[0], errors[-1]
    pairs = {name: (largest(own[name]), largest(others[name])) for name in own if name in others}
    return {
        name: Difference(*(mine + min(theirs, _MOST_OF_TARGET * mine) for mine, theirs in zip(*pair, strict=True)))
        for name, pair in pairs.items()
    }


def row_differences(source: Mapping[str, np.ndarray], target: Mapping[str, np.ndarray]) -> dict[str, list[Difference]]:
    """Return the largest difference of each row, for the outputs that both sides have with the same shape.

    All rows of an output have the same scale. A NaN on either side, or an infinity on both, gives NaN.

    Args:
        source: The outputs of the source, each (batch, ...).
        target: The outputs of the target, each (batch, ...).
    """
    names = [name for name in source if name in target and source[name].shape == target[name].shape]
    return {name: _row_differences(source[name], target[name]) for name in names}


def _row_differences(source: np.ndarray, target: np.ndarray) -> list[Difference]:
    scale = max(1.0, float(np.max(np.abs(source))))  # of a NaN it is 1; the difference is NaN then
    with np.errstate(invalid="ignore"):
        gaps = np.abs(source - target).reshape(len(source), -1).max(-1)
        return [Difference(float(gap / scale), float(gap)) for gap in gaps]
