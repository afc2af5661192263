"""Write indices of TensorFlow checkpoints byte by byte, with any content."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c

from albert_hub_bridge.formats.tensor_bundle import read_index


Rows = Sequence[tuple[bytes, bytes]]
MAGIC = bytes.fromhex("57fb808b247547db")
HEADER = b"\x08\x01\x1a\x02\x08\x01"  # one file of values, little-endian, version 1
NUMBERS = {"float32": 1, "int64": 9}


def varint(value: int) -> bytes:
    out = b""
    value &= (1 << 64) - 1
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def proto(*fields: tuple[int, int | bytes]) -> bytes:
    """Encode fields of a message: bytes, and numbers other than 0."""
    out = b""
    for number, value in fields:
        if isinstance(value, bytes):
            out += varint(number << 3 | 2) + varint(len(value)) + value
        elif value:
            out += varint(number << 3) + varint(value)
    return out


def masked(content: bytes) -> int:
    found = google_crc32c.value(content)
    return ((found >> 15 | found << 17) + 0xA282EAD8) & 0xFFFFFFFF


def sealed(content: bytes, kind: int = 0) -> bytes:
    """Append the type of a block and its checksum."""
    return content + bytes([kind]) + struct.pack("<I", masked(content + bytes([kind])))


def block(rows: Rows, interval: int = 16) -> bytes:
    """Encode rows as LevelDB does: a key omits what it shares with the key before it, except each 16th."""
    out, starts, last = b"", [0], b""
    for at, (key, value) in enumerate(rows):
        shared = 0
        if at % interval:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        elif at:
            starts.append(len(out))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return out + with_restarts(starts)


def with_restarts(starts: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(starts) + 1}I", *starts, len(starts))


def table(blocks: Sequence[tuple[bytes, bytes]], about: bytes | None = None) -> bytes:
    """Encode a table of sealed blocks, each with its key."""
    out, places = b"", []
    for separator, content in blocks:
        places.append((separator, varint(len(out)) + varint(len(content) - 5)))
        out += content
    footer = b""
    for content in (about or sealed(block([])), sealed(block(places, 1))):
        footer += varint(len(out)) + varint(len(content) - 5)
        out += content
    return out + footer.ljust(40, b"\0") + MAGIC


@dataclass
class Bundle:
    """The content of an index, for a test to change."""

    folder: Path
    header: bytes = HEADER
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def messages(self) -> list[tuple[bytes, bytes]]:
        return [(b"", self.header), *((name.encode("latin-1"), entry(row)) for name, row in self.rows.items())]

    def index(self) -> bytes:
        messages = self.messages()
        successor = bytes([key[0] + 1]) if (key := messages[-1][0]) else b""  # LevelDB's, which is short
        return table([(successor, sealed(block(messages)))])

    def write(self, content: bytes | None = None) -> None:
        self.index_file.write_bytes(self.index() if content is None else content)

    @property
    def index_file(self) -> Path:
        return self.folder / "model.ckpt-best.index"

    @property
    def values_file(self) -> Path:
        return self.folder / "model.ckpt-best.data-00000-of-00001"


def entry(row: Mapping[str, Any]) -> bytes:
    """Encode the message of a variable."""
    axes = b"".join(b"\x12" + varint(len(axis)) + axis for axis in (proto((1, size)) for size in row["shape"]))
    places = proto((1, row["dtype"]), (2, axes), (3, row["shard"]), (4, row["offset"]), (5, row["size"]))
    return places + b"\x35" + struct.pack("<I", row["checksum"]) + row["more"]


def read_for_change(folder: Path) -> Bundle:
    bundle = Bundle(folder)
    for name, (_, location, size, checksum) in read_index(bundle.index_file).items():
        bundle.rows[name] = {
            "dtype": NUMBERS[location.dtype],
            "shape": location.shape,
            "shard": 0,
            "offset": location.offset,
            "size": size,
            "checksum": checksum,
            "more": b"",
        }
    return bundle


def in_bundle(change: Callable[[Bundle], object]) -> Callable[[Path], None]:
    """Return a function that changes the content of an index, and writes it with valid checksums."""

    def apply(folder: Path) -> None:
        bundle = read_for_change(folder)
        change(bundle)
        bundle.write()

    return apply
