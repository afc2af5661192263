"""SHA-256 digests of the files and tensors of a checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.disk.checksums import sha256_of
from albert_hub_bridge.disk.source_folder import list_files
from albert_hub_bridge.formats.blocks import as_matrix, blocks_in_c_order
from albert_hub_bridge.layouts.registry import is_checkpoint_file
from albert_hub_bridge.provenance.record import CARD, RECORD


def sha256_of_tensor(name: str, dtype: str, values: np.ndarray) -> str:
    r"""Return the SHA-256 of a tensor, in hexadecimal. It is the same in every layout.

    It is the digest of three lines of UTF-8, each with its `\n`, and of the values after them. The lines are the name
    in the albert_hub layout, without the `backbone.` that a model with a head puts before it; the dtype; and the sizes
    of the axes, separated by spaces. The values are in the albert_hub layout, in C order, little-endian.

    Args:
        name: The name, such as `token_embedding.weight`.
        dtype: `float32`, `bfloat16`, `float16` or `int8`.
        values: The values in the albert_hub layout, of any strides.
    """
    digest = hashlib.sha256(f"{name}\n{dtype}\n{' '.join(map(str, values.shape))}\n".encode())
    for block in blocks_in_c_order(as_matrix(values)):
        digest.update(block.view(f"u{block.itemsize}").astype(f"<u{block.itemsize}", copy=False).data)
    return digest.hexdigest()


def file_list(
    folder: Path, names: Iterable[str] | None = None, precomputed: Mapping[Path, str] | None = None
) -> dict[str, dict[str, Any]]:
    """Return the size and SHA-256 of every file of a preset or repository, without its record and its card.

    Args:
        folder: The folder.
        names: The names of its files, if they were listed already.
        precomputed: Known SHA-256, by path.

    Returns:
        `bytes` and `sha256`, by the name of the file.
    """
    digests = precomputed or {}
    listed = list_files(folder) if names is None else names
    files = {name: folder / name for name in listed if name not in (RECORD, CARD) and is_checkpoint_file(name)}
    with ThreadPoolExecutor() as pool:  # hashing releases the interpreter's lock
        computed = pool.map(lambda path: digests.get(path) or sha256_of(path), files.values())
        return {
            name: {"bytes": path.stat().st_size, "sha256": sha256}
            for (name, path), sha256 in zip(files.items(), computed, strict=True)
        }


def tensor_list(checkpoint: Checkpoint) -> dict[str, str]:
    """Return the SHA-256 of every tensor, by its name in the albert_hub layout.

    They do not depend on the layout, the shards or the format of the files. Two folders have the same weights if their
    records have the same list. See `sha256_of_tensor`.
    """
    return {name: sha256_of_tensor(name, weight.dtype, weight.load()) for name, weight in checkpoint.weights.items()}
