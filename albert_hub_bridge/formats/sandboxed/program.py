"""Run one task on untrusted files, within limits on memory, time and written bytes.

This package is imported under the name `sandboxed`, and imports nothing else of albert_hub_bridge: that would take
longer than most tasks. `main` reads from standard input two objects of JSON. The first is a line:

path      `sys.path`
task      a module of this package, which has `read(file, job) -> answer`

The second is the job. It comes when there are files to read:

files     names of files, hexadecimal
memory    bytes of address space, beyond what Python and the task's library need
written   bytes that a file may have after it was written
seconds   wall time for each file

It prints one object of JSON per file: the answer, or `{"failed": why}`.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO


_CPU_SECONDS = 600  # a process whose parent was killed ends after this time at the latest
_OPEN_FILES = 256


def main() -> None:
    """Do the job."""
    out = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # libraries may print: standard output has nothing but answers
    start = json.loads(sys.stdin.readline())
    sys.path[:] = start["path"]
    try:
        task = importlib.import_module(f".{start['task']}", __package__)
        job = json.load(sys.stdin)
        _limit_resources(job["memory"], job["written"])
        for file in job["files"]:
            # A thread of C ends the process when the time is over, also while a library holds the interpreter's lock.
            faulthandler.dump_traceback_later(job["seconds"], exit=True)
            answer = _answer(task.read, decode_path(file), job)
            faulthandler.cancel_dump_traceback_later()  # the parent may not be reading yet
            _print(out, answer)
    except Exception as error:
        _print(out, {"failed": _reason(error)})
    os._exit(0)  # the parent waits for the end, and the libraries take long to clean up


def decode_path(name: str) -> str:
    """Return the name of a file, which a job has as hexadecimal digits."""
    return os.fsdecode(bytes.fromhex(name))


def _answer(read: Callable[[str, Any], Any], file: str, job: Any) -> Any:
    try:
        return read(file, job)
    except Exception as error:  # libraries raise exceptions of any kind on damaged files
        return {"failed": _reason(error)}


def _print(out: TextIO, answer: Any) -> None:
    out.write(json.dumps(answer) + "\n")
    out.flush()


def _reason(error: Exception) -> str:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return reason if isinstance(error, ValueError) else f"{type(error).__name__}: {reason}"


def _limit_resources(memory: int, written: int) -> None:
    """Limit this process, on systems that have limits of resources."""
    try:
        import resource

        with open("/proc/self/statm", encoding="ascii") as file:
            address_space = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    # fmt: off
    limits = {
        "AS": address_space + memory, "CPU": _CPU_SECONDS, "FSIZE": written, "CORE": 0, "NOFILE": _OPEN_FILES,
    }
    # fmt: on
    for name, limit in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        soft = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (soft, soft))
