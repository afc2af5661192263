"""Measure how far two right implementations differ in float32: `python -m benchmarks.rounding [--large] [NAME ...]`.

The limits of `verify` stand on these numbers (docs/verification.md). Each row is a random ALBERT: a KerasHub preset and
its conversion, computed by the libraries of both. Both are right, so every difference is rounding. The rows differ in
size, in depth, in the size of the weights, and in how large the states become (the gamma of each layer norm). "ratio"
is the largest difference of any output, divided by the sum of both libraries' own rounding errors.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from albert_hub_bridge import convert
from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.formats.lazy_tensors import DTYPES, LazyTensor
from albert_hub_bridge.layouts.keras.preset import write_preset
from albert_hub_bridge.layouts.registry import read_checkpoint
from albert_hub_bridge.mapping.heads import Head
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.verification.differences import Comparison, compare_engines
from albert_hub_bridge.verification.engines.registry import open_engine
from albert_hub_bridge.verification.generated_inputs import probe_of_every_padding
from benchmarks.machine import describe_machine
from conversion.sample import random_checkpoint, train_vocabulary


class Shape(NamedTuple):
    """The shape of an encoder, and the length of the longer inputs."""

    layers: int
    heads: int
    width: int
    intermediate: int
    positions: int


# fmt: off
SHAPES = {
    "tiny":    Shape( 2,  2,   64,   256, 128),
    "deep":    Shape(48,  4,   64,   256,  64),
    "base":    Shape(12, 12,  768,  3072, 128),
    "large":   Shape(24, 16, 1024,  4096,  64),
    "wide":    Shape( 2, 32, 2048,  8192,  64),
    "xxlarge": Shape(12, 64, 4096, 16384,  32),
}
# fmt: on
CLASSIFIER = Head(kind="sequence_classification", num_labels=3, activation="softmax")
SCORES = Head(kind="sequence_classification", num_labels=3)
MASKED_LM = Head(kind="masked_lm")


@dataclass(frozen=True)
class Case:
    """One random model.

    Args:
        shape: A key of `SHAPES`.
        std: Standard deviation of the weights; of the kernels relative to 1 / sqrt(inputs).
        gamma: Factor on the gamma of the layer norms. The states are about as large.
        outliers: Whether a few channels of each gamma are ten times larger, as in trained encoders.
        head: On the encoder.
        dtype: Of the files.
        seed: Of the random weights.
        positions: Number of positions; that of the shape by default.
    """

    shape: str
    std: float = 0.7
    gamma: float = 1.0
    outliers: bool = False
    head: Head | None = None
    dtype: str = "float32"
    seed: int = 0
    positions: int | None = None


QUICK = [
    *(Case("tiny", std, gamma) for std in (0.3, 1.0, 2.0) for gamma in (1.0, 10.0)),
    *(Case("tiny", head=head, gamma=gamma) for head in (CLASSIFIER, SCORES, MASKED_LM) for gamma in (1.0, 10.0)),
    *(Case("tiny", gamma=10.0, seed=seed) for seed in range(1, 6)),
    *(Case("tiny", dtype=dtype, gamma=5.0) for dtype in ("bfloat16", "float16")),
    *(Case("deep", std) for std in (0.3, 0.7, 1.0)),
    Case("deep", gamma=5.0, outliers=True),
]
LARGE = [
    *(Case("base", std) for std in (0.3, 0.7, 1.0)),
    Case("base", gamma=5.0, outliers=True),
    Case("base", head=CLASSIFIER, outliers=True),
    Case("base", head=MASKED_LM),
    Case("base", dtype="bfloat16", outliers=True),
    Case("wide", gamma=3.0, outliers=True),
    Case("large", outliers=True),
    Case("xxlarge", outliers=True),
]


def make(case: Case) -> Checkpoint:
    """Make the random model of a case."""
    shape = SHAPES[case.shape]
    architecture = Architecture(
        vocabulary_size=400,
        num_layers=shape.layers,
        num_heads=shape.heads,
        embedding_dim=128,
        hidden_dim=shape.width,
        intermediate_dim=shape.intermediate,
        max_sequence_length=case.positions or shape.positions,
        dropout=0.1,
    )
    drawn = random_checkpoint(architecture, train_vocabulary(), case.dtype, case.seed, std=1.0, head=case.head)
    weights = {
        name: replace(weight, load=partial(_scaled, name, weight, case)) for name, weight in drawn.weights.items()
    }
    return replace(drawn, weights=weights)


def _scaled(name: str, weight: LazyTensor, case: Case) -> np.ndarray:
    values = weight.read().astype(np.float32)
    if "layer_norm" in name:
        values = (1 + 0.2 * (values - 1)) if name.endswith("weight") else 0.2 * values
        if case.outliers and name.endswith("weight"):
            values[:: max(1, len(values) // 3)] *= 10
        values *= case.gamma
    elif name.endswith("bias"):
        values *= 0.1 * case.std
    elif "embedding." in name:
        values *= case.std * 0.1
    else:
        values *= case.std / np.sqrt(values.shape[-1])
    return values.astype(DTYPES[case.dtype])


def measure(case: Case) -> Iterator[tuple[str, float, Comparison, float]]:
    """Convert a random preset, and compute it with the libraries of both sides.

    Yields:
        The layout of the target; the largest absolute value of the states; the largest difference; and the largest
        ratio of a difference to the rounding errors of both libraries.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "preset")
        source.mkdir()
        write_preset(make(case), source)
        with read_checkpoint(source) as checkpoint:
            engine = open_engine(checkpoint)
        positions = SHAPES[case.shape].positions
        for to in ("transformers", "albert_hub"):
            if to == "transformers" and case.head == MASKED_LM:
                continue  # its epsilon is another one
            convert(source, Path(folder, to), to=to)  # type: ignore[arg-type]
            with read_checkpoint(Path(folder, to)) as checkpoint:
                other = open_engine(checkpoint)
            found: list[Comparison] = []
            for length in (30, positions):
                inputs, rows, _ = probe_of_every_padding(400, 2, length)
                inputs = {name: array[:3] for name, array in inputs.items()}  # no padding, on the right, on the left
                # With a limit of 0, rounding errors are always measured.
                found += compare_engines(engine, other, inputs, rows[:3], limit=0)[0].values()
                largest = float(np.abs(engine.compute(inputs)["sequence_output"]).max())
            ratios = [each.difference.absolute / each.rounding.absolute for each in found if each.rounding is not None]
            yield to, largest, max(found, key=lambda each: each.difference.relative), max(ratios)


def main() -> None:
    """Measure the cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shapes", nargs="*", choices=[*SHAPES, []], help="only these shapes")
    parser.add_argument("--large", action="store_true", help="also base, large, wide and xxlarge (many minutes)")
    arguments = parser.parse_args()
    print(describe_machine("torch", "transformers", "keras-hub"))
    columns = ("shape", "std", "gamma", "outliers", "head", "dtype", "to", "states", "relative", "absolute", "ratio")
    print(" | ".join(columns))
    cases = [*QUICK, *(LARGE if arguments.large or arguments.shapes else [])]
    for case in [case for case in cases if not arguments.shapes or case.shape in arguments.shapes]:
        head = case.head.description if case.head is not None else "none"
        for to, states, worst, ratio in measure(case):
            relative, absolute = worst.difference
            settings = (case.shape, case.std, case.gamma, "yes" if case.outliers else "no", head, case.dtype, to)
            numbers = (f"{states:.0f}", f"{relative:.1e}", f"{absolute:.1e}", f"{ratio:.1f}")
            print(" | ".join(map(str, (*settings, *numbers))), flush=True)


if __name__ == "__main__":
    main()
