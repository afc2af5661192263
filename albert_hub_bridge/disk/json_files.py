"""Read and write JSON files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albert_hub_bridge.disk.durable import write_file
from albert_hub_bridge.disk.regular_files import read_bytes
from albert_hub_bridge.disk.strict_json import parse_object
from albert_hub_bridge.errors import ConfigurationError, Problem


# Bytes of the largest file of settings or names; a vocabulary in JSON has its own limit.
_MOST_BYTES = 4 << 20


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


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a new file with a JSON object."""
    write_file(file, json_bytes(content))


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Return a JSON object as a file has it: indented, in the order given."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
