"""What KerasHub's own importer reads of a repository for transformers: an encoder, and its `spiece.model`.

Source:
    keras_hub/src/utils/transformers/convert_albert.py, and preset_loader.py beside it.
"""

from __future__ import annotations

from dataclasses import replace

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.layouts.keras.compatibility import with_pooler
from albert_hub_bridge.layouts.keras.files import CONFIG
from albert_hub_bridge.layouts.keras.preset import check_supported
from albert_hub_bridge.mapping.vocabulary import bake_normalization
from albert_hub_bridge.model.sentencepiece_unigram import TextNormalization


_ADVICE = "Leave out --no-duplicate-weights (no_duplicate_weights=True): KerasHub's own files hold it."


def for_the_importer(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint as a repository of transformers has to have it, for the importer to read it exactly.

    It has a pooler, and its text normalization is compiled into the vocabulary: the importer applies no other.

    Raises:
        ConfigurationError: The importer would leave out something, or compute otherwise; all reasons are listed.
    """
    check_supported(checkpoint)
    problems = []
    if checkpoint.head is not None:
        detail = f"expected an encoder alone, found a {checkpoint.head.description}: the importer reads no head"
        problems.append(Problem("unsupported", "head", detail))
    if checkpoint.dtype != "float32":
        detail = f"expected 'float32', found {checkpoint.dtype!r}: the importer makes every model in float32"
        problems.append(Problem("unsupported value", "dtype", detail))
    if problems:
        raise ConfigurationError(
            checkpoint.folder / CONFIG, "configuration, for KerasHub's importer,", problems, _ADVICE
        )
    checkpoint, tokenizer = with_pooler(checkpoint), checkpoint.tokenizer
    if tokenizer is not None:
        proto = bake_normalization(tokenizer.proto, tokenizer.normalization)
        tokenizer = replace(tokenizer.with_proto(proto), normalization=TextNormalization())
    return replace(checkpoint, tokenizer=tokenizer, tokenizer_files=None)
