"""A process of its own for libraries that a damaged or hostile file can crash, or that could do anything at all.

The process runs `sandboxed.py`, which imports nothing of this package, with limits on memory, time and files. Where it
crashes or hangs, this process only learns that there is no answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast


_PROGRAM = Path(__file__).with_name("sandboxed.py")
_START_SECONDS = 120  # until the libraries are imported, on a machine that has other things to do
_MOST_ANSWER = 64 << 20


class SandboxError(Exception):
    """The process failed, or is no more; the message says what its library found."""


class Sandbox:
    """A process that does one job: it answers with objects of JSON, and with bytes.

    Args:
        job: What `sandboxed.py` is told, beside where to import from.
        resources: What ends the process.
    """

    def __init__(self, job: Mapping[str, Any], resources: ExitStack) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HDF5_")}
        environment |= {"HDF5_PLUGIN_PRELOAD": "::"}  # no plugins
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each thread reserves memory
        self._process = subprocess.Popen(  # noqa: S603 (our own program)
            [sys.executable, "-I", "-S", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        resources.callback(self.end)
        self._in, self._out = cast("BinaryIO", self._process.stdin), cast("BinaryIO", self._process.stdout)
        self._ready = False
        self.ask({"path": sys.path, **job})

    def ask(self, question: Any) -> None:
        """Send an object."""
        with suppress(OSError, ValueError):  # it has ended: the answer will be none
            self._in.write(json.dumps(question).encode() + b"\n")
            self._in.flush()

    def answer(self, seconds: float) -> dict[str, Any]:
        """Return the next answer.

        Args:
            seconds: After which the process is killed; not counted is the time until its libraries are imported.

        Raises:
            SandboxError: The job failed, or the process crashed, or was killed.
        """
        if not self._ready:
            self._ready = True
            self._line(_START_SECONDS)
        return self._line(seconds)

    def _line(self, seconds: float) -> dict[str, Any]:
        with self._deadline(seconds):
            line = b"" if self._out.closed else self._out.readline(_MOST_ANSWER)
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise SandboxError("a file on which the library crashes, or takes too much memory or time") from error
        if not isinstance(answer, dict) or "failed" in answer:
            raise SandboxError(str(answer["failed"] if isinstance(answer, dict) else answer))
        return answer

    def read_into(self, values: memoryview, seconds: float) -> None:
        """Fill a buffer with the bytes that come next.

        Raises:
            SandboxError: There are not as many.
        """
        done = 0
        with self._deadline(seconds):
            while done < len(values):
                if not (count := self._out.readinto(values[done:])):  # type: ignore[attr-defined]
                    raise SandboxError("values on which the library crashes, or takes too much memory or time")
                done += count

    @contextmanager
    def _deadline(self, seconds: float) -> Iterator[None]:
        timer = threading.Timer(seconds, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def end(self) -> None:
        """End the process; what it was asked and did not answer is forgotten."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._in, self._out):
            with suppress(OSError):  # what was written last was never read
                pipe.close()
