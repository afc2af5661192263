"""Name the machine that a benchmark ran on, so that its figures can be quoted."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path


# Those that change the speed of matrix products.
_INSTRUCTION_SETS = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "sve", "bf16")


def describe_machine(*packages: str) -> str:
    """Return the date, the processor with its cores and instruction sets, and the versions of packages."""
    found = _cpu_information()
    model = found.get("model name") or platform.processor() or platform.machine()
    flags = set((found.get("flags") or found.get("Features") or "").split())
    sets = ", ".join(name for name in _INSTRUCTION_SETS if name in flags) or "not known"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    details = f"family {found.get('cpu family', '?')}, model {found.get('model', '?')}"
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return f"{today}: {model} ({details}), {cores} cores; {sets}\nPython {platform.python_version()}, {versions}"


def describe_gpu() -> str:
    """Return the name of the GPU that torch takes, and its memory."""
    import torch

    found = torch.cuda.get_device_properties(0)
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def _cpu_information() -> dict[str, str]:
    """Return what Linux says of the first core."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().partition("\n\n")[0].splitlines() if file.is_file() else []
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
