"""Short, printable text for messages."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any


def first_few(names: Sequence[str], most: int) -> str:
    """Name the first of many, and count the rest."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def printable(text: str) -> str:
    """Spell out what is no character to be seen: what a file says must not steer a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text)


_SHOWN = reprlib.Repr()
_SHOWN.maxstring = _SHOWN.maxother = 600
_SHOWN.maxdict = _SHOWN.maxlist = 100
_SHOWN.maxlevel = 4


def shown(value: Any) -> str:
    """Return the `repr` of a value from a file, without the megabytes of it that would be cut off anyway."""
    return _SHOWN.repr(value)


def one_line(text: str, most: int) -> str:
    """Cut a text that somebody chose, and spell out what would not be seen of it, or begin another line."""
    text = text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"
    return printable(text).replace("\n", "\\n") or "''"
