"""Batches without their padding: the tokens one after the other in one row."""

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
    """Where the tokens of a batch stand in one row.

    Attributes:
        lengths: How many tokens each sequence has, in order.
        places: (tokens,), where in the flattened batch each token of the row comes from.
        batch_shape: (batch, seq).
    """

    lengths: list[int]
    places: Int[Tensor, " tokens"]
    batch_shape: torch.Size

    @classmethod
    def of_mask(cls, attention_mask: Int[Tensor, "batch seq"]) -> PackedRow:
        """Leave out what the mask hides; a text without tokens leaves no sequence."""
        visible = attention_mask != 0
        lengths = visible.sum(1)
        return cls(lengths[lengths != 0].tolist(), visible.flatten().nonzero().squeeze(1), visible.shape)

    @classmethod
    def of_positions(cls, position_ids: Int[Tensor, "batch seq"]) -> PackedRow:
        """Begin a sequence wherever a row or its positions begin."""
        starts = position_ids == 0
        starts[:, 0] = True
        places = torch.arange(starts.numel(), device=starts.device)
        ends = torch.cat([places[starts.flatten()], places.new_tensor([starts.numel()])])
        return cls(ends.diff().tolist(), places, starts.shape)

    @property
    def firsts(self) -> Int[Tensor, " sequences"]:
        """Where in the row each sequence begins."""
        return torch.tensor([0, *itertools.accumulate(self.lengths[:-1])], device=self.places.device)

    def pack(self, states: Float[Tensor, "batch seq width"]) -> Float[Tensor, "1 tokens width"]:
        """Return the states of the tokens, as a batch of one row."""
        return states.flatten(0, 1)[self.places].unsqueeze(0)

    def unpack(self, states: Float[Tensor, "1 tokens width"]) -> Float[Tensor, "batch seq width"]:
        """Put the states back in their places, and zeros everywhere else."""
        batch = states.new_zeros(self.batch_shape.numel(), states.shape[-1])
        return batch.index_copy(0, self.places, states[0]).unflatten(0, self.batch_shape)
