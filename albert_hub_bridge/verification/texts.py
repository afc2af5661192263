"""Compare token ids and outputs on texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from albert_hub_bridge.checkpoint import TokenizerSpec
from albert_hub_bridge.verification.report import Check


def check_texts(
    texts: Sequence[str],
    vocabularies: tuple[bool, bool],
    differing: Sequence[str],
    differences: Mapping[str, float],
    tolerance: float,
) -> Check:
    failures, not_measured = [], []
    if vocabularies[0] != vocabularies[1]:
        failures.append(f"only the {'source' if vocabularies[0] else 'target'} has a vocabulary")
    elif not vocabularies[0]:
        not_measured.append("ids: neither side has a vocabulary")
    if differing:
        failures.append(f"{len(differing)} of {len(texts)} texts become other ids, the first is {differing[0]!r}")
    failures += [f"{name} differs by {gap:.1e}" for name, gap in differences.items() if not gap <= tolerance]
    figure = f"on {len(texts)} texts, all with the same ids" if all(vocabularies) else "on made-up ids"
    value = float(np.max(list(differences.values()))) if differences else None
    return Check.of(figure, failures, value, tolerance if differences else None, not_measured)


def first_difference_of(differing: tuple[str, list[int], list[int]], text: TokenizerSpec | None) -> dict[str, Any]:
    """Show a text and both sides' pieces, from the first that differs on."""
    typed, *sides = differing
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*sides, strict=False)))
    pieces = text.vocabulary.pieces if text is not None else ()
    named = [[pieces[i][0] if i < len(pieces) else str(i) for i in side[same : same + 8]] for side in sides]
    return {"text": typed, "from piece": same, "source": named[0], "target": named[1]}
