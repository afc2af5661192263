"""JSON files, read by their tables with every problem listed at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.mapping.configs import IgnoredKey, Table, read_keys
from albert_hub_bridge.model.architecture import Architecture


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ConfigurationError: The file is missing, is not JSON, or is not an object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(file, "configuration", [Problem("missing", file.name, "")]) from error
    except (ValueError, RecursionError) as error:  # bad JSON and bad UTF-8 are both ValueErrors
        raise ConfigurationError(file, "configuration", [Problem("not JSON", file.name, str(error))]) from error
    if not isinstance(content, dict):
        detail = f"expected an object, found {type(content).__name__}"
        raise ConfigurationError(file, "configuration", [Problem("not an object", file.name, detail)])
    return content


def read_object(file: Path, key: str) -> dict[str, Any]:
    """Read the object under a key of a JSON file.

    Raises:
        ConfigurationError: As `read_json`, or there is no object under the key.
    """
    value = read_json(file).get(key)
    if not isinstance(value, dict):
        raise ConfigurationError(file, "configuration", [Problem("missing key", key, "expected an object")])
    return value


def read_fields(file: Path, table: Table, keys: Mapping[str, Any]) -> tuple[dict[str, Any], list[IgnoredKey]]:
    """Read the keys of a file by their table.

    Returns:
        The renamed fields, and the ignored keys.

    Raises:
        ConfigurationError: Keys are unknown, missing, refused or contradictory; lists them all.
    """
    fields, ignored, problems = read_keys(table, keys)
    if problems:
        raise ConfigurationError(file, "configuration", problems)
    return fields, ignored


def read_architecture(file: Path, table: Table, keys: Mapping[str, Any]) -> tuple[Architecture, list[IgnoredKey]]:
    """Read an architecture from the keys of a file.

    Raises:
        ConfigurationError: As `read_fields`, or the architecture is impossible.
    """
    fields, ignored = read_fields(file, table, keys)
    try:
        return Architecture(**fields), ignored
    except ValueError as error:
        raise ConfigurationError(file, "configuration", [Problem("impossible", file.name, str(error))]) from error


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, indented, in the order given."""
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
