"""Time the stages of `verify` on a large random model: `python -m benchmarks.verify [--shape NAME] [--to LAYOUT]`.

The shapes are those of `benchmarks.rounding`. xxlarge has the sizes of albert_extra_extra_large_en_uncased. It takes
minutes, and 8 GB of memory.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

from albert_hub_bridge import convert
from albert_hub_bridge.layouts.keras.preset import write_preset
from albert_hub_bridge.verification.progress import Stage
from albert_hub_bridge.verification.run import verify
from benchmarks.machine import describe_machine
from benchmarks.processes import run
from benchmarks.results import Row, add_outputs, bars, write_json
from benchmarks.rounding import SHAPES, Case, make


def main() -> None:
    """Verify a random model, and print the seconds that each stage takes, on the clock and of all cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="xxlarge")
    parser.add_argument("--to", choices=("keras", "albert_hub", "transformers"), default="transformers")
    add_outputs(parser)
    arguments = parser.parse_args()
    machine = describe_machine("torch", "transformers", "keras-hub")
    print(machine)
    rows: list[Row] = []
    began: dict[str, tuple[float, float]] = {}

    def note_begin(stage: Stage | None, _done: int = 0, _total: int = 0) -> None:
        now = time.perf_counter(), time.process_time()
        if stage in began:
            return
        if began:  # the stage before has ended
            name, start = list(began.items())[-1]
            seconds, cpu_seconds = now[0] - start[0], now[1] - start[1]
            print(f"{name:12} {seconds:8.1f} s   {cpu_seconds:8.1f} s of all cores", flush=True)
            rows.append({"stage": name, "seconds": seconds, "cpu_seconds": cpu_seconds})
        if stage is not None:
            began[stage] = now

    with tempfile.TemporaryDirectory() as parent:
        source, target = Path(parent, "preset"), Path(parent, "target")
        source.mkdir()
        write_preset(make(Case(arguments.shape, positions=512)), source)
        convert(source, target, to=arguments.to)
        report = verify(source, target, progress=note_begin)
        note_begin(None)
        print("passed" if report.passed else f"failed: {report.failed_checks}")
        whole = run([sys.executable, "-m", "albert_hub_bridge", "verify", str(source), str(target)])
    print(f"the command  {whole.seconds:8.1f} s   {whole.cpu_seconds:8.1f} s of all cores, a process of its own")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"peak memory  {peak / 1e6:8,.0f} MB, with the conversion")
    title = f"verify, {arguments.shape} to {arguments.to}"
    if arguments.json:
        command: Row = {"seconds": whole.seconds, "cpu_seconds": whole.cpu_seconds}  # its peak is that of this process
        tables = {title: rows, "the command": [command], "memory": [{"peak_bytes": peak}]}
        write_json(arguments.json, machine, tables)
    if arguments.png:
        bars(arguments.png, machine, {title: {row["stage"]: row["seconds"] for row in rows}}, "seconds")


if __name__ == "__main__":
    main()
