"""The command `verify`: compare two folders and record the result, or check a converted folder against its record."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

from albert_hub_bridge.choices import DEFAULT_TOLERANCE
from albert_hub_bridge.commands.recording import Recorded, missing_record, record_verification, why_not_recorded
from albert_hub_bridge.errors import AlbertHubBridgeError, SourceNotFoundError
from albert_hub_bridge.hubs.source import pull_source
from albert_hub_bridge.layouts.registry import is_checkpoint_file, pull
from albert_hub_bridge.provenance.integrity import FilesCheck, check_files
from albert_hub_bridge.provenance.record import PICTURE, RECORD
from albert_hub_bridge.verification import run
from albert_hub_bridge.verification.front_door import Pair
from albert_hub_bridge.verification.progress import StageProgress, ignore_progress
from albert_hub_bridge.verification.report import Verification
from albert_hub_bridge.verification.sample_texts import SAMPLE_TEXTS


@overload
def verify(source: str | Path) -> FilesCheck: ...


@overload
def verify(
    source: str | Path,
    target: str | Path,
    *,
    texts: Sequence[str | Pair] = ...,
    tolerance: float = ...,
    allow_pickle: bool = ...,
    record: bool = ...,
    accept_changes: bool = ...,
    progress: StageProgress = ...,
) -> Verification: ...


def verify(
    source: str | Path,
    target: str | Path | None = None,
    *,
    texts: Sequence[str | Pair] = SAMPLE_TEXTS,
    tolerance: float = DEFAULT_TOLERANCE,
    allow_pickle: bool = False,
    record: bool = False,
    accept_changes: bool = False,
    progress: StageProgress = ignore_progress,
) -> Verification | FilesCheck:
    """Verify that two presets or repositories are the same model; or, as `check`, that one is still what was converted.

    With a target, five checks compare it with the source: settings, tensors, a reference in float64, and what the
    libraries of both sides compute on generated inputs and on texts. docs/verification.md explains them.

    Args:
        source: A folder, a published preset or a handle, as for `convert`.
        target: A folder or handle. Without it, the files of `source` are checked against its `conversion.json`.
        texts: The texts and pairs of texts to compare. At least one.
        tolerance: Largest relative difference of outputs that passes on texts; see docs/verification.md.
        allow_pickle: Whether to read weights that are pickled. The library of that side reads them too.
        record: Whether to write the result into the `conversion.json` and the card of the target, as the command does.
            `push` needs it. If `source` is not the recorded source, or `target` was changed, a warning says so.
        accept_changes: With `record`: whether to record the target as it is now, if it passed, although it was changed
            since its conversion.
        progress: Is called with the name of a stage, the work done in it and the work in all, when the stage begins and
            while it runs.

    Returns:
        The report. It is true if the verification passed.

    Raises:
        SourceError, CheckpointError: A folder cannot be found, or is not valid.
        EngineError: The library of a side cannot load or compute it.
        ValueError: There are no texts.
    """
    if target is None:
        return check(source)
    report = run.verify(source, target, texts=texts, tolerance=tolerance, allow_pickle=allow_pickle, progress=progress)
    if record:
        folder = pull(source).folder
        recorded = record_verification(Path(target), report, folder, accept_changes=accept_changes)
        if recorded != "recorded":
            warnings.warn(why_not_recorded(recorded, str(source), str(target)), stacklevel=2)
    return report


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


def verify_and_record(
    source: str | Path,
    target: str | Path,
    *,
    texts_file: Path | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    allow_pickle: bool = False,
    accept_changes: bool = False,
    progress: StageProgress = ignore_progress,
) -> tuple[Verification, Recorded]:
    """Compare two folders as `verify` does, and record the result in the target.

    Args:
        source: As for `verify`.
        target: As for `verify`.
        texts_file: A UTF-8 file with one text a line, or a pair with a tab between its texts; the built-in texts by
            default.
        tolerance: As for `verify`.
        allow_pickle: As for `verify`.
        accept_changes: As for `record_verification`.
        progress: As for `verify`.

    Returns:
        The report, and whether it was recorded, or why not. See `record_verification`.

    Raises:
        AlbertHubBridgeError: As `verify`; or the file of texts does not exist, is empty or is not UTF-8.
    """
    texts: Sequence[str | Pair] = SAMPLE_TEXTS if texts_file is None else _read_texts(texts_file)
    report = run.verify(source, target, texts=texts, tolerance=tolerance, allow_pickle=allow_pickle, progress=progress)
    return report, record_verification(Path(target), report, pull(source).folder, accept_changes=accept_changes)


def _read_texts(file: Path) -> list[str | Pair]:
    """Read one text a line. A tab makes a pair; a line with more tabs is one text."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"The file {file} does not exist.") from error
    except UnicodeDecodeError as error:
        raise AlbertHubBridgeError(f"{file} is not UTF-8: {error}. Save it as UTF-8.") from error
    if not lines:
        raise AlbertHubBridgeError(f"{file} has no texts. Write one text a line.")
    parts = ((line, line.split("\t")) for line in lines)
    return [(texts[0], texts[1]) if len(texts) == 2 and all(texts) else line for line, texts in parts]
