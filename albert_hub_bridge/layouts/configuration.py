"""Read the keys of JSON files by their tables. All problems are listed at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.mapping.configs import SAME_ACTIVATION, IgnoredKey, Table, read_keys
from albert_hub_bridge.model.architecture import (
    KERAS_FIELDS,
    OTHER_FIELDS,
    Architecture,
    architecture_problems,
)


# Larger numbers are refused before anything is allocated. The largest published ALBERT has 12 layers, a width of 4096
# and 30,000 pieces. mT5 has 250,000 pieces.
# fmt: off
_MAXIMA = {
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
    """The content of a configuration.

    Args:
        architecture: The architecture of the encoder.
        head: The fields of a head, whether there is a head or not.
        ignored: Keys that are not converted.
    """

    architecture: Architecture
    head: Mapping[str, Any]
    ignored: list[IgnoredKey]


def read_fields(file: Path, table: Table, keys: Mapping[str, Any]) -> tuple[dict[str, Any], list[IgnoredKey]]:
    """Read the keys of a file by their table.

    Args:
        file: The file, for the message.
        table: The row of each key.
        keys: The content of the file.

    Returns:
        The renamed fields, and the ignored keys.

    Raises:
        ConfigurationError: Keys are unknown, missing, unsupported or contradictory; lists them all.
    """
    fields, ignored, problems = read_keys(table, keys)
    if problems:
        raise ConfigurationError(file, "configuration", problems)
    return fields, ignored


def read_configuration(file: Path, table: Table, keys: Mapping[str, Any]) -> Configuration:
    """Read the configuration of a model from the keys of a file.

    Args:
        file: The file, for the message.
        table: The row of each key.
        keys: The content of the file.

    Raises:
        ConfigurationError: As `read_fields`, or the architecture is impossible.
    """
    fields, ignored = read_fields(file, table, keys)
    if (activation := fields.get("activation")) in SAME_ACTIVATION:
        fields["activation"] = SAME_ACTIVATION[activation]
    if fields.get("attention_dropout") == fields["dropout"]:
        fields["attention_dropout"] = None
    if problems := [
        Problem("too large", name, f"expected at most {maximum}, found {fields[name]}")
        for name, maximum in _MAXIMA.items()
        if type(fields[name]) is int and fields[name] > maximum
    ]:
        raise ConfigurationError(file, "configuration", problems)
    settings = {name: fields.pop(name) for name in (*KERAS_FIELDS, *OTHER_FIELDS) if name in fields}
    impossible = architecture_problems(settings)
    if impossible:
        problems = [
            Problem("impossible", why.partition(" ")[0], f"expected an ALBERT, found: {why}") for why in impossible
        ]
        raise ConfigurationError(file, "configuration", problems)
    return Configuration(Architecture(**settings), fields, ignored)
