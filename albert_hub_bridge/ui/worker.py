"""The process that works for a visit: started, asked, watched and ended from here."""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from albert_hub_bridge.ui.jobs import settings_line
from albert_hub_bridge.ui.limits import Limits


_log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 0.5
STOPPED = "Stopped. Nothing was changed."

# What the process gets of the environment: where programs and hubs are, and no token or login of this machine.
_INHERITED = (
    "PATH",
    "LANG",
    "LC_ALL",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "HF_HUB_DISABLE_XET",
    "KAGGLE_API_ENVIRONMENT",
    "MODELSCOPE_ENDPOINT",
    "OMP_NUM_THREADS",
    "COVERAGE_PROCESS_START",
)


class Worker:
    """A process that runs the jobs of one visit, one at a time.

    Args:
        folder: Of the visit. The process has its home, its caches and its temporary files in it.
        shared: A folder for caches without any content of visitors.
        limits: Of the visit.
    """

    def __init__(self, folder: Path, shared: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ended = False
        self.idle_since = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "albert_hub_bridge.ui.jobs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            cwd=folder,
            env=environment(folder, shared),
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()
        self._tell(settings_line(folder, limits))

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 (for mypy)
        with suppress(ValueError, OSError):
            for line in self._process.stdout:
                self._lines.put(line)
        self._lines.put(None)

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None  # noqa: S101 (for mypy)
        with suppress(OSError, ValueError):  # it has ended, which `run` says
            self._process.stdin.write(line)
            self._process.stdin.flush()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return not self._ended and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def run(self, job: Mapping[str, Any], seconds: float) -> Iterator[dict[str, Any]]:
        """Run a job, and yield what the process says: stages, and a `result` or an `error` at the end.

        Args:
            job: Its name (`job`) and its arguments.
            seconds: After this time the process is ended.
        """
        started = time.monotonic()
        self._tell(json.dumps(job) + "\n")
        while True:
            try:
                line = self._lines.get(timeout=_SECONDS_BETWEEN_LOOKS)
            except queue.Empty:
                if (problem := self._problem(time.monotonic() - started, seconds)) is not None:
                    self.end()
                    yield {"error": problem}
                    return
                yield {}
                continue
            if line is None:
                self.idle_since = time.monotonic()
                yield {"error": STOPPED if self._ended else self._why_it_died()}
                return
            said: dict[str, Any] = json.loads(line)
            if (places := said.pop("unexpected", None)) is not None:
                _log.error("A job failed: %s\n%s", job.get("job"), places)
            if "error" in said or "result" in said:
                self.idle_since = time.monotonic()
                yield said
                return
            if (problem := self._problem(time.monotonic() - started, seconds)) is not None:
                self.end()
                yield {"error": problem}
                return
            yield said

    def _problem(self, elapsed: float, seconds: float) -> str | None:
        """Return why the process has to be ended, or None."""
        limits, advice = self._limits, "Convert this model on your own machine: pip install albert-hub-bridge"
        if elapsed > seconds:
            return f"This took longer than {seconds / 60:.0f} minutes, and was stopped. {advice}"
        if memory_of(self.pid) > limits.memory_bytes:
            return f"This needs more than {limits.memory_bytes / 1e9:.1f} GB of memory, and was stopped. {advice}"
        if bytes_in(self._folder) > limits.visit_bytes:
            return f"This needs more than {limits.visit_bytes / 1e9:.1f} GB of disk, and was stopped. {advice}"
        return None

    def _why_it_died(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "The machine of this page has not enough memory for this model. Convert it on your own machine."
        return f"The process that worked on this ended ({code}). Choose the source again."

    def end(self) -> None:
        """End the process, and those that it started."""
        self._ended = True
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError, ValueError):
                if pipe is not None:
                    pipe.close()


def environment(folder: Path, shared: Path) -> dict[str, str]:
    """Return the environment of a visit's process: its home is the folder of the visit."""
    home, temporary = folder / "home", folder / "temporary"
    for path in (home, temporary):
        path.mkdir(exist_ok=True)
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {
        **inherited,
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "HF_HOME": str(home / "huggingface"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "KAGGLEHUB_CACHE": str(home / "kagglehub"),
        "MODELSCOPE_CACHE": str(home / "modelscope"),
        "KERAS_BACKEND": "torch",
        "KERAS_HOME": str(home / "keras"),
        "MPLCONFIGDIR": str(shared),  # its list of fonts takes seconds to make
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # nothing is imported from the folder of a visit
    }


def memory_of(pid: int) -> int:
    """Return the bytes of memory that a process and those that it started have for themselves."""
    total, waiting = 0, [pid]
    while waiting:
        process = waiting.pop()
        with suppress(OSError, ValueError):
            status = Path(f"/proc/{process}/status").read_text()
            fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
            total += sum(int(fields.get(name, "0 kB").split()[0]) << 10 for name in ("RssAnon", "RssShmem"))
        with suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
    return total


def bytes_in(folder: Path) -> int:
    """Return the bytes of all files in a folder. Links are not followed."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total
