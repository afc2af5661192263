"""Check the values of dataclasses against the types of their fields, and read JSON objects as dataclasses.

All problems are listed at once. `@strict` of huggingface_hub stops at the first, and its import takes 0.1 s, because it
brings a client of HTTP along.
"""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from albert_hub_bridge.errors import Problem
from albert_hub_bridge.text import short_repr


def read_dataclass(kind: Any, content: dict[str, Any], where: str, problems: list[Problem]) -> Any:
    """Make a dataclass from a JSON object.

    Args:
        kind: A dataclass whose annotations are types. Its fields may be such dataclasses, or lists or dictionaries of
            them.
        content: The object.
        where: What comes before the names of its keys in the problems, such as `target.`.
        problems: Gets every missing key, unknown key and value of a wrong type.

    Returns:
        The dataclass; incomplete if there are problems.
    """
    types = field_types(kind)
    made = kind.__new__(kind)
    for name, expected in types.items():
        if name not in content:
            detail = f"expected {_described(expected)}, found none: not a record of albert-hub-bridge"
            problems.append(Problem("missing key", where + name, detail))
            continue
        value = _read_inner(expected, content[name], where + name, problems)
        setattr(made, name, value)
        if not fits(expected, value):
            detail = f"expected {_described(expected)}, found {short_repr(content[name])}"
            problems.append(Problem("wrong type", where + name, detail))
    problems += [
        Problem("unknown key", where + name, f"expected no such key, found {short_repr(value)}")
        for name, value in content.items()
        if name not in types
    ]
    return made


def check_dataclass(made: Any) -> None:
    """Refuse a dataclass with a value that is not of its field's type. Its fields may be dataclasses, too.

    Raises:
        TypeError: Lists all such fields.
    """
    wrong = _wrong_fields(made, type(made).__name__)
    if wrong:
        raise TypeError("; ".join(wrong))


def _wrong_fields(value: Any, where: str) -> list[str]:
    if isinstance(value, dict):
        return [problem for name, each in value.items() for problem in _wrong_fields(each, f"{where}[{name!r}]")]
    if isinstance(value, list):
        return [problem for index, each in enumerate(value) for problem in _wrong_fields(each, f"{where}[{index}]")]
    if not is_dataclass(value):
        return []
    wrong = []
    for name, expected in field_types(value).items():
        found = getattr(value, name)
        if not fits(expected, found):
            wrong.append(f"{where}.{name} should be {_described(expected)}, and is {short_repr(found)}")
        wrong += _wrong_fields(found, f"{where}.{name}")
    return wrong


def fits(kind: Any, value: Any) -> bool:
    """Return whether a value is of a type: a class, a union or `Literal`, or a list or dictionary of such types."""
    if kind is Any:
        return True
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(fits(each, value) for each in inner)
    if origin is Literal:
        return value in inner
    if origin is list:
        return isinstance(value, list) and all(fits(inner[0], each) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(inner[0], k) and fits(inner[1], v) for k, v in value.items())
    return isinstance(value, NoneType if kind is None else kind)


def _read_inner(kind: Any, value: Any, where: str, problems: list[Problem]) -> Any:
    """Make the dataclass that a type names from every JSON object in a value. Other values stay as they are."""
    inner = next((each for each in (kind, *get_args(kind)) if is_dataclass(each)), None)
    if inner is None:
        return value
    if get_origin(kind) is dict and isinstance(value, dict):
        return {name: _read_inner(inner, each, f"{where}.{name}", problems) for name, each in value.items()}
    if get_origin(kind) is list and isinstance(value, list):
        return [_read_inner(inner, each, f"{where}.{index}", problems) for index, each in enumerate(value)]
    return read_dataclass(inner, value, f"{where}.", problems) if isinstance(value, dict) else value


def field_types(kind: Any) -> dict[str, Any]:
    """Return the type of every field of a dataclass, by its name."""
    return {field.name: field.type for field in fields(kind)}


def _described(kind: Any) -> str:
    """Return a type in words: `str`, `int or none`, `one of keras, google`, `dict[str, FileDigest]`."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(_described, get_args(kind)))
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if kind is NoneType:
        return "none"
    return kind.__name__ if not get_args(kind) else re.sub(r"\b(?:\w+\.)+", "", str(kind))
