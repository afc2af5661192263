"""Checksums of files, as hubs state them and as `conversion.json` keeps them, and of tensors in whatever file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from albert_hub_bridge.disk.durable import naming


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with naming(file), file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def git_object_of(file: Path) -> str:
    """Return the name that git gives to a file's content, in hexadecimal."""
    digest = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with naming(file):
        digest.update(file.read_bytes())
    return digest.hexdigest()
