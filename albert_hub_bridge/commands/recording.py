"""Write `conversion.json` and the model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from albert_hub_bridge._version import __version__
from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.commands.reports import Conversion, VocabularySummary
from albert_hub_bridge.disk.atomic import replace_file
from albert_hub_bridge.disk.checksums import sha256_of
from albert_hub_bridge.disk.durable import add_filename
from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.hubs.local_source import LocalSource
from albert_hub_bridge.hubs.published import ABOUT_PUBLISHED, is_published
from albert_hub_bridge.model.sentencepiece_unigram import TextNormalization
from albert_hub_bridge.provenance.integrity import changed_files
from albert_hub_bridge.provenance.model_card import render_card, written_by_hand
from albert_hub_bridge.provenance.picture import draw_parity
from albert_hub_bridge.provenance.record import CARD, PICTURE, RECORD, public_handle, read_record, record_bytes
from albert_hub_bridge.verification.report import Verification


def make_record(
    source: LocalSource,
    source_files: Mapping[str, Any],
    target_sums: Mapping[str, Any],
    target: Checkpoint,
    report: Conversion,
    vocabulary: VocabularySummary | None,
    command: str,
) -> dict[str, Any]:
    """Say of a conversion what `conversion.json` keeps: nothing that is not the same the next time."""
    rules: dict[str, Any] | None = None
    if target.tokenizer is not None and vocabulary is not None:
        baked = report.layout == "keras" and target.tokenizer.normalization != TextNormalization()
        lower_cases = target.tokenizer.normalization.lower_case or "uncased" in vocabulary.text_normalization
        rules = asdict(vocabulary) | {
            "lower_cases": lower_cases or target.tokenizer.vocabulary.normalization.endswith("_cf"),
            "rules_in_vocabulary": vocabulary.normalization_in_vocabulary or baked,
        }
    handle = public_handle(source)
    return {
        "tool": f"albert-hub-bridge {__version__}",
        "command": command,
        "source": {
            "handle": handle,
            "revision": source.revision,
            "layout": report.source.layout,
            "dtype": report.source.dtype,
            "files": source_files,
        },
        "target": {"layout": report.layout, "dtype": report.dtype, **target_sums},
        "published": ABOUT_PUBLISHED if is_published(handle) else None,
        "architecture": target.architecture.keras_arguments | target.architecture.differences_from_keras,
        "head": report.head,
        "head_kind": target.head.kind if target.head is not None else None,
        "has_pooler": target.has_pooler,
        "parameters": sum(prod(weight.shape) for weight in target.weights.values()),
        "vocabulary": rules,
        "changed_texts": report.changed_texts,
        "sample_size": report.sample_size,
        "sentence_transformers": report.sentence_transformers,
        "ignored": [asdict(key) for key in report.source.ignored],
        "dropped": [asdict(tensor) for tensor in report.dropped],
        "notes": list(report.notes),
        "verification": None,
        "picture": None,
        "golden": None,
    }


def record_verification(folder: Path, report: Verification, golden: Mapping[str, Any] | None = None) -> bool:
    """Write what was measured into a converted folder's record and card.

    Args:
        folder: That `convert` made.
        report: What `verify` measured of it.
        golden: Numbers that KerasHub publishes: `source` (where), `token_ids`, the first of `sequence_output` and of
            `pooled_output`, and `max_abs_difference`, how far the folder is from them.

    Returns:
        Whether it was: a folder without a record, or one that was changed since, is left alone.
    """
    record = read_record(folder)
    if record is None or changed_files(folder, record):
        return False
    measured = report.as_dict()
    record["verification"] = {key: value for key, value in measured.items() if key not in ("source", "target")}
    record |= {"golden": golden, "picture": None}
    write_record_files(folder, record, folder.resolve().name)
    return True


def write_record_files(folder: Path, record: dict[str, Any], location: str) -> None:
    """Write what says of a folder where it comes from: its record, its card, and the picture where there is one."""
    picture, known = folder / PICTURE, record["picture"]
    if known is None or not picture.is_file() or sha256_of(picture) != known["sha256"]:
        picture.unlink(missing_ok=True)  # of something else
        drawn = draw_parity(record["verification"]) if record["verification"] is not None else None
        record["picture"] = None
        if drawn is not None:
            replace_file(picture, drawn)
            record["picture"] = {"bytes": len(drawn), "sha256": sha256_of(picture)}
    with add_filename(folder / RECORD):
        before = (folder / RECORD).read_bytes()
    if (content := record_bytes(record)) != before:
        replace_file(folder / RECORD, content)
    try:
        rendered = render_card(record, location, written_by_hand(folder))
    except (KeyError, TypeError, AttributeError, ValueError, TemplateError) as error:
        problem = Problem("wrong", RECORD, f"expected what a card says of a conversion, found {error!r}")
        raise ConfigurationError(folder / RECORD, "record", [problem], "Convert it again.") from error
    replace_file(folder / CARD, rendered.encode())


def record_of(folder: Path) -> dict[str, Any]:
    record = read_record(folder)
    if record is None:
        raise no_record(folder)
    return record


def no_record(folder: Path) -> ConfigurationError:
    problem = Problem("missing", RECORD, "only what `convert` made has one")
    return ConfigurationError(folder / RECORD, "record", [problem])
