"""`conversion.json`: where a converted folder comes from, as data, beside the card that says it to people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.stores.checksums import sha256_of
from albert_hub_bridge.stores.configurations import read_json, write_json
from albert_hub_bridge.stores.layouts import is_known_file


RECORD, CARD = "conversion.json", "README.md"


def file_list(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of every file of a preset or repository, by its name; not of the record and the card."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in files}
    counted = {name: path for name, path in named.items() if name not in (RECORD, CARD) and is_known_file(name)}
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        sums = dict(zip(counted, pool.map(sha256_of, counted.values()), strict=True))
    return {name: {"bytes": path.stat().st_size, "sha256": sums[name]} for name, path in counted.items()}


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
