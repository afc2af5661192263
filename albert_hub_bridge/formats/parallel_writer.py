"""Write arrays into a file with all cores."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from albert_hub_bridge.disk.durable import add_filename, write_all
from albert_hub_bridge.formats.blocks import ContiguousCopier, row_blocks
from albert_hub_bridge.formats.lazy_tensors import are_finite


class ParallelWriter:
    """Writes arrays of any strides into a file, in C order, with one thread for each core."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._local = threading.local()  # a stream and a copier for each thread
        self._resources = ExitStack()

    def __enter__(self) -> ParallelWriter:
        self._pool = self._resources.enter_context(ThreadPoolExecutor(os.cpu_count()))
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def fill(self, array: np.ndarray, offset: int) -> bool:
        """Write one array at an offset, and return whether all its values are finite.

        Raises:
            OSError: The system refused to write.
        """
        return all(self._pool.map(self._write, row_blocks(array, offset)))

    def _write(self, part: tuple[int, np.ndarray]) -> bool:
        offset, block = part
        if not hasattr(self._local, "copier"):
            self._local.copier = ContiguousCopier()
        contiguous = self._local.copier(block)
        finite = are_finite(contiguous)  # while it is in the cache
        content = contiguous.reshape(-1).view(np.uint8).data
        with add_filename(self._file):
            if not hasattr(self._local, "stream"):
                self._local.stream = self._resources.enter_context(self._file.open("r+b", buffering=0))
            self._local.stream.seek(offset)
            write_all(self._local.stream, content)
        return finite
