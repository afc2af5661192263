"""JSON files, read by their tables with every problem listed at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.mapping.configs import SAME_ACTIVATION, IgnoredKey, Table, read_keys
from albert_hub_bridge.model.architecture import FIELDS, VARIANT_FIELDS, Architecture, Variant
from albert_hub_bridge.stores.files import write_file


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a configuration says.

    Args:
        architecture: Of the encoder.
        variant: What the encoder does otherwise than KerasHub's.
        head: Fields of a head, whether there is one or not.
        ignored: Keys that are not carried over.
    """

    architecture: Architecture
    variant: Variant
    head: Mapping[str, Any]
    ignored: list[IgnoredKey]


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


def read_configuration(file: Path, table: Table, keys: Mapping[str, Any]) -> Configuration:
    """Read the configuration of a model from the keys of a file.

    Raises:
        ConfigurationError: As `read_fields`, or the architecture is impossible.
    """
    fields, ignored = read_fields(file, table, keys)
    activation = fields.get("activation")
    variant = {name: fields.pop(name) for name in VARIANT_FIELDS if name in fields}
    if activation in SAME_ACTIVATION:
        variant["activation"] = SAME_ACTIVATION[activation]
    if variant.get("attention_dropout") == fields["dropout"]:
        variant["attention_dropout"] = None
    try:
        architecture = Architecture(**{name: fields.pop(name) for name in FIELDS})
        return Configuration(architecture, Variant(**variant), fields, ignored)
    except ValueError as error:
        raise ConfigurationError(file, "configuration", [Problem("impossible", file.name, str(error))]) from error


def model_fields(architecture: Architecture, variant: Variant) -> dict[str, Any]:
    """Return the fields that `read_configuration` read."""
    return {**asdict(architecture), **asdict(variant)}


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a new file with a JSON object."""
    write_file(file, json_bytes(content))


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Return a JSON object as a file has it: indented, in the order given."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
