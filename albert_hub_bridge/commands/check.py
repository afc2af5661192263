"""The command `verify FOLDER`: compare a converted folder with its own record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from albert_hub_bridge.commands.recording import no_record
from albert_hub_bridge.hubs.source import pull_source
from albert_hub_bridge.layouts.registry import is_checkpoint_file
from albert_hub_bridge.provenance.integrity import FilesCheck, check_files
from albert_hub_bridge.provenance.record import PICTURE, RECORD


def check(source: str | Path) -> FilesCheck:
    """Compare the files of a converted folder with the checksums in its `conversion.json`.

    Args:
        source: That folder, or where it was pushed to; what is checked is downloaded then.

    Raises:
        ConfigurationError: It has no record of its conversion.
        SourceError: It cannot be found.
    """
    folder = pull_source(
        source, lambda names: [n for n in names if is_checkpoint_file(n) or n in (RECORD, PICTURE)]
    ).folder
    report = check_files(folder)
    if report is None:
        raise no_record(folder)
    return replace(report, folder=str(source))
