"""Read and write JSON files. Parsing is strict, because a source is untrusted."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from albert_hub_bridge.disk.durable import write_file
from albert_hub_bridge.disk.regular_files import read_bytes
from albert_hub_bridge.errors import ConfigurationError, Problem


MAX_JSON_BYTES = 4 << 20  # of a file of settings, or of an index; a vocabulary in JSON has its own limit
# A configuration has about 10 levels and 100 values. The index of a large model and the pieces of a vocabulary have
# some 100,000 values. Each value takes up to 100 bytes of memory.
_MAX_LEVELS, _MAX_VALUES = 32, 1_000_000


def read_json(
    file: Path, max_bytes: int = MAX_JSON_BYTES, read: Callable[[int], bytes] | None = None
) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        file: The file to read.
        max_bytes: The largest size of the file, in bytes.
        read: What reads the file, up to a number of bytes, if not this function.

    Raises:
        FileError: The file is not a regular file, is larger than `max_bytes`, or is empty.
        ConfigurationError: The file is missing, is not strict JSON (see `parse`), or is not an object.
    """
    try:
        return parse_object(read(max_bytes) if read is not None else read_bytes(file, max_bytes))
    except FileNotFoundError as error:
        problem = Problem("missing", file.name, "expected a file, found none")
        raise ConfigurationError(file, "configuration", [problem]) from error
    except ValueError as error:  # wrong JSON and wrong UTF-8 are both ValueErrors
        detail = f"expected an object in UTF-8, found {error}"
        raise ConfigurationError(file, "configuration", [Problem("not JSON", file.name, detail)]) from error
    except TypeError as error:
        raise ConfigurationError(file, "configuration", [Problem("not an object", file.name, str(error))]) from error


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object to a new file."""
    write_file(file, json_bytes(content))


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Return a JSON object as bytes: indented, with the keys in the given order."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def parse_object(content: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Returns:
        The object. It has at most 32 levels, and every string in it can be encoded as UTF-8.

    Raises:
        ValueError: As `parse`.
        TypeError: The content is JSON, but not an object.
    """
    parsed = parse(content)
    if not isinstance(parsed, dict):
        raise TypeError(f"expected an object, found {type(parsed).__name__}")
    return parsed


def parse(content: bytes) -> Any:
    """Parse JSON of any kind.

    Raises:
        ValueError: The content is not UTF-8, is not JSON, has a number that is NaN or infinite, has a key twice in one
            object, has too many levels or too many values. The message says what was found.
    """
    if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("a byte order mark at its beginning: it has to be UTF-8 without one")
    if (count := content.count(b",") + content.count(b"[") + content.count(b"{")) > _MAX_VALUES:
        raise ValueError(f"up to {count:,} values, and {_MAX_VALUES:,} are more than enough")
    try:
        parsed = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_refuse_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
        )
    except RecursionError as error:
        raise ValueError(f"more than {_MAX_LEVELS} levels of nesting") from error
    _check_levels_and_strings(parsed)
    return parsed


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):  # parsers differ in which of the values they take
        keys = [key for key, _ in pairs]
        duplicates = sorted({key for key in keys if keys.count(key) > 1}) if len(keys) < 1000 else ["a key"]
        raise ValueError(f"{', '.join(map(repr, duplicates))} more than once in one object")
    return content


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name}, which is not JSON")


def _finite_float(text: str) -> float:
    if not isfinite(number := float(text)):
        raise ValueError(f"the number {text[:40]}, which is larger than any float")
    return number


def _check_levels_and_strings(parsed: Any) -> None:
    """Refuse deep nesting, and strings with lone surrogates, which UTF-8 cannot encode."""
    level: list[Any] = [parsed]
    for _ in range(_MAX_LEVELS):
        next_level: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                next_level += value.keys()
                next_level += value.values()
            elif isinstance(value, list):
                next_level += value
            elif isinstance(value, str) and not value.isascii():
                value.encode()  # UnicodeEncodeError is a ValueError
        level = next_level
    if level:
        raise ValueError(f"more than {_MAX_LEVELS} levels of nesting")
