"""What a visit may use of the machine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits that fit a free Space: 2 cores, 16 GB of memory, 50 GB of disk.

    Args:
        upload_bytes: Of an uploaded archive.
        unpacked_bytes: Of all files in an archive, and of what is downloaded from Hugging Face.
        entries: Number of files in an archive.
        ratio: The largest compression of a file in an archive. Weights are compressed by less than 10.
        visit_bytes: Of all files of a visit: downloads, the unpacked archive, conversions.
        memory_bytes: Of the process that works for a visit.
        light_seconds: Of one inspection, dry run or push.
        heavy_seconds: Of one conversion with its verification.
        idle_seconds: After the last request, before the files of a visit are removed.
        warm_seconds: After the last job, before the process that keeps both models loaded is ended.
        visits: Number of visits with files at one time.
        waiting: Number of requests that wait in the queue.
    """

    upload_bytes: int = 1_000_000_000
    unpacked_bytes: int = 2_000_000_000
    entries: int = 1000
    ratio: int = 200
    visit_bytes: int = 6_000_000_000
    memory_bytes: int = 12_000_000_000
    light_seconds: float = 600.0
    heavy_seconds: float = 1800.0
    idle_seconds: float = 1800.0
    warm_seconds: float = 300.0
    visits: int = 6
    waiting: int = 16
