"""Check what users get from transformers' pipeline for a head: labels and scores of a few texts, on both sides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol, cast

from albert_hub_bridge.verification.side import Side


TEXTS = 4
# Scores are probabilities, or of a regression the values themselves. The outputs that they are made of were compared
# with the tight limits of the other checks; a wrong label or a wrong activation changes far more.
TOLERANCE = 1e-5

Answer = list[tuple[str, float]]  # labels with their scores, in the order of the pipeline


class _Answers(Protocol):
    def answers(self, texts: Sequence[str]) -> tuple[str, list[Answer]] | None:
        """See `TransformersEngine.answers`."""


def compare_answers(source: Side, target: Side, texts: Sequence[str], length: int) -> list[str]:
    """Return what differs between the pipelines of both sides; nothing if a side has no pipeline for its head.

    Args:
        source: The source. It has a vocabulary.
        target: The target. It has a vocabulary.
        texts: Texts that have the same ids on both sides. The first ones that fit are used.
        length: The largest number of tokens of a text, with special tokens.
    """
    if not all(hasattr(side.engine, "answers") for side in (source, target)):
        return []
    rows = zip(texts, source.engine.tokenize(texts) or [], strict=False)
    fitting = [text for text, ids in rows if 0 < len(ids) <= length - 4 and not _has_special_token(text)][:TEXTS]
    found = [cast("_Answers", side.engine).answers(fitting) if fitting else None for side in (source, target)]
    one, other = found
    if one is None or other is None:
        return []
    task, pairs = one[0], list(zip(fitting, one[1], other[1], strict=True))
    different = [row for row in pairs if not _are_equal(task, row[1], row[2])]
    if not different:
        return []
    text, before, after = different[0]
    return [
        f"{len(different)} of {len(pairs)} texts get another answer from the pipeline for {task}, the first is "
        f"{text!r}: {_in_words(before)} in the source, {_in_words(after)} in the target"
    ]


def _has_special_token(text: str) -> bool:
    """Return whether ALBERT's special tokens, or others of that form, are spelled out: a pipeline takes them for it."""
    return re.search(r"\[[A-Z]+\]|<[a-z]+>", text) is not None


def _are_equal(task: str, one: Answer, other: Answer) -> bool:
    """Return whether answers have the same labels with the same scores."""
    scores, others = dict(one), dict(other)
    alone = scores.keys() ^ others.keys()
    if task == "fill-mask" and one:  # the best tokens alone: one with the score of the last may stand for another
        last = one[-1][1]
        alone = {label for label in alone if abs({**scores, **others}[label] - last) > TOLERANCE}
    return not alone and all(
        abs(score - others[label]) <= TOLERANCE * max(1.0, abs(score))
        for label, score in scores.items()
        if label in others
    )


def _in_words(answer: Answer) -> str:
    return ", ".join(f"{label} {score:.6f}" for label, score in answer[:2])
