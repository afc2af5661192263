"""The interface of an engine, and the inputs that engines take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.formats.lazy_tensors import DTYPES
from albert_hub_bridge.model.sentencepiece_encoding import token_budgets


class Encoded(NamedTuple):
    """A batch of texts or pairs as users get it: with special tokens, cut and padded to one length.

    Args:
        token_ids: (batch, length).
        segment_ids: (batch, length); None if the library gives none. A model then takes zeros.
        padding_mask: (batch, length), 1 for tokens and 0 for padding.
    """

    token_ids: np.ndarray
    segment_ids: np.ndarray | None
    padding_mask: np.ndarray

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """The batch as `Engine.compute` takes it."""
        segments = self.segment_ids if self.segment_ids is not None else np.zeros_like(self.token_ids)
        return {"token_ids": self.token_ids, "segment_ids": segments, "padding_mask": self.padding_mask}

    def tokens(self, row: int) -> list[int]:
        """Return the ids of a row without padding."""
        ids: list[int] = self.token_ids[row][self.padding_mask[row] > 0].tolist()
        return ids


class Engine(Protocol):
    """A library that loaded a checkpoint, and computes with it in float32."""

    name: str  # library and version
    sides: tuple[str, str]  # where its tokenizer pads and cuts: "right" or "left"
    is_keras_hub: bool
    averages_padding: bool  # a row that is all padding attends to the average of its values, instead of to zeros

    def __init__(self, checkpoint: Checkpoint) -> None: ...

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Return the ids of each text, without special tokens; None if the checkpoint has no vocabulary."""

    def special_ids(self) -> dict[str, int]:
        """Return the ids of `pad`, `cls` and `sep` in the checkpoint's tokenizer; 0 where it has no such token."""

    def encode(self, first: Sequence[str], second: Sequence[str] | None, length: int) -> Encoded | None:
        """Encode texts or pairs as users do, with special tokens, cut and padded to a length.

        Args:
            first: The texts, or the first text of each pair.
            second: The second text of each pair; None for texts alone.
            length: Number of tokens of each row.

        Returns:
            The batch; None if the checkpoint has no vocabulary, or no padding token.
        """

    def features(self, texts: Sequence[str], length: int) -> list[np.ndarray]:
        """Compute the states of texts as users do, in one batch. The checkpoint has a vocabulary.

        Returns:
            (tokens, hidden) of each text, without padding.
        """

    def compute(self, inputs: dict[str, np.ndarray], with_head: bool = True) -> dict[str, np.ndarray]:
        """Compute the outputs.

        Args:
            inputs: `token_ids`, `segment_ids` and `padding_mask`, each (batch, seq).
            with_head: Whether to compute the head, if there is one.

        Returns:
            `sequence_output` (batch, seq, hidden); `pooled_output` (batch, hidden) if there is a pooler; `head_output`
            if there is a head, after the activation of a classifier.
        """

    def compute_in_float64(self, inputs: dict[str, np.ndarray], with_head: bool = True) -> dict[str, np.ndarray]:
        """Compute the outputs with the same library and the same weights, in float64. See `compute`."""

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


def encode_ids(
    texts: Sequence[Sequence[Sequence[int]]], special_ids: Mapping[str, int], length: int, rule: str
) -> Encoded:
    """Encode ids as a library would.

    Args:
        texts: The ids of the one or two texts of each row, without special tokens.
        special_ids: The ids of `pad`, `cls` and `sep`.
        length: Number of tokens of each row.
        rule: How pairs are cut. See `token_budgets`.
    """
    token_ids = np.full((len(texts), length), special_ids["pad"], dtype=np.int32)
    segment_ids, padding_mask = np.zeros_like(token_ids), np.zeros_like(token_ids)
    for index, parts in enumerate(texts):
        budgets = token_budgets([len(part) for part in parts], length - 1 - len(parts), rule)
        row, segments = [special_ids["cls"]], [0]
        for segment, (part, budget) in enumerate(zip(parts, budgets, strict=True)):
            row += [*part[:budget], special_ids["sep"]]
            segments += [segment] * (budget + 1)
        token_ids[index, : len(row)], segment_ids[index, : len(row)], padding_mask[index, : len(row)] = row, segments, 1
    return Encoded(token_ids, segment_ids, padding_mask)


def features_of(engine: Engine, texts: Sequence[str], length: int) -> list[np.ndarray]:
    """Encode and compute texts with an engine. See `Engine.features`."""
    encoded = engine.encode(texts, None, length)
    if encoded is None:
        raise ValueError("The checkpoint has no vocabulary.")
    states = engine.compute(encoded.inputs, with_head=False)["sequence_output"]
    return [row[mask > 0] for row, mask in zip(states, encoded.padding_mask, strict=True)]


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """Return float32 values that were rounded to a dtype."""
    return values.astype(DTYPES[dtype]).astype(np.float32)
