"""Checksums of files, as hubs state them and as `conversion.json` keeps them, and of tensors in whatever file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from albert_hub_bridge.stores.files import naming
from albert_hub_bridge.stores.tensors import as_matrix, blocks_in_c_order


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


def sha256_of_tensor(name: str, dtype: str, values: np.ndarray) -> str:
    r"""Return the SHA-256 of a tensor, in hexadecimal: the same in a preset, a bridge and a stock repository.

    It is that of three lines of UTF-8, each with its `\n`, and the values after them: the name in the bridge layout,
    without the `backbone.` that a model with a head puts before it; the dtype; the sizes of the axes with a space
    between. The values are in the bridge layout, in C order, little-endian.

    Args:
        name: Such as `token_embedding.weight`.
        dtype: `float32`, `bfloat16` or `float16`.
        values: In the bridge layout, of any strides.
    """
    digest = hashlib.sha256(f"{name}\n{dtype}\n{' '.join(map(str, values.shape))}\n".encode())
    for block in blocks_in_c_order(as_matrix(values)):
        digest.update(block.view(f"u{block.itemsize}").astype(f"<u{block.itemsize}", copy=False).data)
    return digest.hexdigest()
