"""The frame of a file that Flax wrote: where the values of each array lie. They stay where they are.

It is msgpack: maps in maps by texts, and at their ends arrays, as extension type 1 that has a shape, a dtype and bytes.
Libraries for msgpack read all of a file into memory before they find out that it is none; here, only what lies between
the values is read. Sources of the format: flax/serialization.py; https://github.com/msgpack/msgpack, spec.md.
"""

from __future__ import annotations

import mmap
from contextlib import ExitStack
from math import prod
from pathlib import Path
from typing import NamedTuple

from albert_hub_bridge.disk.regular_files import check_beginning, open_regular
from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.formats.lazy_tensors import DTYPES, LazyTensor
from albert_hub_bridge.formats.safetensors import tensors_at


_MOST_LEVELS, _MOST_NAMES, _LONGEST_NAME = 16, 100_000, 300

# First byte -> what follows, and how many bytes say how much of it: a number's own, or the size of all else.
# fmt: off
_KINDS = {
    0xC4: ("bytes", 1), 0xC5: ("bytes", 2), 0xC6: ("bytes", 4),
    0xC7: ("an extension", 1), 0xC8: ("an extension", 2), 0xC9: ("an extension", 4),
    0xCC: ("a number", 1), 0xCD: ("a number", 2), 0xCE: ("a number", 4), 0xCF: ("a number", 8),
    0xD9: ("a text", 1), 0xDA: ("a text", 2), 0xDB: ("a text", 4),
    0xDC: ("a list", 2), 0xDD: ("a list", 4),
    0xDE: ("a map", 2), 0xDF: ("a map", 4),
}
# First and last byte -> what follows; the byte itself says how much of it.
_SMALL = (
    (0x00, 0x7F, "a number"), (0x80, 0x8F, "a map"), (0x90, 0x9F, "a list"), (0xA0, 0xBF, "a text"),
)
_FIXED = {0xD4 + power: ("an extension", 1 << power) for power in range(5)}
# fmt: on


class Array(NamedTuple):
    """An array in a file."""

    dtype: str  # a key of DTYPES, or NumPy's own name of another dtype
    shape: tuple[int, ...]
    offset: int  # of its first byte, in the file


def read_tree(file: Path) -> dict[str, Array]:
    """Return every array of a file by its path, such as `albert/pooler/kernel`.

    Raises:
        FileError: It is not a regular file, or is something else by its content.
        ValueError: It is not a tree of arrays, or is damaged, or has something after its end. The message says what was
            found.
    """
    check_beginning(file)
    with open_regular(file) as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        tree = _Tree(content)
        tree.read("", 0)
        if left := len(content) - tree.at:
            raise ValueError(f"{left:,} bytes after its end")
        return tree.arrays


class _Tree:
    """Reads a tree from its first byte to its last."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content, self.at = content, 0
        self.arrays: dict[str, Array] = {}
        self._names = 0

    def read(self, path: str, level: int) -> None:
        """Read a node: a map of nodes, or an array."""
        kind, size = self._head()
        if kind == "an extension":
            self.arrays[path] = self._array(size)
            return
        if kind != "a map" or level == _MOST_LEVELS:
            found = f"{_MOST_LEVELS} levels of names" if kind == "a map" else kind
            raise ValueError(f"{found} where an array should be, at {path!r}")
        names = set()
        for _ in range(size):
            name = self._text(_LONGEST_NAME)
            self._names += 1
            if self._names > _MOST_NAMES:
                raise ValueError(f"more than {_MOST_NAMES:,} names")
            if name in names or "/" in name:
                raise ValueError(f"{name!r} twice in one node" if name in names else f"a slash in the name {name!r}")
            names.add(name)
            inner = f"{path}/{name}" if path else name
            if len(inner) > _LONGEST_NAME:
                raise ValueError(f"a name of {len(inner)} characters, and {_LONGEST_NAME} are more than enough")
            self.read(inner, level + 1)

    def _array(self, size: int) -> Array:
        if (code := self._take(1)[0]) != 1:
            raise ValueError(f"an extension of type {code}, which is not an array")
        end = self.at + size
        if self._head() != ("a list", 3):
            raise ValueError("an array that is not a shape, a dtype and values")
        kind, axes = self._head()
        if kind != "a list" or axes > 8:
            raise ValueError(f"an array with {kind} of {axes} for a shape")
        shape = tuple(self._size() for _ in range(axes))
        dtype = self._text(32)
        kind, count = self._head()
        if kind != "bytes" or self.at + count != end:
            raise ValueError(f"an array that has {kind} of {count:,} for values, and is {size:,} bytes")
        if dtype in DTYPES and prod(shape) * DTYPES[dtype].itemsize != count:
            raise ValueError(f"an array {shape} of {dtype} that has {count} bytes")
        array = Array(dtype, shape, self.at)
        self._skip(count)
        return array

    def _size(self) -> int:
        kind, size = self._head()
        if kind != "a number" or size >= 1 << 48:
            raise ValueError(f"an array that has {kind} of {size:,} in its shape")
        return size

    def _text(self, most: int) -> str:
        kind, size = self._head()
        if kind != "a text" or size > most:
            raise ValueError(f"{kind} of {size:,} where a text of at most {most} bytes should be")
        return self._take(size).decode()  # UnicodeDecodeError is a ValueError

    def _head(self) -> tuple[str, int]:
        """Return what comes next, and its size; of a number, the number."""
        first = self._take(1)[0]
        for low, high, kind in _SMALL:
            if low <= first <= high:
                return kind, first - low
        if first in _FIXED:
            return _FIXED[first]
        kind, count = _KINDS.get(first, ("", 0))
        if not kind:
            raise ValueError(f"a byte {first:#04x}, which begins nothing that such a tree has")
        return kind, int.from_bytes(self._take(count), "big")

    def _take(self, count: int) -> bytes:
        begin = self.at
        self._skip(count)
        return self._content[begin : self.at]

    def _skip(self, count: int) -> None:
        if self.at + count > len(self._content):
            raise ValueError(f"one that is truncated at {len(self._content):,} of {self.at + count:,} bytes or more")
        self.at += count


def read_flax(file: Path, resources: ExitStack) -> dict[str, LazyTensor]:
    """Read `flax_model.msgpack`.

    Raises:
        FileError: It is not a regular file, or is something else by its content.
        WeightsError: It is not a tree of arrays, or is damaged.
    """
    try:
        return tensors_at(file, read_tree(file))
    except ValueError as error:
        detail = f"expected a tree of arrays in msgpack, found {error}"
        raise WeightsError(file, "weights", [Problem("not msgpack", file.name, detail)]) from error
