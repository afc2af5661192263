"""What `embed` did, and how far it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from albert_hub_bridge.choices import OutputDtype, PoolingMode
from albert_hub_bridge.document import Block, Document, escape


_MAX_SHOWN = 10  # invalid rows in the report for people


@dataclass(frozen=True, slots=True)
class Embedding(Document):
    """What `embed` did.

    Args:
        target: The folder or file.
        rows: The number of rows in it.
        continued_from: How many of them were there from a run before.
        dimension: The size of a vector.
        dtype: The dtype of its values.
        pooling: How states became vectors.
        normalize: Whether vectors have length 1.
        tokens: The number of tokens of all texts, without padding.
        truncated: How many texts were longer than the largest length, and were cut.
        invalid: Why a row has no vector, for each such row.
        seconds: How long this run computed.
        texts_per_second: Of this run.
        tokens_per_second: Of this run.
        padding: The share of padding in the batches of this run, in [0, 1]. On a CPU it is not computed.
    """

    target: str
    rows: int
    continued_from: int
    dimension: int
    dtype: OutputDtype
    pooling: PoolingMode
    normalize: bool
    tokens: int
    truncated: int
    invalid: Sequence[str]
    seconds: float
    texts_per_second: float
    tokens_per_second: float
    padding: float

    def blocks(self) -> Iterator[Block]:
        """Yield what the report shows."""
        what = "of each token" if self.pooling == "none" else f"({self.pooling}{', normalized' * self.normalize})"
        facts = {
            "target": escape(self.target),
            "vectors": f"{self.rows:,} of {self.dimension} {self.dtype} {what}",
            "tokens": f"{self.tokens:,}",
        }
        if self.seconds:
            speed = f"{self.texts_per_second:,.0f} texts/s, {self.tokens_per_second:,.0f} tokens/s"
            facts["speed"] = f"{speed}, {self.padding:.1%} padding"
        if self.continued_from:
            facts["continued"] = f"after {self.continued_from:,} rows of a run before"
        if self.truncated:
            facts["truncated"] = f"{self.truncated:,} texts were longer than the largest length"
        yield facts
        if self.invalid:
            yield f"[yellow]{len(self.invalid):,} rows have no vector:[/]"
            yield from (f"  {escape(problem)}" for problem in self.invalid[:_MAX_SHOWN])
            if len(self.invalid) > _MAX_SHOWN:
                yield f"  and {len(self.invalid) - _MAX_SHOWN:,} more (--json lists them)"

    @property
    def needs_attention(self) -> bool:
        """See `Document`."""
        return bool(self.invalid)

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return asdict(self)


@dataclass
class EmbeddingProgress:
    """How far a run is. The numbers are those of this run.

    Args:
        share: The share of the input that was read, in [0, 1].
        texts: The number of texts.
        tokens: The number of their tokens.
        positions: The number of tokens and padding.
        seconds: The time since the first text that this run computes was read.
    """

    share: float = 0.0
    texts: int = 0
    tokens: int = 0
    positions: int = 0
    seconds: float = 0.0

    @property
    def padding(self) -> float:
        """The share of padding."""
        return 1 - self.tokens / self.positions if self.positions else 0.0

    def per_second(self, count: int) -> float:
        """Return a count per second."""
        return count / self.seconds if self.seconds else 0.0
