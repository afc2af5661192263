"""Time conversions as whole processes, with peak memory, next to `cp` of the same bytes and to KerasHub.

Run `make bench`, or `python -m benchmarks.convert --sizes base --repeat 5`. All commands run in turn with the files
in the page cache, and the best repeat counts. This process stays small, because the kernel never reports a lower peak
for a child than for its parent.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine


SIZES = {"base": "albert_base_en_uncased", "extra_extra_large": "albert_extra_extra_large_en_uncased"}
MB = 1e6

MAKE_SOURCES = """
import sys
from pathlib import Path
from albert_hub_bridge.layouts.registry import write_checkpoint
from conversion.recipes import read_entries
from conversion.sample import random_checkpoint, train_vocabulary
entry = read_entries("keras")[sys.argv[1]]
for layout in ("keras", "transformers"):
    folder = Path(sys.argv[2]) / layout
    folder.mkdir()
    write_checkpoint(random_checkpoint(entry.architecture, train_vocabulary(), std=0.02), folder, layout)
"""

KERAS_HUB = """
import os, sys
os.environ.setdefault("KERAS_BACKEND", "torch")
import keras_hub
keras_hub.models.AlbertBackbone.from_preset(sys.argv[1]).save_to_preset(sys.argv[2])
"""


@dataclass(frozen=True)
class Measurement:
    """The best of several runs of one command."""

    seconds: float
    peak_bytes: int


def measure(command: list[str], target: Path, repeat: int) -> Measurement:
    """Run a command several times, without an existing target. Return the best time and the highest peak."""
    seconds, peaks = [], []
    for _ in range(repeat):
        shutil.rmtree(target, ignore_errors=True)
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        errors = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds.append(time.perf_counter() - start)
        if status:
            raise SystemExit(f"{' '.join(command)} failed:\n{errors.decode()}")
        peaks.append(usage.ru_maxrss * 1024)
    return Measurement(min(seconds), max(peaks))


def measure_size(name: str, folder: Path, repeat: int, table: Table, with_keras: bool) -> None:
    """Measure every command on one checkpoint, and add rows to the table."""
    subprocess.run([sys.executable, "-c", MAKE_SOURCES, SIZES[name], str(folder)], check=True)
    target = folder / "target"
    ours = [sys.executable, "-m", "albert_hub_bridge", "convert"]
    keras, repository = str(folder / "keras"), str(folder / "transformers")
    commands = {
        "cp -r of the preset": ["cp", "-r", keras, str(target)],
        "cp -r of the transformers repository": ["cp", "-r", repository, str(target)],
        "ours, Keras → transformers": [*ours, keras, str(target), "--to", "transformers"],
        "ours, transformers → Keras": [*ours, repository, str(target), "--to", "keras"],
    }
    if with_keras:
        commands["keras_hub, transformers → Keras"] = [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            KERAS_HUB,
            repository,
            str(target),
        ]
    checkpoint = (folder / "transformers" / "model.safetensors").stat().st_size
    copy: Measurement | None = None
    for title, command in commands.items():
        found = measure(command, target, repeat)
        copy = copy or found
        is_copy = command[0] == "cp"
        table.add_row(
            f"{name}, {checkpoint / MB:,.0f} MB",
            title,
            f"{found.seconds:.3f}",
            f"{found.seconds / copy.seconds:.1f}",
            "" if is_copy else f"{found.peak_bytes / MB:,.0f}",
            "" if is_copy else f"{found.peak_bytes / checkpoint:.2f}",
        )
    table.add_section()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time conversions next to cp and keras_hub.")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--repeat", type=int, default=5, help="runs of each command; the best counts (default 5)")
    parser.add_argument("--no-keras", action="store_true", help="leave keras_hub out")
    options = parser.parse_args()
    table = Table("checkpoint", "command, as a whole process", "seconds", "x cp", "peak MB", "x checkpoint")
    for name in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            measure_size(name, Path(folder), options.repeat, table, not options.no_keras)
    console = Console(width=120)
    console.print(describe_machine("h5py", "safetensors"), highlight=False)
    console.print(table)


if __name__ == "__main__":
    main()
