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
from albert_hub_bridge.errors import CheckpointError, ConfigurationError, Problem, SourceError
from albert_hub_bridge.model.sentencepiece_unigram import TextRules
from albert_hub_bridge.reports import Conversion, FilesCheck, VocabularySummary
from albert_hub_bridge.stores.checkpoint import Checkpoint
from albert_hub_bridge.stores.checksums import sha256_of, sha256_of_tensor
from albert_hub_bridge.stores.configurations import json_bytes, read_json
from albert_hub_bridge.stores.hub import Source
from albert_hub_bridge.stores.layouts import check_own_files, is_known_file, read_checkpoint
from albert_hub_bridge.stores.published import ABOUT_PUBLISHED, is_published


RECORD, CARD, PICTURE = "conversion.json", "README.md", "parity.png"

# What a record must have, so that a card can be made of it and files can be checked by it.
# fmt: off
_SHAPE: dict[str, type | tuple[type, ...]] = {
    "tool": str, "command": str, "source": dict, "target": dict, "published": (dict, type(None)),
    "architecture": dict, "variant": dict, "head": (str, type(None)), "head_kind": (str, type(None)),
    "has_pooler": bool, "parameters": int, "vocabulary": (dict, type(None)), "changed_texts": (int, type(None)),
    "sample_size": int, "sentence_transformers": (str, type(None)), "ignored": list, "dropped": list, "notes": list,
    "verification": (dict, type(None)), "picture": (dict, type(None)), "golden": (dict, type(None)),
}
# fmt: on


def file_list(folder: Path, known: Mapping[Path, str] | None = None) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of every file of a preset or repository, by its name; not of the record and the card.

    Args:
        folder: Of the files.
        known: SHA-256 of those that need not be read for it.
    """
    known = known or {}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in files}
    counted = {name: path for name, path in named.items() if name not in (RECORD, CARD) and is_known_file(name)}
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        found = pool.map(lambda path: known.get(path) or sha256_of(path), counted.values())
        sums = dict(zip(counted, found, strict=True))
    return {name: {"bytes": path.stat().st_size, "sha256": sums[name]} for name, path in counted.items()}


def tensor_list(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the SHA-256 of every tensor, by its name in the bridge layout.

    They do not depend on the layout, the shards or the format of the files: two folders have the same weights where
    their records have the same list. `stores/checksums.py` defines them.
    """
    return {
        name: sha256_of_tensor(name, checkpoint.dtype, weight.load()) for name, weight in checkpoint.weights.items()
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
    problems = [
        Problem(
            "missing key" if key not in record else "wrong type",
            key,
            f"expected {_names(kind)}, found {_names(type(record[key])) if key in record else 'none'}: "
            "not a record of albert-hub-bridge",
        )
        for key, kind in _SHAPE.items()
        if not isinstance(record.get(key, ...), kind)
    ]
    if not problems:
        files = {"source": record["source"].get("files"), "target": record["target"].get("files")}
        sums = {side: list(of.values()) if isinstance(of, dict) else [None] for side, of in files.items()}
        sums["picture"] = [record["picture"]] if record["picture"] is not None else []
        problems = [
            Problem("missing key", f"source.{key}", "expected a text, found none")
            for key in ("handle", "layout")
            if not isinstance(record["source"].get(key), str)
        ]
        problems += [
            Problem("wrong", side, "expected a sha256 for every file, found others or none")
            for side, listed in sums.items()
            if not all(isinstance(one, dict) and isinstance(one.get("sha256"), str) for one in listed)
        ]
        tensors = record["target"].get("tensors")
        if not isinstance(tensors, dict) or not all(isinstance(one, str) for one in tensors.values()):
            problems.append(Problem("wrong", "target", "expected a sha256 for every tensor, found others or none"))
    if problems:
        raise ConfigurationError(file, "record", problems, "Convert it again, or remove this file.")
    return record


def _names(kinds: type | tuple[type, ...]) -> str:
    each = kinds if isinstance(kinds, tuple) else (kinds,)
    return " or ".join("none" if kind is type(None) else kind.__name__ for kind in each)


def record_bytes(record: Mapping[str, Any]) -> bytes:
    """Return a record as `conversion.json` has it."""
    return json_bytes(json.loads(json.dumps(record, default=str)))


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


def check_files(folder: Path) -> FilesCheck | None:
    """Compare the files and the tensors of a folder with the checksums in its record; None where it has no record.

    Raises:
        FileError: What would be read is not a regular file of the folder.
        ConfigurationError: It is not a record of this package.
        CheckpointError: No file was changed, and the folder cannot be read all the same.
    """
    check_own_files(folder)
    record = read_record(folder)
    if record is None:
        return None
    changes, made = changed_files(folder, record), set(record["target"]["files"])
    if (picture := record["picture"]) is not None:
        file, made = folder / PICTURE, {*made, PICTURE}
        if not file.is_file():
            changes[PICTURE] = "missing"
        elif sha256_of(file) != picture["sha256"]:
            changes[PICTURE] = "changed"
    # A hub's own files, which every download of it has, are no news.
    known = {*made, *changes, RECORD, CARD, ".gitattributes"}
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    others = [
        path.as_posix() for path in found if path.as_posix() not in known and path.parts[0] not in (".git", ".cache")
    ]
    tensors = record["target"]["tensors"]
    try:
        with read_checkpoint(folder) as checkpoint:
            held = tensor_list(checkpoint)
    except (CheckpointError, SourceError):
        if not changes:
            raise
        held = {}  # what was changed is why
    different = sorted(name for name in {**tensors, **held} if tensors.get(name) != held.get(name)) if held else []
    return FilesCheck(str(folder), made_by(record), len(made), len(tensors), changes, different, others)


def made_by(record: Mapping[str, Any]) -> str:
    """Say what a record says of where its folder comes from."""
    revision = f", revision {record['source']['revision']}" if record["source"].get("revision") else ""
    return f"converted from {record['source']['handle']}{revision}, by {record['tool']}"


def make_record(
    source: Source,
    source_files: Mapping[str, Any],
    target_sums: Mapping[str, Any],
    target: Checkpoint,
    report: Conversion,
    vocabulary: VocabularySummary | None,
    command: str,
) -> dict[str, Any]:
    """Say of a conversion what `conversion.json` keeps: nothing that is not the same the next time."""
    rules: dict[str, Any] | None = None
    if target.text is not None and vocabulary is not None:
        baked = report.layout == "keras" and target.text.rules != TextRules()
        lower_cases = target.text.rules.lower_case or "uncased" in vocabulary.text_rules
        rules = asdict(vocabulary) | {
            "lower_cases": lower_cases or target.text.vocabulary.normalization.endswith("_cf"),
            "rules_in_vocabulary": vocabulary.rules_in_vocabulary or baked,
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
        "architecture": asdict(target.architecture),
        "variant": report.source.variant,
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


def public_handle(source: Source) -> str:
    """Return what a source is called elsewhere: of a folder only its name, because its path is nobody's business."""
    return source.handle if "://" in source.handle else source.folder.resolve().name
