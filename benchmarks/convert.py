"""Time conversions as whole processes, with peak memory, next to `cp` of the same bytes and to KerasHub.

Run `make bench`, or `python -m benchmarks.convert --sizes base --repeat 5`. All commands run in turn with the files
in the page cache, and the best repeat counts.

A conversion ends when its files are on the disk, and were read back from there. So it is compared with `cp` and `sync`
of the files, which is the fair floor, and with `cp` alone, which leaves the bytes in the memory of the system.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.machine import describe_machine
from benchmarks.processes import best_of
from benchmarks.results import Row, add_outputs, bars, write_json


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

CP = "cp"
FLOOR = "cp and sync"


def commands_of(folder: Path, target: Path, with_keras: bool) -> dict[str, list[str]]:
    """Return the commands by name, which all write the target."""
    keras, repository = str(folder / "keras"), str(folder / "transformers")
    ours = [sys.executable, "-m", "albert_hub_bridge", "convert"]
    # sync of the files, not of the whole disk, where other programs write too.
    with_sync = 'cp -r "$1" "$2" && find "$2" -type f -exec sync {} +'
    commands = {
        CP: ["cp", "-r", repository, str(target)],
        FLOOR: ["sh", "-c", with_sync, "sh", repository, str(target)],
        "ours, Keras → transformers": [*ours, keras, str(target), "--to", "transformers"],
        "ours, transformers → Keras": [*ours, repository, str(target), "--to", "keras"],
    }
    if with_keras:
        code = [sys.executable, "-W", "ignore", "-c", KERAS_HUB]
        commands["keras_hub, transformers → Keras"] = [*code, repository, str(target)]
    return commands


def measure_size(name: str, folder: Path, repeat: int, with_keras: bool) -> list[Row]:
    """Measure every command on one checkpoint, and return the rows of its table."""
    subprocess.run([sys.executable, "-c", MAKE_SOURCES, SIZES[name], str(folder)], check=True)
    target = folder / "target"
    commands = commands_of(folder, target, with_keras)
    found = best_of(commands, repeat, lambda: shutil.rmtree(target, ignore_errors=True))
    checkpoint = (folder / "transformers" / "model.safetensors").stat().st_size
    return [
        {
            "command": title,
            **asdict(measured),
            "x_cp": measured.seconds / found[CP].seconds,
            "x_cp_and_sync": measured.seconds / found[FLOOR].seconds,
            "x_checkpoint": measured.peak_bytes / checkpoint,
        }
        for title, measured in found.items()
    ]


def table_of(title: str, rows: list[Row]) -> Table:
    """Make the table of one checkpoint."""
    columns = ("seconds", "CPU seconds", "x cp", "x cp and sync", "peak MB", "x checkpoint")
    table = Table("command, as a whole process", *columns, title=title)
    for row in rows:
        is_copy = row["command"].startswith("cp")
        table.add_row(
            row["command"],
            f"{row['seconds']:.3f}",
            f"{row['cpu_seconds']:.2f}",
            f"{row['x_cp']:.1f}",
            f"{row['x_cp_and_sync']:.2f}",
            "" if is_copy else f"{row['peak_bytes'] / MB:,.0f}",
            "" if is_copy else f"{row['x_checkpoint']:.2f}",
        )
    return table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Time conversions next to cp and keras_hub.")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--repeat", type=int, default=5, help="runs of each command; the best counts (default 5)")
    parser.add_argument("--no-keras", action="store_true", help="leave keras_hub out")
    add_outputs(parser)
    options = parser.parse_args()
    machine = describe_machine("h5py", "safetensors", *([] if options.no_keras else ["keras-hub"]))
    console = Console(width=120)
    console.print(machine, highlight=False)
    tables: dict[str, list[Row]] = {}
    for name in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            tables[name] = measure_size(name, Path(folder), options.repeat, not options.no_keras)
        console.print(table_of(name, tables[name]))
    if options.json:
        write_json(options.json, machine, tables)
    if options.png:
        drawn = {title: {row["command"]: row["x_cp_and_sync"] for row in rows} for title, rows in tables.items()}
        bars(options.png, machine, drawn, "x cp and sync", reference=1)


if __name__ == "__main__":
    main()
