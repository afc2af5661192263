"""Run code in processes of its own that have imported the slow libraries already: forks of one process.

Neither transformers nor this package is imported before, so the order of their imports is that of the code.
"""

from __future__ import annotations

import atexit
import json
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path


ROOT = Path(__file__).parent.parent

_PARENT = """
import contextlib, importlib, json, os, sys, tempfile, traceback

for name in ("torch", "torch.distributed", "torch._dynamo", "huggingface_hub", "tokenizers"):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)


def run(code, out, err):
    with open(os.devnull) as nothing:
        for stream, number in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(stream.fileno(), number)
    try:
        exec(code, {"__name__": "__main__"})
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1


for line in sys.stdin:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            code = run(json.loads(line), out, err)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = []
        for stream in (out, err):
            stream.seek(0)
            said.append(stream.read().decode(errors="replace"))
    print(json.dumps([code, *said]), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it printed."""

    code: int
    stdout: str
    stderr: str


@cache
def _parent() -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", "-c", _PARENT]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    atexit.register(process.kill)
    return process


def run_forked(code: str, timeout: float = 300) -> Ended:
    """Run code, and return how it ended. After so many seconds, the processes are killed."""
    process = _parent()
    assert process.stdin is not None
    assert process.stdout is not None
    print(json.dumps(code), file=process.stdin, flush=True)
    guard = threading.Timer(timeout, process.kill)
    guard.start()
    answer = process.stdout.readline()
    guard.cancel()
    if not answer:
        _parent.cache_clear()
        raise AssertionError(f"the process did not end after {timeout} s, or its parent was killed")
    return Ended(*json.loads(answer))
