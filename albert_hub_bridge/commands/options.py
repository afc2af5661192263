"""The options of `convert`."""

from __future__ import annotations

import re
from typing import Literal


Normalize = Literal["keep", "none", "uncased"]


def parse_size(size: int | str) -> int:
    """Return a number of bytes, given as one or as `"200MB"` (KB, MB and GB are powers of 1000).

    Raises:
        ValueError: It is not a positive size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(|KB|MB|GB)", str(size).strip().upper())
    number = int(float(match[1]) * {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}[match[2]]) if match else 0
    if number < 1:
        raise ValueError(f"A size is a number of bytes, or such as 200MB, not {size!r}.")
    return number
