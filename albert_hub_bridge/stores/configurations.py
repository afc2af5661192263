"""JSON files, read by their tables with every problem listed at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.mapping.configs import SAME_ACTIVATION, IgnoredKey, Table, read_keys
from albert_hub_bridge.model.architecture import (
    FIELDS,
    VARIANT_FIELDS,
    Architecture,
    Variant,
    architecture_problems,
    variant_problems,
)
from albert_hub_bridge.stores.files import write_file
from albert_hub_bridge.stores.source_files import read_bytes
from albert_hub_bridge.stores.strict_json import parse_object


# Bytes of the largest file of settings or names; a vocabulary in JSON has its own limit.
_MOST_BYTES = 4 << 20

# An ALBERT has to be far below these before anything is made of its numbers: the largest that is published has 12
# layers, a width of 4096 and 30,000 pieces, and mT5 has 250,000 pieces.
# fmt: off
_LARGEST = {
    "vocabulary_size":       1 << 19,
    "num_layers":            1 << 12,
    "num_heads":             1 << 12,
    "embedding_dim":         1 << 16,
    "hidden_dim":            1 << 16,
    "intermediate_dim":      1 << 18,
    "num_groups":            1 << 12,
    "num_inner_repetitions": 1 << 12,
    "max_sequence_length":   1 << 20,
    "num_segments":          1 << 16,
}
# fmt: on


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


def read_json(file: Path, most: int = _MOST_BYTES) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        file: To read.
        most: Bytes that it can have.

    Raises:
        FileError: It is not a regular file, or is larger, or is empty.
        ConfigurationError: The file is missing, is not strictly JSON (`strict_json`), or is not an object.
    """
    try:
        return parse_object(read_bytes(file, most))
    except FileNotFoundError as error:
        problem = Problem("missing", file.name, "expected a file, found none")
        raise ConfigurationError(file, "configuration", [problem]) from error
    except ValueError as error:  # bad JSON and bad UTF-8 are both ValueErrors
        detail = f"expected an object in UTF-8, found {error}"
        raise ConfigurationError(file, "configuration", [Problem("not JSON", file.name, detail)]) from error
    except TypeError as error:
        raise ConfigurationError(file, "configuration", [Problem("not an object", file.name, str(error))]) from error


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
    if problems := [
        Problem("too large", name, f"expected at most {most}, found {fields[name]}")
        for name, most in _LARGEST.items()
        if type(fields[name]) is int and fields[name] > most
    ]:
        raise ConfigurationError(file, "configuration", problems)
    numbers = {name: fields.pop(name) for name in FIELDS}
    impossible = architecture_problems(numbers) + variant_problems({**asdict(Variant()), **variant})
    if impossible:
        problems = [
            Problem("impossible", why.partition(" ")[0], f"expected an ALBERT, found: {why}") for why in impossible
        ]
        raise ConfigurationError(file, "configuration", problems)
    return Configuration(Architecture(**numbers), Variant(**variant), fields, ignored)


def model_fields(architecture: Architecture, variant: Variant) -> dict[str, Any]:
    """Return the fields that `read_configuration` read."""
    return {**asdict(architecture), **asdict(variant)}


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a new file with a JSON object."""
    write_file(file, json_bytes(content))


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Return a JSON object as a file has it: indented, in the order given."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
