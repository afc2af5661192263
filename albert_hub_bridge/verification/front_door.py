"""Check texts and pairs as users encode and compute them: with special tokens, cut, padded, and in one batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from albert_hub_bridge.choices import TRANSFORMERS_LAYOUTS
from albert_hub_bridge.verification.answers import compare_answers
from albert_hub_bridge.verification.differences import Comparison, compare_outputs
from albert_hub_bridge.verification.engines.common import Encoded
from albert_hub_bridge.verification.side import Side


Pair = tuple[str, str]

SHORT_LENGTHS = (10, 13)  # Most texts are cut here, once with an odd and once with an even number of pieces.
FEATURE_TEXTS = 4
_PADDING = 5  # tokens, of the longest text in a batch whose states are compared


@dataclass(frozen=True, slots=True)
class FrontDoor:
    """What was found.

    Args:
        failures: What differs, and should not.
        allowed: What differs because the library of a side has no other way, and how many times.
        features: The worst difference of the states of a batch of texts; None if they cannot be compared.
    """

    failures: list[str] = field(default_factory=list)
    allowed: Counter[str] = field(default_factory=Counter)
    features: Comparison | None = None

    @property
    def notes(self) -> list[str]:
        """What is allowed to differ, in words."""
        return [f"{count} {what}" for what, count in self.allowed.items()]


def check_front_door(
    source: Side, target: Side, texts: Sequence[str], pairs: Sequence[Pair], tolerance: float, comparable: bool
) -> FrontDoor:
    """Compare what users get for texts and pairs whose own ids are the same on both sides.

    Args:
        source: The source. It has a vocabulary.
        target: The target. It has a vocabulary.
        texts: Texts that have the same ids on both sides.
        pairs: Pairs of such texts.
        tolerance: The largest relative difference of states that passes.
        comparable: Whether both architectures compute the same function.
    """
    found = FrontDoor()
    length = min(source.max_length, target.max_length)
    for number in dict.fromkeys(min(length, each) for each in (length, *SHORT_LENGTHS)):
        if texts:
            _compare(found, _Batch(source, target, texts, None, number))
        if pairs and number > 3:  # room for the special tokens
            _compare(found, _Batch(source, target, [one for one, _ in pairs], [other for _, other in pairs], number))
    if comparable and texts:
        found.failures.extend(compare_answers(source, target, texts, length))
    if comparable and texts and not any(_library_cannot(source, target, which) for which in (0, 1)):
        return replace(found, features=_compare_features(source, target, texts[:FEATURE_TEXTS], length, tolerance))
    return found


def _library_cannot(source: Side, target: Side, which: int) -> str | None:
    """Return how the sides pad (0) or cut (1) if they differ and a library has no other way; None otherwise."""
    sides = source.engine.sides[which], target.engine.sides[which]
    if sides[0] == sides[1] or "keras" not in (source.checkpoint.layout, target.checkpoint.layout):
        return None
    return f"on the {sides[0]} in the source, and on the {sides[1]} in the target; KerasHub has only the right"


@dataclass(frozen=True, slots=True)
class _Batch:
    """Texts or pairs at one length."""

    source: Side
    target: Side
    first: Sequence[str]
    second: Sequence[str] | None
    length: int

    @property
    def sizes(self) -> list[int]:
        """The number of tokens of each row if it is not cut."""
        counts = [
            [len(ids) for ids in self.source.engine.tokenize(texts) or []]
            for texts in (self.first, self.second)
            if texts is not None
        ]
        return [sum(row) + 1 + len(row) for row in zip(*counts, strict=True)]

    @property
    def rules(self) -> tuple[str, str]:
        """How the library of each side cuts pairs."""
        source, target = (
            "longest_first" if side.checkpoint.layout in TRANSFORMERS_LAYOUTS or spec is None else spec.truncate
            for side in (self.source, self.target)
            for spec in (side.checkpoint.tokenizer,)
        )
        return source, target

    @property
    def kind(self) -> str:
        return "texts" if self.second is None else "pairs"

    def fail(self, found: FrontDoor, rows: Sequence[int], what: str) -> None:
        """Add a failure, with a count of rows and the first of them."""
        index = rows[0]
        first = repr(self.first[index]) if self.second is None else repr((self.first[index], self.second[index]))
        count = f"{len(rows)} of {len(self.first)} {self.kind} of at most {self.length} tokens"
        found.failures.append(f"{count} {what}, the first is {first}")


def _compare(found: FrontDoor, batch: _Batch) -> None:
    encoded = [side.engine.encode(batch.first, batch.second, batch.length) for side in (batch.source, batch.target)]
    source, target = encoded
    if source is None or target is None:
        return
    rows = range(len(batch.first))
    other_ids = [row for row in rows if source.tokens(row) != target.tokens(row)]
    same = [row for row in rows if row not in other_ids]
    _report_ids(found, batch, other_ids)
    _report_segments(found, batch, source, target, same)
    _report_padding(found, batch, source, target, same)


def _report_ids(found: FrontDoor, batch: _Batch, rows: Sequence[int]) -> None:
    sizes = batch.sizes if rows else []
    cut = [row for row in rows if sizes[row] > batch.length]
    if whole := [row for row in rows if row not in cut]:
        batch.fail(found, whole, "have other ids with special tokens")
    if not cut:
        return
    if (sides := _library_cannot(batch.source, batch.target, 1)) is not None:
        found.allowed[f"of the {batch.kind} that are too long lose other tokens: they are cut {sides}."] += len(cut)
    elif batch.second is not None and batch.rules[0] != batch.rules[1]:
        rules = f"the source's library cuts a pair by {batch.rules[0]}, the target's by {batch.rules[1]}"
        found.allowed[f"of the pairs that are too long lose other tokens: {rules}."] += len(cut)
    else:
        batch.fail(found, cut, "are cut otherwise")


def _report_segments(found: FrontDoor, batch: _Batch, source: Encoded, target: Encoded, rows: Iterable[int]) -> None:
    one, other = source.inputs["segment_ids"], target.inputs["segment_ids"]
    masks = source.padding_mask > 0, target.padding_mask > 0
    different = [row for row in rows if (one[row][masks[0][row]] != other[row][masks[1][row]]).any()]
    if not different:
        return
    for name, encoded in (("source", source), ("target", target)):
        if encoded.segment_ids is None:
            found.allowed[
                f"of the pairs have other token_type_ids: the tokenizer of the {name} gives none in this version of "
                "transformers, so its model takes zeros. transformers 4 and the other side give 1 to the second text."
            ] += len(different)
            return
    batch.fail(found, different, "have other token_type_ids")


def _report_padding(found: FrontDoor, batch: _Batch, source: Encoded, target: Encoded, rows: Iterable[int]) -> None:
    different = [row for row in rows if (source.token_ids[row] != target.token_ids[row]).any()]
    if not different:
        return
    if (sides := _library_cannot(batch.source, batch.target, 0)) is not None:
        found.allowed[f"of the {batch.kind} have other outputs in a batch: they are padded {sides}."] += len(different)
    else:
        batch.fail(found, different, "are padded otherwise")


def _compare_features(
    source: Side, target: Side, texts: Sequence[str], length: int, tolerance: float
) -> Comparison | None:
    batches = [side.engine.encode(texts, None, length) for side in (source, target)]
    if None in batches:
        return None
    # KerasHub pads to the length that it is given. Computing 512 tokens for each text would take a third of `verify`.
    # Pipelines pad to the longest text: on the left, more padding would change the positions.
    longest = max(int(each.padding_mask.sum(axis=1).max()) for each in batches if each is not None)
    pads_left = "left" in (side.engine.sides[0] for side in (source, target))
    length = longest if pads_left else min(length, longest + _PADDING)
    states = source.engine.features(texts, length), target.engine.features(texts, length)
    shapes = [[row.shape for row in each] for each in states]
    if shapes[0] != shapes[1]:  # cut on another side, which is reported
        return None
    stacked = [{"features": _stack(each)} for each in states]

    width = stacked[0]["features"].shape[1]

    def compute_in_float64(side: Side, above: list[int]) -> dict[str, np.ndarray]:
        encoded = side.engine.encode([texts[index] for index in above], None, length)
        if encoded is None:
            return {}
        exact = side.engine.compute_in_float64(encoded.inputs, with_head=False)["sequence_output"]
        return {
            "features": _stack([row[mask > 0] for row, mask in zip(exact, encoded.padding_mask, strict=True)], width)
        }

    rows = [f"{text!r} in a batch, as users compute it" for text in texts]
    in_float64 = [partial(compute_in_float64, side) for side in (source, target)]
    return compare_outputs(stacked[0], stacked[1], rows, tolerance, in_float64)[0]["features"]


def _stack(rows: Sequence[np.ndarray], length: int | None = None) -> np.ndarray:
    """Stack (tokens, hidden) of each text, with zeros after the shorter ones."""
    length = length or max(len(row) for row in rows)
    return np.stack([np.pad(row, ((0, length - len(row)), (0, 0))) for row in rows])
