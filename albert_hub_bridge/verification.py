"""The proof: two presets or repositories compared, each computed by the library that its layout is meant for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from albert_hub_bridge.errors import first_few
from albert_hub_bridge.mapping.heads import IMPLIED_PROBLEM_TYPES
from albert_hub_bridge.mapping.weights import POOLER
from albert_hub_bridge.provenance import read_record
from albert_hub_bridge.reports import Verification
from albert_hub_bridge.stores.checkpoint import DTYPES, Checkpoint, Text
from albert_hub_bridge.stores.keras_preset import with_heads_of_keras
from albert_hub_bridge.stores.layouts import pull, read_checkpoint


# How many texts are compared layer by layer, because what every layer gives is kept at once.
LAYERWISE_TEXTS = 8

# Texts that tell libraries apart: case, accents, quotes, numbers, spaces, several scripts, unknown characters.
SAMPLE_TEXTS = (
    "ALBERT shares one set of weights between all of its layers.",
    "the river rose by two feet overnight, and nobody slept.",
    "Prices went from £3.50 to €4.20 (about 20 % more).",
    "Crème brûlée, façade, Ångström, naïve: accents everywhere!",
    "``Old quotes'' and \"new ones\" are not the same.",
    "two  spaces,\ta tab\nand a line break",
    "日本語と русский текст 🙂",
    "a",
)


def verify(
    source: str | Path, target: str | Path, *, texts: Sequence[str] = SAMPLE_TEXTS, tolerance: float = 1e-5
) -> Verification:
    """Compare two presets or repositories: configurations, tensors bit by bit, ids, and the numbers they compute.

    Each side is computed by the library that its layout is meant for: keras_hub for a preset (or this package's
    `AlbertBackbone`, where keras_hub is not installed), `AutoModel` with this package for the bridge layout, and
    transformers alone for the stock layout. Both compute in float32, on the source's ids, padded to the longest.

    Args:
        source: A folder.
        target: A folder.
        texts: What goes in.
        tolerance: The largest absolute difference of outputs that passes.

    Raises:
        SourceError, CheckpointError: A folder cannot be found, or is wrong.
        EngineError: A side's own library cannot load or compute it.
        ValueError: There are no texts.
    """
    from albert_hub_bridge.engines import open_engine, pack

    if not texts:
        raise ValueError("verify needs at least one text.")
    with read_checkpoint(pull(source).folder) as whole, read_checkpoint(pull(target).folder) as other:
        left_out = _left_out(whole, other)
        one = with_heads_of_keras(whole) if left_out else whole
        different_fields = _different_fields(one, other)
        epsilons = [checkpoint.head_epsilon for checkpoint in (one, other)]
        different_tensors = _different_tensors(one, other)
        engines = open_engine(one), open_engine(other)
        longest = min(_longest(one), _longest(other))
    notes = [f"Left out of the target, as its conversion.json says: {first_few(left_out, 3)}."] if left_out else []
    if different_fields.pop("masked_lm_layer_norm_epsilon", None) and epsilons[0] and epsilons[1]:
        # A layout's own library forces it, which convert said; all the rest still has to be the same.
        common = epsilons[0] if engines[1].use_epsilon(epsilons[0]) else epsilons[1]
        engines[0].use_epsilon(common)
        notes.append(
            f"The masked-LM head's epsilon is {epsilons[0]:g} and {epsilons[1]:g}, as each layout's library has it; "
            f"compared with {common:g} on both sides."
        )
    ids, other_ids = (engine.tokenize(texts) for engine in engines)
    differences: dict[str, float] = {}
    layers: tuple[float, ...] = ()
    if one.architecture == replace(other.architecture, dropout=one.architecture.dropout):  # else not one function
        # Where neither side has a vocabulary, any ids will do to compare the numbers.
        size = one.architecture.vocabulary_size
        rows = ids or other_ids or [[index % size for index in range(40)], [size - 1]]
        inputs = pack(rows, _special_ids(one, other), one.architecture.num_segments, longest)
        outputs, other_outputs = (engine.compute(inputs) for engine in engines)
        comparable = [n for n in outputs if n in other_outputs and outputs[n].shape == other_outputs[n].shape]
        differences = {name: float(np.max(np.abs(outputs[name] - other_outputs[name]))) for name in comparable}
        first = {name: array[:LAYERWISE_TEXTS] for name, array in inputs.items()}
        states, other_states = (engine.hidden_states(first) for engine in engines)
        layers = tuple(np.abs(states - other_states).max(axis=(1, 2, 3)).tolist())
    compared = list(zip(texts, ids or [], other_ids or [], strict=False))
    differing = [(text, row, other_row) for text, row, other_row in compared if row != other_row]
    return Verification(
        source=str(source),
        target=str(target),
        source_engine=engines[0].name,
        target_engine=engines[1].name,
        texts=len(texts),
        different_fields=different_fields,
        different_tensors=different_tensors,
        vocabularies=(ids is not None, other_ids is not None),
        different_ids=len(differing),
        first_difference=_piece_by_piece(differing[0], one.text or other.text) if differing else None,
        max_abs_difference=differences,
        tolerance=tolerance,
        notes=tuple(notes),
        layer_differences=layers,
    )


def _left_out(one: Checkpoint, other: Checkpoint) -> list[str]:
    """Name the tensors of the source's head that the target was made without, as KerasHub has no place for them."""
    record = read_record(other.folder) if other.layout == "keras" else None
    dropped = {tensor["name"] for tensor in record["dropped"]} if record is not None else set()
    return sorted({rule.bridge for rule in one.head_rules} & set(one.weights) & dropped)


def _piece_by_piece(differing: tuple[str, list[int], list[int]], text: Text | None) -> dict[str, Any]:
    """Show a text and both sides' pieces, from the first that differs on."""
    typed, *sides = differing
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*sides, strict=False)))
    pieces = text.vocabulary.pieces if text is not None else ()
    named = [[pieces[i][0] if i < len(pieces) else str(i) for i in side[same : same + 8]] for side in sides]
    return {"text": typed, "from piece": same, "source": named[0], "target": named[1]}


def _different_fields(one: Checkpoint, other: Checkpoint) -> dict[str, tuple[Any, Any]]:
    ours, theirs = _comparable_fields(one), _comparable_fields(other)
    names = dict.fromkeys([*ours, *theirs])
    if "keras" in (one.layout, other.layout):
        names.pop("problem_type", None)
    return {name: (ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)}


def _comparable_fields(checkpoint: Checkpoint) -> dict[str, Any]:
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


def _different_tensors(one: Checkpoint, other: Checkpoint) -> list[str]:
    """Name the tensors that are not the same, bit for bit."""

    def differs(name: str) -> bool:
        if name not in one.weights or name not in other.weights:
            return True
        ours, theirs = one.weights[name], other.weights[name]
        if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            return True
        bits = f"V{DTYPES[ours.dtype].itemsize}"  # NaN and -0.0 too must be themselves
        return not np.array_equal(
            np.ascontiguousarray(ours.read()).view(bits), np.ascontiguousarray(theirs.read()).view(bits)
        )

    compared = {*one.weights, *other.weights}
    if one.has_pooler != other.has_pooler:
        compared -= POOLER
    return sorted(name for name in compared if differs(name))


def _longest(checkpoint: Checkpoint) -> int:
    """Return how many ids a packed input of a checkpoint can have."""
    limits = [checkpoint.architecture.max_sequence_length]
    if checkpoint.text is not None and checkpoint.text.sequence_length is not None:
        limits.append(checkpoint.text.sequence_length)
    return min(limits)


def _special_ids(*checkpoints: Checkpoint) -> dict[str, int]:
    for checkpoint in checkpoints:
        if checkpoint.text is not None:
            return checkpoint.text.vocabulary.special_ids
    return {"pad": 0, "cls": 0, "sep": 0}
