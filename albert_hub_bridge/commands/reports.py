"""The reports of `convert` and `inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from albert_hub_bridge.checkpoint import DroppedTensor, Layout, SourceLayout
from albert_hub_bridge.layouts.layout import Pooling
from albert_hub_bridge.mapping.configs import IgnoredKey
from albert_hub_bridge.model.architecture import Architecture


@dataclass(frozen=True, slots=True)
class VocabularySummary:
    """What a vocabulary is, and what happens to texts before it."""

    pieces: int
    text_normalization: str  # what happens first: "none" for nothing, "uncased", ...
    text_normalization_from: str  # who says so
    normalization_in_vocabulary: bool  # whether that is part of the vocabulary's own normalization, where it stays
    normalization: str  # what the vocabulary does then
    sequence_length: int | None
    truncate: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a folder holds."""

    source: str
    layout: SourceLayout
    architecture: Architecture
    parameters: int
    tensors: int
    bytes: int
    dtype: str
    head: str | None
    vocabulary: VocabularySummary | None
    dropped: Sequence[DroppedTensor]
    ignored: Sequence[IgnoredKey]
    notes: Sequence[str]
    made_by: str | None = None  # what `conversion.json` says of where it comes from

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was converted, and what was not.

    Args:
        source: What was read.
        target: The folder that was made.
        layout: Its layout.
        dtype: Of its weights.
        head: What is on its encoder, or None.
        text_normalization: Of the target: the source's, or those that were asked for.
        text_normalization_from: Who says so.
        changed_texts: How many of the sample texts become other ids than in the source; None without a vocabulary.
        sample_size: How many sample texts there are.
        sentence_transformers: How the target pools for sentence-transformers; None where it is no model for it.
        dropped: Tensors of the source that are not in the target.
        notes: What else the user should know, of the source and of the conversion.
    """

    source: Inspection
    target: str
    layout: Layout
    dtype: str
    head: str | None
    text_normalization: str | None
    text_normalization_from: str | None
    changed_texts: int | None
    sample_size: int
    sentence_transformers: Pooling | None
    dropped: Sequence[DroppedTensor]
    notes: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return asdict(self)
