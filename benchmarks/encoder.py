"""Time the encoder next to its peers, in one run: `python -m benchmarks.encoder [--json FILE] [--png FILE]`.

Each engine is a separate process that loads the base model in its own format, from one checkpoint. The engines compute
the same batches in turns, so that other load slows all of them. The lower quartile of the times counts. All outputs are
compared with those of `AlbertHubModel`.

transformers' ALBERT runs with both activations: `gelu_new`, which the published repositories name, and
`gelu_pytorch_tanh`, which `convert --to transformers` writes. They are the same function; the second one is fused. A
ratio is that to transformers in the same dtype.

"Products" are not engines but the reference for the rate: the linear layers of the model alone, in all their shapes, by
torch (MKL), by oneDNN and by NumPy, and by the first two with weights that were packed before. "% of fastest" is the
share of the fastest of them.

The int8 engines have the weights of the model as KerasHub quantizes them. Their ratio is that to transformers in
float32, and their products are those of integers. See `model/int8.py`.

`--device cuda` measures the engines that run on a GPU, in bfloat16, and their memory, also on larger batches. "% of
peak" is the share of what one large product reaches on that GPU. For one core: `taskset -c 0`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.encoder_engines import ENGINES, GELU_NEW, GELU_TANH, OURS, PRODUCTS, make_checkpoints
from benchmarks.encoder_products import (
    BFLOAT16,
    INT8,
    LINEAR_FLOPS,
    PEAK_SIZE,
    VOCABULARY,
    flops,
    peak_rate,
)
from benchmarks.machine import describe_gpu, describe_machine
from benchmarks.results import add_outputs, bars, write_json


CLOSE = {"float32": 5e-5, BFLOAT16: 0.2, INT8: 0.2}  # the largest difference; eight bits lose much in 12 layers
Batch = tuple[np.ndarray, np.ndarray]  # token ids and padding mask, (batch, seq)

SIZES = {"cpu": [(1, 16), (8, 128), (8, 512)], "cuda": [(1, 16), (8, 128), (8, 512), (256, 128), (64, 512)]}


def batches(device: str) -> dict[str, Batch]:
    """Return the batches that everybody computes: some without padding, one of texts as long as texts are.

    For a GPU there is one more, of texts of all lengths, in which half of the positions are padding.
    """
    from benchmarks.tokenize import read_lines

    draw = np.random.default_rng(0)
    found: dict[str, Batch] = {}
    for batch, length in SIZES[device]:
        ids = draw.integers(5, VOCABULARY, (batch, length))
        found[f"{batch} x {length}"] = ids, np.ones_like(ids)
    texts = 32 if device == "cpu" else 512
    # Four letters make a token of ALBERT's English vocabulary, more or less; two tokens are added.
    lengths = [np.array([min(len(line) // 4 + 3, 128) for line in draw.choice(read_lines(10_000), texts)])]
    if device != "cpu":
        lengths.append(draw.integers(5, 513, 128))
    for each in lengths:
        mask = (np.arange(each.max()) < each[:, None]).astype(np.int64)
        found[f"{len(each)} x {each.min()} to {each.max()}"] = draw.integers(5, VOCABULARY, mask.shape) * mask, mask
    return found


def serve(name: str, device: str, folder: str, pipe: Connection) -> None:
    """Run one engine: send the error of its start, or None, then compute each batch that is sent."""
    warnings.simplefilter("ignore")
    engine = ENGINES[device][name]
    os.environ.update(engine.environment, CHECKPOINTS=folder)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        run = engine.make(Path(folder), device)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}".splitlines()[0])
        return
    pipe.send(None)
    while True:
        ids, mask = pipe.recv()
        start = time.perf_counter()
        outputs = run(ids, mask)
        pipe.send((time.perf_counter() - start, outputs, _memory(device)))


def _memory(device: str) -> int:
    if device == "cpu":
        return 0
    import torch

    peak = torch.cuda.max_memory_allocated()  # 0 for an engine that is not of torch
    torch.cuda.reset_peak_memory_stats()
    return peak


@contextmanager
def engines(names: list[str], device: str, folder: Path, console: Console) -> Iterator[dict[str, Connection]]:
    """Start the engines, one after the other. Those that do not start are named and left out."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for name in track(names, "starting", console=console, transient=True):
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(name, device, str(folder), theirs), daemon=True))
        processes[-1].start()
        theirs.close()
        if problem := pipes[name].recv():
            console.print(f"{name}: {problem}", highlight=False)
            del pipes[name]
    try:
        yield pipes
    finally:
        for process in processes:
            process.terminate()


@dataclass(frozen=True)
class Measurement:
    """What one engine did with one batch."""

    seconds: float
    difference: float  # from ours, the largest
    memory: int


def measure(pipes: dict[str, Connection], batch: Batch, rounds: int) -> dict[str, Measurement]:
    """Let all engines compute a batch in turn; two rounds more, first, for those that compile."""
    seconds: dict[str, list[float]] = {name: [] for name in pipes}
    outputs, memory = {}, {}
    for turn in range(rounds + 2):
        for name, pipe in pipes.items():
            time.sleep(0.02)  # some let their threads spin a while
            pipe.send(batch)
            spent, outputs[name], memory[name] = pipe.recv()
            if turn >= 2:
                seconds[name].append(spent)
    ours = outputs[OURS]
    differences = {name: 0.0 if found is None else float(np.abs(found - ours).max()) for name, found in outputs.items()}
    return {
        name: Measurement(float(np.quantile(seconds[name], 0.25)), differences[name], memory[name]) for name in pipes
    }


def transformers_engine(activation: str, dtype: str) -> str:
    """Return the name of transformers' engine in a dtype. It has none in int8, and that in float32 counts."""
    return activation if dtype in ("float32", INT8) else f"{activation}, {dtype}"


def rows_of(mask: np.ndarray, found: dict[str, Measurement], device: str, peak: float | None) -> list[dict[str, Any]]:
    """Return the rows of the table of one batch."""
    dtypes = {name: ENGINES[device][name].dtype for name in found}
    # The products compute the padding too; their rate is that of all the positions.
    everything = LINEAR_FLOPS * mask.size
    rates = {
        name: (everything if name.startswith(PRODUCTS) else flops(mask)) / each.seconds for name, each in found.items()
    }
    rows = []
    for name, measured in found.items():
        dtype, is_product = dtypes[name], name.startswith(PRODUCTS)
        fastest = max(rate for other, rate in rates.items() if other.startswith(PRODUCTS) and dtypes[other] == dtype)
        gelu_new, gelu_tanh = (
            None if is_product else found[transformers_engine(activation, dtype)].seconds / measured.seconds
            for activation in (GELU_NEW, GELU_TANH)
        )
        rows.append(
            {
                "engine": name,
                "dtype": dtype,
                "ms": 1e3 * measured.seconds,
                "x gelu_new": gelu_new,
                "x gelu_tanh": gelu_tanh,
                "GFLOP/s": rates[name] / 1e9,
                "% of fastest": 100 * rates[name] / fastest,
                "% of peak": None if peak is None else 100 * rates[name] / peak,
                "difference": None if is_product or name == OURS else measured.difference,
                "peak MB": measured.memory / 1e6 if measured.memory else None,
            }
        )
    return rows


FORMATS = {
    "ms": "{:,.1f}", "x gelu_new": "{:.2f}", "x gelu_tanh": "{:.2f}", "GFLOP/s": "{:,.0f}", "% of fastest": "{:,.0f}",
    "% of peak": "{:,.0f}",
    "difference": "{:.0e}", "peak MB": "{:,.0f}",
}  # fmt: skip


def table_of(title: str, rows: list[dict[str, Any]]) -> Table:
    """Return the table of one batch as it is printed. Columns without a value are left out."""
    columns = [name for name in ("engine", *FORMATS) if any(row[name] is not None for row in rows)]
    table = Table(*columns, title=title)
    for row in rows:
        cells = ["" if row[name] is None else FORMATS.get(name, "{}").format(row[name]) for name in columns]
        if (row["difference"] or 0) > CLOSE[row["dtype"]]:
            cells[columns.index("difference")] += " (!)"
        table.add_row(*cells)
    return table


def draw(path: Path, machine: str, tables: dict[str, list[dict[str, Any]]]) -> None:
    """Draw how much faster than transformers with gelu_pytorch_tanh each engine is, in float32 if there is any."""
    dtype = "float32" if any(row["dtype"] == "float32" for rows in tables.values() for row in rows) else BFLOAT16
    groups = {
        title: {row["engine"]: row["x gelu_tanh"] for row in rows if row["x gelu_tanh"] and row["dtype"] == dtype}
        for title, rows in tables.items()
    }
    bars(path, machine, groups, f"x {transformers_engine(GELU_TANH, dtype)}", reference=1)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Time the encoder beside its peers.")
    parser.add_argument("--device", choices=ENGINES, default="cpu")
    parser.add_argument(
        "--engines", nargs="+", metavar="ENGINE", help="some of them; ours, transformers and the products always run"
    )
    parser.add_argument("--batches", nargs="+", type=int, help="some of them, by their numbers from 1 (default all)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=8,
        help="what an engine of 60 GFLOP/s may take for each batch, on a CPU (default 8)",
    )
    add_outputs(parser)
    options = parser.parse_args()
    console = Console(width=130)
    machine = describe_machine("torch", "transformers")
    peak = peak_rate(options.device)
    if peak is not None:
        machine += (
            f"\n{describe_gpu()}, {peak / 1e12:.0f} TFLOP/s in a product of {PEAK_SIZE} x {PEAK_SIZE} in bfloat16"
        )
    console.print(machine, highlight=False)
    chosen = [
        name
        for name in ENGINES[options.device]
        if not options.engines or name in options.engines or name == OURS or name.startswith((PRODUCTS, "transformers"))
    ]
    tables: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoints(Path(folder))
        with engines(chosen, options.device, Path(folder), console) as pipes:
            for number, (title, (ids, mask)) in enumerate(batches(options.device).items(), start=1):
                if options.batches and number not in options.batches:
                    continue
                # On a CPU as many rounds as an engine of 60 GFLOP/s computes in that time.
                rounds = 20 if peak is not None else int(np.clip(options.seconds / (flops(mask) / 60e9), 3, 60))
                tables[title] = rows_of(mask, measure(pipes, (ids, mask), rounds), options.device, peak)
                console.print(table_of(title, tables[title]))
    if options.json:
        write_json(options.json, machine, tables)
    if options.png:
        draw(options.png, machine, tables)


if __name__ == "__main__":
    main()
