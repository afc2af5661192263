"""The one thing in the middle of every conversion, whatever it was read from and will be written to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Literal

import ml_dtypes
import numpy as np

from albert_hub_bridge.errors import Problem, VocabularyError, WeightsError
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.mapping.configs import IgnoredKey
from albert_hub_bridge.mapping.weights import Dialect, WeightRule, weight_rules
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.model.sentencepiece_unigram import TextRules, Vocabulary, parse_vocabulary


Layout = Literal["keras", "bridge", "stock"]
Progress = Callable[[int, int], None]  # bytes done, bytes in all

DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype("float32"),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype("float16"),
}


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor that is read when it is needed."""

    shape: tuple[int, ...]
    dtype: str  # a key of DTYPES, or whatever the file says
    read: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Size of the values."""
        return prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True, slots=True)
class DroppedTensor:
    """A tensor of the source that is not carried over, for the report."""

    name: str
    shape: tuple[int, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Text:
    """How texts become ids.

    Args:
        proto: The serialized SentencePiece model.
        vocabulary: The same, parsed.
        rules: What happens to a text before it.
        sequence_length: How many tokens a packed input has at most; None where the source does not say.
        truncate: How pairs are cut: `round_robin` or `waterfall` as in KerasHub, `longest_first` as in transformers.
    """

    proto: bytes = field(repr=False)
    vocabulary: Vocabulary = field(repr=False)
    rules: TextRules
    sequence_length: int | None = None
    truncate: str = "round_robin"


@dataclass(frozen=True)
class Checkpoint:
    """An ALBERT encoder, wherever it came from. Weights are lazy: use it as a context manager, or `close` it.

    Args:
        layout: What it was read from.
        folder: Where it was read from.
        architecture: The encoder, under KerasHub's names.
        weights: By the names of `AlbertHubModel`, in torch's layout.
        dtype: Of all weights: a key of `DTYPES`.
        text: The vocabulary, or None where the source has none.
        head: What kind of head the source has, or None.
        dropped: Tensors that were found and are not carried over.
        ignored: Configuration keys that were found and are not carried over.
        notes: What else the user should know.
    """

    layout: Layout
    folder: Path
    architecture: Architecture
    weights: Mapping[str, Weight]
    dtype: str
    text: Text | None = None
    head: str | None = None
    dropped: Sequence[DroppedTensor] = ()
    ignored: Sequence[IgnoredKey] = ()
    notes: Sequence[str] = ()
    resources: ExitStack = field(default_factory=ExitStack, repr=False, compare=False)

    @property
    def rules(self) -> tuple[WeightRule, ...]:
        """The table's row of every weight, in forward order."""
        return weight_rules(self.architecture)

    @property
    def nbytes(self) -> int:
        """Size of all weights."""
        return sum(weight.nbytes for weight in self.weights.values())

    def read(self, rule: WeightRule, dialect: Dialect) -> np.ndarray:
        """Read one weight in a dialect's layout: usually a transposed view of what the file holds."""
        return rule.move(self.weights[rule.bridge].read(), "bridge", dialect, axis_sizes(self.architecture))

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
    file: Path, found: Mapping[str, Weight], architecture: Architecture, dialect: Dialect, prefix: str = ""
) -> tuple[dict[str, Weight], str]:
    """Match the tensors of a file with the table.

    Args:
        file: The file, for the message.
        found: Every tensor of the file that belongs to the encoder, by its name there.
        architecture: The encoder that the configuration describes.
        dialect: Of the file.
        prefix: What the names in the file have before those of the table.

    Returns:
        The weights by bridge names, in torch's layout, and their dtype.

    Raises:
        WeightsError: Any tensor is missing, unexpected, or of a wrong shape or dtype; lists them all.
    """
    if architecture.num_inner_layers > len(found):  # before a table of that many rows is made
        detail = f"expected {architecture.num_inner_layers} encoder layers, found {len(found)} tensors"
        raise WeightsError(file, "weights", [Problem("missing", file.name, detail)])
    sizes = axis_sizes(architecture)
    expected = {prefix + rule.name(dialect): rule for rule in weight_rules(architecture)}
    problems, weights = [], {}
    for name, rule in expected.items():
        shape = rule.shape(dialect, sizes)
        if name not in found:
            problems.append(Problem("missing", name, str(shape)))
        elif found[name].shape != shape:
            problems.append(Problem("wrong shape", name, f"expected {shape}, found {found[name].shape}"))
        elif found[name].dtype not in DTYPES:
            problems.append(Problem("wrong dtype", name, f"expected {', '.join(DTYPES)}, found {found[name].dtype}"))
        else:
            weights[rule.bridge] = _in_torch_layout(found[name], rule, dialect, sizes)
    problems += [Problem("unexpected", name, str(found[name].shape)) for name in found if name not in expected]
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
    return weights, dtypes.pop()


def _in_torch_layout(weight: Weight, rule: WeightRule, dialect: Dialect, sizes: Mapping[str, int]) -> Weight:
    return Weight(rule.shape("bridge", sizes), weight.dtype, lambda: rule.move(weight.read(), dialect, "bridge", sizes))


def fitting_vocabulary(file: Path, proto: bytes, architecture: Architecture) -> Vocabulary:
    """Parse a SentencePiece model that was read from a file, and that has to fit an architecture.

    Raises:
        VocabularyError: It is not a unigram model with ALBERT's special pieces, or has more pieces than the token
            embedding has rows.
    """
    try:
        vocabulary = parse_vocabulary(proto)
    except ValueError as error:
        raise VocabularyError(file, "vocabulary", [Problem("unusable", file.name, str(error))]) from error
    if vocabulary.size > architecture.vocabulary_size:
        rows = architecture.vocabulary_size
        detail = f"expected at most {rows} pieces, as the token embedding has rows, found {vocabulary.size}"
        raise VocabularyError(file, "vocabulary", [Problem("too large", file.name, detail)])
    return vocabulary
