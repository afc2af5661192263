"""The interface of an engine, which computes one side of a verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.formats.lazy_tensors import DTYPES


Result = TypeVar("Result")


class Engine(Protocol):
    """One side of a verification."""

    name: str
    is_keras_hub: bool
    averages_padding: bool  # what a row attends to that is all padding: the average of its values, or zeros

    def __init__(self, checkpoint: Checkpoint) -> None: ...

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Return the ids of each text without special tokens, or None without a vocabulary."""

    def compute(self, inputs: dict[str, np.ndarray], with_head: bool = True) -> dict[str, np.ndarray]:
        """Compute in float32 for KerasHub's three inputs.

        Args:
            inputs: `token_ids`, `segment_ids` and `padding_mask`, each (batch, seq).
            with_head: Whether to compute the head too, where there is one.

        Returns:
            `sequence_output`; `pooled_output`, where there is a pooler; and `head_output`, where there is a head: its
            scores, or what the classifier's activation makes of them.
        """

    def hidden_states(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Compute what the embeddings give, and what each layer gives every time it runs.

        Returns:
            (1 + runs of layers, batch, seq, hidden), in float32.
        """

    def use_epsilon(self, epsilon: float) -> bool:
        """Give the masked-LM head's layer norm another epsilon; return whether that is possible."""

    def round_weights(self, dtype: str) -> None:
        """Round all weights to another dtype, and go on in float32: what a target of that dtype computes."""


def pack(
    ids: Sequence[Sequence[int]], special_ids: Mapping[str, int], num_segments: int, longest: int
) -> dict[str, np.ndarray]:
    """Pack ids as `[CLS] ids [SEP]`, padded to the longest, with the second half of every other row in segment 1.

    Two segments, so that a swapped or lost segment embedding shows.
    """
    rows = [[special_ids["cls"], *row[: max(longest - 2, 0)], special_ids["sep"]][:longest] for row in ids]
    shape = (len(rows), max(map(len, rows)))
    token_ids = np.full(shape, special_ids["pad"], dtype=np.int32)
    segment_ids, padding_mask = np.zeros_like(token_ids), np.zeros_like(token_ids)
    for index, row in enumerate(rows):
        token_ids[index, : len(row)] = row
        padding_mask[index, : len(row)] = 1
        if index % 2 and num_segments > 1:
            segment_ids[index, len(row) // 2 : len(row)] = 1
    return {"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": padding_mask}


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    return values.astype(DTYPES[dtype]).astype(np.float32)
