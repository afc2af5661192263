"""`conversion.json`: where a converted folder comes from, as data, beside the card that says it to people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albert_hub_bridge.disk.strict_json import json_bytes, read_json
from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.hubs.local_source import LocalSource


RECORD, CARD, PICTURE = "conversion.json", "README.md", "parity.png"

# The checks of a verification, in the order of the report and the card.
CHECKS = ("configuration", "tensors", "reference", "engines", "texts")

# What a record must have, so that a card can be made of it and files can be checked by it.
# fmt: off
_SHAPE: dict[str, type | tuple[type, ...]] = {
    "tool": str, "command": str, "source": dict, "target": dict, "published": (dict, type(None)),
    "architecture": dict, "head": (str, type(None)), "head_kind": (str, type(None)),
    "has_pooler": bool, "parameters": int, "vocabulary": (dict, type(None)), "changed_texts": (int, type(None)),
    "sample_size": int, "sentence_transformers": (str, type(None)), "ignored": list, "dropped": list, "notes": list,
    "verification": (dict, type(None)), "picture": (dict, type(None)), "golden": (dict, type(None)),
}
# fmt: on


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


def made_by(record: Mapping[str, Any]) -> str:
    """Say what a record says of where its folder comes from."""
    revision = f", revision {record['source']['revision']}" if record["source"].get("revision") else ""
    return f"converted from {record['source']['handle']}{revision}, by {record['tool']}"


def public_handle(source: LocalSource) -> str:
    """Return what a source is called elsewhere: of a folder only its name, because its path is nobody's business."""
    return source.handle if "://" in source.handle else source.folder.resolve().name
