"""JSON files, read by their tables with every problem listed at once."""

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
        head: Fields of a head, whether there is one or not.
        ignored: Keys that are not carried over.
    """

    architecture: Architecture
    head: Mapping[str, Any]
    ignored: list[IgnoredKey]


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
    if (activation := fields.get("activation")) in SAME_ACTIVATION:
        fields["activation"] = SAME_ACTIVATION[activation]
    if fields.get("attention_dropout") == fields["dropout"]:
        fields["attention_dropout"] = None
    if problems := [
        Problem("too large", name, f"expected at most {most}, found {fields[name]}")
        for name, most in _LARGEST.items()
        if type(fields[name]) is int and fields[name] > most
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
