"""Two checkpoints compared as they were read, before anything is computed: settings, and every bit of every tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from albert_hub_bridge.mapping.heads import IMPLIED_PROBLEM_TYPES
from albert_hub_bridge.mapping.vocabulary import bake_rules, proto_from_tokenizer
from albert_hub_bridge.mapping.weights import POOLER, WeightRule
from albert_hub_bridge.model.sentencepiece_unigram import TextRules, baked_rules, parse_vocabulary
from albert_hub_bridge.stores.checkpoint import DTYPES, Checkpoint, Text, Weight
from albert_hub_bridge.stores.configurations import read_json
from albert_hub_bridge.stores.repository_text import MOST_TOKENIZER_BYTES, TOKENIZER, VOCABULARY


_BLOCK_BYTES = 4 << 20


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
    if one.text is not None and other.text is not None:
        texts = _different_text_settings(one, other, one.text, other.text)
        different |= {name: pair for name, pair in texts.items() if pair[0] != pair[1]}
        names |= dict.fromkeys(texts)
    return len(names), different


def _settings(checkpoint: Checkpoint) -> dict[str, Any]:
    fields = asdict(checkpoint.architecture) | asdict(checkpoint.variant)
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
    one: Checkpoint, other: Checkpoint, text: Text, other_text: Text
) -> dict[str, tuple[Any, Any]]:
    """Return both values of every setting of texts; of the vocabulary only a piece that differs."""
    ours, theirs = text.vocabulary, other_text.vocabulary
    rules, other_rules = _all_rules(text), _all_rules(other_text)
    settings: dict[str, tuple[Any, Any]] = {
        "text_rules": (rules.name, other_rules.name),
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
        maps = [parse_vocabulary(bake_rules(side.proto, rules)).charsmap for side in (text, other_text)]
        settings["normalization"] = (
            "that of the source",
            "that of the source" if maps[0] == maps[1] else "another map",
        )
    else:
        settings["normalization"] = ("that of the source", "that of the source")
    if (wrong := _tokenizer_file(other, other_text)) is not None:
        settings[TOKENIZER] = (f"as {VOCABULARY}", wrong)
    return settings


def _all_rules(text: Text) -> TextRules:
    """Return what happens to a text, before the vocabulary's own map or inside it."""
    return text.rules | baked_rules(text.vocabulary.normalization)


def _sequence_length(checkpoint: Checkpoint, text: Text) -> int:
    return min(text.sequence_length or 512, checkpoint.architecture.max_sequence_length)  # 512 is KerasHub's default


def _truncation(text: Text, one: Checkpoint, other: Checkpoint) -> str:
    nearest = text.truncate == "longest_first" and "keras" in (one.layout, other.layout)
    return "round_robin" if nearest else text.truncate


def _tokenizer_file(checkpoint: Checkpoint, text: Text) -> str | None:
    """Say how a repository's `tokenizer.json`, which transformers reads, contradicts the `spiece.model` beside it."""
    file = checkpoint.folder / TOKENIZER
    if checkpoint.layout not in ("bridge", "stock") or not file.is_file():
        return None
    if not (checkpoint.folder / VOCABULARY).is_file():
        return None  # it is what was read
    try:
        proto, rules = proto_from_tokenizer(read_json(file, MOST_TOKENIZER_BYTES))
        vocabulary = parse_vocabulary(proto)
    except ValueError as error:
        return f"not a SentencePiece vocabulary: {error}"
    if rules != _all_rules(text):
        return f"text rules {rules.name}"
    for index, (expected, found) in enumerate(zip(text.vocabulary.pieces, vocabulary.pieces, strict=False)):
        if expected != found:
            return f"piece {index} is {found}"
    return None if vocabulary.size == text.vocabulary.size else f"{vocabulary.size} pieces"


@dataclass(frozen=True, slots=True)
class TensorComparison:
    """Which tensors of two checkpoints are the same.

    Args:
        different: What is not, by bridge names, and how.
        tensors: How many were compared.
        values: How many values they have.
        cast: What was done to the source's values before, because the target has another dtype; or None.
        absent: Tensors that only one side has, all zeros: a pooler that KerasHub needs.
    """

    different: dict[str, str]
    tensors: int
    values: int
    cast: str | None
    absent: tuple[str, ...]


def compare_tensors(one: Checkpoint, other: Checkpoint) -> TensorComparison:
    """Read every tensor of the target back through the table, into the source's own layout, and compare the bits.

    What is compared with is what the source's file has, which did not go through the table. One tensor is held at a
    time, of which 4 MB are compared at a time.
    """
    rules = {rule.bridge: rule for side in (one, other) for rule in (*side.encoder_rules, *side.head_rules)}
    different = _not_a_bijection(one, "source", rules) | _not_a_bijection(other, "target", rules)
    absent, values = [], 0
    for name, rule in rules.items():
        ours, theirs = one.weights.get(name), other.weights.get(name)
        if ours is not None and theirs is not None:
            values += int(np.prod(ours.shape))
            if (how := _difference(rule, one, ours, theirs)) is not None:
                different[name] = how
        elif name in POOLER and not any(weight.read().any() for weight in (ours, theirs) if weight is not None):
            absent.append(name)
        else:
            sides = [side for side, weight in (("source", ours), ("target", theirs)) if weight is not None]
            different[name] = f"only in the {sides[0]}" if sides else "on neither side"
    cast = None
    if one.dtype != other.dtype:
        exact = one.dtype != "float32" and other.dtype == "float32"
        cast = f"{one.dtype} {'widened' if exact else 'rounded'} to {other.dtype}"
    if one.quantized:
        cast = "int8 divided by its scales" + (f", {cast}" if cast else "")
    return TensorComparison(dict(sorted(different.items())), len(rules) - len(absent), values, cast, tuple(absent))


def _not_a_bijection(checkpoint: Checkpoint, side: str, rules: Mapping[str, WeightRule]) -> dict[str, str]:
    """Name the weights that no row of the table has, and those that share a tensor of the file with another."""
    problems = {name: f"in the {side}, where nothing has it" for name in checkpoint.weights if name not in rules}
    taken: dict[int, str] = {}
    for name, weight in checkpoint.weights.items():
        if weight.stored is not None and (before := taken.setdefault(id(weight.stored.weight), name)) != name:
            problems[name] = f"read from {weight.stored.name} in the {side}, as {before} is"
    return problems


def _difference(rule: WeightRule, one: Checkpoint, ours: Weight, theirs: Weight) -> str | None:
    """Say how many values of a tensor are not the same, bit for bit, and which is the first; None where all are."""
    original = ours.stored.weight if ours.stored is not None else ours
    dialect = ours.stored.dialect if ours.stored is not None else "bridge"
    expected, found = original.read(), theirs.read()
    if ours.shape == theirs.shape:
        found = rule.move(found, "bridge", dialect, one.sizes)
    if expected.shape != found.shape:
        return f"{expected.shape} in the source, {found.shape} in the target"
    count, first = 0, ""
    for top, (a, b) in _blocks(expected, found):
        with np.errstate(over="ignore"):
            a = np.ascontiguousarray(a.astype(DTYPES[theirs.dtype], copy=False))  # noqa: PLW2901 (the same cast)
        b = np.ascontiguousarray(b)  # noqa: PLW2901
        bits = f"u{a.itemsize}"  # NaN and -0.0 too must be themselves
        unlike = a.view(bits) != b.view(bits)
        if found_here := int(np.count_nonzero(unlike)):
            if not count:
                place = np.unravel_index(int(np.argmax(unlike)), unlike.shape)
                index = [int(top + place[0]), *(int(each) for each in place[1:])]
                first = f"the first at {index} of the source: {float(a[place]):.9g} and {float(b[place]):.9g}"
            count += found_here
    return f"{count:,} of {expected.size:,} values differ, {first}" if count else None


def _blocks(one: np.ndarray, other: np.ndarray) -> Iterator[tuple[int, tuple[np.ndarray, np.ndarray]]]:
    rows = max(1, _BLOCK_BYTES * len(one) // one.nbytes)
    for top in range(0, len(one), rows):
        yield top, (one[top : top + rows], other[top : top + rows])
