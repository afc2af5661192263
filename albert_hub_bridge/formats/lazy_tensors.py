"""Tensors that are read when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.mapping.weights import Dialect


DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype("float32"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype("float16"),
}


@dataclass(frozen=True, slots=True)
class LazyTensor:
    """A tensor that is read when it is needed.

    Args:
        shape: Of the values.
        dtype: A key of `DTYPES`, or whatever the file says.
        load: Returns the values as they are, be they numbers or not.
        stored: What the table moved it from.
    """

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], np.ndarray]
    source_tensor: SourceTensor | None = None

    @property
    def nbytes(self) -> int:
        """Size of the values."""
        return prod(self.shape) * DTYPES[self.dtype].itemsize

    def read(self) -> np.ndarray:
        """Return the values.

        Raises:
            WeightsError: One of them is NaN or infinite.
        """
        values = self.load()
        if not are_finite(values):
            raise not_finite([self])
        return values


class SourceTensor(NamedTuple):
    """A tensor as its file has it, which a certificate and messages read without the table."""

    file: Path
    name: str
    dialect: Dialect
    weight: LazyTensor


# The bits of an exponent; NaN and infinite values have all of them. NumPy's own test takes ten times as long.
_EXPONENTS = {DTYPES["float16"]: 0x7C00, DTYPES["bfloat16"]: 0x7F80}


def are_finite(values: np.ndarray) -> bool:
    """Tell whether no value is NaN or infinite."""
    if (exponent := _EXPONENTS.get(values.dtype)) is not None:
        return not ((values.view(np.uint16) & exponent) == exponent).any()
    return bool(np.isfinite(values).all())


def not_finite(weights: Iterable[LazyTensor]) -> WeightsError:
    """Return what to raise because a weight has values that are not finite: all such weights are listed."""
    problems, files = [], []
    for weight in weights:
        file, name, _, source_tensor = weight.source_tensor or SourceTensor(
            Path("weights"), "a tensor", "albert_hub", weight
        )
        values = source_tensor.load()
        count, index = count_and_first(~np.isfinite(values.astype(np.float32, copy=False)))
        if count:
            detail = f"expected finite values, found {count} that are not, the first {values[index]} at {index}"
            problems.append(Problem("not finite", name, detail))
            files.append(file)
    advice = "Such weights compute nothing: get the file once more, or save an earlier state of the model."
    return WeightsError(files[0] if files else "weights", "weights", problems, advice)


def count_and_first(wrong: np.ndarray) -> tuple[int, tuple[int, ...]]:
    """Count what is true, and return the index of the first."""
    first = np.unravel_index(np.argmax(wrong), wrong.shape)
    return int(np.count_nonzero(wrong)), tuple(int(position) for position in first)


class TiedPair(NamedTuple):
    """Two tensors that must have the same values.

    Args:
        problem: What to report if they have not.
        copy: The copy.
        original: The tensor that is converted; None if it is missing.
    """

    problem: Problem
    copy: LazyTensor
    original: LazyTensor | None


def check_tied(file: Path, tied_pairs: Sequence[TiedPair]) -> None:
    """Refuse a file with a copy that differs from its original in any bit.

    This reads the tensors, so their shapes must have been checked before.

    Args:
        file: The file, for the message.
        tied_pairs: The copies with their originals.

    Raises:
        WeightsError: A copy differs; all are listed.
    """
    if problems := [
        pair.problem for pair in tied_pairs if pair.original is None or not same_values(pair.copy, pair.original)
    ]:
        raise WeightsError(file, "weights", problems)


def transposed(weight: LazyTensor) -> LazyTensor:
    """Return a matrix the other way round."""
    return LazyTensor(weight.shape[::-1], weight.dtype, lambda: weight.load().T)


def same_values(first: LazyTensor, second: LazyTensor) -> bool:
    """Return whether two tensors have the same shape, dtype and bits. This reads both."""
    if (first.shape, first.dtype) != (second.shape, second.dtype):
        return False
    values, others = first.load(), second.load()
    bits = f"u{values.itemsize}"  # NaN and -0.0 must be the same, too
    return values.dtype == others.dtype and np.array_equal(values.view(bits), others.view(bits))
