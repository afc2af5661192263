"""Time the stages of `verify` on a large random model: `python -m benchmarks.verify [--shape NAME] [--to LAYOUT]`.

The shapes are those of `benchmarks.rounding`. xxlarge has the sizes of albert_extra_extra_large_en_uncased. It takes
minutes, and 8 GB of memory.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from albert_hub_bridge import convert
from albert_hub_bridge.layouts.keras.preset import write_preset
from albert_hub_bridge.verification.progress import Stage
from albert_hub_bridge.verification.run import verify
from benchmarks.machine import describe_machine
from benchmarks.rounding import SHAPES, Case, make


def main() -> None:
    """Verify a random model, and print the seconds that each stage takes, on the clock and of all cores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="xxlarge")
    parser.add_argument("--to", choices=("keras", "albert_hub", "transformers"), default="transformers")
    arguments = parser.parse_args()
    print(describe_machine("torch", "transformers", "keras-hub"))
    began: dict[str, tuple[float, float]] = {}

    def note_begin(stage: Stage | None, _done: int = 0, _total: int = 0) -> None:
        now = time.perf_counter(), time.process_time()
        if stage in began:
            return
        if began:  # the stage before has ended
            name, start = list(began.items())[-1]
            seconds = f"{now[0] - start[0]:8.1f} s   {now[1] - start[1]:8.1f} s of all cores"
            print(f"{name:12} {seconds}", flush=True)
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


if __name__ == "__main__":
    main()
