"""Run code in processes that have imported the slow libraries already: forks of one process.

Nothing of transformers or of this package is imported before, so the order of their imports is that of the code.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


ROOT = Path(__file__).parent.parent

_PARENT = """
import contextlib, io, json, os, sys, traceback
import huggingface_hub, numpy, safetensors, tokenizers, torch, torch.distributed, torch._dynamo, yaml

for line in sys.stdin:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    said, error = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(said):
            exec(json.loads(line), {"__name__": "__main__"})
    except BaseException:
        error = traceback.format_exc()
    print(json.dumps([said.getvalue(), error]), flush=True)
    os._exit(0)
"""


class Forks:
    """Runs code, each in a process of its own. `forks` makes it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, code: str) -> str:
        """Return what code prints."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(code), file=self._process.stdin, flush=True)
        said, error = json.loads(self._process.stdout.readline())
        assert error is None, error
        return str(said)


@contextmanager
def forks() -> Iterator[Forks]:
    """Yield what runs code in forks of a process."""
    command = [sys.executable, "-W", "ignore", "-c", _PARENT]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    ) as process:
        yield Forks(process)
