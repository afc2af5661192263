"""Time how the package and the command start, as whole processes: `python -m benchmarks.start`.

Each row is a process that starts, does one thing and ends. The two that load a model load the same random weights of
the base size: transformers from its own layout, and this package from the layout albert_hub. Bytecode is compiled
and the files are in the page cache, as from the second start on. The rows run in turns, and the best counts.
"""

from __future__ import annotations

import argparse
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


TRANSFORMERS = "import transformers; transformers.AlbertModel.from_pretrained({0!r})"
OURS = "import albert_hub_bridge; from transformers import AutoModel; AutoModel.from_pretrained({0!r})"
COMMAND = [sys.executable, "-m", "albert_hub_bridge"]


def commands_of(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Return the commands of each table, by name. The first of a table is what the others are compared with."""
    code = [sys.executable, "-W", "ignore", "-c"]
    presets = {layout: str(folder / layout) for layout in ("keras", "albert_hub", "transformers")}
    return {
        "from import to a model": {
            "transformers' AlbertModel": [*code, TRANSFORMERS.format(presets["transformers"])],
            "ours, AutoModel": [*code, OURS.format(presets["albert_hub"])],
        },
        "the command": {
            "python -c pass": [sys.executable, "-c", "pass"],
            "import albert_hub_bridge": [*code, "import albert_hub_bridge"],
            "ours, --help": [*COMMAND, "--help"],
            "ours, inspect of a preset": [*COMMAND, "inspect", presets["keras"]],
            "ours, inspect of a repository": [*COMMAND, "inspect", presets["transformers"]],
        },
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Time how the package and the command start.")
    parser.add_argument("--repeat", type=int, default=7, help="runs of each command; the best counts (default 7)")
    add_outputs(parser)
    options = parser.parse_args()
    machine = describe_machine("transformers", "torch", "typer")
    console = Console(width=110)
    console.print(machine, highlight=False)
    rows: dict[str, list[Row]] = {}
    drawn = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = "from benchmarks.encoder_engines import make_checkpoints; from pathlib import Path; import sys; "
        subprocess.run([sys.executable, "-c", make + "make_checkpoints(Path(sys.argv[1]))", name], check=True)
        for title, commands in commands_of(folder).items():
            found = best_of(commands, options.repeat)
            first = next(iter(found.values()))
            table = Table("whole process", "seconds", "CPU seconds", "x the first", title=title)
            rows[title] = []
            for each, measured in found.items():
                ratio = measured.seconds / first.seconds
                table.add_row(each, f"{measured.seconds:.3f}", f"{measured.cpu_seconds:.2f}", f"{ratio:.2f}")
                rows[title].append({"process": each, **asdict(measured), "x_first": ratio})
            drawn[title] = {each: measured.seconds for each, measured in found.items()}
            console.print(table)
    if options.json:
        write_json(options.json, machine, rows)
    if options.png:
        bars(options.png, machine, drawn, "seconds")


if __name__ == "__main__":
    main()
