"""Check that the ONNX files of a repository compute what the repository computes."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from albert_hub_bridge.choices import REPOSITORY_LAYOUTS
from albert_hub_bridge.formats.onnx_file import read_onnx
from albert_hub_bridge.mapping.onnx_names import ONNX_FILES, Precision, check_name
from albert_hub_bridge.verification.differences import (
    Comparison,
    Difference,
    compare_outputs,
    compute_rows_in_float64,
    largest,
    row_differences,
    worst,
)
from albert_hub_bridge.verification.engines.common import pack
from albert_hub_bridge.verification.engines.onnx_runtime import OnnxRuntimeEngine
from albert_hub_bridge.verification.engines.registry import engine_errors
from albert_hub_bridge.verification.generated_inputs import SHORT, probe_of_every_padding
from albert_hub_bridge.verification.report import Check
from albert_hub_bridge.verification.side import Side


# The quantization changes outputs by some percent of their size, on average. Another model changes them by their size.
MAX_RELATIVE_INT8 = 0.5


def check_onnx_files(side: Side, texts: Sequence[str], limit: float) -> dict[str, Check]:
    """Compare each ONNX file of a repository with the library of its layout.

    Args:
        side: The repository. Its engine computes the expected outputs.
        texts: The texts.
        limit: The largest relative difference that passes, in float32.

    Returns:
        A check for each ONNX file of the repository, by the name of the check; none for a preset.

    Raises:
        FileError: A file is no ONNX model, or has what no export has.
        EngineError: ONNX Runtime cannot load or compute it.
    """
    if side.checkpoint.layout not in REPOSITORY_LAYOUTS:
        return {}
    files = {name: side.checkpoint.folder / file for name, file in ONNX_FILES.items()}
    present = {name: file for name, file in files.items() if file.is_file()}
    if missing := [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]:
        not_measured = f"{' and '.join(missing)} is not installed (extra onnx)"
        return {check_name(precision): Check(not_measured=(not_measured,)) for precision in present}
    return check_onnx(side, {precision: read_onnx(file) for precision, file in present.items()}, texts, limit)


def check_onnx(side: Side, models: Mapping[Precision, bytes], texts: Sequence[str], limit: float) -> dict[str, Check]:
    """Compare ONNX models with the library of a repository, on texts and on every kind of padding.

    Args:
        side: The repository.
        models: The serialized models.
        texts: The texts.
        limit: The largest relative difference that passes, in float32.

    Returns:
        The checks, by name.

    Raises:
        EngineError: ONNX Runtime cannot load or compute a model.
    """
    batches = _batches(side, texts) if models else []
    expected = [side.engine.compute(inputs) for inputs in batches]
    checks = {}
    for precision, content in models.items():
        with engine_errors(side.checkpoint.folder / ONNX_FILES[precision]):
            engine = OnnxRuntimeEngine(content, side.checkpoint.head)
            found = [engine.compute(inputs) for inputs in batches]
        summary = f"between the repository and {ONNX_FILES[precision]}, computed by {engine.name}"
        if precision == "float32":
            checks[check_name(precision)] = _check_float32(side, summary, batches, expected, found, limit)
        else:
            checks[check_name(precision)] = _check_quantized(summary, expected, found)
    return checks


Outputs = Sequence[Mapping[str, np.ndarray]]  # of each batch


def _check_float32(
    side: Side, summary: str, batches: Sequence[dict[str, np.ndarray]], expected: Outputs, found: Outputs, limit: float
) -> Check:
    compared: dict[str, Comparison] = {}
    for inputs, ours, theirs in zip(batches, expected, found, strict=True):
        rows = [f"row {index}" for index in range(len(inputs["token_ids"]))]
        each_output, _ = compare_outputs(
            ours, theirs, rows, limit, [partial(compute_rows_in_float64, side.engine, inputs, True)]
        )
        compared = {name: worst([compared.get(name, each), each]) for name, each in each_output.items()}
    if not compared:
        return _OTHER_OUTPUTS
    result = worst(compared.values())
    return Check(
        summary=summary,
        largest=result.difference,
        limit=limit,
        rounding=result.rounding,
        failures=tuple(f"{name} differs: {each}" for name, each in compared.items() if not each.passes),
        not_measured=result.caveat,
    )


def _check_quantized(summary: str, expected: Outputs, found: Outputs) -> Check:
    """Compare on average: a few values of a quantized model differ by much."""
    differences: dict[str, Difference] = {}
    for ours, theirs in zip(expected, found, strict=True):
        for name, rows in row_differences(ours, theirs).items():
            average = float(np.abs(ours[name] - theirs[name]).mean() / np.abs(ours[name]).mean())
            each = Difference(average, largest(rows).absolute)
            differences[name] = largest([differences.get(name, each), each])
    if not differences:
        return _OTHER_OUTPUTS
    changes = ", ".join(f"{name} by up to {each.absolute:.1e}" for name, each in differences.items())
    return Check(
        summary=f"on average, relative to the values, {summary}: the quantization changes {changes}",
        largest=largest(differences.values()),
        limit=MAX_RELATIVE_INT8,
        failures=tuple(
            f"{name} differs: {each}" for name, each in differences.items() if not each.relative <= MAX_RELATIVE_INT8
        ),
    )


_OTHER_OUTPUTS = Check(failures=("the file has other outputs than the repository, or other shapes",))


def _batches(side: Side, texts: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """Return the texts as one batch, and one batch with every kind of padding but rows that are all padding."""
    architecture, tokenizer = side.checkpoint.architecture, side.checkpoint.tokenizer
    sizes = architecture.vocabulary_size, architecture.num_segments
    probe = probe_of_every_padding(*sizes, min(SHORT, architecture.max_sequence_length)).inputs
    has_tokens = probe["padding_mask"].any(axis=1)
    batches = [{name: array[has_tokens] for name, array in probe.items()}]
    ids = side.engine.tokenize(texts)
    if ids is not None and tokenizer is not None:
        batches.append(pack(ids, tokenizer.vocabulary.special_ids, architecture.num_segments, side.max_length))
    return batches
