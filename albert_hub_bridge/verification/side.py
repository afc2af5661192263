"""One side of a verification: the checkpoint, and the engine that computes it."""

from __future__ import annotations

from dataclasses import dataclass

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.verification.engines.common import Engine


@dataclass(frozen=True, slots=True)
class Side:
    """The source or the target.

    Args:
        checkpoint: What was read. Its settings and its tokenizer stay valid after it is closed; its weights do not.
        engine: The library that computes it. The engine has weights of its own.
    """

    checkpoint: Checkpoint
    engine: Engine

    @property
    def max_length(self) -> int:
        """The largest number of token ids in a packed input, special tokens included."""
        positions, tokenizer = self.checkpoint.architecture.max_sequence_length, self.checkpoint.tokenizer
        if tokenizer is None or tokenizer.sequence_length is None:
            return positions
        return min(positions, tokenizer.sequence_length)

    @property
    def special_ids(self) -> dict[str, int] | None:
        """The ids of `pad`, `cls` and `sep`; None without a tokenizer."""
        if self.checkpoint.tokenizer is not None:
            return self.checkpoint.tokenizer.vocabulary.special_ids
        return self.engine.special_ids() if self.checkpoint.has_tokenizer else None
