r"""Time bulk embedding next to its peers, in one run: `python -m benchmarks.embed [--json FILE] [--png FILE]`.

The model has the base size and random weights. The texts are sentences and paragraphs of the documentation of installed
packages. Each peer is a process of its own (`benchmarks/embed_peers.py`). The processes take turns, so that other load
slows all of them: in each round each peer embeds all texts. The fastest round counts. Vectors are compared with those
of transformers' pipeline, one text at a time. Then Ray computes chunks of these texts, beside one process that computes
the same chunks. At the end, the command `embed` reads more and more texts with a small model, which shows how time and
memory grow. A peer that is not installed is skipped, and the reason is printed.

The ONNX and OpenVINO backends of sentence-transformers, and fastembed, do not install beside this package's
transformers. `--python` names the interpreter of another environment for them:

    pip install torch==2.13.0 transformers==4.57.6 sentence-transformers==5.7.0 fastembed==0.9.1 \
        optimum-onnx[onnxruntime]==0.1.0 optimum-intel[openvino]==1.27.0
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import distributions
from multiprocessing import get_context
from multiprocessing.connection import Connection, Listener
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from benchmarks.embed_peers import BATCH, ELSEWHERE, OURS_IN_CHUNKS, PEERS, PIPELINE, RAY_PEERS
from benchmarks.machine import describe_machine


ROOT = Path(__file__).parent.parent


@dataclass
class Result:
    """What a peer did.

    Args:
        seconds: The time of its fastest round.
        difference: The largest difference from the vector of one text at a time, relative to its largest value.
        padding: The share of padding in its batches, if it is known.
        not_overlapped: The share of the time in which nothing was computed, while texts were tokenized.
        peak_megabytes: The largest memory of its process.
    """

    seconds: float
    difference: float
    padding: float | None
    not_overlapped: float | None
    peak_megabytes: float


@contextmanager
def served(name: str, folder: Path, python: str) -> Iterator[Connection]:
    """Start a peer, and yield the connection to it."""
    socket = str(folder / "socket")
    with Listener(socket, "AF_UNIX") as listener:
        command = [python, "-W", "ignore", "-m", "benchmarks.embed_peers", name, str(folder), socket]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        connection = listener.accept()
    try:
        yield connection
    finally:
        connection.close()  # ends the peer
        process.wait()


def measure(
    names: Sequence[str], folder: Path, texts: Sequence[str], rounds: int, python: str, console: Console
) -> tuple[dict[str, Result], dict[str, np.ndarray]]:
    """Let the peers embed the texts in turns. Return what they did, and their vectors."""
    results: dict[str, Result] = {}
    vectors: dict[str, np.ndarray] = {}
    with ExitStack() as stack:
        pipes: dict[str, Connection] = {}
        for name in names:
            pipe = stack.enter_context(served(name, folder, python if name in ELSEWHERE else sys.executable))
            if problem := pipe.recv():
                console.print(f"skipped: {name}: {problem}", markup=False, highlight=False)
            else:
                pipes[name] = pipe
        for turn in range(rounds + 1):
            for name, pipe in list(pipes.items()):
                pipe.send(texts if turn or "compiled" in name or "JAX" in name else texts[:BATCH])  # the first warms up
                seconds, *rest = pipe.recv()
                if not rest:
                    console.print(f"skipped: {name}: {seconds}", markup=False, highlight=False)
                    del pipes[name]
                elif turn:
                    vectors[name], padding, not_overlapped, peak = rest
                    before = results[name].seconds if name in results else seconds
                    results[name] = Result(min(seconds, before), 0.0, padding, not_overlapped, peak)
    return results, vectors


def compare(results: dict[str, Result], vectors: dict[str, np.ndarray]) -> None:
    """Note how far all vectors are from those of the first peer."""
    expected = next(iter(vectors.values()))
    largest = np.abs(expected).max(1)
    for name, found in vectors.items():
        results[name].difference = float((np.abs(found - expected).max(1) / largest).max())


def make_checkpoints(folder: Path, size: str) -> None:
    """Write a random base model in two layouts and as ONNX, with a vocabulary of usual pieces."""
    from albert_hub_bridge import export_onnx
    from albert_hub_bridge.layouts.registry import write_checkpoint
    from conversion.recipes import read_entries
    from conversion.sample import random_checkpoint, train_vocabulary

    vocabulary = train_vocabulary(8000, texts_of_packages(20_000), max_sentence_length=20_000)
    architecture = read_entries("keras")["albert_base_en_uncased"].architecture
    if size == "small":
        architecture = replace(architecture, num_layers=2)
    for layout in ("keras", "transformers"):
        (folder / layout).mkdir()
        write_checkpoint(random_checkpoint(architecture, vocabulary, std=0.02), folder / layout, layout)  # type: ignore[arg-type]
    export_onnx(folder / "transformers")


def texts_of_packages(count: int) -> list[str]:
    """Return sentences and paragraphs of the descriptions of installed packages."""
    descriptions = sorted(str(package.metadata.get_payload()) for package in distributions())
    paragraphs = [part.strip() for text in descriptions for part in re.split(r"\n\s*\n", text)]
    sentences = [part for paragraph in paragraphs for part in re.split(r"(?<=[.!?])\s+", paragraph)]
    found = sorted({part for part in (*paragraphs, *sentences) if 20 <= len(part) <= 3000})
    random.Random(0).shuffle(found)
    return [found[number % len(found)] for number in range(count)]


def measure_growth(folder: Path, counts: Sequence[int]) -> list[dict[str, float]]:
    """Run the command `embed` with a small model on more and more texts. Return seconds and megabytes of each run."""
    from conversion.sample import write_sample_preset

    write_sample_preset(folder / "small")
    found = []
    for count in counts:
        corpus = folder / "corpus.jsonl"
        with corpus.open("w", encoding="utf-8") as stream:
            stream.writelines(f"{json.dumps({'text': text})}\n" for text in texts_of_packages(count))
        command = [sys.executable, "-m", "albert_hub_bridge", "embed", str(folder / "small"), str(corpus)]
        command += [str(folder / f"vectors-{count}"), "--device", "cpu", "--threads", "1", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        report = json.load(process.stdout)  # type: ignore[arg-type]
        peak = os.wait4(process.pid, 0)[2].ru_maxrss / 1024  # of this process alone
        found.append({"texts": count, "seconds": report["seconds"], "peak_megabytes": peak})
    return found


def table_of(results: dict[str, Result], tokens: int) -> Table:
    """Make the table of all peers."""
    base_name = PIPELINE if PIPELINE in results else next(iter(results))
    base = results[base_name]
    table = Table("", "tokens/s", f"x {base_name}", "padding", "not overlapped", "peak MB", "difference")
    for name, result in results.items():
        table.add_row(
            name,
            f"{tokens / result.seconds:,.0f}",
            f"{base.seconds / result.seconds:.2f}",
            *("" if share is None else f"{share:.1%}" for share in (result.padding, result.not_overlapped)),
            f"{result.peak_megabytes:,.0f}",
            f"{result.difference:.0e}",
        )
    return table


def draw(file: Path, results: dict[str, Result], tokens: int) -> None:
    """Draw the tokens per second of all peers."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(9, 5), layout="constrained")
    names = list(results)
    colors = ["tab:orange" if name.startswith(("ours", "Ray")) else "tab:gray" for name in names]
    bars = axis.barh(names, [tokens / results[name].seconds for name in names], color=colors)
    axis.bar_label(bars, fmt="%.0f", padding=2)
    axis.invert_yaxis()
    axis.set(xlabel="tokens per second, base size")
    figure.savefig(file, dpi=120)


def main() -> None:
    """Measure what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = {**PEERS, **RAY_PEERS}
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers", nargs="*", choices=every, default=list(every), metavar="NAME", help=", ".join(every))
    parser.add_argument("--python", default=sys.executable, help=f"runs {', '.join(ELSEWHERE)}")
    parser.add_argument("--size", choices=["base", "small"], default="base", help="small: to try this program")
    parser.add_argument("--growth", nargs="*", type=int, default=[1_000, 10_000, 100_000], help="numbers of texts")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    arguments = parser.parse_args()
    subprocess.run([arguments.python, "-c", "import numpy"], check=True)
    console = Console(width=150)
    machine = describe_machine("torch", "transformers", "albert-hub-bridge")
    console.print(machine, highlight=False)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        # In a process of its own, because Linux counts the memory of a parent as that of its children at their start.
        maker = get_context("spawn").Process(target=make_checkpoints, args=(folder, arguments.size))
        maker.start()
        maker.join()
        texts = texts_of_packages(arguments.texts)
        results, vectors = {}, {}
        for group in (PEERS, RAY_PEERS):  # Ray's own processes take some time even while they wait
            names = [name for name in group if name in arguments.peers]
            for found, more in zip(
                (results, vectors),
                measure(names, folder, texts, arguments.rounds, arguments.python, console),
                strict=True,
            ):
                found.update(more)
        compare(results, vectors)
        growth = measure_growth(folder, arguments.growth)
        tokenizer = Tokenizer.from_file(str(folder / "transformers" / "tokenizer.json"))
        tokenizer.enable_truncation(512)
        tokens = sum(len(each.ids) for each in tokenizer.encode_batch(texts))
    console.print(f"{len(texts)} texts of {tokens / len(texts):.0f} tokens on average", highlight=False)
    console.print(table_of(results, tokens))
    for name in RAY_PEERS:
        if name != OURS_IN_CHUNKS and {name, OURS_IN_CHUNKS} <= results.keys():
            ratio = results[OURS_IN_CHUNKS].seconds / results[name].seconds
            console.print(f"{name}: {ratio:.2f} x {OURS_IN_CHUNKS}", highlight=False)
    for run in growth:
        console.print("{texts:,} texts with a small model: {seconds:.1f} s, {peak_megabytes:,.0f} MB".format(**run))
    if arguments.json:
        peers = {name: asdict(result) for name, result in results.items()}
        found = {"machine": machine, "texts": len(texts), "tokens": tokens, "peers": peers, "growth": growth}
        arguments.json.write_text(json.dumps(found, indent=2))
    if arguments.png:
        draw(arguments.png, results, tokens)


if __name__ == "__main__":
    main()
