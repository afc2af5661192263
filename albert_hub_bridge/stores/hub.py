"""Where sources come from. One place for every way to name a preset or repository."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from albert_hub_bridge.errors import SourceError


@dataclass(frozen=True, slots=True)
class PublishedPreset:
    """A preset that KerasHub publishes.

    Args:
        description: What it is.
        parameters: Number of parameters of the backbone.
        kaggle: Its handle on Kaggle.
    """

    description: str
    parameters: int
    kaggle: str


_DATA = "trained on lower-cased English Wikipedia and BooksCorpus; KerasHub's tokenizer does not lower-case"

# fmt: off
PUBLISHED_PRESETS = {
    "albert_base_en_uncased":              PublishedPreset(f"12 layers of width 768, {_DATA}.",   11_683_584, "keras/albert/keras/albert_base_en_uncased/5"),
    "albert_large_en_uncased":             PublishedPreset(f"24 layers of width 1024, {_DATA}.",  17_683_968, "keras/albert/keras/albert_large_en_uncased/3"),
    "albert_extra_large_en_uncased":       PublishedPreset(f"24 layers of width 2048, {_DATA}.",  58_724_864, "keras/albert/keras/albert_extra_large_en_uncased/3"),
    "albert_extra_extra_large_en_uncased": PublishedPreset(f"12 layers of width 4096, {_DATA}.", 222_595_584, "keras/albert/keras/albert_extra_extra_large_en_uncased/3"),
}
# fmt: on


def resolve_source(source: str | Path) -> Path:
    """Return the folder that a source names.

    Args:
        source: A folder. Names on hubs are recognized and refused with a hint until they can be downloaded.

    Raises:
        SourceError: There is no such folder.
    """
    path = Path(os.path.expanduser(source))
    if path.is_dir():
        return path
    name = str(source)
    if name in PUBLISHED_PRESETS or "://" in name:
        handle = f"kaggle://{PUBLISHED_PRESETS[name].kaggle}" if name in PUBLISHED_PRESETS else name
        raise SourceError(
            f"{handle} is on a hub, and downloading is not supported yet. Download it with the hub's own tool (see "
            "README.md), and pass the folder."
        )
    if path.exists():
        raise SourceError(f"{source} is a file. Pass the folder of a preset or repository.")
    raise SourceError(f"The folder {source} does not exist. What is on a hub has to be downloaded first.")
