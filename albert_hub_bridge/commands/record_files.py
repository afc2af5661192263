"""Render and write a converted folder's record files: `conversion.json`, the model card and the picture."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from albert_hub_bridge.disk.atomic import replace_file
from albert_hub_bridge.disk.checksums import sha256_of
from albert_hub_bridge.disk.durable import add_filename, write_file
from albert_hub_bridge.disk.strict_json import read_json
from albert_hub_bridge.errors import AlbertHubBridgeError, ConfigurationError, Problem, TargetError
from albert_hub_bridge.provenance.card_edits import MergedCard, lines_of, merge_edits
from albert_hub_bridge.provenance.model_card import render_card
from albert_hub_bridge.provenance.picture import draw_parity
from albert_hub_bridge.provenance.record import CARD, PICTURE, RECORD, ConversionRecord, FileDigest


class WrittenCard(NamedTuple):
    """The card that a folder has.

    Args:
        rendered: Its lines as they were rendered last.
        text: The card as it is now, with what users wrote into it. Empty if there is none.
    """

    rendered: Sequence[str]
    text: str


def read_card(folder: Path) -> WrittenCard:
    """Read the card of a folder that a conversion may replace. Its record may be of another version."""
    rendered: object = None
    if (folder / RECORD).is_file():
        with suppress(AlbertHubBridgeError):
            rendered = read_json(folder / RECORD).get("card")
    lines = [line for line in rendered if isinstance(line, str)] if isinstance(rendered, list) else []
    return WrittenCard(lines, _text_of_card(folder))


def _text_of_card(folder: Path) -> str:
    file = folder / CARD
    with add_filename(file):
        try:
            return file.read_text(encoding="utf-8") if file.is_file() else ""
        except UnicodeDecodeError as error:
            raise TargetError(f"{file} is not UTF-8: {error}. Save it as UTF-8.") from error


def write_new_record(staging: Path, record: ConversionRecord, folder: Path, before: WrittenCard) -> None:
    """Write the record and the card of a new folder.

    Args:
        staging: Contains the converted files.
        record: Of the conversion.
        folder: What `staging` becomes.
        before: The card of the folder that is replaced. What users wrote into it stays.

    Raises:
        TargetError: Users edited lines that the new card changes too.
    """
    card = render_card(record, folder.name)
    merged = merge_edits(before.rendered, before.text, card)
    _check_card(merged, folder, "convert it again")
    write_file(staging / RECORD, replace(record, card=lines_of(card)).to_bytes())
    write_file(staging / CARD, merged.text.encode())


@dataclass(frozen=True, slots=True)
class RecordFiles:
    """A converted folder's record, card and picture, before they are written.

    Args:
        folder: The folder.
        record: With the digest of the picture and the lines of the card.
        contents: Of the files, by name, without a picture that the folder has already, and without a card that has
            conflicts.
        card: The card, with what users wrote into the folder's.
    """

    folder: Path
    record: ConversionRecord
    contents: Mapping[str, bytes]
    card: MergedCard

    def check_card(self) -> None:
        """Refuse a card that cannot be rendered without losing what a user wrote into it.

        Raises:
            TargetError: It has conflicts. They are listed.
        """
        _check_card(self.card, self.folder, f"run: albert-hub-bridge card {shlex.quote(str(self.folder))}")

    def write(self) -> None:
        """Replace the files of the folder, as far as they changed."""
        if self.record.picture is None:
            (self.folder / PICTURE).unlink(missing_ok=True)  # it shows another verification
        with add_filename(self.folder / RECORD):
            before = (self.folder / RECORD).read_bytes()
        for name, content in self.contents.items():
            if name != RECORD or content != before:
                replace_file(self.folder / name, content)


def _check_card(card: MergedCard, folder: Path, what_next: str) -> None:
    if card.conflicts:
        raise TargetError(
            f"{folder / CARD} was edited in lines that the new card changes too:{card.describe_conflicts()}\n"
            f"Write what should be there, or move {CARD} away, and {what_next}"
        )


def render_record_files(folder: Path, record: ConversionRecord, location: str) -> RecordFiles:
    """Render a converted folder's record, card and picture, and write nothing.

    Args:
        folder: The target of the conversion.
        record: To render.
        location: Where users will load it from, as `render_card` takes it.

    Raises:
        ConfigurationError: No card can be made of the record.
        TargetError: The folder's card is not UTF-8.
    """
    from jinja2 import TemplateError  # slow to import, and most commands render no card

    digest, drawn = _picture(folder, record)
    record = replace(record, picture=digest)
    try:
        card = render_card(record, location)
    except (KeyError, TypeError, AttributeError, ValueError, TemplateError) as error:
        # `verification` is checked in its outlines only.
        problem = Problem("wrong", "verification", f"expected what the model card shows of it, found {error!r}")
        raise ConfigurationError(folder / RECORD, "record", [problem], "Run verify again.") from error
    merged = merge_edits(record.card, _text_of_card(folder), card)
    contents = {} if drawn is None else {PICTURE: drawn}
    if not merged.conflicts:  # otherwise the folder's card is still an edit of the one before
        record = replace(record, card=lines_of(card))
        contents[CARD] = merged.text.encode()
    # The record comes last: if the card alone was written, the next merge finds the same lines on both sides.
    return RecordFiles(folder, record, {**contents, RECORD: record.to_bytes()}, merged)


def _picture(folder: Path, record: ConversionRecord) -> tuple[FileDigest | None, bytes | None]:
    """Return the digest of the picture of a record's verification, and the picture, unless the folder has it."""
    picture = folder / PICTURE
    if record.picture is not None and picture.is_file() and sha256_of(picture) == record.picture.sha256:
        return record.picture, None
    drawn = draw_parity(record.verification) if record.verification is not None else None
    return (FileDigest(len(drawn), sha256_of(drawn)) if drawn is not None else None), drawn
