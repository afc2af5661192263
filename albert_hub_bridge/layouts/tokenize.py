"""Tokenize as a layout's own library does."""

from __future__ import annotations

from collections.abc import Sequence

from albert_hub_bridge.checkpoint import TokenizerSpec
from albert_hub_bridge.choices import TRANSFORMERS_LAYOUTS, SourceLayoutName
from albert_hub_bridge.mapping.vocabulary import bake_normalization
from albert_hub_bridge.model.sentencepiece_unigram import TextNormalization, build_tokenizer, parse_vocabulary


def tokenize(tokenizer: TokenizerSpec, layout: SourceLayoutName, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of each text, without special tokens.

    Args:
        tokenizer: The tokenizer of a checkpoint.
        layout: The layout that the ids are for. A preset has its normalization in the vocabulary. A repository has it
            in the pipeline of `tokenizer.json`.
        texts: The texts.
    """
    processor = tokenizer.vocabulary.processor
    if layout == "keras":
        processor = parse_vocabulary(bake_normalization(tokenizer.proto, tokenizer.normalization)).processor
    elif layout in TRANSFORMERS_LAYOUTS or tokenizer.normalization != TextNormalization():
        pipeline = build_tokenizer(tokenizer.vocabulary, tokenizer.normalization)
        return [encoding.ids for encoding in pipeline.encode_batch(list(texts), add_special_tokens=False)]
    return [list(ids) for ids in processor.encode(list(texts))]
