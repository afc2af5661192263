"""Measure whole processes: seconds on the clock and of the processor, and peak memory.

The process that measures stays small, because the kernel never reports a lower peak for a child than for its parent.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """What one process took, its children included."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def run(command: Sequence[str]) -> Run:
    """Run a command, and measure it."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{errors.decode()}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def best_of(
    commands: Mapping[str, Sequence[str]], repeat: int, prepare: Callable[[], object] = lambda: None
) -> dict[str, Run]:
    """Run commands in turns. Return the best times and the highest peak of each. The first turn does not count.

    Other programs make a process slower, and nothing makes it faster, so the best time says most.

    Args:
        commands: By name.
        repeat: How many turns count.
        prepare: Called before each run, without being measured.
    """
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for turn in range(repeat + 1):
        for name, command in commands.items():
            prepare()
            found = run(command)
            if turn:
                runs[name].append(found)
    return {
        name: Run(
            min(each.seconds for each in found),
            min(each.cpu_seconds for each in found),
            max(each.peak_bytes for each in found),
        )
        for name, found in runs.items()
    }
