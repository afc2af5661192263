"""Compare the settings of two checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from albert_hub_bridge.checkpoint import Checkpoint, TokenizerSpec
from albert_hub_bridge.disk.strict_json import read_json
from albert_hub_bridge.layouts.hub.files import TOKENIZER, VOCABULARY
from albert_hub_bridge.layouts.hub.tokenizer import MAX_TOKENIZER_BYTES
from albert_hub_bridge.mapping.heads import IMPLIED_PROBLEM_TYPES
from albert_hub_bridge.mapping.vocabulary import bake_normalization, proto_from_tokenizer
from albert_hub_bridge.model.sentencepiece_unigram import TextNormalization, baked_normalization, parse_vocabulary
from albert_hub_bridge.verification.report import Check


def compare_settings(one: Checkpoint, other: Checkpoint) -> tuple[int, dict[str, tuple[Any, Any]]]:
    """Compare what two checkpoints say they are, and what they do to texts.

    Returns:
        How many settings were compared, and those that differ, with both values.
    """
    ours, theirs = _settings(one), _settings(other)
    names = dict.fromkeys([*ours, *theirs])
    if "keras" in (one.layout, other.layout):
        names.pop("problem_type", None)  # which it has no place for
    different = {name: (ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)}
    if one.tokenizer is not None and other.tokenizer is not None:
        texts = _different_text_settings(one, other, one.tokenizer, other.tokenizer)
        different |= {name: pair for name, pair in texts.items() if pair[0] != pair[1]}
        names |= dict.fromkeys(texts)
    return len(names), different


def _settings(checkpoint: Checkpoint) -> dict[str, Any]:
    fields = asdict(checkpoint.architecture)
    head = checkpoint.head
    fields["head"] = head.description if head is not None else None
    if head is not None and head.kind in ("sequence_classification", "token_classification"):
        fields["labels"] = head.label_names
    if head is not None and head.kind not in ("masked_lm", "question_answering"):
        fields["classifier_dropout"] = head.dropout if head.dropout is not None else fields["dropout"]
    if head is not None and checkpoint.layout != "keras":  # which has no place for it, or implies it
        fields["problem_type"] = head.problem_type or IMPLIED_PROBLEM_TYPES[head.activation]
    if checkpoint.head_epsilon is not None:
        fields["masked_lm_layer_norm_epsilon"] = checkpoint.head_epsilon
    return fields


def _different_text_settings(
    one: Checkpoint, other: Checkpoint, text: TokenizerSpec, other_text: TokenizerSpec
) -> dict[str, tuple[Any, Any]]:
    """Return both values of every setting of texts; of the vocabulary only a piece that differs."""
    ours, theirs = text.vocabulary, other_text.vocabulary
    rules, other_rules = _all_rules(text), _all_rules(other_text)
    settings: dict[str, tuple[Any, Any]] = {
        "text_normalization": (rules.name, other_rules.name),
        "special_ids": (ours.special_ids, theirs.special_ids),
        "add_dummy_prefix": (ours.add_dummy_prefix, theirs.add_dummy_prefix),
        "remove_extra_whitespaces": (ours.remove_extra_whitespaces, theirs.remove_extra_whitespaces),
        "pieces": (ours.size, theirs.size),
        "sequence_length": (_sequence_length(one, text), _sequence_length(other, other_text)),
        "truncate": (_truncation(text, one, other), _truncation(other_text, one, other)),
    }
    different = (
        index for index, pair in enumerate(zip(ours.pieces, theirs.pieces, strict=False)) if pair[0] != pair[1]
    )
    if (index := next(different, None)) is not None:
        settings[f"piece {index}"] = (ours.pieces[index], theirs.pieces[index])
    if rules == other_rules and ours.charsmap != theirs.charsmap:
        # Rules are in the map of one side, and before it on the other: put them into both.
        maps = [parse_vocabulary(bake_normalization(side.proto, rules)).charsmap for side in (text, other_text)]
        settings["normalization"] = (
            "that of the source",
            "that of the source" if maps[0] == maps[1] else "another map",
        )
    else:
        settings["normalization"] = ("that of the source", "that of the source")
    if (wrong := _tokenizer_file(other, other_text)) is not None:
        settings[TOKENIZER] = (f"as {VOCABULARY}", wrong)
    return settings


def _all_rules(text: TokenizerSpec) -> TextNormalization:
    """Return what happens to a text, before the vocabulary's own map or inside it."""
    return text.normalization | baked_normalization(text.vocabulary.normalization)


def _sequence_length(checkpoint: Checkpoint, text: TokenizerSpec) -> int:
    return min(text.sequence_length or 512, checkpoint.architecture.max_sequence_length)  # 512 is KerasHub's default


def _truncation(text: TokenizerSpec, one: Checkpoint, other: Checkpoint) -> str:
    nearest = text.truncate == "longest_first" and "keras" in (one.layout, other.layout)
    return "round_robin" if nearest else text.truncate


def _tokenizer_file(checkpoint: Checkpoint, text: TokenizerSpec) -> str | None:
    """Say how a repository's `tokenizer.json`, which transformers reads, contradicts the `spiece.model` beside it."""
    file = checkpoint.folder / TOKENIZER
    if checkpoint.layout not in ("albert_hub", "transformers") or not file.is_file():
        return None
    if not (checkpoint.folder / VOCABULARY).is_file():
        return None  # it is what was read
    try:
        proto, rules = proto_from_tokenizer(read_json(file, MAX_TOKENIZER_BYTES))
        vocabulary = parse_vocabulary(proto)
    except ValueError as error:
        return f"not a SentencePiece vocabulary: {error}"
    if rules != _all_rules(text):
        return f"text normalization {rules.name}"
    for index, (expected, found) in enumerate(zip(text.vocabulary.pieces, vocabulary.pieces, strict=False)):
        if expected != found:
            return f"piece {index} is {found}"
    return None if vocabulary.size == text.vocabulary.size else f"{vocabulary.size} pieces"


def check_settings(compared: int, different: Mapping[str, tuple[Any, Any]]) -> Check:
    pairs = different.items()
    failures = [f"{name}: {ours!r} in the source, {theirs!r} in the target" for name, (ours, theirs) in pairs]
    return Check.of(f"{compared} settings", failures)
