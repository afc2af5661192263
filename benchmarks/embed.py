"""Time bulk embedding next to its peers, in one run: `python -m benchmarks.embed [--json FILE] [--png FILE]`.

The model has the base size and random weights. The texts are sentences and paragraphs of the documentation of installed
packages. Each peer is a process of its own. The processes take turns, so that other load slows all of them: in each
round each peer embeds all texts. The fastest round counts. Vectors are compared with those of transformers' pipeline,
one text at a time. At the end, the command `embed` reads more and more texts with a small model, which shows how time
and memory grow.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table


BATCH = 32  # texts of a batch of the peers
Encode = Callable[[Sequence[str]], np.ndarray]  # texts to vectors: the mean of the tokens' states


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


# The peers.


def _pipeline(batch_size: int) -> Callable[[Path], Encode]:
    def make(folder: Path) -> Encode:
        from transformers import pipeline

        compute = pipeline("feature-extraction", model=str(folder / "transformers"), device="cpu")
        tokenizer, options = compute.tokenizer, {"truncation": True, "max_length": 512}

        def encode(texts: Sequence[str]) -> np.ndarray:
            lengths = [len(row) for row in tokenizer(list(texts), **options)["input_ids"]]
            found = compute(list(texts), batch_size=batch_size, tokenize_kwargs=options, return_tensors=True)
            pairs = zip(found, lengths, strict=True)
            return np.stack([states[0, :length].mean(0).numpy() for states, length in pairs])

        return encode

    return make


def _sentence_transformers(folder: Path) -> Encode:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder / "transformers"), device="cpu")
    return lambda texts: model.encode(list(texts), batch_size=BATCH, show_progress_bar=False)


def _by_length(folder: Path, run: Callable[[dict[str, np.ndarray]], np.ndarray]) -> Encode:
    """Return what embeds batches of texts that are sorted by length, as fastembed and sentence-transformers do."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "transformers")

    def encode(texts: Sequence[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        vectors: Any = [None] * len(texts)
        for start in range(0, len(texts), BATCH):
            places = order[start : start + BATCH]
            inputs = tokenizer(
                [texts[place] for place in places], padding=True, truncation=True, max_length=512, return_tensors="np"
            )
            mask = inputs["attention_mask"][:, :, None]
            means = (run(dict(inputs)) * mask).sum(1) / mask.sum(1)
            for place, vector in zip(places, means, strict=True):
                vectors[place] = vector
        return np.stack(vectors)

    return encode


def _onnx(folder: Path) -> Path:
    path = folder / "transformers" / "onnx" / "model.onnx"
    if not path.exists():
        from albert_hub_bridge import export_onnx

        export_onnx(folder / "transformers")
    return path


def _onnx_runtime(folder: Path) -> Encode:
    import onnxruntime

    session = onnxruntime.InferenceSession(_onnx(folder), providers=["CPUExecutionProvider"])
    return _by_length(folder, lambda inputs: session.run(["last_hidden_state"], inputs)[0])


def _openvino(folder: Path) -> Encode:
    import openvino

    # Where the processor has bfloat16, OpenVINO would use it unasked.
    model = openvino.compile_model(_onnx(folder), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return _by_length(folder, lambda inputs: model(inputs)["last_hidden_state"])


def _keras_hub(folder: Path) -> Encode:
    import keras_hub

    backbone = keras_hub.models.AlbertBackbone.from_preset(str(folder / "keras"))

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        names = {"token_ids": "input_ids", "padding_mask": "attention_mask", "segment_ids": "token_type_ids"}
        arrays = {ours: inputs[theirs] for ours, theirs in names.items()}
        longer = -arrays["token_ids"].shape[1] % 32  # JAX compiles each length anew
        padded = {name: np.pad(array, ((0, 0), (0, longer))) for name, array in arrays.items()}
        states = np.asarray(backbone.predict(padded, batch_size=BATCH, verbose=0)["sequence_output"])
        return states[:, : states.shape[1] - longer]

    return _by_length(folder, run)


class _Ours:
    """This package's `Embedder`. It notes the share of padding, and the time in which nothing was computed."""

    def __init__(self, folder: Path, **options: Any) -> None:
        from albert_hub_bridge import Embedder

        self._embedder = Embedder(folder / "transformers", device="cpu", pooling="mean", **options)
        self.padding = self.not_overlapped = 0.0

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        computing, compute, start = 0.0, self._embedder._embed, time.perf_counter()

        def timed(chunk: Any) -> Any:
            nonlocal computing
            begin = time.perf_counter()
            found = compute(chunk)
            computing += time.perf_counter() - begin
            return found

        self._embedder._embed = timed  # type: ignore[method-assign]
        chunks = [texts[first : first + 4096] for first in range(0, len(texts), 4096)]
        found = list(self._embedder.encode_chunks(chunks))
        self._embedder._embed = compute  # type: ignore[method-assign]
        self.padding = 1 - sum(each.tokens for each in found) / sum(each.positions for each in found)
        self.not_overlapped = 1 - computing / (time.perf_counter() - start)
        return np.concatenate([each.vectors for each in found])


def _ours(**options: Any) -> Callable[[Path], Encode]:
    return lambda folder: _Ours(folder, **options)


ALONE, PIPELINE, OURS = "pipeline, 1 text", f"pipeline, batches of {BATCH}", "ours"
PEERS: dict[str, Callable[[Path], Encode]] = {
    ALONE: _pipeline(1),
    PIPELINE: _pipeline(BATCH),
    "sentence-transformers": _sentence_transformers,
    "ONNX Runtime, by length": _onnx_runtime,
    "OpenVINO, by length": _openvino,
    "keras_hub on JAX, by length": _keras_hub,
    OURS: _ours(),
    "ours, compiled": _ours(compile=True),
    "ours, bfloat16": _ours(dtype="bfloat16"),
}


def serve(name: str, folder: str, pipe: Connection) -> None:
    """Be a peer: say what went wrong in the beginning, or None, then embed each list of texts that is sent."""
    warnings.simplefilter("ignore")
    os.environ["KERAS_BACKEND"] = "jax"
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        encode = PEERS[name](Path(folder))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}".splitlines()[0])
        return
    pipe.send(None)
    while True:
        texts = pipe.recv()
        start = time.perf_counter()
        try:
            vectors = encode(texts)
        except Exception as error:
            pipe.send((f"{type(error).__name__}: {error}".splitlines()[0],))
            return
        seconds = time.perf_counter() - start
        notes = [getattr(encode, note, None) for note in ("padding", "not_overlapped")]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        pipe.send((seconds, vectors, *notes, peak))


def measure(
    names: Sequence[str], folder: Path, texts: Sequence[str], rounds: int, console: Console
) -> dict[str, Result]:
    """Let the peers embed the texts in turns."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for name in names:
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(name, str(folder), theirs), daemon=True))
        processes[-1].start()
        theirs.close()
        if problem := pipes[name].recv():
            console.print(f"{name}: {problem}", highlight=False)
            del pipes[name]
    results: dict[str, Result] = {}
    vectors: dict[str, np.ndarray] = {}
    for turn in range(rounds + 1):
        for name, pipe in list(pipes.items()):
            pipe.send(texts if turn or "compiled" in name or "JAX" in name else texts[:BATCH])  # the first to warm up
            seconds, *rest = pipe.recv()
            if not rest:
                console.print(f"{name}: {seconds}", highlight=False)
                del pipes[name]
            elif turn:
                vectors[name], padding, not_overlapped, peak = rest
                before = results[name].seconds if name in results else seconds
                results[name] = Result(min(seconds, before), 0.0, padding, not_overlapped, peak)
    for process in processes:
        process.terminate()
    expected = vectors[ALONE if ALONE in vectors else OURS]
    largest = np.abs(expected).max(1)
    for name, found in vectors.items():
        results[name].difference = float((np.abs(found - expected).max(1) / largest).max())
    return results


def make_checkpoints(folder: Path) -> None:
    """Write a random base model in two layouts, with a vocabulary of usual pieces."""
    from albert_hub_bridge.layouts.registry import write_checkpoint
    from conversion.recipes import read_entries
    from conversion.sample import random_checkpoint, train_vocabulary

    vocabulary = train_vocabulary(8000, texts_of_packages(20_000), max_sentence_length=20_000)
    architecture = read_entries("keras")["albert_base_en_uncased"].architecture
    for layout in ("keras", "transformers"):
        (folder / layout).mkdir()
        write_checkpoint(random_checkpoint(architecture, vocabulary, std=0.02), folder / layout, layout)  # type: ignore[arg-type]


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
        command += [str(folder / f"vectors-{count}"), "--device", "cpu", "--json"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        megabytes = max(after.ru_maxrss, before.ru_maxrss) / 1024  # counts rise, so the last run is the largest
        found.append({"texts": count, "seconds": report["seconds"], "peak_megabytes": megabytes})
    return found


def table_of(results: dict[str, Result], tokens: int) -> Table:
    """Make the table of all peers."""
    base = results.get(PIPELINE, next(iter(results.values())))
    table = Table("", "tokens/s", f"x {PIPELINE}", "padding", "not overlapped", "peak MB", "difference")
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

    figure, axis = pyplot.subplots(figsize=(8, 4), layout="constrained")
    names = list(results)
    colors = ["tab:orange" if name.startswith("ours") else "tab:gray" for name in names]
    bars = axis.barh(names, [tokens / results[name].seconds for name in names], color=colors)
    axis.bar_label(bars, fmt="%.0f", padding=2)
    axis.invert_yaxis()
    axis.set(xlabel="tokens per second, base size")
    figure.savefig(file, dpi=120)


def main() -> None:
    """Measure what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--growth", nargs="*", type=int, default=[1_000, 10_000, 100_000], help="numbers of texts")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    arguments = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        make_checkpoints(folder)
        texts = texts_of_packages(arguments.texts)
        results = measure(arguments.peers, folder, texts, arguments.rounds, console)
        growth = measure_growth(folder, arguments.growth)
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder / "transformers")
        tokens = sum(map(len, tokenizer(texts, truncation=True, max_length=512)["input_ids"]))
    console.print(f"{len(texts)} texts of {tokens / len(texts):.0f} tokens on average", highlight=False)
    console.print(table_of(results, tokens))
    for run in growth:
        console.print("{texts:,} texts with a small model: {seconds:.1f} s, {peak_megabytes:,.0f} MB".format(**run))
    if arguments.json:
        found = {"texts": len(texts), "tokens": tokens, "peers": {k: asdict(v) for k, v in results.items()}}
        arguments.json.write_text(json.dumps({**found, "growth": growth}, indent=2))
    if arguments.png:
        draw(arguments.png, results, tokens)


if __name__ == "__main__":
    main()
