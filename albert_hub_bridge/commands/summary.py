"""Summarize a checkpoint for a report."""

from __future__ import annotations

from albert_hub_bridge.checkpoint import Checkpoint, TokenizerSpec
from albert_hub_bridge.choices import LayoutName, SourceLayoutName
from albert_hub_bridge.commands.reports import Inspection
from albert_hub_bridge.mapping.number_commas import splits_number_commas
from albert_hub_bridge.model.sentencepiece_unigram import AFTER, TextNormalization
from albert_hub_bridge.provenance.record import VocabularySummary


def summarize_vocabulary(tokenizer: TokenizerSpec, layout: SourceLayoutName) -> VocabularySummary:
    """Summarize a tokenizer.

    Args:
        tokenizer: Of a checkpoint.
        layout: That it was read from or is written to. In the keras layout every normalization is part of the
            vocabulary.
    """
    own, _, inside = tokenizer.vocabulary.normalization.partition(AFTER)
    has_own_rules_only = tokenizer.normalization == TextNormalization()
    before = inside if has_own_rules_only and inside else tokenizer.normalization.name
    return VocabularySummary(
        pieces=tokenizer.vocabulary.size,
        text_normalization=before,
        text_normalization_from="the vocabulary itself"
        if has_own_rules_only and inside
        else tokenizer.normalization_from,
        normalization_in_vocabulary=bool(inside) or (layout == "keras" and not has_own_rules_only),
        normalization=own,
        lower_cases=tokenizer.normalization.lower_case
        or "uncased" in before
        or tokenizer.vocabulary.normalization.endswith("_cf"),
        sequence_length=tokenizer.sequence_length,
        truncate=tokenizer.truncate,
        splits_numbers=splits_number_commas(tokenizer.vocabulary.pieces),
    )


def summarize_target(checkpoint: Checkpoint, layout: LayoutName) -> VocabularySummary | None:
    """Summarize the vocabulary of a checkpoint as it is written; None if that is no SentencePiece vocabulary alone."""
    files = checkpoint.tokenizer_files
    if checkpoint.tokenizer is None or (files is not None and files.beyond_sentencepiece and files.fit(layout)):
        return None
    return summarize_vocabulary(checkpoint.tokenizer, layout)


def summarize(checkpoint: Checkpoint) -> Inspection:
    """Summarize a checkpoint."""
    tokenizer, notes = checkpoint.tokenizer, list(checkpoint.notes)
    if tokenizer is not None and AFTER in tokenizer.vocabulary.normalization:
        notes.append(
            "The text normalization is part of the vocabulary's own normalization. --normalize does not remove it."
        )
    if checkpoint.modules is not None:
        notes.append(f"It is a model for sentence-transformers ({checkpoint.modules.description}).")
    if (files := checkpoint.tokenizer_files) is not None and files.beyond_sentencepiece:
        notes.append(f"The tokenizer is more than a SentencePiece model: {files.beyond_sentencepiece}.")
    if checkpoint.int8:
        notes.append(
            f"Its weights are quantized to int8 ({len(checkpoint.int8)} of {len(checkpoint.weights)} tensors). Linear "
            "layers of them also round their inputs to int8 when they run."
        )
    positions = checkpoint.architecture.max_sequence_length
    if tokenizer is not None and (tokenizer.sequence_length or 0) > positions:
        notes.append(
            f"The source packs inputs of {tokenizer.sequence_length} tokens, but its model has {positions} positions."
        )
    return Inspection(
        source=str(checkpoint.folder),
        layout=checkpoint.layout,
        architecture=checkpoint.architecture,
        parameters=checkpoint.parameters,
        tensors=len(checkpoint.weights),
        bytes=checkpoint.in_int8().nbytes if checkpoint.int8 else checkpoint.nbytes,
        dtype=checkpoint.source_dtype,
        head=checkpoint.head.description if checkpoint.head is not None else None,
        vocabulary=summarize_vocabulary(tokenizer, checkpoint.layout) if tokenizer is not None else None,
        dropped=tuple(checkpoint.dropped),
        ignored=tuple(checkpoint.ignored),
        notes=tuple(notes),
    )
