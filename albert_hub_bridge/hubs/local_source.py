"""A source in a local folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from albert_hub_bridge.errors import SourceError


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A preset or repository in a local folder, downloaded if it comes from a hub.

    Args:
        folder: The folder.
        handle: `kaggle://...`, `hf://...`, `modelscope://...`, or the folder as the user wrote it.
        revision: The commit or version that was downloaded; None for a folder.
    """

    folder: Path
    handle: str
    revision: str | None = None


def not_a_checkpoint(handle: str) -> SourceError:
    """Return the exception for a repository without a `config.json`."""
    return SourceError(f"{handle} has no config.json: it is neither a KerasHub preset nor an ALBERT repository.")
