"""The table of a layout's files: names, what they are for, and what this package does with them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Literal, NamedTuple


# "legacy weights" are weights in a format that this package reads and does not write. A "record" says where a folder
# comes from, or what training wrote besides. Nothing in it is converted. "exported" files are made from the others.
Role = Literal["settings", "tokenizer", "weights", "legacy weights", "pooling", "code", "record", "exported"]

# Files that this package adds to a folder that it converted.
RECORD_FILES = ("conversion.json", "README.md", "parity.png")


class FileRow(NamedTuple):
    """A row of a layout's table: files that belong together.

    Args:
        names: Names relative to the folder. `#` stands for a digit, and `*` for any characters but a slash.
        role: What the files are for.
        written: Whether this package writes them.
        downloaded: Whether a download from a hub needs them.
    """

    names: tuple[str, ...]
    role: Role
    written: bool = True
    downloaded: bool = True

    def matches(self, name: str) -> bool:
        """Return whether a name is in the row."""
        return any(_pattern(each).fullmatch(name) is not None for each in self.names)

    def among(self, names: Iterable[str]) -> list[str]:
        """Return those of some names that are in the row, sorted."""
        return sorted(name for name in names if self.matches(name))


@cache
def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\#", "[0-9]").replace(r"\*", "[^/]*"))
