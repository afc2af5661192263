"""The command `verify FOLDER`: compare a converted folder with its own record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from albert_hub_bridge.commands.recording import missing_record
from albert_hub_bridge.hubs.source import pull_source
from albert_hub_bridge.layouts.registry import is_checkpoint_file
from albert_hub_bridge.provenance.integrity import FilesCheck, check_files
from albert_hub_bridge.provenance.record import PICTURE, RECORD


def check(source: str | Path) -> FilesCheck:
    """Compare the files and tensors of a converted folder with the checksums in its `conversion.json`.

    Args:
        source: The folder, or the handle that it was pushed to. The files to check are downloaded.

    Raises:
        SourceError: The folder cannot be found, or has no `conversion.json`.
        ConfigurationError: `conversion.json` is not a record of this package.
    """
    folder = pull_source(source, _files_to_check).folder
    report = check_files(folder)
    if report is None:
        raise missing_record(folder)
    return replace(report, folder=str(source))


def _files_to_check(names: Iterable[str]) -> list[str]:
    return [name for name in names if is_checkpoint_file(name) or name in (RECORD, PICTURE)]
