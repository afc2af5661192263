"""SHA-256 digests of the files and tensors of a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.disk.checksums import sha256_of
from albert_hub_bridge.formats.blocks import as_matrix, blocks_in_c_order
from albert_hub_bridge.layouts.registry import is_checkpoint_file
from albert_hub_bridge.provenance.record import CARD, RECORD


def sha256_of_tensor(name: str, dtype: str, values: np.ndarray) -> str:
    r"""Return the SHA-256 of a tensor, in hexadecimal: the same in a preset, a bridge and a transformers repository.

    It is that of three lines of UTF-8, each with its `\n`, and the values after them: the name in the albert_hub layout,
    without the `backbone.` that a model with a head puts before it; the dtype; the sizes of the axes with a space
    between. The values are in the albert_hub layout, in C order, little-endian.

    Args:
        name: Such as `token_embedding.weight`.
        dtype: `float32`, `bfloat16` or `float16`.
        values: In the albert_hub layout, of any strides.
    """
    digest = hashlib.sha256(f"{name}\n{dtype}\n{' '.join(map(str, values.shape))}\n".encode())
    for block in blocks_in_c_order(as_matrix(values)):
        digest.update(block.view(f"u{block.itemsize}").astype(f"<u{block.itemsize}", copy=False).data)
    return digest.hexdigest()


def file_list(folder: Path, known: Mapping[Path, str] | None = None) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of every file of a preset or repository, by its name; not of the record and the card.

    Args:
        folder: Of the files.
        known: SHA-256 of those that need not be read for it.
    """
    known = known or {}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in files}
    counted = {name: path for name, path in named.items() if name not in (RECORD, CARD) and is_checkpoint_file(name)}
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        found = pool.map(lambda path: known.get(path) or sha256_of(path), counted.values())
        sums = dict(zip(counted, found, strict=True))
    return {name: {"bytes": path.stat().st_size, "sha256": sums[name]} for name, path in counted.items()}


def tensor_list(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the SHA-256 of every tensor, by its name in the albert_hub layout.

    They do not depend on the layout, the shards or the format of the files: two folders have the same weights where
    their records have the same list. `stores/checksums.py` defines them.
    """
    return {
        name: sha256_of_tensor(name, checkpoint.dtype, weight.load()) for name, weight in checkpoint.weights.items()
    }
