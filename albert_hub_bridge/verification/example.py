"""Compute the example of a classifier's card: what its library says about one text."""

from __future__ import annotations

from typing import Any, Protocol, cast

import numpy as np

from albert_hub_bridge.provenance.model_card import EXAMPLE_TEXT
from albert_hub_bridge.verification.engines.common import pack
from albert_hub_bridge.verification.side import Side


class _Classifies(Protocol):
    def classify(self, text: str) -> list[dict[str, Any]]:
        """See `TransformersEngine.classify`."""


def example_output(target: Side) -> str | None:
    """Return what users see if they classify `EXAMPLE_TEXT` as the card says, with rounded scores.

    Returns:
        The printed output: of transformers' pipeline for a repository, of Keras' `predict` for a preset. None if the
        target does not classify texts, has no vocabulary, or has too few positions.
    """
    head, tokenizer = target.checkpoint.head, target.checkpoint.tokenizer
    if head is None or head.kind != "sequence_classification" or tokenizer is None:
        return None
    ids = target.engine.tokenize([EXAMPLE_TEXT]) or [[]]
    if len(ids[0]) + 2 > target.max_length:
        return None
    if target.checkpoint.layout != "keras":
        found = cast("_Classifies", target.engine).classify(EXAMPLE_TEXT)
        return str([{**each, "score": round(each["score"], 4)} for each in found])
    segments = target.checkpoint.architecture.num_segments
    inputs = pack(ids, tokenizer.vocabulary.special_ids, segments, target.max_length)
    return str(np.round(target.engine.compute(inputs)["head_output"].astype(float), 4).tolist())
