"""The record of a conversion: make it, and write the result of `verify` into it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from albert_hub_bridge._version import __version__
from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.commands.onnx_files import OnnxExport
from albert_hub_bridge.commands.record_files import render_record_files
from albert_hub_bridge.commands.reports import Conversion
from albert_hub_bridge.commands.summary import summarize_target
from albert_hub_bridge.errors import SourceError, SourceNotFoundError
from albert_hub_bridge.hubs.local_source import LocalSource
from albert_hub_bridge.hubs.published import ABOUT_PUBLISHED, is_published
from albert_hub_bridge.layouts.registry import read_checkpoint
from albert_hub_bridge.mapping.heads import LABELED_HEADS
from albert_hub_bridge.provenance.card_metadata import CardMetadata
from albert_hub_bridge.provenance.digests import file_list
from albert_hub_bridge.provenance.integrity import changed_files, compare_digests, is_source_of
from albert_hub_bridge.provenance.record import (
    CARD,
    RECORD,
    ConversionRecord,
    DroppedTensorRecord,
    FileDigest,
    GoldenNumbers,
    IgnoredKeyRecord,
    SourceRecord,
    TargetRecord,
    public_handle,
    read_record,
)
from albert_hub_bridge.verification.report import Verification


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests of a conversion.

    Args:
        source_files: Size and SHA-256 of every file of the source, by its name.
        target_files: The same of the target.
        tensors: SHA-256 of every tensor of the target, by its name in the albert_hub layout.
        onnx: The ONNX files of the target; None if it has none.
    """

    source_files: Mapping[str, Mapping[str, Any]]
    target_files: Mapping[str, Mapping[str, Any]]
    tensors: dict[str, str]
    onnx: OnnxExport | None = None


def make_record(
    source: LocalSource,
    converted: Checkpoint,
    report: Conversion,
    digests: Digests,
    command: str,
    metadata: CardMetadata,
    *,
    named_labels: bool = False,
) -> ConversionRecord:
    """Return the record of a conversion. It contains nothing that would differ the next time.

    Args:
        source: What was read.
        converted: What was written.
        report: Of the conversion.
        digests: Of its files and tensors.
        command: The command that converts it again.
        metadata: For the card.
        named_labels: Whether the option `labels` named the labels.
    """
    handle, head = public_handle(source), converted.head
    source_files, target_files = (
        {name: FileDigest(**digest) for name, digest in files.items()}
        for files in (digests.source_files, digests.target_files)
    )
    return ConversionRecord(
        tool=f"albert-hub-bridge {__version__}",
        command=command,
        source=SourceRecord(handle, source.revision, report.source.layout, report.source.dtype, source_files),
        target=TargetRecord(report.layout, report.dtype, target_files, digests.tensors),
        metadata=metadata,
        published=ABOUT_PUBLISHED if is_published(handle) else None,
        architecture=converted.architecture.keras_arguments | converted.architecture.differences_from_keras,
        head=report.head,
        head_kind=head.kind if head is not None else None,
        has_pooler=converted.has_pooler,
        parameters=converted.parameters,
        vocabulary=summarize_target(converted, report.layout),
        tokenizer=report.tokenizer,
        dropped_tokenizer=report.dropped_tokenizer,
        approximate_gelu=report.source.architecture.activation != converted.architecture.activation,
        changed_texts=report.changed_texts,
        sample_size=report.sample_size,
        sentence_transformers=report.sentence_transformers,
        ignored=[IgnoredKeyRecord(**asdict(key)) for key in report.ignored],
        dropped=[DroppedTensorRecord(tensor.name, list(tensor.shape), tensor.reason) for tensor in report.dropped],
        notes=list(report.notes),
        labels=_labels(converted),
        labels_from_option=named_labels,
        onnx=list(digests.onnx.files) if digests.onnx is not None else [],
    )


Recorded = Literal["recorded", "card left", "no record", "changed", "another source"]


def why_not_recorded(recorded: Recorded, source: str, target: str) -> str:
    """Return a sentence on why a verification of these folders was not recorded, or not in the card."""
    reasons = {
        "no record": f"Not recorded: {target} has no {RECORD}.",
        "changed": f"Not recorded: {target} was changed since its conversion. To record it as it is now, if it passes, "
        "add --accept-changes (accept_changes=True).",
        "another source": f"Not recorded: {source} is not the source of {target}.",
        "card left": f"Recorded in {RECORD} alone: {target}/{CARD} was edited in lines that the result changes too. To "
        f"see them, run: albert-hub-bridge card {shlex.quote(target)}",
    }
    return reasons[recorded]


def record_verification(
    folder: Path,
    report: Verification,
    source: Path,
    golden: GoldenNumbers | None = None,
    *,
    accept_changes: bool = False,
) -> Recorded:
    """Write the result of `verify` into a converted folder's record and card.

    Args:
        folder: The target of the conversion.
        report: What `verify` measured.
        source: The folder that was compared with it.
        golden: Published numbers and the folder's difference from them.
        accept_changes: Whether the record takes the folder as it is now, if it passed, although it was changed since
            its conversion.

    Returns:
        Whether the result was written, or why not: the folder has no record, or was changed since its conversion, or
        `source` is not the source of its conversion. "card left": it was written into the record alone, because a user
        edited lines of the card that the result changes too.
    """
    record = read_record(folder)
    if record is None:
        return "no record"
    if source.resolve() == folder.resolve() or not is_source_of(source, record):
        return "another source"
    if accept_changes and report.passed:
        record = _with_accepted_changes(folder, record)
    elif changed_files(folder, record):
        return "changed"
    verification = {key: value for key, value in report.as_dict().items() if key not in ("source", "target")}
    record = replace(record, verification=verification, golden=golden, picture=None)
    rendered = render_record_files(folder, record, folder.resolve().name)
    rendered.write()
    return "card left" if rendered.card.conflicts else "recorded"


def _with_accepted_changes(folder: Path, record: ConversionRecord) -> ConversionRecord:
    """Return a record with the files that a folder has now. Its tensors are those of the source, as `verify` found."""
    found = file_list(folder)
    files = {name: FileDigest(**digest) for name, digest in found.items()}
    with read_checkpoint(folder) as checkpoint:
        labels = _labels(checkpoint)
    return replace(
        record,
        target=replace(record.target, files=files),
        labels=labels,
        accepted=sorted({*record.accepted, *compare_digests(found, record)}),
    )


def _labels(checkpoint: Checkpoint) -> list[str] | None:
    head = checkpoint.head
    return list(head.label_names) if head is not None and head.kind in LABELED_HEADS else None


def required_record(folder: Path) -> ConversionRecord:
    """Read the record of a folder that needs one.

    Raises:
        SourceError: The folder does not exist, or has none.
        ConfigurationError: It is wrong.
    """
    if not folder.is_dir():
        raise SourceNotFoundError(f"The folder {folder} does not exist.")
    record = read_record(folder)
    if record is None:
        raise missing_record(folder)
    return record


def missing_record(folder: Path) -> SourceError:
    """Return the error for a folder without a record."""
    return SourceError(
        f"{folder} was not made by convert: it has no {RECORD}. Convert it first: albert-hub-bridge convert "
        f"{shlex.quote(str(folder))} TARGET --to LAYOUT"
    )
