"""Write the vectors of a folder of parts as one `.npy` file, which NumPy can map into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from albert_hub_bridge.corpora.parts import Columns, PartsFolder, part_name
from albert_hub_bridge.disk.atomic import new_file
from albert_hub_bridge.disk.durable import add_filename, to_disk, write_all


def is_written(parts: PartsFolder, columns: Columns, target: Path) -> bool:
    """Return whether a run before wrote all parts into a file, and was stopped before it removed them.

    Args:
        parts: The parts.
        columns: Their columns.
        target: The file.
    """
    if not parts.was_complete:
        return False
    try:
        found = np.load(target, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    expected = (sum(part.rows for part in parts.finished), columns.dimension)
    return isinstance(found, np.ndarray) and (found.shape, found.dtype) == (expected, np.dtype(columns.dtype))


def write_npy(parts: PartsFolder, columns: Columns, target: Path) -> None:
    """Write the vectors of all parts into one file. A row without vector is NaN.

    Args:
        parts: The parts, all written.
        columns: Their columns.
        target: The file to make.

    Raises:
        TargetError: The file exists, or the system refused.
    """
    from pyarrow import parquet

    rows = sum(part.rows for part in parts.finished)
    header = {"descr": np.dtype(columns.dtype).str, "fortran_order": False, "shape": (rows, columns.dimension)}
    with new_file(target, overwrite=False) as staged, add_filename(staged), staged.open("xb", buffering=0) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for number in range(len(parts.finished)):
            with parquet.ParquetFile(parts.folder / part_name(number)) as part:
                for batch in part.iter_batches(columns=["embedding"]):
                    column = batch.column(0)
                    vectors = column.fill_null([np.nan] * columns.dimension) if column.null_count else column
                    write_all(stream, vectors.flatten().to_numpy().data.cast("B"))
        to_disk(stream)
