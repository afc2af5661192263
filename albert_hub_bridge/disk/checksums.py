"""Checksums of files: those that hubs publish, and those that `conversion.json` keeps."""

from __future__ import annotations

import hashlib
from pathlib import Path

from albert_hub_bridge.disk.durable import add_filename


def sha256_of(file: Path | bytes) -> str:
    """Return the SHA-256 of a file or content, in hexadecimal."""
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()
    with add_filename(file), file.open("rb", buffering=0) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def git_object_of(file: Path | bytes) -> str:
    """Return git's name of a file or content (its blob id), in hexadecimal."""
    if isinstance(file, bytes):
        content = file
    else:
        with add_filename(file):
            content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
