"""Tensors whose values are read when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.formats.blocks import map_tensor
from albert_hub_bridge.mapping.weights import Dialect


# The dtypes of weights, by NumPy's names.
DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype("float32"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype("float16"),
}
# Keras also stores integers: quantized kernels, and the rank of adapters.
STORED_DTYPES: dict[str, np.dtype] = DTYPES | {name: np.dtype(name) for name in ("int8", "int16", "int32", "int64")}


def dtype_name(dtype: Any) -> Any:
    """Return the name of a dtype of torch or NumPy, such as `torch.bfloat16`. Anything else is returned as it is."""
    if isinstance(dtype, np.dtype) or (isinstance(dtype, type) and issubclass(dtype, np.generic)):
        return np.dtype(dtype).name
    is_torch = type(dtype).__module__ == "torch" and type(dtype).__name__ == "dtype"  # torch may not be imported
    return str(dtype).removeprefix("torch.") if is_torch else dtype


@dataclass(frozen=True, slots=True)
class LazyTensor:
    """A tensor that is read when it is needed.

    Args:
        shape: Shape of the values.
        dtype: A key of `STORED_DTYPES`, or the file's own name of another dtype.
        load: Returns the values, finite or not.
        source_tensor: The tensor of a source file that the weight table converted to this one.
    """

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], np.ndarray]
    source_tensor: SourceTensor | None = None

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes."""
        return prod(self.shape) * STORED_DTYPES[self.dtype].itemsize

    def read(self) -> np.ndarray:
        """Return the values.

        Raises:
            WeightsError: A value is NaN or infinite.
        """
        values = self.load()
        if not are_finite(values):
            raise not_finite([self])
        return values


class Int8Weight(NamedTuple):
    """A weight in int8, as KerasHub quantizes it: each value is an integer divided by the scale of its row.

    A row is an output of a linear layer, or an id of an embedding.

    Args:
        values: (rows, columns), int8.
        scales: (rows,), float32.
    """

    values: LazyTensor
    scales: LazyTensor


# With a smaller scale, 127 divided by it is infinite.
_SMALLEST_SCALE, _LARGEST_SCALE = 1e-36, 3e38


def checked_scales(file: Path, name: str, scales: LazyTensor) -> LazyTensor:
    """Return the scales of an int8 weight in float32, one for each row, which are checked when they are read.

    Reading them raises a WeightsError if one is not a positive number.

    Args:
        file: Their file, for the message.
        name: Their name in the file.
        scales: Of any float dtype. All axes but those of the rows have size 1.
    """

    def load() -> np.ndarray:
        values = scales.load().astype(np.float32).reshape(-1)
        count, index = count_and_first(~((values >= _SMALLEST_SCALE) & (values <= _LARGEST_SCALE)))
        if count:
            detail = f"expected positive scales, found {count} others, the first {values[index]} at {index}"
            raise WeightsError(file, "weights", [Problem("wrong scale", name, detail)])
        return values

    return LazyTensor((prod(scales.shape),), "float32", load)


def dequantized(weight: Int8Weight, scales_shape: tuple[int, ...]) -> LazyTensor:
    """Return the values of an int8 weight in float32.

    Args:
        weight: The weight. Its values may have the layout of any library.
        scales_shape: A shape of the scales that broadcasts with the values.
    """

    def load() -> np.ndarray:
        values: np.ndarray = weight.values.load().astype(np.float32) / weight.scales.load().reshape(scales_shape)
        return values

    return LazyTensor(weight.values.shape, "float32", load)


class SourceTensor(NamedTuple):
    """A tensor of a source file, before the weight table converted it."""

    file: Path
    name: str
    dialect: Dialect
    weight: LazyTensor


class TensorLocation(NamedTuple):
    """Where the values of a tensor lie in a file: in one run, in C order."""

    dtype: str  # a key of DTYPES, or the file's own name of another dtype
    shape: tuple[int, ...]
    offset: int  # of the first byte, in the file


def tensors_at(file: Path, locations: Mapping[str, TensorLocation]) -> dict[str, LazyTensor]:
    """Return tensors by name; their values are mapped from the file when they are read."""
    tensors = {}
    for name, (dtype, shape, offset) in locations.items():
        # Other dtypes are refused by their names, before a value is read.
        values = STORED_DTYPES.get(dtype, np.dtype("V")).newbyteorder("<")
        tensors[name] = LazyTensor(shape, dtype, partial(map_tensor, file, offset, shape, values))
    return tensors


def check_runs(runs: Iterable[tuple[int, int, str]], begin: int, size: int) -> None:
    """Refuse a file unless its tensors fill it, one after the other.

    Args:
        runs: First byte, byte after the last one, and name of each tensor; sorted.
        begin: First byte of the first tensor.
        size: Bytes of the file.

    Raises:
        ValueError: There is a gap or an overlap, or the file ends before or after the last tensor.
    """
    end = begin
    for start, stop, name in runs:
        if start != end:
            raise ValueError(f"{name} at byte {start:,}, where the tensor before it ends at {end:,}")
        end = stop
    if size < end:
        raise ValueError(f"one that is truncated at {size:,} of {end:,} bytes")
    if size > end:
        raise ValueError(f"{size - end:,} bytes after its last tensor")


# The bits of the exponent, which are all set in NaN and infinity. `np.isfinite` takes ten times as long.
_EXPONENTS = {DTYPES["float16"]: 0x7C00, DTYPES["bfloat16"]: 0x7F80}


def are_finite(values: np.ndarray) -> bool:
    """Return whether no value is NaN or infinite."""
    if (exponent := _EXPONENTS.get(values.dtype)) is not None:
        return not ((values.view(np.uint16) & exponent) == exponent).any()
    return bool(np.isfinite(values).all())


def not_finite(weights: Iterable[LazyTensor]) -> WeightsError:
    """Return the error for weights with values that are not finite; it lists all of them."""
    problems, files = [], []
    for weight in weights:
        source = weight.source_tensor or SourceTensor(Path("weights"), "a tensor", "albert_hub", weight)
        values = source.weight.load()
        count, index = count_and_first(~np.isfinite(values.astype(np.float32, copy=False)))
        if count:
            detail = f"expected finite values, found {count} that are not, the first {values[index]} at {index}"
            problems.append(Problem("not finite", source.name, detail))
            files.append(source.file)
    advice = "Such weights compute nothing. Download the file again, or save an earlier state of the model."
    return WeightsError(files[0] if files else "weights", "weights", problems, advice)


def count_and_first(wrong: np.ndarray) -> tuple[int, tuple[int, ...]]:
    """Return the number of true elements, and the index of the first."""
    first = np.unravel_index(np.argmax(wrong), wrong.shape)
    return int(np.count_nonzero(wrong)), tuple(int(position) for position in first)


class TiedPair(NamedTuple):
    """Two tensors that must have the same values, and the problem if they have not.

    The original is None if the file has a copy of a tensor that is missing.
    """

    problem: Problem
    copy: LazyTensor
    original: LazyTensor | None


def check_tied(file: Path, tied_pairs: Sequence[TiedPair]) -> None:
    """Compare tied tensors bit for bit; their shapes must have been compared with the weight table's before.

    Raises:
        WeightsError: Some differ; all of them are listed.
    """
    if problems := [
        pair.problem for pair in tied_pairs if pair.original is None or not same_values(pair.copy, pair.original)
    ]:
        raise WeightsError(file, "weights", problems)


def transposed(weight: LazyTensor) -> LazyTensor:
    """Return a matrix with its two axes exchanged."""
    return LazyTensor(weight.shape[::-1], weight.dtype, lambda: weight.load().T)


def same_values(first: LazyTensor, second: LazyTensor) -> bool:
    """Return whether two tensors have the same shape, dtype and bits. It reads both."""
    if (first.shape, first.dtype) != (second.shape, second.dtype):
        return False
    ours, theirs = first.load(), second.load()
    bits = f"u{ours.itemsize}"  # NaN equals itself, and -0.0 differs from 0.0
    return ours.dtype == theirs.dtype and np.array_equal(ours.view(bits), theirs.view(bits))
