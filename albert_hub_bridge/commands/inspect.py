"""The command `inspect`: describe a preset or repository."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from albert_hub_bridge.commands.reports import Inspection
from albert_hub_bridge.commands.summary import summarize
from albert_hub_bridge.layouts.layout import ReadOptions
from albert_hub_bridge.layouts.registry import pull, read_checkpoint
from albert_hub_bridge.mapping.heads import HeadKind
from albert_hub_bridge.provenance.integrity import changed_files, describe_changes
from albert_hub_bridge.provenance.record import read_record


def inspect(
    source: str | Path, *, drop_head: bool = False, head: HeadKind | None = None, allow_pickle: bool = False
) -> Inspection:
    """Describe a preset or repository, without reading the values of its weights.

    Args:
        source: A folder, a published preset or a handle, as for `convert`.
        drop_head: Whether to describe the encoder alone if its head is unknown or has no weights, as for `convert`.
        head: The head, where the source does not say which one it has, as for `convert`.
        allow_pickle: Whether to read weights from a pickle, as for `convert`.

    Raises:
        SourceError, CheckpointError: The source cannot be found, or is wrong.
    """
    with read_checkpoint(
        pull(source).folder, ReadOptions(drop_head, head=head, allow_pickle=allow_pickle)
    ) as checkpoint:
        report = replace(summarize(checkpoint), source=str(source))
        record = read_record(checkpoint.folder)
        if record is None:
            return report
        changes = changed_files(checkpoint.folder, record)
        return replace(
            report, made_by=record.made_by + (f"; since then: {describe_changes(changes)}" if changes else "")
        )
