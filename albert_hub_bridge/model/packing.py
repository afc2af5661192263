"""Pack a batch into one row without padding."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch


if TYPE_CHECKING:
    from torch import Tensor

    try:  # as in modeling_albert_hub.py
        from jaxtyping import Float, Int
    except ImportError:
        raise


@dataclass(frozen=True, slots=True)
class PackedRow:
    """The positions of a batch's tokens in one packed row.

    Attributes:
        lengths: Number of tokens of each sequence, in order.
        indices: Index of each token of the row in the flattened batch. *Shape:* (tokens,).
        batch_shape: (batch, seq).
    """

    lengths: list[int]
    indices: Int[Tensor, " tokens"]
    batch_shape: torch.Size

    @classmethod
    def of_mask(cls, attention_mask: Int[Tensor, "batch seq"]) -> PackedRow:
        """Remove masked tokens. A text without tokens is removed."""
        unmasked = attention_mask != 0
        lengths = unmasked.sum(1)
        return cls(lengths[lengths != 0].tolist(), unmasked.flatten().nonzero().squeeze(1), unmasked.shape)

    @classmethod
    def of_positions(cls, position_ids: Int[Tensor, "batch seq"]) -> PackedRow:
        """Begin a sequence at the start of each row, and at each position 0."""
        starts = position_ids == 0
        starts[:, 0] = True
        indices = torch.arange(starts.numel(), device=starts.device)
        ends = torch.cat([indices[starts.flatten()], indices.new_tensor([starts.numel()])])
        return cls(ends.diff().tolist(), indices, starts.shape)

    @property
    def firsts(self) -> Int[Tensor, " sequences"]:
        """Index of the first token of each sequence in the row."""
        return torch.tensor([0, *itertools.accumulate(self.lengths[:-1])], device=self.indices.device)

    def pack(self, states: Float[Tensor, "batch seq width"]) -> Float[Tensor, "1 tokens width"]:
        """Return the tokens' states as a batch of one row."""
        return states.flatten(0, 1)[self.indices].unsqueeze(0)

    def unpack(self, states: Float[Tensor, "1 tokens width"]) -> Float[Tensor, "batch seq width"]:
        """Return a batch with the states at their positions, and zeros elsewhere."""
        batch = states.new_zeros(self.batch_shape.numel(), states.shape[-1])
        return batch.index_copy(0, self.indices, states[0]).unflatten(0, self.batch_shape)
