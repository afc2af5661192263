"""The report of the conversion of an adapter. Printing it needs none of the readers and writers of adapters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from albert_hub_bridge.checkpoint import DroppedTensor
from albert_hub_bridge.choices import AdapterLayout
from albert_hub_bridge.document import Block, Document, escape
from albert_hub_bridge.layouts.layout import DESCRIPTIONS
from albert_hub_bridge.layouts.losses import is_worth_a_look, show_losses
from albert_hub_bridge.mapping.configs import IgnoredKey


@dataclass(frozen=True, slots=True)
class AdapterConversion(Document):
    """The report of a conversion.

    Args:
        source: The source.
        target: The new file or folder.
        layout: The layout of the base that the target is for.
        layers: Names of the adapted layers in `AlbertHubModel`.
        ranks: The rank of every layer in the target, by its name there: `lora/14` in a file of Keras.
        dropped: Tensors of the source that are not in the target.
        ignored: Keys of `adapter_config.json` that are not converted.
        notes: Further notes for the user.
    """

    source: str
    target: str
    layout: AdapterLayout
    layers: Sequence[str]
    ranks: Mapping[str, int]
    dropped: Sequence[DroppedTensor]
    ignored: Sequence[IgnoredKey]
    notes: Sequence[str]

    def blocks(self) -> Iterator[Block]:
        """Yield what the report shows."""
        ranks = sorted(set(self.ranks.values()))
        yield f"[bold]{escape(self.target)}[/]: a LoRA adapter for {DESCRIPTIONS[self.layout]}"
        yield f"{len(self.ranks)} layers, rank {' to '.join(map(str, dict.fromkeys((ranks[0], ranks[-1]))))}"
        yield from show_losses(self.dropped, self.ignored, self.notes)

    @property
    def needs_attention(self) -> bool:
        """See `Document`."""
        return is_worth_a_look(self.dropped, self.ignored, self.notes)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return asdict(self)
