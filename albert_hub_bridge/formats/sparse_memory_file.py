"""A file in memory that only takes memory where something was written."""

from __future__ import annotations

import io
import mmap
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from typing_extensions import Buffer


class SparseMemoryFile(io.RawIOBase):
    """A file in memory. Pages that nothing was written to take no memory.

    Args:
        max_bytes: The largest size of the file.
    """

    def __init__(self, max_bytes: int) -> None:
        self._memory, self._position, self.size = mmap.mmap(-1, max_bytes), 0, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to an offset, and return the position."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        """Fill a buffer, and return its size."""
        view = memoryview(buffer).cast("B")
        view[:] = self._memory[self._position : self._position + len(view)]
        self._position += len(view)
        return len(view)

    def write(self, content: Buffer) -> int:
        """Write all bytes, and return how many."""
        view = memoryview(content).cast("B")
        self._memory[self._position : self._position + len(view)] = view
        self._position += len(view)
        self.size = max(self.size, self._position)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Set the size, and return it."""
        self.size = self._position if size is None else size
        return self.size

    def read_at(self, begin: int, end: int) -> bytes:
        """Return the bytes from `begin` to `end`."""
        return self._memory[begin:end]
