"""Run code in processes of its own that have imported the slow libraries already: forks of one process.

Neither transformers, KerasHub nor this package is imported before. So the order of their imports is that of the code,
and the clients of hubs, which read their environment at import, read that of the code.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path


ROOT = Path(__file__).parent.parent

# What transformers, KerasHub and the clients import, as far as it reads no variable that a test sets. TensorFlow takes
# longer than all others together.
CLIENTS = (
    *("torch", "torch.distributed.tensor", "torch._dynamo", "tensorflow", "jax", "sklearn", "scipy.stats", "pandas"),
    *("matplotlib.backends.backend_agg", "matplotlib.pyplot", "pyarrow", "h5py", "sentencepiece", "tokenizers"),
    *(
        "safetensors.torch",
        "httpx",
        "httpcore2",
        "httpx2",
        "requests",
        "anyio",
        "h11",
        "yaml",
        "rich.markdown",
        "typer",
    ),
    *("onnx", "onnxruntime", "torchao", "PIL.Image", "regex", "wrapt", "msgpack", "optree", "jinja2", "filelock"),
    *("google.protobuf.descriptor_pool", "google_crc32c"),
)
_FEW = ("torch", "torch.distributed", "torch._dynamo", "huggingface_hub", "tokenizers")

_PARENT = """
import contextlib, importlib, json, os, sys, tempfile, traceback

sys.modules["keras"] = None  # TensorFlow would import it
for name in json.loads(sys.argv[1]):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
del sys.modules["keras"]


def run(task, out, err):
    with open(os.devnull) as nothing:
        for stream, number in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(stream.fileno(), number)
    sys.argv[1:] = task["arguments"]
    os.chdir(task["cwd"])
    if task["environment"] is not None:
        os.environ.clear()
        os.environ.update(task["environment"])
        tempfile.tempdir = None
    try:
        exec(task["code"], {"__name__": "__main__"})
        return 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
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
def _parent(libraries: tuple[str, ...]) -> subprocess.Popen[str]:
    # A fork has only the thread that forked: what a thread of OpenMP or OpenBLAS should do, it would wait for.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", _PARENT, json.dumps(libraries)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    atexit.register(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def run_forked(
    code: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    libraries: tuple[str, ...] = _FEW,
    timeout: float = 300,
) -> Ended:
    """Run code, and return how it ended.

    Args:
        code: Python code.
        *arguments: `sys.argv[1:]` of the code.
        environment: The variables of the code; those of this process at the first call if None.
        cwd: The folder to run in.
        libraries: Modules that are imported before.
        timeout: Seconds after which the processes are killed.
    """
    process = _parent(libraries)
    assert process.stdin is not None
    assert process.stdout is not None
    variables = None if environment is None else dict(environment)
    task = {"code": code, "arguments": arguments, "environment": variables, "cwd": str(cwd)}
    print(json.dumps(task), file=process.stdin, flush=True)
    guard = threading.Timer(timeout, process.kill)
    guard.start()
    answer = process.stdout.readline()
    guard.cancel()
    if not answer:
        _parent.cache_clear()
        raise AssertionError(f"the process did not end after {timeout} s, or its parent was killed")
    return Ended(*json.loads(answer))


def run_module(
    module: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Ended:
    """Run `python -m module`, with these variables or those of this process, in a folder or in that of this process."""
    code = f"import runpy\nrunpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    variables = os.environ if environment is None else environment
    return run_forked(code, *arguments, environment=variables, cwd=cwd or Path.cwd(), libraries=CLIENTS)
