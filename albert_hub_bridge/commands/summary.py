"""Summarize a checkpoint for a report."""

from __future__ import annotations

from math import prod
from pathlib import Path

from albert_hub_bridge.checkpoint import Checkpoint, TokenizerSpec
from albert_hub_bridge.commands.reports import Inspection, VocabularySummary
from albert_hub_bridge.model.sentencepiece_unigram import (
    AFTER,
    TextNormalization,
)
from albert_hub_bridge.provenance.integrity import changed_files
from albert_hub_bridge.provenance.record import made_by, read_record


def describe_origin(folder: Path) -> str | None:
    record = read_record(folder)
    if record is None:
        return None
    changes = changed_files(folder, record)
    return made_by(record) + (f"; since then: {changes}" if changes else "")


def summarize_vocabulary(text: TokenizerSpec) -> VocabularySummary:
    normalization, _, inside = text.vocabulary.normalization.partition(AFTER)
    in_vocabulary = text.normalization == TextNormalization() and bool(inside)
    return VocabularySummary(
        pieces=text.vocabulary.size,
        text_normalization=inside if in_vocabulary else text.normalization.name,
        text_normalization_from="the vocabulary itself" if in_vocabulary else text.normalization_from,
        normalization_in_vocabulary=bool(inside),
        normalization=normalization,
        sequence_length=text.sequence_length,
        truncate=text.truncate,
    )


def summarize(checkpoint: Checkpoint) -> Inspection:
    text, notes = checkpoint.tokenizer, list(checkpoint.notes)
    if text is not None and AFTER in text.vocabulary.normalization:
        notes.append(
            "The text normalization are part of the vocabulary's own normalization, and stay there whatever is asked for."
        )
    positions = checkpoint.architecture.max_sequence_length
    if text is not None and (text.sequence_length or 0) > positions:
        notes.append(f"The source packs {text.sequence_length} tokens, and the model has {positions} positions.")
    return Inspection(
        source=str(checkpoint.folder),
        layout=checkpoint.layout,
        architecture=checkpoint.architecture,
        parameters=sum(prod(weight.shape) for weight in checkpoint.weights.values()),
        tensors=len(checkpoint.weights),
        bytes=checkpoint.nbytes,
        dtype=checkpoint.dtype,
        head=checkpoint.head.description if checkpoint.head is not None else None,
        vocabulary=summarize_vocabulary(text) if text is not None else None,
        dropped=tuple(checkpoint.dropped),
        ignored=tuple(checkpoint.ignored),
        notes=tuple(notes),
    )
