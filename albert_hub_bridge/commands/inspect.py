"""The command `inspect`: describe a preset or repository."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from albert_hub_bridge.commands.reports import Inspection
from albert_hub_bridge.commands.summary import describe_origin, summarize
from albert_hub_bridge.layouts.registry import pull, read_checkpoint


def inspect(source: str | Path, *, allow_pickle: bool = False) -> Inspection:
    """Say what a preset or repository holds, without reading its weights.

    Args:
        source: A folder.
        allow_pickle: As `convert` takes it.

    Raises:
        SourceError, CheckpointError: The source cannot be found, or is wrong.
    """
    with read_checkpoint(pull(source).folder, allow_pickle=allow_pickle) as checkpoint:
        return replace(summarize(checkpoint), source=str(source), made_by=describe_origin(checkpoint.folder))
