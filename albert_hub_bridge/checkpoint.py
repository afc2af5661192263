"""The checkpoint: what every layout is read into, and what every layout is written from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np

from albert_hub_bridge.choices import SourceLayoutName
from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.formats.lazy_tensors import (
    DTYPES,
    Int8Weight,
    LazyTensor,
    SourceTensor,
    are_finite,
    count_and_first,
    not_finite,
)
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.mapping.configs import IgnoredKey
from albert_hub_bridge.mapping.heads import Head
from albert_hub_bridge.mapping.weights import (
    POOLER,
    Dialect,
    WeightRule,
    head_rules,
    scale_of,
    weight_rules,
    with_scales,
)
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.model.sentencepiece_unigram import TextNormalization, Vocabulary, parse_vocabulary


# Why a tensor was dropped.
OPTIMIZER = "the optimizer's state"
BUFFER = "a buffer, not a parameter: counts 0, 1, 2, ..."
COPY = "a copy of "  # and the name of the tensor
DROPPED_HEAD = "its head is dropped"
DROPPED_UNKNOWN = "no ALBERT has it, and --drop-unknown names it"
_UNKNOWN_ADVICE = (
    "Leave out a head with --drop-head (drop_head=True). If the model does not need the other tensors, name each with "
    "--drop-unknown NAME (drop_unknown=[...]). Or download the source again."
)

Progress = Callable[[int, int], None]  # bytes done, bytes in all


@dataclass(frozen=True, slots=True)
class DroppedTensor:
    """A tensor of the source that is not converted, for the report."""

    name: str
    shape: tuple[int, ...]
    reason: str


def is_loss(reason: str) -> bool:
    """Return whether something is lost with a tensor that was dropped for this reason."""
    return reason not in (OPTIMIZER, BUFFER) and not reason.startswith(COPY)


def count_by_reason(reasons: Iterable[str]) -> str:
    """Return how many tensors were dropped for each reason: "the optimizer's state (56), a copy of x (1)"."""
    return ", ".join(f"{reason} ({count})" for reason, count in Counter(reasons).items())


@dataclass(frozen=True, slots=True)
class TokenizerSpec:
    """How texts become ids.

    Args:
        proto: The serialized SentencePiece model. Its scores are those of the source's library: they have ALBERT's
            rule for numbers with a comma if the source has it (`mapping.number_commas`).
        vocabulary: The same, parsed.
        normalization: What happens to a text before the SentencePiece model.
        sequence_length: The largest number of tokens in a packed input; None if the source has none.
        truncate: How pairs are cut: `round_robin` or `waterfall` as in KerasHub, `longest_first` as in transformers.
        normalization_from: Where the normalization was read, for the report.
        padding_side: Where padding tokens are added: `right` or `left`.
        truncation_side: Where a text that is too long is cut: `right` or `left`.
    """

    proto: bytes = field(repr=False)
    vocabulary: Vocabulary = field(repr=False)
    normalization: TextNormalization
    sequence_length: int | None = None
    truncate: str = "round_robin"
    normalization_from: str = "KerasHub applies only the vocabulary's own"
    padding_side: str = "right"
    truncation_side: str = "right"

    def with_proto(self, proto: bytes) -> TokenizerSpec:
        """Return the tokenizer with another SentencePiece model, which is valid."""
        return self if proto is self.proto else replace(self, proto=proto, vocabulary=parse_vocabulary(proto))


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """The tokenizer of a repository as its files are, for a repository that gets the same files.

    Args:
        contents: The content of each file, by its name.
        class_name: The class that transformers takes for them.
        is_alberts: Whether `Checkpoint.tokenizer` with this package's class gives the ids of that class.
        beyond_sentencepiece: What a SentencePiece model cannot hold, so that KerasHub cannot; empty if there is
            nothing. `Checkpoint.tokenizer` is then the rest, or None if there is no SentencePiece model.
        cut_out: The characters that are cut out of a text first, if nothing else is beyond SentencePiece. A preset can
            hold that (`mapping.cut_out`).
        ignored: The settings in the files that are not in `Checkpoint.tokenizer`.
    """

    contents: Mapping[str, bytes] = field(repr=False)
    class_name: str
    is_alberts: bool
    beyond_sentencepiece: str = ""
    cut_out: str = ""
    ignored: Sequence[IgnoredKey] = ()

    def fit(self, layout: SourceLayoutName) -> bool:
        """Return whether a target in this layout gets these files. Otherwise it gets `Checkpoint.tokenizer`."""
        if layout in ("keras", "google"):
            return False
        if self.beyond_sentencepiece:
            return True
        return not self.is_alberts if layout == "albert_hub" else self.class_name != "AlbertHubTokenizer"


@dataclass(frozen=True, slots=True)
class SentenceModules:
    """What sentence-transformers does around an encoder.

    Args:
        description: In words: the modules, and how they are set.
        contents: The content of each file, by its name; empty if they are not carried over.
        obstacle: Why they are not carried over; empty if they are.
        pooling: How the states of tokens become one vector: `mean`, `cls`, or None for anything else.
    """

    description: str
    contents: Mapping[str, bytes] = field(repr=False)
    obstacle: str = ""
    pooling: Literal["mean", "cls"] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """An ALBERT, from any layout. Its weights are lazy: use it as a context manager, or `close` it.

    Args:
        layout: The layout that it was read from.
        folder: The folder that it was read from.
        architecture: The encoder, under KerasHub's names.
        weights: The weights by the names of `AlbertHubModel` and the heads, in torch's layout. The pooler may be
            absent.
        dtype: The dtype of all weights: a key of `DTYPES`; or `int8`, as `in_int8` returns it.
        head: What is on the encoder; None if there is nothing.
        tokenizer: How texts become ids; None if the source has no SentencePiece vocabulary.
        tokenizer_files: The files of the tokenizer, if it was read from a repository.
        modules: What sentence-transformers does around the encoder; None if the source is no model for it.
        dropped: Tensors that were found and are not converted.
        ignored: Configuration keys that were found and are not converted.
        notes: Notes for the report.
        weights_file: The file of the weights, or the index of its shards.
        int8: The weights that the source has in int8, by the same names. `weights` has their values. Empty if the
            source is not quantized.
    """

    layout: SourceLayoutName
    folder: Path
    architecture: Architecture
    weights: Mapping[str, LazyTensor]
    dtype: str
    head: Head | None = None
    tokenizer: TokenizerSpec | None = None
    tokenizer_files: TokenizerFiles | None = None
    modules: SentenceModules | None = None
    dropped: Sequence[DroppedTensor] = ()
    ignored: Sequence[IgnoredKey] = ()
    notes: Sequence[str] = ()
    weights_file: Path | None = None
    int8: Mapping[str, Int8Weight] = field(default_factory=dict)
    resources: ExitStack = field(default_factory=ExitStack, repr=False, compare=False)

    @property
    def has_tokenizer(self) -> bool:
        """Whether it says how texts become ids, in any way."""
        return self.tokenizer is not None or self.tokenizer_files is not None

    @property
    def has_pooler(self) -> bool:
        """Whether the encoder has its pooler. Heads on tokens are often saved without it."""
        return set(self.weights) >= POOLER

    @property
    def encoder_rules(self) -> tuple[WeightRule, ...]:
        """The row of every weight of the encoder in the table, in the order of the forward pass."""
        return self._with_scales(weight_rules(self.architecture, self.has_pooler))

    @property
    def head_rules(self) -> tuple[WeightRule, ...]:
        """The row of every weight of the head in the table."""
        return self._with_scales(head_rules(self.head.kind)) if self.head is not None else ()

    def _with_scales(self, rules: tuple[WeightRule, ...]) -> tuple[WeightRule, ...]:
        return with_scales(rules, self.int8) if self.dtype == "int8" else rules

    @property
    def source_dtype(self) -> str:
        """The dtype of the weights in the files of the source."""
        return "int8" if self.int8 else self.dtype

    @property
    def is_dequantized(self) -> bool:
        """Whether the weights are the values of int8 weights, instead of the integers and their scales."""
        return bool(self.int8) and self.dtype != "int8"

    @property
    def head_epsilon(self) -> float | None:
        """The epsilon of the masked-LM head's layer norm; None for other heads."""
        masked_lm = self.head is not None and self.head.kind in ("masked_lm", "pretraining")
        return self.head.layer_norm_epsilon if self.head is not None and masked_lm else None

    @property
    def sizes(self) -> dict[str, int]:
        """The size of every axis of the weights."""
        return axis_sizes(self.architecture, self.head.num_labels if self.head is not None else 2)

    @property
    def parameters(self) -> int:
        """The number of weights. Scales are none."""
        scales = {scale_of(name) for name in self.int8}
        return sum(prod(weight.shape) for name, weight in self.weights.items() if name not in scales)

    @property
    def nbytes(self) -> int:
        """The size of all weights, in bytes."""
        return sum(weight.nbytes for weight in self.weights.values())

    def read(self, rule: WeightRule, dialect: Dialect) -> np.ndarray:
        """Read one weight in a dialect's layout, usually as a transposed view of the file. It may not be finite."""
        return rule.move(self.weights[rule.albert_hub].load(), "albert_hub", dialect, self.sizes)

    def check_values(self) -> None:
        """Read all weights, and refuse NaN and infinity.

        Raises:
            WeightsError: A value is not finite; all tensors with such values are listed.
        """
        if wrong := [weight for weight in self.weights.values() if not are_finite(weight.load())]:
            raise not_finite(wrong)

    def in_int8(self) -> Checkpoint:
        """Return a quantized checkpoint with the weights that its source has: integers, and their scales.

        The name of the scales is that of the weight with `_scale`. Weights that the source has as floats are float32.
        """
        weights: dict[str, LazyTensor] = {}
        for name, weight in self.weights.items():
            quantized = self.int8.get(name)
            weights[name] = weight if quantized is None else quantized.values
            if quantized is not None:
                weights[scale_of(name)] = quantized.scales
        return replace(self, weights=weights, dtype="int8")

    def cast(self, dtype: str) -> Checkpoint:
        """Return the checkpoint in another dtype. Weights are rounded to the nearest value when they are read.

        Reading a weight raises a WeightsError if a finite value is too large for the dtype.
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
        """Return the checkpoint with another head and without some weights, which are reported as dropped.

        Args:
            rules: The rows of the weights to leave out.
            head: The new head; None for none.
            reason: Why they are left out, for the report.
        """
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


@contextmanager
def closed_on_failure() -> Iterator[ExitStack]:
    """Yield the resources of a checkpoint that is read in the block. They are closed only if the block fails."""
    resources = ExitStack()
    try:
        yield resources
    except BaseException:
        resources.close()
        raise


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
        found: Every tensor of the file, by its name in the file.
        expected: The row of every expected tensor, by its name in the file.
        sizes: The size of every axis.
        dialect: The dialect of the file.

    Returns:
        The weights by albert_hub names, in torch's layout.

    Raises:
        WeightsError: A tensor is missing, unexpected, or has a wrong shape or dtype; lists them all.
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
        only_unknown = all(problem.kind == "unexpected" for problem in problems)
        raise WeightsError(file, "weights", problems, _UNKNOWN_ADVICE if only_unknown else "")
    return weights


def match_int8(
    file: Path,
    found: Mapping[str, Int8Weight],
    expected: Mapping[str, WeightRule],
    sizes: Mapping[str, int],
    dialect: Dialect,
) -> dict[str, Int8Weight]:
    """Match the int8 weights of a file with the table. `match_weights` has matched their values.

    Args:
        file: As for `match_weights`, like all arguments but one.
        found: Every int8 weight of the file, by its name in the file. Its values have the file's layout.
        expected: The row of every expected tensor, by its name in the file.
        sizes: The size of every axis.
        dialect: The dialect of the file.

    Returns:
        The int8 weights by albert_hub names, in torch's layout.
    """
    return {
        rule.albert_hub: Int8Weight(
            _in_torch_layout(SourceTensor(file, name, dialect, found[name].values), rule, sizes), found[name].scales
        )
        for name, rule in expected.items()
        if name in found
    }


def leave_out(
    file: Path, found: Mapping[str, LazyTensor], names: Collection[str], known: Collection[str]
) -> tuple[dict[str, LazyTensor], list[DroppedTensor]]:
    """Leave out the tensors that a user named.

    Args:
        file: The file, for the message.
        found: Every tensor of the file, by its name.
        names: The names of the tensors to leave out.
        known: The names of the tensors that an ALBERT has.

    Returns:
        The other tensors, and the dropped ones.

    Raises:
        WeightsError: There is no such tensor, or an ALBERT has it; lists them all.
    """
    problems = [
        Problem("missing", name, "expected the tensor to leave out, found none") for name in names if name not in found
    ]
    problems += [
        Problem("needed", name, f"expected a tensor that no ALBERT has, found one of its own: {found[name].shape}")
        for name in names
        if name in found and name in known
    ]
    if problems:
        raise WeightsError(file, "weights", problems, "Correct --drop-unknown (drop_unknown=[...]).")
    dropped = [DroppedTensor(name, found[name].shape, DROPPED_UNKNOWN) for name in names]
    return {name: tensor for name, tensor in found.items() if name not in names}, dropped


def check_layers(file: Path, architecture: Architecture, found: int) -> None:
    """Refuse an architecture with more layers than a file has tensors, before a table with a row per layer is made.

    Raises:
        WeightsError: The architecture has more layers.
    """
    if architecture.num_inner_layers > found:
        detail = f"expected {architecture.num_inner_layers} encoder layers, found {found} tensors"
        raise WeightsError(file, "weights", [Problem("missing", file.name, detail)])


def _in_torch_layout(source_tensor: SourceTensor, rule: WeightRule, sizes: Mapping[str, int]) -> LazyTensor:
    def load() -> np.ndarray:
        return rule.move(source_tensor.weight.load(), source_tensor.dialect, "albert_hub", sizes)

    return LazyTensor(rule.shape("albert_hub", sizes), source_tensor.weight.dtype, load, source_tensor)
