"""Check that both sides give the same token ids for texts, and the same outputs for those ids."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, takewhile
from typing import Any

import numpy as np

from albert_hub_bridge.checkpoint import TokenizerSpec
from albert_hub_bridge.verification.differences import (
    Comparison,
    Difference,
    compare_engines,
    largest,
    row_differences,
    worst,
)
from albert_hub_bridge.verification.engines.common import pack
from albert_hub_bridge.verification.front_door import FrontDoor, Pair, check_front_door
from albert_hub_bridge.verification.report import TextsCheck
from albert_hub_bridge.verification.side import Side


BATCH = 8  # Texts of a batch. Each batch is as long as its longest text.
LAYERWISE_TEXTS = 2  # Computing all layers takes as long as computing the outputs, and only locates a difference.

Ids = list[list[int]] | None  # the ids of each text; None without a vocabulary


def check_texts(
    source: Side,
    target: Side,
    texts: Sequence[str],
    pairs: Sequence[Pair],
    tolerance: float,
    *,
    comparable: bool,
    by_rules: bool,
) -> TextsCheck:
    """Compare token ids, the outputs of both engines on the same ids, and what users get for texts and pairs.

    Both engines get the source's ids; the target's ids if the source has no vocabulary; generated ids if neither has.

    Args:
        source: The source.
        target: The target.
        texts: The texts, with those of the pairs.
        pairs: Pairs of these texts.
        tolerance: The largest relative difference of outputs that passes.
        comparable: Whether both architectures compute the same function. Otherwise only ids are compared.
        by_rules: Whether a side's ids are those of ALBERT's rules, and not what transformers makes of its files.
    """
    source_ids, target_ids = source.engine.tokenize(texts), target.engine.tokenize(texts)
    both = zip(texts, source_ids or [], target_ids or [], strict=False)
    different = [(text, ids, other_ids) for text, ids, other_ids in both if ids != other_ids]
    outputs, layers = _compare_outputs(source, target, source_ids or target_ids, tolerance) if comparable else ({}, ())
    vocabularies = source_ids is not None, target_ids is not None
    found = FrontDoor()
    if all(vocabularies):
        others = {text for text, *_ in different}
        same, same_pairs = [text for text in texts if text not in others], [p for p in pairs if not others & {*p}]
        found = check_front_door(source, target, same, same_pairs, tolerance, comparable)
        if found.features is not None:
            outputs |= {"sequence_output": worst([outputs["sequence_output"], found.features])}
    which = None if different or found.failures else "all with the same ids"
    if which and by_rules:
        which += " by ALBERT's rules"
    elif which and found.notes:
        which += " before they are cut, padded or paired"
    result = worst(outputs.values()) if outputs else None
    failures = []
    if vocabularies[0] != vocabularies[1]:
        failures.append(f"only the {'source' if vocabularies[0] else 'target'} has a vocabulary")
    if different:
        failures.append(f"{len(different)} of {len(texts)} texts have different ids, the first is {different[0][0]!r}")
    failures += [f"{name} differs: {comparison}" for name, comparison in outputs.items() if not comparison.passes]
    failures += found.failures
    tokenizer = source.checkpoint.tokenizer or target.checkpoint.tokenizer
    return TextsCheck(
        summary=_summary(f"{len(texts)} texts and {len(pairs)} pairs", vocabularies, which, comparable),
        largest=result.difference if result is not None else None,
        limit=tolerance if result is not None else None,
        rounding=result.rounding if result is not None else None,
        failures=tuple(failures),
        not_measured=(
            *(() if any(vocabularies) else ("ids: neither side has a vocabulary",)),
            *(result.caveat if result is not None else ()),
        ),
        texts=len(texts),
        vocabularies=vocabularies,
        different_ids=len(different),
        first_difference=_first_difference(*different[0], tokenizer) if different else None,
        outputs={name: comparison.difference for name, comparison in outputs.items()},
        layers=layers,
        remarks=tuple(found.notes),
    )


def texts_and_pairs(texts: Sequence[str | Pair]) -> tuple[list[str], list[Pair]]:
    """Return all texts, with those of the pairs, and the pairs. Without pairs, each text and the next one are one."""
    pairs = [each for each in texts if not isinstance(each, str)]
    flat = [text for each in texts for text in ([each] if isinstance(each, str) else each)]
    return flat, pairs or list(pairwise(flat))


def _compare_outputs(
    source: Side, target: Side, ids: Ids, tolerance: float
) -> tuple[dict[str, Comparison], tuple[Difference, ...]]:
    """Return the worst comparison of each output, and the largest difference of each layer on the first texts."""
    size = source.checkpoint.architecture.vocabulary_size
    rows = ids or [[index % size for index in range(40)], [size - 1]]
    outputs: dict[str, Comparison] = {}
    for start in range(0, len(rows), BATCH):
        inputs = _pack(source, target, rows[start : start + BATCH])
        names = [f"text {start + index}" for index in range(len(inputs["token_ids"]))]
        compared, _ = compare_engines(source.engine, target.engine, inputs, names, tolerance)
        outputs = {name: worst([outputs.get(name, each), each]) for name, each in compared.items()}
    first = _pack(source, target, rows[:LAYERWISE_TEXTS])
    states = zip(source.engine.hidden_states(first), target.engine.hidden_states(first), strict=True)
    return outputs, tuple(largest(row_differences({"layer": one}, {"layer": other})["layer"]) for one, other in states)


def _pack(source: Side, target: Side, rows: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """Pack ids for both engines."""
    special_ids = source.special_ids or target.special_ids or {"pad": 0, "cls": 0, "sep": 0}
    num_segments = source.checkpoint.architecture.num_segments
    return pack(rows, special_ids, num_segments, min(source.max_length, target.max_length))


def _summary(number: str, vocabularies: tuple[bool, bool], which: str | None, comparable: bool) -> str:
    """Say which ids the outputs were computed with; `which`, if both sides give the same."""
    if not any(vocabularies):
        return "on generated ids" if comparable else ""
    if not comparable:
        return f"{number}, ids only"
    if all(vocabularies) and which is not None:
        return f"on {number}, {which}"
    return f"on {number}, computed with the {'source' if vocabularies[0] else 'target'}'s ids"


def _first_difference(
    text: str, source_ids: list[int], target_ids: list[int], tokenizer: TokenizerSpec | None
) -> dict[str, Any]:
    """Return a text and up to eight pieces of each side, from the first difference on."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(source_ids, target_ids, strict=False)))
    pieces = tokenizer.vocabulary.pieces if tokenizer is not None else ()
    source_pieces, target_pieces = (
        [pieces[index][0] if index < len(pieces) else str(index) for index in ids[same : same + 8]]
        for ids in (source_ids, target_ids)
    )
    return {"text": text, "from piece": same, "source": source_pieces, "target": target_pieces}
