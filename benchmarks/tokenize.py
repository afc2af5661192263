"""Time four tokenizers on the same lines: `python -m benchmarks.tokenize VOCABULARY`.

VOCABULARY is an ALBERT SentencePiece model. By default a small one is trained. A tokenizer gets all lines as one batch,
or one by one if its name says so. The best repeat counts.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path

import sentencepiece
from rich.console import Console
from rich.table import Table

from albert_hub_bridge import AlbertHubTokenizer
from albert_hub_bridge.model.sentencepiece_unigram import parse_vocabulary
from benchmarks.machine import describe_machine
from conversion.sample import train_vocabulary


def read_lines(count: int) -> list[str]:
    """Return lines of the descriptions of installed packages."""
    lines = sorted({line for package in distributions() for line in (package.read_text("METADATA") or "").splitlines()})
    return lines[:count]


def measure(encode: Callable[[], object], repeat: int) -> float:
    """Return the best time of several runs, in seconds."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        encode()
        times.append(time.perf_counter() - start)
    return min(times)


def tokenizers(vocabulary: Path, lines: list[str]) -> dict[str, Callable[[], object]]:
    """Open every tokenizer on the vocabulary."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras_hub
    from transformers import AlbertTokenizer

    proto = vocabulary.read_bytes()
    parsed = parse_vocabulary(proto)
    ours = AlbertHubTokenizer(str(vocabulary))
    plain = AlbertTokenizer(vocab=list(parsed.pieces), _spm_precompiled_charsmap=parsed.charsmap or None)
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    keras = keras_hub.models.AlbertTokenizer(proto)
    padded = {"padding": True, "truncation": True, "max_length": 128}
    return {
        "transformers AlbertTokenizer": lambda: plain(lines),
        "AlbertHubTokenizer": lambda: ours(lines),
        "transformers AlbertTokenizer, padded": lambda: plain(lines, **padded),
        "AlbertHubTokenizer, padded": lambda: ours(lines, **padded),
        "transformers AlbertTokenizer, offsets": lambda: plain(lines, return_offsets_mapping=True),
        "AlbertHubTokenizer, offsets": lambda: ours(lines, return_offsets_mapping=True),
        "transformers AlbertTokenizer, one by one": lambda: [plain(line) for line in lines],
        "AlbertHubTokenizer, one by one": lambda: [ours(line) for line in lines],
        "sentencepiece, ids alone": lambda: processor.encode(lines),
        "keras_hub AlbertTokenizer, ids alone": lambda: keras(lines),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time tokenizers side by side.")
    parser.add_argument("vocabulary", nargs="?", type=Path, help="a SentencePiece model; by default a small one")
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=5, help="runs of each tokenizer; the best counts (default 5)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    lines = read_lines(options.lines)
    table = Table("tokenizer", "lines per second", "x transformers AlbertTokenizer")
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = options.vocabulary
        if vocabulary is None:
            vocabulary = Path(folder) / "spiece.model"
            vocabulary.write_bytes(train_vocabulary())
        peers = tokenizers(vocabulary, lines)
        rates = {name: len(lines) / measure(encode, options.repeat) for name, encode in peers.items()}
    for name, rate in rates.items():
        kind = name.split(", ")[-1] if ", " in name and "alone" not in name else ""
        plain = rates["transformers AlbertTokenizer" + (f", {kind}" if kind else "")]
        table.add_row(name, f"{rate:,.0f}", f"{rate / plain:.2f}")
    console = Console(width=100)
    console.print(describe_machine("sentencepiece", "tokenizers", "transformers"), highlight=False)
    console.print(table)


if __name__ == "__main__":
    main()
