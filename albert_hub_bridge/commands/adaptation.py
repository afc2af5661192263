"""Adapt a checkpoint to the options of a conversion, of files or in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.choices import PRESET_LAYOUTS
from albert_hub_bridge.commands.labels import parse_labels, with_labels
from albert_hub_bridge.commands.options import ConvertOptions
from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.layouts.hub.sentence_transformers import encoder_of
from albert_hub_bridge.layouts.keras.compatibility import (
    with_approximate_gelu,
    with_cut_out_pieces,
    with_heads_of_keras,
    without_other_tokenizer,
)
from albert_hub_bridge.layouts.keras.importer import for_the_importer
from albert_hub_bridge.mapping.configs import SAME_ACTIVATION
from albert_hub_bridge.mapping.number_commas import split_number_commas
from albert_hub_bridge.model.sentencepiece_unigram import NAMED_NORMALIZATIONS


def adapt(checkpoint: Checkpoint, options: ConvertOptions, source: str | Path) -> Checkpoint:
    """Return the checkpoint to write: with the dtype, the normalization and the head that the options ask for.

    Args:
        checkpoint: As it was read. It is not changed.
        options: Of the conversion.
        source: Its name, for error messages.

    Raises:
        SourceError: The source has no vocabulary to normalize for, is no encoder for sentence-transformers, or
            has another activation than the option names.
        ConfigurationError: KerasHub's importer would not read all of it, without weights of its own.
    """
    adapted = checkpoint
    if options.dtype == "int8":
        adapted = _in_int8(adapted, source)
    elif options.dtype not in (None, checkpoint.dtype):
        adapted = adapted.cast(str(options.dtype))
    if options.drop_tokenizer and (options.to in PRESET_LAYOUTS or options.normalize != "keep"):
        adapted = without_other_tokenizer(adapted)
    if options.normalize != "keep":
        adapted = _with_normalization(adapted, options.normalize, source)
    if options.allow_approximate_gelu:
        adapted = with_approximate_gelu(adapted)
    if options.hidden_act is not None:
        _check_activation(adapted, options.hidden_act, source)
    if options.to == "keras":
        adapted = with_cut_out_pieces(adapted)
    if options.drop_head and options.to in PRESET_LAYOUTS:
        adapted = with_heads_of_keras(adapted)
    if options.labels is not None:
        adapted = with_labels(adapted, parse_labels(options.labels), source)
    if options.sentence_transformers is not None:
        adapted = encoder_of(adapted, source, options.drop_head)
    if options.no_duplicate_weights:
        adapted = for_the_importer(adapted)
    return adapted


def _in_int8(checkpoint: Checkpoint, source: str | Path) -> Checkpoint:
    if not checkpoint.int8:
        raise SourceError(
            f"{source} has no int8 weights: they are {checkpoint.dtype}. --dtype int8 (dtype='int8') keeps those of a "
            "preset that KerasHub quantized. Quantize the model there first: model.quantize('int8')."
        )
    return checkpoint.in_int8()


def _check_activation(checkpoint: Checkpoint, name: str, source: str | Path) -> None:
    """Refuse a name of the activation that stands for another function."""
    found = checkpoint.architecture.activation
    if SAME_ACTIVATION.get(name, name) != found:
        raise SourceError(
            f"The activation of {source} is {found}, and {name} is another function. Leave out --hidden-act "
            "(hidden_act=...)."
        )


def _with_normalization(checkpoint: Checkpoint, name: str, source: str | Path) -> Checkpoint:
    files = checkpoint.tokenizer_files
    if files is not None and files.beyond_sentencepiece:
        rest = ", or pass --drop-tokenizer (drop_tokenizer=True) to keep the SentencePiece vocabulary alone"
        raise SourceError(
            f"The tokenizer of {source} is carried over as it is ({files.beyond_sentencepiece}), so its text "
            "normalization cannot be changed. Leave out --normalize (normalize=...)"
            f"{rest if checkpoint.tokenizer is not None else ''}."
        )
    if checkpoint.tokenizer is None:
        raise SourceError(
            f"{source} has no vocabulary that can be read, so its text normalization cannot be changed. "
            "Leave out --normalize (normalize=...)."
        )
    tokenizer = replace(
        checkpoint.tokenizer,
        normalization=NAMED_NORMALIZATIONS[name],
        normalization_from="the option normalize",
    )
    if name == "uncased":
        tokenizer = tokenizer.with_proto(split_number_commas(tokenizer.proto))
    return replace(checkpoint, tokenizer=tokenizer, tokenizer_files=None)
