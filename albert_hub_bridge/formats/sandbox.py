"""A separate process for libraries that a damaged or hostile file can crash.

libhdf5 and the unpickler of torch are not memory-safe, and msgpack can fill the memory. In a process with limits on
memory, time and files, a crash or a hang ends that process only, and this process learns that there is no answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast


Task = Literal["hdf5", "flax", "pytorch"]  # a module of `sandboxed`

_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from sandboxed.program import main; main()"
_START_SECONDS = 120  # to import the libraries, on a busy machine
_MAX_ANSWER_BYTES = 64 << 20
_NO_ANSWER = "a file on which the library crashes, or takes too much memory or time"
LIBRARY_BYTES = 128 << 20  # of memory, beyond what Python and the library need to start


_waiting: dict[Task, subprocess.Popen[bytes]] = {}  # of `started_early`


class SandboxError(Exception):
    """There is no answer about a file; the message says what the library found."""


class Sandbox:
    """One task in a process of its own, which starts at once and ends by itself.

    Args:
        task: What to do with the files.
        files: To read, one after the other.
        seconds: Wall time for each file.
        resources: Ends the process when it closes.
        memory: Bytes that the process may allocate.
        written: Bytes that it may write.
        options: More that the task needs to know; values of JSON.
    """

    def __init__(
        self,
        task: Task,
        files: Sequence[Path],
        seconds: float,
        resources: ExitStack,
        *,
        memory: int = LIBRARY_BYTES,
        written: int = 0,
        **options: Any,
    ) -> None:
        self._files, self._seconds = list(files), _START_SECONDS + seconds * len(files)
        self._answers: list[bytes] = []
        self._process = _take(task)
        resources.callback(self.end)
        self._in, self._out = cast("BinaryIO", self._process.stdin), cast("BinaryIO", self._process.stdout)
        limits = {"memory": memory, "written": written, "seconds": seconds}
        job = {"files": [encode_path(file) for file in files], **limits, **options}
        # Names may be longer than what a pipe holds. A process that has ended already gives no answer later.
        with self._time_limit(), suppress(OSError):
            self._in.write(json.dumps(job).encode())
            self._in.close()

    def answer(self, file: Path) -> dict[str, Any]:
        """Return what the task says about one of the files, as soon as it says it.

        Raises:
            SandboxError: The task failed, or the process crashed or was ended, before the answer or during it.
        """
        number = self._files.index(file)
        while len(self._answers) <= number:
            self._answers.append(self._read_answer())
        try:
            answer = json.loads(self._answers[number])
        except (ValueError, RecursionError) as error:
            raise SandboxError(_NO_ANSWER) from error
        if not isinstance(answer, dict) or "failed" in answer:
            raise SandboxError(str(answer["failed"]) if isinstance(answer, dict) else _NO_ANSWER)
        return answer

    def _read_answer(self) -> bytes:
        if self._out.closed:  # the process has ended
            return b""
        answer = b""
        try:
            with self._time_limit():
                answer = self._out.readline(_MAX_ANSWER_BYTES)
        finally:
            if not answer.endswith(b"\n") or len(self._answers) == len(self._files) - 1:
                self.end()
        return answer

    @contextmanager
    def _time_limit(self) -> Iterator[None]:
        timer = threading.Timer(self._seconds, self._process.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def end(self) -> None:
        """End the process, if it has not ended."""
        _end(self._process)


@contextmanager
def started_early(task: Task) -> Iterator[None]:
    """Start the process of the next `Sandbox` with a task. It imports the task's library while this process is busy.

    At the end of the block the process ends, if no sandbox has taken it.
    """
    with suppress(OSError):  # the sandbox will fail with it
        _waiting[task] = _start(task)
    try:
        yield
    finally:
        if (process := _waiting.pop(task, None)) is not None:
            _end(process)


def _take(task: Task) -> subprocess.Popen[bytes]:
    process = _waiting.pop(task, None)
    if process is None:
        return _start(task)
    if process.poll() is None:
        return process
    _end(process)  # it was killed before it had a file
    return _start(task)


def _start(task: Task) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HDF5_")}
    environment |= {"HDF5_PLUGIN_PRELOAD": "::"}  # no plugins
    environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each thread reserves memory
    process = subprocess.Popen(  # noqa: S603 (our own program)
        [sys.executable, "-I", "-S", "-c", _PROGRAM, str(Path(__file__).parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    with suppress(OSError):  # it has ended already
        given = cast("BinaryIO", process.stdin)
        given.write(json.dumps({"path": sys.path, "task": task}).encode() + b"\n")
        given.flush()
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):  # what was written last may not have been read
            cast("BinaryIO", pipe).close()


def encode_path(file: Path) -> str:
    """Return the absolute name of a file as hexadecimal digits: names need not be valid text."""
    return os.fsencode(os.path.abspath(file)).hex()
