"""Check that two checkpoints have the same settings: architecture, head and tokenizer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from albert_hub_bridge.checkpoint import Checkpoint, TokenizerSpec
from albert_hub_bridge.disk.regular_files import read_bytes
from albert_hub_bridge.disk.strict_json import read_json
from albert_hub_bridge.layouts.hub.files import TOKENIZER, VOCABULARY
from albert_hub_bridge.layouts.hub.tokenizer_files import MAX_TOKENIZER_BYTES, different_files
from albert_hub_bridge.mapping.heads import IMPLIED_PROBLEM_TYPES, LABELED_HEADS
from albert_hub_bridge.mapping.number_commas import is_number_comma
from albert_hub_bridge.mapping.tokenizer_json import proto_from_tokenizer
from albert_hub_bridge.mapping.vocabulary import bake_normalization
from albert_hub_bridge.model.sentencepiece_unigram import TextNormalization, baked_normalization, parse_vocabulary
from albert_hub_bridge.verification.report import SettingsCheck


HEAD_EPSILON, LABELS = "masked_lm_layer_norm_epsilon", "labels"

Pairs = dict[str, tuple[Any, Any]]  # the source's and the target's value of each setting


def check_settings(source: Checkpoint, target: Checkpoint, allowed: Collection[str] = ()) -> SettingsCheck:
    """Compare all settings of two checkpoints. A tokenizer is compared only if both sides have one.

    Args:
        source: The source.
        target: The target.
        allowed: Names of settings that may differ.
    """
    pairs = _model_settings(source, target) | _extensions(source, target)
    if source.tokenizer is not None and target.tokenizer is not None:
        pairs |= _tokenizer_settings(source, target, source.tokenizer, target.tokenizer)
    different = {name: pair for name, pair in pairs.items() if pair[0] != pair[1] and name not in allowed}
    return SettingsCheck(
        summary=f"{len(pairs)} settings",
        failures=tuple(f"{name}: {a!r} in the source, {b!r} in the target" for name, (a, b) in different.items()),
        different_fields=different,
    )


def _model_settings(source: Checkpoint, target: Checkpoint) -> Pairs:
    settings = _settings_of(source), _settings_of(target)
    names = dict.fromkeys([*settings[0], *settings[1]])
    if _involves_keras(source, target):
        names.pop("problem_type", None)  # KerasHub cannot store it
    if None in (settings[0].get(LABELS), settings[1].get(LABELS)):
        names.pop(LABELS, None)  # LABEL_0, LABEL_1, ... are no names; the description of the head has their number
    return {name: (settings[0].get(name), settings[1].get(name)) for name in names}


def _extensions(source: Checkpoint, target: Checkpoint) -> Pairs:
    """Return what tokenizers have that no SentencePiece model can hold, if one has it, and the files that differ."""
    files, others = source.tokenizer_files, target.tokenizer_files
    beyond = [each.beyond_sentencepiece if each is not None else "" for each in (files, others)]
    if not any(beyond) or not (source.has_tokenizer and target.has_tokenizer):
        return {}
    pairs: Pairs = {"tokenizer": (beyond[0] or "a SentencePiece vocabulary", beyond[1] or "a SentencePiece vocabulary")}
    if files is not None and others is not None:
        pairs |= dict.fromkeys(different_files(files, others), ("the source's", "another one"))
    return pairs


def _settings_of(checkpoint: Checkpoint) -> dict[str, Any]:
    settings = asdict(checkpoint.architecture)
    head = checkpoint.head
    settings["head"] = head.description if head is not None else None
    if head is not None:
        if head.kind in LABELED_HEADS:
            settings[LABELS] = head.labels
        if head.kind not in ("masked_lm", "question_answering"):
            settings["classifier_dropout"] = head.dropout if head.dropout is not None else settings["dropout"]
        if checkpoint.layout != "keras":
            settings["problem_type"] = head.problem_type or IMPLIED_PROBLEM_TYPES[head.activation]
    if checkpoint.head_epsilon is not None:
        settings[HEAD_EPSILON] = checkpoint.head_epsilon
    return settings


def _tokenizer_settings(
    source: Checkpoint, target: Checkpoint, source_tokenizer: TokenizerSpec, target_tokenizer: TokenizerSpec
) -> Pairs:
    """Return the settings of both tokenizers. Of the pieces, return the number and the first that differs."""
    as_keras = _involves_keras(source, target)
    source_settings = _settings_of_tokenizer(source, source_tokenizer, as_keras)
    target_settings = _settings_of_tokenizer(target, target_tokenizer, as_keras)
    pairs: Pairs = {name: (source_settings[name], target_settings[name]) for name in source_settings}
    pieces = zip(source_tokenizer.vocabulary.pieces, target_tokenizer.vocabulary.pieces, strict=False)
    different = ((index, pair) for index, pair in enumerate(pieces) if pair[0] != pair[1])
    if (first := next(different, None)) is not None:
        index, pair = first
        pairs[f"piece {index}"] = pair
    same = _have_same_character_map(source_tokenizer, target_tokenizer)
    pairs["normalization"] = (
        "the source's character map",
        "the source's character map" if same else "another character map",
    )
    files, others = source.tokenizer_files, target.tokenizer_files
    is_carried = files is not None and others is not None and TOKENIZER not in different_files(files, others)
    if not is_carried and (found := _contradiction_in_tokenizer_file(target, target_tokenizer)) is not None:
        pairs[TOKENIZER] = f"the pieces of {VOCABULARY}", f"a {TOKENIZER} with {found}"
    return pairs


def _settings_of_tokenizer(checkpoint: Checkpoint, tokenizer: TokenizerSpec, as_keras: bool) -> dict[str, Any]:
    vocabulary, truncate = tokenizer.vocabulary, tokenizer.truncate
    if as_keras and truncate == "longest_first":
        truncate = "round_robin"  # the nearest that KerasHub has
    length = tokenizer.sequence_length or 512  # KerasHub's default
    sides = {} if as_keras else {"padding_side": tokenizer.padding_side, "truncation_side": tokenizer.truncation_side}
    return {
        **sides,
        "text_normalization": _full_normalization(tokenizer).name,
        "special_ids": vocabulary.special_ids,
        "add_dummy_prefix": vocabulary.add_dummy_prefix,
        "remove_extra_whitespaces": vocabulary.remove_extra_whitespaces,
        "pieces": vocabulary.size,
        "sequence_length": min(length, checkpoint.architecture.max_sequence_length),
        "truncate": truncate,
    }


def _full_normalization(tokenizer: TokenizerSpec) -> TextNormalization:
    """Return the text normalization that is applied before the vocabulary's character map or inside it."""
    return tokenizer.normalization | baked_normalization(tokenizer.vocabulary.normalization)


def _have_same_character_map(source: TokenizerSpec, target: TokenizerSpec) -> bool:
    """Return whether both vocabularies map characters alike. Text normalization has a setting of its own."""
    normalization = _full_normalization(source)
    if normalization != _full_normalization(target) or source.vocabulary.charsmap == target.vocabulary.charsmap:
        return True
    # One side may have the normalization in its map, and the other before its map. Put it into both maps.
    maps = [parse_vocabulary(bake_normalization(side.proto, normalization)).charsmap for side in (source, target)]
    return maps[0] == maps[1]


def _contradiction_in_tokenizer_file(checkpoint: Checkpoint, tokenizer: TokenizerSpec) -> str | None:
    """Return how a repository's `tokenizer.json` contradicts its `spiece.model`; None if it does not.

    transformers reads `tokenizer.json`, and KerasHub `spiece.model`.
    """
    file = checkpoint.folder / TOKENIZER
    if checkpoint.layout not in ("albert_hub", "transformers") or not file.is_file():
        return None
    if not (checkpoint.folder / VOCABULARY).is_file():
        return None
    try:
        proto, normalization = proto_from_tokenizer(read_json(file, MAX_TOKENIZER_BYTES))
        vocabulary = parse_vocabulary(proto)
        in_file = parse_vocabulary(read_bytes(checkpoint.folder / VOCABULARY, MAX_TOKENIZER_BYTES))
    except ValueError as error:
        return f"not a SentencePiece vocabulary: {error}"
    if normalization != _full_normalization(tokenizer):
        return f"text normalization {normalization.name}"
    for index, (expected, found) in enumerate(zip(in_file.pieces, vocabulary.pieces, strict=False)):
        # transformers lowers the scores of numbers with a comma in tokenizer.json alone.
        if expected != found and not (expected[0] == found[0] and is_number_comma(found[0])):
            return f"piece {index} is {found}"
    return None if vocabulary.size == in_file.size else f"{vocabulary.size} pieces"


def _involves_keras(source: Checkpoint, target: Checkpoint) -> bool:
    return "keras" in (source.layout, target.layout)
