"""Checksums of files: those that hubs publish, and those that `conversion.json` keeps."""

from __future__ import annotations

import hashlib
from pathlib import Path

from albert_hub_bridge.disk.durable import add_filename


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with add_filename(file), file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def git_object_of(file: Path) -> str:
    """Return git's name of a file's content (its blob id), in hexadecimal."""
    digest = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with add_filename(file):
        digest.update(file.read_bytes())
    return digest.hexdigest()
