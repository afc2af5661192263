"""Check that both sides give the same token ids for texts, and the same outputs for those ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np

from albert_hub_bridge.checkpoint import TokenizerSpec
from albert_hub_bridge.verification.engines.common import pack
from albert_hub_bridge.verification.outputs import row_differences
from albert_hub_bridge.verification.report import Check
from albert_hub_bridge.verification.side import Side


LAYERWISE_TEXTS = 8  # The outputs of all layers are in memory at once.

Ids = list[list[int]] | None  # the ids of each text; None without a vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class TextsCheck(Check):
    """The check of the texts. The arguments are those of `Verification`."""

    vocabularies: tuple[bool, bool]
    different_ids: int = 0
    first_difference: Mapping[str, Any] | None = None
    max_abs_difference: Mapping[str, float] = field(default_factory=dict)
    layer_differences: Sequence[float] = ()


def check_texts(source: Side, target: Side, texts: Sequence[str], tolerance: float, comparable: bool) -> TextsCheck:
    """Compare token ids, and the outputs of both engines on the same ids.

    Both engines get the source's ids; the target's ids if the source has no vocabulary; generated ids if neither has.

    Args:
        source: The source.
        target: The target.
        texts: The texts.
        tolerance: The largest absolute difference of outputs that passes.
        comparable: Whether both architectures compute the same function. Otherwise only ids are compared.
    """
    source_ids, target_ids = source.engine.tokenize(texts), target.engine.tokenize(texts)
    pairs = zip(texts, source_ids or [], target_ids or [], strict=False)
    different = [(text, ids, other_ids) for text, ids, other_ids in pairs if ids != other_ids]
    gaps, layers = _output_differences(source, target, source_ids or target_ids) if comparable else ({}, ())
    vocabularies = source_ids is not None, target_ids is not None
    failures = []
    if vocabularies[0] != vocabularies[1]:
        failures.append(f"only the {'source' if vocabularies[0] else 'target'} has a vocabulary")
    if different:
        failures.append(f"{len(different)} of {len(texts)} texts have different ids, the first is {different[0][0]!r}")
    failures += [f"{name} differs by {gap:.1e}" for name, gap in gaps.items() if not gap <= tolerance]
    tokenizer = source.checkpoint.tokenizer or target.checkpoint.tokenizer
    return TextsCheck(
        summary=_summary(len(texts), vocabularies, bool(different), comparable),
        value=float(np.max(list(gaps.values()))) if gaps else None,
        limit=tolerance if gaps else None,
        failures=tuple(failures),
        not_measured=() if any(vocabularies) else ("ids: neither side has a vocabulary",),
        vocabularies=vocabularies,
        different_ids=len(different),
        first_difference=_first_difference(*different[0], tokenizer) if different else None,
        max_abs_difference=gaps,
        layer_differences=layers,
    )


def _output_differences(source: Side, target: Side, ids: Ids) -> tuple[dict[str, float], tuple[float, ...]]:
    """Return the largest absolute difference of each output, and of each layer's output on the first texts."""
    inputs = _inputs(source, target, ids)
    rows = row_differences(source.engine.compute(inputs), target.engine.compute(inputs))
    first = {name: array[:LAYERWISE_TEXTS] for name, array in inputs.items()}
    states = np.abs(source.engine.hidden_states(first) - target.engine.hidden_states(first))
    return {name: float(np.max(gaps)) for name, gaps in rows.items()}, tuple(states.max(axis=(1, 2, 3)).tolist())


def _inputs(source: Side, target: Side, ids: Ids) -> dict[str, np.ndarray]:
    """Pack ids for both engines; generated ids if there are none."""
    architecture = source.checkpoint.architecture
    special_ids = source.special_ids or target.special_ids or {"pad": 0, "cls": 0, "sep": 0}
    size = architecture.vocabulary_size
    rows = ids or [[index % size for index in range(40)], [size - 1]]
    return pack(rows, special_ids, architecture.num_segments, min(source.max_length, target.max_length))


def _summary(num_texts: int, vocabularies: tuple[bool, bool], have_different_ids: bool, comparable: bool) -> str:
    """Say which ids the outputs were computed with."""
    if not comparable:
        return f"{num_texts} texts, ids only" if any(vocabularies) else ""
    if not any(vocabularies):
        return "on generated ids"
    if all(vocabularies) and not have_different_ids:
        return f"on {num_texts} texts, all with the same ids"
    return f"on {num_texts} texts, computed with the {'source' if vocabularies[0] else 'target'}'s ids"


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
