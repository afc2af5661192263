"""Pickles of PyTorch: a separate process copies their tensors into a safetensors file, which is read like any other."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from albert_hub_bridge.disk.regular_files import check_beginning
from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.formats.lazy_tensors import LazyTensor
from albert_hub_bridge.formats.safetensors import read_safetensors
from albert_hub_bridge.formats.sandbox import LIBRARY_BYTES, Sandbox, SandboxError, encode_path


_SECONDS, _BYTES_PER_SECOND = 30, 10_000_000  # for a pickle; and more for each of its bytes


def read_pytorch(file: Path, resources: ExitStack) -> dict[str, LazyTensor]:
    """Return the tensors of `pytorch_model.bin`, unread. Only tensors are unpickled.

    Args:
        file: A pickle.
        resources: Removes the copy of the tensors when it closes.

    Raises:
        FileError: It is not a regular file, or has the content of another kind of file.
        WeightsError: The pickle has anything other than tensors, or is damaged.
    """
    check_beginning(file)
    target = Path(resources.enter_context(TemporaryDirectory(prefix="albert-hub-bridge-"))) / "tensors.safetensors"
    size = file.stat().st_size
    limits = {"memory": LIBRARY_BYTES + 3 * size, "written": LIBRARY_BYTES + 2 * size}
    seconds = _SECONDS + size / _BYTES_PER_SECOND
    try:
        with ExitStack() as process:
            Sandbox("pytorch", [file], seconds, process, target=encode_path(target), **limits).answer(file)
    except SandboxError as error:
        detail = f"expected a state dict, which has only tensors, found: {error}"
        raise WeightsError(file, "weights", [Problem("not tensors", file.name, detail)]) from error
    return read_safetensors(target, resources)


def refuse_pickle(file: Path) -> WeightsError:
    """Return the error for a pickle that the user did not allow."""
    problem = Problem("a pickle", file.name, "expected safetensors, found a pickle, which can run any program")
    advice = (
        "Ask the author for safetensors. Or pass --allow-pickle (allow_pickle=True): then a separate process unpickles "
        "tensors only."
    )
    return WeightsError(file, "weights", [problem], advice)
