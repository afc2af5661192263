"""The interface of an engine, and the inputs that engines take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.formats.lazy_tensors import DTYPES


class Engine(Protocol):
    """A library that loaded a checkpoint, and computes with it in float32."""

    name: str  # library and version
    is_keras_hub: bool
    averages_padding: bool  # a row that is all padding attends to the average of its values, instead of to zeros

    def __init__(self, checkpoint: Checkpoint) -> None: ...

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Return the ids of each text, without special tokens; None if the checkpoint has no vocabulary."""

    def special_ids(self) -> dict[str, int]:
        """Return the ids of `pad`, `cls` and `sep` in the checkpoint's tokenizer; 0 where it has no such token."""

    def compute(self, inputs: dict[str, np.ndarray], with_head: bool = True) -> dict[str, np.ndarray]:
        """Compute the outputs.

        Args:
            inputs: `token_ids`, `segment_ids` and `padding_mask`, each (batch, seq).
            with_head: Whether to compute the head, if there is one.

        Returns:
            `sequence_output` (batch, seq, hidden); `pooled_output` (batch, hidden) if there is a pooler; `head_output`
            if there is a head, after the activation of a classifier.
        """

    def hidden_states(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Compute the output of the embeddings, and of each run of a layer.

        Returns:
            (1 + runs of layers, batch, seq, hidden).
        """

    def use_epsilon(self, epsilon: float) -> bool:
        """Change the epsilon of the masked-LM head's layer norm. Return whether the library can do it."""

    def use_activation(self, activation: str) -> bool:
        """Change the activation of all layers. Return whether the library can do it."""

    def round_weights(self, dtype: str) -> None:
        """Round all weights to a dtype, and keep computing in float32."""


def pack(
    ids: Sequence[Sequence[int]], special_ids: Mapping[str, int], num_segments: int, max_length: int
) -> dict[str, np.ndarray]:
    """Pack ids as `[CLS] ids [SEP]`, and pad them to the length of the longest row.

    The second half of every other row is in segment 1, so that a wrong segment embedding changes the outputs.

    Args:
        ids: The ids of each row, without special tokens.
        special_ids: The ids of `pad`, `cls` and `sep`.
        num_segments: Number of segment ids.
        max_length: Largest length of a row, special tokens included. Longer rows are truncated.

    Returns:
        `token_ids`, `segment_ids` and `padding_mask`, each (batch, seq), int32.
    """
    rows = [[special_ids["cls"], *row[: max(max_length - 2, 0)], special_ids["sep"]][:max_length] for row in ids]
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
    """Return float32 values that were rounded to a dtype."""
    return values.astype(DTYPES[dtype]).astype(np.float32)
