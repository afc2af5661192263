"""Read PyTorch's pickles, in a separate process."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from albert_hub_bridge.disk.regular_files import check_beginning
from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.formats.lazy_tensors import LazyTensor
from albert_hub_bridge.formats.safetensors import read_safetensors
from albert_hub_bridge.formats.sandbox import Sandbox, SandboxError


_SECONDS, _BYTES_PER_SECOND = 30, 10_000_000  # for a pickle; and more for each of its bytes


def read_pytorch(file: Path, resources: ExitStack) -> dict[str, LazyTensor]:
    """Read `pytorch_model.bin`: a pickle, of which another process unpickles tensors and nothing else.

    Raises:
        FileError: It is not a regular file, or is something else by its content.
        WeightsError: It has something else, or is damaged.
    """
    check_beginning(file)
    target = Path(resources.enter_context(TemporaryDirectory(prefix="albert-hub-bridge-"))) / "tensors.safetensors"
    job = {"task": "pytorch", "file": os.fsencode(os.path.abspath(file)).hex(), "target": os.fsencode(target).hex()}
    try:
        with ExitStack() as process:
            Sandbox(job, process).answer(_SECONDS + file.stat().st_size / _BYTES_PER_SECOND)
    except SandboxError as error:
        detail = f"expected a table of tensors, of which nothing else is unpickled, found: {error}"
        raise WeightsError(file, "weights", [Problem("not tensors", file.name, detail)]) from error
    return read_safetensors(target, resources)


def refuse_pickle(file: Path) -> WeightsError:
    """Return what to raise of a pickle that nobody allowed."""
    problem = Problem("a pickle", file.name, "expected safetensors, found a pickle, which is a program that is run")
    advice = (
        "Ask for its safetensors. Or pass --allow-pickle (allow_pickle=True): then another process unpickles its "
        "tensors, and nothing else."
    )
    return WeightsError(file, "weights", [problem], advice)
