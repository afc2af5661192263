"""The datasets of an HDF5 file, each mapped from where it lies in the file where that is possible."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.stores.checkpoint import DTYPES, Weight
from albert_hub_bridge.stores.tensors import map_tensor


def read_datasets(file: Path, resources: ExitStack) -> dict[str, Weight]:
    """Return every dataset of a file by its path, unread.

    Args:
        file: To read.
        resources: What closes it.

    Raises:
        WeightsError: h5py finds the file damaged.
    """
    datasets: dict[str, Weight] = {}

    def collect(name: str | bytes, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            datasets[name if isinstance(name, str) else name.decode(errors="backslashreplace")] = _as_weight(item, file)

    try:
        resources.enter_context(h5py.File(file, "r")).visititems(collect)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # what h5py raises on damaged files
        raise WeightsError(file, "weights", [Problem("not HDF5", file.name, str(error))]) from error
    return datasets


def _as_weight(dataset: h5py.Dataset, file: Path) -> Weight:
    if dataset.external or dataset.is_virtual:  # its values are in another file, which is nobody's weights
        return Weight(dataset.shape, "values in another file", dataset.__array__)
    # HDF5 has no bfloat16: Keras stores two opaque bytes and says so in an attribute.
    if dataset.dtype == np.dtype("V2") and str(dataset.attrs.get("dtype")) == "bfloat16":
        name, dtype = "bfloat16", DTYPES["bfloat16"]
    else:
        name, dtype = dataset.dtype.name, dataset.dtype
    offset = dataset.id.get_offset() if dtype.isnative and not dataset.file.userblock_size else None
    if offset is not None:  # the values lie in the file as they are, in one run
        return Weight(dataset.shape, name, partial(map_tensor, file, offset, dataset.shape, dtype))

    def read() -> np.ndarray:
        values: np.ndarray = dataset[()]
        return values.view(dtype) if name == "bfloat16" else values.astype(dtype.newbyteorder("="), copy=False)

    return Weight(dataset.shape, name, read)
