"""The one thing in the middle of every conversion, whatever it was read from and will be written to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np

from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.formats.lazy_tensors import (
    DTYPES,
    LazyTensor,
    SourceTensor,
    are_finite,
    count_and_first,
    not_finite,
)
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.mapping.configs import IgnoredKey
from albert_hub_bridge.mapping.heads import Head
from albert_hub_bridge.mapping.weights import POOLER, Dialect, WeightRule, head_rules, weight_rules
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.model.sentencepiece_unigram import TextNormalization, Vocabulary


Layout = Literal["keras", "albert_hub", "transformers"]
SourceLayout = Literal["keras", "albert_hub", "transformers", "google"]
Progress = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True, slots=True)
class DroppedTensor:
    """A tensor of the source that is not carried over, for the report."""

    name: str
    shape: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """How texts become ids.

    Args:
        proto: The serialized SentencePiece model.
        vocabulary: The same, parsed.
        normalization: What happens to a text before it.
        sequence_length: How many tokens a packed input has at most; None where the source does not say.
        truncate: How pairs are cut: `round_robin` or `waterfall` as in KerasHub, `longest_first` as in transformers.
        normalization_from: Who says so, for the report.
    """

    proto: bytes = field(repr=False)
    vocabulary: Vocabulary = field(repr=False)
    normalization: TextNormalization
    sequence_length: int | None = None
    truncate: str = "round_robin"
    normalization_from: str = "KerasHub has no others"


@dataclass(frozen=True)
class Checkpoint:
    """An ALBERT, wherever it came from. Weights are lazy: use it as a context manager, or `close` it.

    Args:
        layout: What it was read from.
        folder: Where it was read from.
        architecture: The encoder, under KerasHub's names.
        weights: By the names of `AlbertHubModel` and of the heads, in torch's layout. The pooler may be absent.
        dtype: Of all weights: a key of `DTYPES`.
        head: What sits on the encoder, or None.
        tokenizer: How texts become ids, or None where the source has none.
        dropped: Tensors that were found and are not carried over.
        ignored: Configuration keys that were found and are not carried over.
        notes: What else the user should know.
        weights_file: What the weights were read from: a file, or the index of its shards.
        quantized: Whether the source computes with integers, which the weights are only the values of.
    """

    layout: SourceLayout
    folder: Path
    architecture: Architecture
    weights: Mapping[str, LazyTensor]
    dtype: str
    head: Head | None = None
    tokenizer: TokenizerSpec | None = None
    dropped: Sequence[DroppedTensor] = ()
    ignored: Sequence[IgnoredKey] = ()
    notes: Sequence[str] = ()
    weights_file: Path | None = None
    quantized: bool = False
    resources: ExitStack = field(default_factory=ExitStack, repr=False, compare=False)

    @property
    def has_pooler(self) -> bool:
        """Whether the encoder has its pooler; heads that work on tokens are often saved without."""
        return set(self.weights) >= POOLER

    @property
    def encoder_rules(self) -> tuple[WeightRule, ...]:
        """The table's row of every weight of the encoder, in forward order."""
        return weight_rules(self.architecture, self.has_pooler)

    @property
    def head_rules(self) -> tuple[WeightRule, ...]:
        """The table's row of every weight of the head."""
        return head_rules(self.head.kind) if self.head is not None else ()

    @property
    def head_epsilon(self) -> float | None:
        """The epsilon of the masked-LM head's layer norm, where there is one."""
        masked_lm = self.head is not None and self.head.kind in ("masked_lm", "pretraining")
        return self.head.layer_norm_epsilon if self.head is not None and masked_lm else None

    @property
    def sizes(self) -> dict[str, int]:
        """The size of every axis of the weights."""
        return axis_sizes(self.architecture, self.head.num_labels if self.head is not None else 2)

    @property
    def nbytes(self) -> int:
        """Size of all weights."""
        return sum(weight.nbytes for weight in self.weights.values())

    def read(self, rule: WeightRule, dialect: Dialect) -> np.ndarray:
        """Read one weight in a dialect's layout: usually a transposed view of what the file holds, finite or not."""
        return rule.move(self.weights[rule.albert_hub].load(), "albert_hub", dialect, self.sizes)

    def check_values(self) -> None:
        """Read all weights, and refuse values that are not finite.

        Raises:
            WeightsError: There are such; all tensors that have them are listed.
        """
        if wrong := [weight for weight in self.weights.values() if not are_finite(weight.load())]:
            raise not_finite(wrong)

    def cast(self, dtype: str) -> Checkpoint:
        """Return the checkpoint with all weights in another dtype, rounded to the nearest when they are read.

        Reading raises:
            WeightsError: A finite value is too large for the dtype.
        """
        weights = {name: self._cast(name, weight, dtype) for name, weight in self.weights.items()}
        return replace(self, weights=weights, dtype=dtype)

    def _cast(self, name: str, weight: LazyTensor, dtype: str) -> LazyTensor:
        def load() -> np.ndarray:
            values = weight.load()
            with np.errstate(over="ignore"):
                rounded: np.ndarray = values.astype(DTYPES[dtype])
            if not are_finite(rounded) and are_finite(values):
                count, index = count_and_first(np.isinf(rounded.astype(np.float32, copy=False)))
                detail = f"{count} values, such as {float(np.abs(values).max()):g}, are too large for {dtype}: "
                detail += f"expected none, found the first at {index}"
                advice = "Choose bfloat16 or float32, which hold larger values."
                raise WeightsError(self.folder, "weights", [Problem("overflow", name, detail)], advice)
            return rounded

        return LazyTensor(weight.shape, dtype, load, weight.source_tensor)

    def without(self, rules: Sequence[WeightRule], head: Head | None, reason: str) -> Checkpoint:
        """Return the checkpoint with a smaller head, or none, and the tensors of these rules reported as dropped."""
        names = [rule.albert_hub for rule in rules]
        dropped = [DroppedTensor(name, self.weights[name].shape, reason) for name in names]
        weights = {name: weight for name, weight in self.weights.items() if name not in names}
        return replace(self, head=head, weights=weights, dropped=[*self.dropped, *dropped])

    def close(self) -> None:
        """Close the files behind the weights."""
        self.resources.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def match_weights(
    file: Path,
    found: Mapping[str, LazyTensor],
    expected: Mapping[str, WeightRule],
    sizes: Mapping[str, int],
    dialect: Dialect,
) -> dict[str, LazyTensor]:
    """Match the tensors of a file with the table.

    Args:
        file: The file, for the message.
        found: Every tensor of the file, by its name there.
        expected: The row of every tensor that has to be there, by its name there.
        sizes: Of the axes.
        dialect: Of the file.

    Returns:
        The weights by albert_hub names, in torch's layout.

    Raises:
        WeightsError: Any tensor is missing, unexpected, or of a wrong shape or dtype; lists them all.
    """
    problems, weights = [], {}
    for name, rule in expected.items():
        shape = rule.shape(dialect, sizes)
        if name not in found:
            problems.append(Problem("missing", name, f"expected {shape}, found none"))
        elif found[name].shape != shape:
            problems.append(Problem("wrong shape", name, f"expected {shape}, found {found[name].shape}"))
        elif found[name].dtype not in DTYPES:
            problems.append(Problem("wrong dtype", name, f"expected {', '.join(DTYPES)}, found {found[name].dtype}"))
        else:
            weights[rule.albert_hub] = _in_torch_layout(SourceTensor(file, name, dialect, found[name]), rule, sizes)
    problems += [
        Problem("unexpected", name, f"expected no such tensor, found {weight.shape}")
        for name, weight in found.items()
        if name not in expected
    ]
    dtypes = {weight.dtype for weight in weights.values()}
    if len(dtypes) > 1:
        common = max(dtypes, key=[weight.dtype for weight in weights.values()].count)
        problems += [
            Problem("mixed dtypes", name, f"expected {common} as most have, found {found[name].dtype}")
            for name in expected
            if name in found and found[name].dtype in dtypes - {common}
        ]
    if problems:
        raise WeightsError(file, "weights", problems)
    return weights


def check_layers(file: Path, architecture: Architecture, found: int) -> None:
    """Refuse an architecture with more layers than a file has tensors, before a table of that many rows is made.

    Raises:
        WeightsError: It has.
    """
    if architecture.num_inner_layers > found:
        detail = f"expected {architecture.num_inner_layers} encoder layers, found {found} tensors"
        raise WeightsError(file, "weights", [Problem("missing", file.name, detail)])


def _in_torch_layout(source_tensor: SourceTensor, rule: WeightRule, sizes: Mapping[str, int]) -> LazyTensor:
    def load() -> np.ndarray:
        return rule.move(source_tensor.weight.load(), source_tensor.dialect, "albert_hub", sizes)

    return LazyTensor(rule.shape("albert_hub", sizes), source_tensor.weight.dtype, load, source_tensor)
