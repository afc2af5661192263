"""Visits: the folder, the process and the choices of each visitor, until the visitor leaves."""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from albert_hub_bridge.errors import AlbertHubBridgeError
from albert_hub_bridge.ui.limits import Limits
from albert_hub_bridge.ui.worker import STOPPED, Worker


_SECONDS_BETWEEN_LOOKS = 5.0


class VisitError(AlbertHubBridgeError):
    """The page cannot do what a visitor asked for now."""


@dataclass(slots=True)
class Choices:
    """What a visitor chose and did so far.

    Args:
        source: The source as the jobs take it: an address, or a folder of the visit.
        name: The name of the model.
        is_upload: Whether the source was uploaded.
        target: The converted folder; None before a conversion.
        planned: What the last dry run was for: that alone can be done.
    """

    source: str | None = None
    name: str = "model"
    is_upload: bool = False
    target: Path | None = None
    planned: tuple[object, ...] | None = None


@dataclass(slots=True)
class Visit:
    """A visit.

    Args:
        folder: Its files: uploads, downloads, conversions.
        downloads: What the visitor can download. The page serves this folder.
        choices: What the visitor chose.
        worker: The process that works for it; None before the first job.
        used: When the last job began or ended.
        ended: Whether the visitor left.
        lock: Is held while a job runs.
    """

    folder: Path
    downloads: Path
    choices: Choices = field(default_factory=Choices)
    worker: Worker | None = None
    used: float = field(default_factory=time.monotonic)
    ended: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class Visits:
    """All visits of the page.

    Args:
        root: An empty folder for the files of all visits.
        served: The folder that the page serves files from.
        limits: Of each visit, and of their number.
    """

    def __init__(self, root: Path, served: Path, limits: Limits) -> None:
        self._root, self._served, self.limits = root, served, limits
        self._shared = root / "shared"
        self._shared.mkdir(parents=True)
        served.mkdir(parents=True, exist_ok=True)
        self._visits: dict[str, Visit] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def of(self, session: str) -> Visit:
        """Return the visit of a session of the browser. A new one begins with empty folders.

        Raises:
            VisitError: There are as many visits as the page takes.
        """
        with self._lock:
            if session not in self._visits:
                self._make_room()
                name = secrets.token_hex(16)  # nobody can guess the address of a download
                folder, downloads = self._root / name, self._served / f"visit-{name}"
                folder.mkdir(mode=0o700)
                downloads.mkdir(mode=0o700)
                self._visits[session] = Visit(folder, downloads)
            visit = self._visits[session]
            visit.used = time.monotonic()
            return visit

    def _make_room(self) -> None:
        if len(self._visits) < self.limits.visits:
            return
        idle = [(visit.used, session) for session, visit in self._visits.items() if not visit.lock.locked()]
        used, session = min(idle, default=(time.monotonic(), ""))
        if time.monotonic() - used < self.limits.warm_seconds:
            raise VisitError(
                f"This page works for {self.limits.visits} visitors at a time, and has as many. Try again in a few "
                "minutes."
            )
        self._end(self._visits.pop(session))

    def run(self, visit: Visit, job: dict[str, Any], seconds: float) -> Iterator[dict[str, Any]]:
        """Run a job of a visit, and yield what it says: stages, and at the end a `result` or an `error`."""
        if not visit.lock.acquire(blocking=False):
            yield {"error": "This page already works for you. Wait until that has ended, or stop it."}
            return
        try:
            visit.used = time.monotonic()
            if visit.ended:
                yield {"error": STOPPED}
                return
            if visit.worker is None or not visit.worker.alive:
                self._end_idle_workers(visit)
                visit.worker = Worker(visit.folder, self._shared, self.limits)
            worker = visit.worker
            yield from worker.run(job, seconds)
        finally:
            visit.used = time.monotonic()
            visit.lock.release()
            if visit.ended:  # the visitor left while the process was started
                self._end(visit)

    def _end_idle_workers(self, visit: Visit) -> None:
        """End the processes of other visits that only keep their models loaded: this one needs the memory."""
        with self._lock:
            for other in self._visits.values():
                if other is not visit and other.worker is not None and not other.lock.locked():
                    other.worker.end()
                    other.worker = None

    def stop(self, session: str) -> bool:
        """End the process of a visit. Return whether there was one. The files stay."""
        visit = self._visits.get(session)
        if visit is None or visit.worker is None or not visit.worker.alive:
            return False
        visit.worker.end()
        return True

    def leave(self, session: str) -> None:
        """End a visit: its process ends, and its files are removed."""
        with self._lock:
            visit = self._visits.pop(session, None)
        if visit is not None:
            self._end(visit)

    def _end(self, visit: Visit) -> None:
        visit.ended = True
        if visit.worker is not None:
            visit.worker.end()
        for folder in (visit.folder, visit.downloads):
            shutil.rmtree(folder, ignore_errors=True)

    def _watch(self) -> None:
        """End visits that nobody uses, and processes that only keep models loaded; remove old uploads."""
        while not self._closed.wait(_SECONDS_BETWEEN_LOOKS):
            now = time.monotonic()
            with self._lock:
                idle = {key: visit for key, visit in self._visits.items() if not visit.lock.locked()}
                for session, visit in idle.items():
                    if now - visit.used > self.limits.idle_seconds:
                        self._end(self._visits.pop(session))
                    elif visit.worker is not None and now - visit.worker.idle_since > self.limits.warm_seconds:
                        visit.worker.end()
                        visit.worker = None
            remove_old_uploads(self._served, self.limits.idle_seconds)

    def close(self) -> None:
        """End all visits."""
        self._closed.set()
        for session in list(self._visits):
            self.leave(session)
        shutil.rmtree(self._root, ignore_errors=True)
        shutil.rmtree(self._served, ignore_errors=True)


def remove_old_uploads(served: Path, seconds: float) -> None:
    """Remove uploads that nobody inspected. Gradio keeps each upload in a folder of its own."""
    for folder in served.iterdir() if served.is_dir() else ():
        if folder.name.startswith("visit-"):
            continue
        try:
            if time.time() - folder.stat().st_mtime > seconds:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # another thread was faster
            continue
