"""JSON as its standard has it, and of a size that a configuration can have: what strangers wrote is parsed here."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any


# A configuration has some ten levels and some hundred values; the index of a large model, and the pieces of a
# vocabulary, some hundred thousand. Each value takes up to a hundred bytes of memory.
_MOST_LEVELS, _MOST_VALUES = 32, 1_000_000


def parse_object(content: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Returns:
        The object, nested 32 levels deep at most. Every text in it can be written as UTF-8.

    Raises:
        ValueError: The content is not UTF-8 or not JSON, is NaN or infinite somewhere, has a key twice in one object,
            nests too deep or has too many values. The message says what was found.
        TypeError: It is JSON, and not an object.
    """
    parsed = parse(content)
    if not isinstance(parsed, dict):
        raise TypeError(f"expected an object, found {type(parsed).__name__}")
    return parsed


def parse(content: bytes) -> Any:
    """Parse JSON of any kind.

    Raises:
        ValueError: As `parse_object`.
    """
    if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("a byte order mark at its beginning: it has to be UTF-8 without one")
    if (count := content.count(b",") + content.count(b"[") + content.count(b"{")) > _MOST_VALUES:
        raise ValueError(f"up to {count:,} values, and {_MOST_VALUES:,} are more than enough")
    try:
        parsed = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_no_number,
            parse_float=_finite,
        )
    except RecursionError as error:
        raise ValueError(f"more than {_MOST_LEVELS} levels of nesting") from error
    _check_values(parsed)
    return parsed


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):  # parsers differ on which of them counts
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1}) if len(keys) < 1000 else ["a key"]
        raise ValueError(f"{', '.join(map(repr, twice))} more than once in one object")
    return content


def _no_number(name: str) -> float:
    raise ValueError(f"{name}, which is not JSON")


def _finite(text: str) -> float:
    if not isfinite(number := float(text)):
        raise ValueError(f"the number {text[:40]}, which is larger than any float")
    return number


def _check_values(parsed: Any) -> None:
    """Refuse what later steps could not bear: deep nesting, and halves of characters, which nothing can write."""
    level: list[Any] = [parsed]
    for _ in range(_MOST_LEVELS):
        inside: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inside += value.keys()
                inside += value.values()
            elif isinstance(value, list):
                inside += value
            elif isinstance(value, str) and not value.isascii():
                value.encode()  # UnicodeEncodeError is a ValueError
        level = inside
    if level:
        raise ValueError(f"more than {_MOST_LEVELS} levels of nesting")
