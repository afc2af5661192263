"""Short, printable text for messages."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from typing import Any


def first_few(names: Sequence[str], max_names: int) -> str:
    """Return the first names as a list, and the number of the others: "a, b and 3 more"."""
    rest = len(names) - max_names
    return ", ".join(names[:max_names]) + (f" and {rest} more" if rest > 0 else "")


def printable(text: str) -> str:
    """Escape the characters that are not printable, except line breaks.

    Untrusted text must not send control sequences to a terminal.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(text: str, max_length: int) -> str:
    """Return untrusted text as one printable line, cut to `max_length` characters before escaping."""
    text = text if len(text) <= max_length else f"{text[:max_length]}... ({len(text)} characters)"
    return printable(text).replace("\n", "\\n") or "''"


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 600
_REPR.maxdict = _REPR.maxlist = 100
_REPR.maxlevel = 4


def short_repr(value: Any) -> str:
    """Return the `repr` of an untrusted value, with long strings and collections shortened."""
    return _REPR.repr(value)


_COMMA = re.compile(r"(?<!\\),")


def split_names(text: str) -> list[str]:
    r"""Split names at commas; `\,` is a comma in a name."""
    return [name.strip().replace("\\,", ",") for name in _COMMA.split(text)]


def join_names(names: Sequence[str]) -> str:
    """Join names by commas: the inverse of `split_names`."""
    return ",".join(name.replace(",", "\\,") for name in names)
