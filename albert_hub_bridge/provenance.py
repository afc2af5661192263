"""`conversion.json`: where a converted folder comes from, as data, beside the card that says it to people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

from albert_hub_bridge import __version__
from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.model.sentencepiece_unigram import TextRules
from albert_hub_bridge.reports import Conversion, VocabularySummary
from albert_hub_bridge.stores.checkpoint import Checkpoint
from albert_hub_bridge.stores.checksums import sha256_of, sha256_of_tensor
from albert_hub_bridge.stores.configurations import read_json, write_json
from albert_hub_bridge.stores.hub import Source
from albert_hub_bridge.stores.layouts import is_known_file
from albert_hub_bridge.stores.published import PUBLISHED_PRESETS


RECORD, CARD = "conversion.json", "README.md"


def file_list(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of every file of a preset or repository, by its name; not of the record and the card."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in files}
    counted = {name: path for name, path in named.items() if name not in (RECORD, CARD) and is_known_file(name)}
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        sums = dict(zip(counted, pool.map(sha256_of, counted.values()), strict=True))
    return {name: {"bytes": path.stat().st_size, "sha256": sums[name]} for name, path in counted.items()}


def tensor_list(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the SHA-256 of every tensor, by its name in the bridge layout.

    They do not depend on the layout, the shards or the format of the files: two folders have the same weights where
    their records have the same list. `stores/checksums.py` defines them.
    """
    return {
        name: sha256_of_tensor(name, checkpoint.dtype, weight.read()) for name, weight in checkpoint.weights.items()
    }


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return what a folder's `conversion.json` says; None where there is none.

    Raises:
        ConfigurationError: It is not a record of this package.
    """
    file = folder / RECORD
    if not file.is_file():
        return None
    record = read_json(file)
    if missing := [key for key in ("tool", "source", "target") if key not in record]:
        problems = [Problem("missing key", key, "not a record of albert-hub-bridge") for key in missing]
        raise ConfigurationError(file, "record", problems)
    return record


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write `conversion.json`."""
    write_json(folder / RECORD, json.loads(json.dumps(record, default=str)))


def changed_files(folder: Path, record: Mapping[str, Any]) -> dict[str, str]:
    """Compare a folder with its record.

    Returns:
        What happened, "changed", "missing" or "new", by the name of each file that is not as it was made.
    """
    made, found = record["target"]["files"], file_list(folder)
    changes = {name: "missing" for name in made if name not in found}
    changes |= {name: "new" for name in found if name not in made}
    changes |= {name: "changed" for name in found if name in made and found[name]["sha256"] != made[name]["sha256"]}
    return dict(sorted(changes.items()))


def make_record(
    source: Source,
    source_files: Mapping[str, Any],
    target_sums: Mapping[str, Any],
    target: Checkpoint,
    report: Conversion,
    vocabulary: VocabularySummary | None,
    command: str,
) -> dict[str, Any]:
    """Say of a conversion what `conversion.json` keeps."""
    rules: dict[str, Any] | None = None
    if target.text is not None and vocabulary is not None:
        baked = report.layout == "keras" and target.text.rules != TextRules()
        lower_cases = target.text.rules.lower_case or "uncased" in vocabulary.text_rules
        rules = asdict(vocabulary) | {
            "lower_cases": lower_cases or target.text.vocabulary.normalization.endswith("_cf"),
            "rules_in_vocabulary": vocabulary.rules_in_vocabulary or baked,
        }
    handle = public_handle(source)
    published = next((p for p in PUBLISHED_PRESETS.values() if handle.startswith(f"kaggle://{p.kaggle[:-2]}")), None)
    official = handle.startswith("hf://albert/albert-")
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
        "published": {"license": "apache-2.0", "language": "en"} if published or official else None,
        "architecture": asdict(target.architecture),
        "variant": report.source.variant,
        "head": report.head,
        "head_kind": target.head.kind if target.head is not None else None,
        "parameters": sum(prod(weight.shape) for weight in target.weights.values()),
        "vocabulary": rules,
        "changed_texts": report.changed_texts,
        "sample_size": report.sample_size,
        "ignored": [asdict(key) for key in report.source.ignored],
        "dropped": [asdict(tensor) for tensor in report.dropped],
        "notes": list(report.notes),
        "verification": None,
    }


def public_handle(source: Source) -> str:
    """Return what a source is called elsewhere: of a folder only its name, because its path is nobody's business."""
    return source.handle if "://" in source.handle else source.folder.resolve().name
