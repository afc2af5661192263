"""Find the arrays of a Flax file.

The file is msgpack: maps with text keys, nested, and arrays as extensions of type 1. Such an extension has a list of
the array's shape, its dtype and its values as bytes. msgpack reads the names, shapes and dtypes. The heads of
extensions and of bytes are read here, because msgpack returns such a value only as a whole: a file with one array of
268 MB took 805 MB of memory. With the heads alone, the values are never read, and the caller maps them from the file.

Sources: flax/serialization.py; https://github.com/msgpack/msgpack, spec.md.
"""

from __future__ import annotations

import os
from typing import Any, BinaryIO

import msgpack


_MAX_LEVELS, _MAX_NAMES, _MAX_NAME_LENGTH, _MAX_RANK = 16, 100_000, 300, 8
_MAX_VALUE_BYTES = 512  # of a name, a shape or a dtype
_ARRAY_TYPE = 1  # of extensions
# First byte -> in how many bytes the size follows; or the size itself.
_BYTES = {b"\xc4": 1, b"\xc5": 2, b"\xc6": 4}
_FIXED_SIZES = {b"\xd4": 1, b"\xd5": 2, b"\xd6": 4, b"\xd7": 8, b"\xd8": 16}
_EXTENSIONS = {b"\xc7": 1, b"\xc8": 2, b"\xc9": 4, **_FIXED_SIZES}


def read(file: str, job: dict[str, Any]) -> dict[str, Any]:
    """Return `{"arrays": [[name, dtype, shape, offset in the file, bytes of values], ...]}`.

    Raises:
        ValueError: The file is not a tree of arrays, or is damaged, or continues after its end.
    """
    with open(file, "rb") as stream:
        tree = _Tree(stream)
        tree.read_node("", 0)
        if left := tree.size - tree.position:
            raise ValueError(f"{left:,} bytes after its end")
        return {"arrays": tree.arrays}


class _Tree:
    """Reads a tree of arrays from its first byte to its last."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.size, self.position = stream, os.fstat(stream.fileno()).st_size, 0
        self.arrays: list[tuple[str, str, list[int], int, int]] = []
        self._names = 0

    def read_node(self, path: str, level: int) -> None:
        """Read a map of nodes, or an array."""
        if self._peek(1) in _EXTENSIONS:
            self._read_array(path)
            return
        try:
            count = self._unpack("read_map_header")
        except ValueError as error:
            raise ValueError(f"{error}, where a map or an array should be, at {path!r}") from error
        if level == _MAX_LEVELS:
            raise ValueError(f"more than {_MAX_LEVELS} levels of names, at {path!r}")
        names: set[str] = set()
        for _ in range(count):
            name = self._read_name(names)
            inner = f"{path}/{name}" if path else name
            if len(inner) > _MAX_NAME_LENGTH:
                raise ValueError(f"a name of {len(inner)} characters, which is more than {_MAX_NAME_LENGTH}")
            self.read_node(inner, level + 1)

    def _read_name(self, names: set[str]) -> str:
        """Read a key, and add it to the names of its map."""
        name = self._unpack()
        if not isinstance(name, str):
            raise ValueError(f"{type(name).__name__} instead of a name, before byte {self.position:,}")
        if name in names:
            raise ValueError(f"{name!r} twice in one map")
        if "/" in name:
            raise ValueError(f"a slash in the name {name!r}")
        self._names += 1
        if self._names > _MAX_NAMES:
            raise ValueError(f"more than {_MAX_NAMES:,} names")
        names.add(name)
        return name

    def _read_array(self, path: str) -> None:
        size = self._read_size(_EXTENSIONS)
        if (code := self._read_number(1)) != _ARRAY_TYPE:
            raise ValueError(f"an extension of type {code} at {path!r}, which is not an array")
        end = self.position + size
        if self._unpack("read_array_header") != 3:
            raise ValueError(f"an array at {path!r} without exactly a shape, a dtype and values")
        shape, dtype = self._unpack(), self._unpack()
        if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < 1 << 48 for size in shape):
            raise ValueError(f"the shape {shape!r} at {path!r}, which is not a list of sizes")
        if not isinstance(dtype, str) or self._peek(1) not in _BYTES:
            raise ValueError(f"an array at {path!r} whose dtype is not text, or whose values are not bytes")
        count = self._read_size(_BYTES)
        if self.position + count != end:
            raise ValueError(f"an array at {path!r} with {count:,} bytes of values in an extension of {size:,}")
        self.arrays.append((path, dtype, shape, self.position, count))
        self._skip(count)

    def _unpack(self, method: str = "unpack") -> Any:
        """Call a method of msgpack's `Unpacker` on what comes next, of which it gets a small part."""
        unpacker = msgpack.Unpacker(
            max_buffer_size=_MAX_VALUE_BYTES,
            max_str_len=_MAX_NAME_LENGTH,
            max_array_len=_MAX_RANK,
            max_bin_len=0,
            max_map_len=0 if method == "unpack" else _MAX_NAMES,  # msgpack in pure Python checks headers too
            max_ext_len=0,
        )
        unpacker.feed(self._peek(_MAX_VALUE_BYTES))
        try:
            value = getattr(unpacker, method)()
        except msgpack.OutOfData as error:
            self._skip(_MAX_VALUE_BYTES)
            raise ValueError(f"a name, shape or dtype of more than {_MAX_VALUE_BYTES} bytes") from error
        except ValueError as error:
            raise ValueError(f"{error}, at byte {self.position:,} ({self._peek(1).hex() or 'the end'})") from error
        self.position += unpacker.tell()
        return value

    def _read_size(self, heads: dict[bytes, int]) -> int:
        """Read a head, and return the size of what follows."""
        head = self._peek(1)
        self._skip(1)
        return _FIXED_SIZES[head] if head in _FIXED_SIZES else self._read_number(heads[head])

    def _read_number(self, count: int) -> int:
        number = int.from_bytes(self._peek(count), "big")
        self._skip(count)
        return number

    def _peek(self, count: int) -> bytes:
        self._stream.seek(self.position)
        return self._stream.read(count)

    def _skip(self, count: int) -> None:
        if self.position + count > self.size:
            raise ValueError(f"one that is truncated at {self.size:,} of {self.position + count:,} bytes or more")
        self.position += count
