"""The report of the conversion of an adapter. Printing it needs none of the readers and writers of adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from albert_hub_bridge.checkpoint import DroppedTensor, LayoutName
from albert_hub_bridge.mapping.configs import IgnoredKey


@dataclass(frozen=True, slots=True)
class AdapterConversion:
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
    layout: LayoutName
    layers: Sequence[str]
    ranks: Mapping[str, int]
    dropped: Sequence[DroppedTensor]
    ignored: Sequence[IgnoredKey]
    notes: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return asdict(self)
