"""Write a converted folder's record files: `conversion.json`, the model card and the picture."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any, Literal

from albert_hub_bridge._version import __version__
from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.commands.reports import Conversion
from albert_hub_bridge.commands.summary import summarize_vocabulary
from albert_hub_bridge.disk.atomic import replace_file
from albert_hub_bridge.disk.checksums import sha256_of
from albert_hub_bridge.disk.durable import add_filename, write_file
from albert_hub_bridge.errors import ConfigurationError, Problem, SourceError, SourceNotFoundError
from albert_hub_bridge.hubs.local_source import LocalSource
from albert_hub_bridge.hubs.published import ABOUT_PUBLISHED, is_published
from albert_hub_bridge.mapping.heads import LABELED_HEADS
from albert_hub_bridge.provenance.card_metadata import CardMetadata
from albert_hub_bridge.provenance.integrity import changed_files, is_source_of
from albert_hub_bridge.provenance.model_card import render_card, written_by_hand
from albert_hub_bridge.provenance.picture import draw_parity
from albert_hub_bridge.provenance.record import (
    CARD,
    PICTURE,
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
    """

    source_files: Mapping[str, Mapping[str, Any]]
    target_files: Mapping[str, Mapping[str, Any]]
    tensors: dict[str, str]


def make_record(
    source: LocalSource,
    converted: Checkpoint,
    report: Conversion,
    digests: Digests,
    command: str,
    metadata: CardMetadata,
) -> ConversionRecord:
    """Return the record of a conversion. It contains nothing that would differ the next time.

    Args:
        source: What was read.
        converted: What was written.
        report: Of the conversion.
        digests: Of its files and tensors.
        command: The command that converts it again.
        metadata: For the card.
    """
    handle, tokenizer, head = public_handle(source), converted.tokenizer, converted.head
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
        parameters=sum(prod(weight.shape) for weight in converted.weights.values()),
        vocabulary=summarize_vocabulary(tokenizer, report.layout) if tokenizer is not None else None,
        changed_texts=report.changed_texts,
        sample_size=report.sample_size,
        sentence_transformers=report.sentence_transformers,
        ignored=[IgnoredKeyRecord(**asdict(key)) for key in report.ignored],
        dropped=[DroppedTensorRecord(tensor.name, list(tensor.shape), tensor.reason) for tensor in report.dropped],
        notes=list(report.notes),
        labels=list(head.label_names) if head is not None and head.kind in LABELED_HEADS else None,
    )


def write_new_record(folder: Path, record: ConversionRecord, location: str, by_hand: str) -> None:
    """Write the record and the card of a new folder.

    Args:
        folder: Contains the converted files.
        record: Of the conversion.
        location: Where users will load it from, as `render_card` takes it.
        by_hand: Text that a user wrote into the card before.
    """
    write_file(folder / RECORD, record.to_bytes())
    write_file(folder / CARD, render_card(record, location, by_hand).encode())


Recorded = Literal["recorded", "no record", "changed", "another source"]


def why_not_recorded(recorded: Recorded, source: str, target: str) -> str:
    """Return why a verification of these folders was not recorded."""
    reasons = {
        "no record": f"{target} has no {RECORD}.",
        "changed": f"{target} was changed since its conversion.",
        "another source": f"{source} is not the source of {target}.",
    }
    return reasons[recorded]


def record_verification(
    folder: Path, report: Verification, source: Path, golden: GoldenNumbers | None = None
) -> Recorded:
    """Write the result of `verify` into a converted folder's record and card.

    Args:
        folder: The target of the conversion.
        report: What `verify` measured.
        source: The folder that was compared with it.
        golden: Published numbers and the folder's difference from them.

    Returns:
        Whether the result was written, or why not: the folder has no record, or was changed since its conversion, or
        `source` is not the source of its conversion.
    """
    record = read_record(folder)
    if record is None:
        return "no record"
    if changed_files(folder, record):
        return "changed"
    if source.resolve() == folder.resolve() or not is_source_of(source, record):
        return "another source"
    verification = {key: value for key, value in report.as_dict().items() if key not in ("source", "target")}
    record = replace(record, verification=verification, golden=golden, picture=None)
    write_record_files(folder, record, folder.resolve().name)
    return "recorded"


@dataclass(frozen=True, slots=True)
class RecordFiles:
    """A converted folder's record, card and picture, before they are written.

    Args:
        record: With the digest of the picture.
        contents: Of the files, by name, without a picture that the folder has already.
    """

    record: ConversionRecord
    contents: Mapping[str, bytes]


def render_record_files(folder: Path, record: ConversionRecord, location: str) -> RecordFiles:
    """Render a converted folder's record, card and picture, and write nothing.

    Args:
        folder: The target of the conversion.
        record: To render.
        location: Where users will load it from, as `render_card` takes it.

    Raises:
        ConfigurationError: No card can be made of the record.
    """
    from jinja2 import TemplateError  # slow to import, and most commands render no card

    digest, drawn = _picture(folder, record)
    record = replace(record, picture=digest)
    try:
        rendered = render_card(record, location, written_by_hand(folder))
    except (KeyError, TypeError, AttributeError, ValueError, TemplateError) as error:
        # `verification` is checked in its outlines only.
        problem = Problem("wrong", "verification", f"expected what the model card shows of it, found {error!r}")
        raise ConfigurationError(folder / RECORD, "record", [problem], "Run verify again.") from error
    contents = {RECORD: record.to_bytes(), CARD: rendered.encode()}
    return RecordFiles(record, contents if drawn is None else {PICTURE: drawn, **contents})


def write_record_files(folder: Path, record: ConversionRecord, location: str) -> None:
    """Replace a converted folder's record, card and picture, as far as they changed.

    Args:
        folder: As for `render_record_files`.
        record: As for `render_record_files`.
        location: As for `render_record_files`.

    Raises:
        ConfigurationError: As `render_record_files`.
    """
    rendered = render_record_files(folder, record, location)
    if rendered.record.picture is None:
        (folder / PICTURE).unlink(missing_ok=True)  # it shows another verification
    with add_filename(folder / RECORD):
        before = (folder / RECORD).read_bytes()
    for name, content in rendered.contents.items():
        if name != RECORD or content != before:
            replace_file(folder / name, content)


def _picture(folder: Path, record: ConversionRecord) -> tuple[FileDigest | None, bytes | None]:
    """Return the digest of the picture of a record's verification, and the picture, unless the folder has it."""
    picture = folder / PICTURE
    if record.picture is not None and picture.is_file() and sha256_of(picture) == record.picture.sha256:
        return record.picture, None
    drawn = draw_parity(record.verification) if record.verification is not None else None
    return (FileDigest(len(drawn), sha256(drawn).hexdigest()) if drawn is not None else None), drawn


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
