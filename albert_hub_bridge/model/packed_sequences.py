"""Pack a batch into one row without padding."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward


if TYPE_CHECKING:
    from torch import Tensor

    try:  # as in modeling_albert_hub.py
        from jaxtyping import Float, Int
    except ImportError:
        raise


SDPA_OPTIONS = ("is_causal", "position_bias", "softcap")  # of transformers' function


@functools.cache
def _flash_attention() -> Callable[..., Any] | None:
    """Return torch's flash attention for sequences of different lengths. Before torch 2.11 it takes no scale."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if "scale" in inspect.signature(varlen_attn).parameters else None


def has_flash_attention(states: Tensor, head_dim: int) -> bool:
    """Return whether flash attention of torch computes states of this dtype and width, on their device.

    Args:
        states: Any states of the model.
        head_dim: Width of a head.
    """
    return bool(
        states.device.type == "cuda"
        and torch.version.hip is None
        and states.dtype in (torch.bfloat16, torch.float16)
        and head_dim % 8 == 0
        and head_dim <= 128  # wider heads have no gradient on some GPUs
        and torch.cuda.get_device_capability(states.device) >= (8, 0)
        and torch.backends.cuda.is_flash_attention_available()
        and torch.backends.cuda.flash_sdp_enabled()
        and _flash_attention() is not None
    )


@dataclass(frozen=True, slots=True)
class PackedRow:
    """The positions of a batch's tokens in one packed row.

    Attributes:
        lengths: Number of tokens of each sequence, in order.
        cu_seqlens: Cumulative lengths: index in the row where each sequence begins, and the number of tokens. *Shape:*
            (sequences + 1,).
        indices: Index of each token of the row in the flattened batch. *Shape:* (tokens,).
        batch_shape: (batch, seq).
    """

    lengths: list[int]
    cu_seqlens: Int[Tensor, " cu_seqlens"]
    indices: Int[Tensor, " tokens"]
    batch_shape: torch.Size

    @classmethod
    def from_mask(cls, attention_mask: Int[Tensor, "batch seq"]) -> PackedRow:
        """Return the row of the unmasked tokens. A text without tokens has no sequence in it."""
        unmasked = attention_mask != 0
        lengths = unmasked.sum(1)
        lengths = lengths[lengths != 0]
        cu_seqlens = nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
        return cls(lengths.tolist(), cu_seqlens, unmasked.flatten().nonzero().squeeze(1), unmasked.shape)

    @classmethod
    def from_position_ids(cls, position_ids: Int[Tensor, "batch seq"]) -> PackedRow:
        """Return the row of all tokens. A sequence begins at the start of each row, and at each position 0."""
        starts = position_ids == 0
        starts[:, 0] = True
        indices = torch.arange(starts.numel(), device=starts.device)
        cu_seqlens = torch.cat([indices[starts.flatten()], indices.new_tensor([starts.numel()])])
        return cls(cu_seqlens.diff().tolist(), cu_seqlens.int(), indices, starts.shape)

    def attend(
        self,
        attention: Callable[..., Any],
        module: nn.Module,
        query: Float[Tensor, "1 heads queries head_dim"],
        key: Float[Tensor, "1 heads tokens head_dim"],
        value: Float[Tensor, "1 heads tokens head_dim"],
        **kwargs: Any,
    ) -> Float[Tensor, "1 queries heads head_dim"]:
        """Return the attention output of each sequence to itself.

        Args:
            attention: The attention function of transformers. It computes one sequence after the other, except where
                one kernel of flash attention computes the same for all of them.
            module: The attention module.
            query: Queries, one for each token, or one for each sequence.
            key: Keys.
            value: Values.
            **kwargs: Options of the attention function. `scaling` is the factor of the scores.
        """
        is_whole = query.shape[2] == key.shape[2]
        if (
            attention is sdpa_attention_forward
            and not kwargs.get("dropout")
            and has_flash_attention(query, query.shape[-1])
        ):
            return self._attend_at_once(query, key, value, kwargs["scaling"], is_whole)
        queries = self.lengths if is_whole else [1] * len(self.lengths)
        sequences = zip(query.split(queries, 2), key.split(self.lengths, 2), value.split(self.lengths, 2), strict=True)
        return torch.cat([attention(module, *sequence, None, **kwargs)[0] for sequence in sequences], dim=1)

    def _attend_at_once(
        self,
        query: Float[Tensor, "1 heads queries head_dim"],
        key: Float[Tensor, "1 heads tokens head_dim"],
        value: Float[Tensor, "1 heads tokens head_dim"],
        scaling: float,
        is_whole: bool,
    ) -> Float[Tensor, "1 queries heads head_dim"]:
        """Compute all sequences in one kernel."""
        flash_attention = _flash_attention()
        assert flash_attention is not None  # noqa: S101 (for mypy)
        cu_seqlens = self.cu_seqlens.to(query.device)  # layers may be on several GPUs
        max_seqlen = max(self.lengths)
        cu_queries, max_queries = cu_seqlens, max_seqlen
        if not is_whole:  # one query for each sequence
            cu_queries, max_queries = torch.arange(len(cu_seqlens), device=query.device, dtype=cu_seqlens.dtype), 1
        queries, keys, values = (each[0].transpose(0, 1) for each in (query, key, value))
        attended = flash_attention(
            queries, keys, values, cu_queries, cu_seqlens, max_queries, max_seqlen, scale=scaling
        )
        return attended.unsqueeze(0)

    @property
    def first_indices(self) -> Int[Tensor, " sequences"]:
        """Index of the first token of each sequence in the row."""
        return self.cu_seqlens[:-1].long()

    def pack(self, states: Float[Tensor, "batch seq width"]) -> Float[Tensor, "1 tokens width"]:
        """Return the tokens' states as a batch of one row."""
        return states.flatten(0, 1)[self.indices.to(states.device)].unsqueeze(0)

    def unpack(self, states: Float[Tensor, "1 tokens width"]) -> Float[Tensor, "batch seq width"]:
        """Return a batch with the states at their positions, and zeros elsewhere."""
        batch = states.new_zeros(self.batch_shape.numel(), states.shape[-1])
        return batch.index_copy(0, self.indices.to(states.device), states[0]).unflatten(0, self.batch_shape)
