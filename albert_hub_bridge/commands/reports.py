"""The reports of `convert` and `inspect`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from albert_hub_bridge.checkpoint import DroppedTensor, LayoutName, SourceLayoutName
from albert_hub_bridge.layouts.layout import Pooling
from albert_hub_bridge.mapping.configs import IgnoredKey
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.provenance.record import VocabularySummary


@dataclass(frozen=True, slots=True)
class Inspection:
    """The content of a preset or repository.

    Args:
        source: The folder or handle.
        layout: Its layout.
        architecture: Of its encoder.
        parameters: Number of parameters.
        tensors: Number of tensors.
        bytes: Size of all weights.
        dtype: Of the weights.
        head: Description of the head; None for an encoder alone.
        vocabulary: Its vocabulary; None without a tokenizer.
        dropped: Tensors that are not converted.
        ignored: Settings that are not converted.
        notes: Notes for the user.
        made_by: Source and tool of the conversion that made the folder, and later changes; None without a record.
    """

    source: str
    layout: SourceLayoutName
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
    made_by: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was converted, and what was not.

    Args:
        source: What was read.
        target: The folder that was made.
        layout: Its layout.
        dtype: Of its weights.
        head: Description of its head; None for an encoder alone.
        text_normalization: What happens to a text before the vocabulary's own normalization; None without a tokenizer.
        text_normalization_from: The file, library or option that defines it.
        tokenizer: The class of a tokenizer whose files were carried over as they are; None if it was converted.
        dropped_tokenizer: Whether what is no SentencePiece vocabulary of the tokenizer was dropped.
        changed_texts: Number of sample texts that have other ids than in the source; None if that was not compared.
        sample_size: Number of sample texts.
        sentence_transformers: How the target pools for sentence-transformers; None if it is no model for it.
        dropped: Tensors that were not converted.
        ignored: Settings that were not converted.
        notes: Notes for the user, on the source and the conversion.
    """

    source: Inspection
    target: str
    layout: LayoutName
    dtype: str
    head: str | None
    text_normalization: str | None
    text_normalization_from: str | None
    tokenizer: str | None
    dropped_tokenizer: bool
    changed_texts: int | None
    sample_size: int
    sentence_transformers: Pooling | None
    dropped: Sequence[DroppedTensor]
    ignored: Sequence[IgnoredKey]
    notes: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return asdict(self)
