"""Check that the libraries of both sides compute the same outputs on generated inputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from albert_hub_bridge.verification.generated_inputs import SHORT, generate_probes, probe_of_every_padding
from albert_hub_bridge.verification.progress import StageProgress, ignore_progress, with_progress
from albert_hub_bridge.verification.report import Check
from albert_hub_bridge.verification.side import Side


def check_outputs(source: Side, target: Side, limit: float, progress: StageProgress = ignore_progress) -> Check:
    """Compare the outputs of both engines in float32 on generated inputs.

    Args:
        source: The source.
        target: The target. Its architecture computes the same function as the source's.
        limit: The largest absolute difference that passes.
        progress: As for `verify`.
    """
    engines = source.engine, target.engine
    architecture = source.checkpoint.architecture
    sizes = architecture.vocabulary_size, architecture.num_segments
    max_length = min(side.checkpoint.architecture.max_sequence_length for side in (source, target))
    pads_differently = source.engine.averages_padding != target.engine.averages_padding
    largest: dict[str, tuple[float, str]] = {}  # the largest difference of each output, and the row that has it
    padding_gap = 0.0
    first = probe_of_every_padding(*sizes, min(SHORT, max_length))
    probes = [first, *generate_probes(*sizes, max_length)]
    for probe in with_progress(probes, "engines", progress, lambda each: each.inputs["token_ids"].size):
        outputs = [engine.compute(probe.inputs, with_head=probe is first) for engine in engines]
        for name, gaps in row_differences(*outputs).items():
            for gap, row, mask in zip(gaps.tolist(), probe.rows, probe.inputs["padding_mask"], strict=True):
                if pads_differently and not mask.any() and gap > limit:
                    padding_gap = max(padding_gap, gap)
                elif name not in largest or not gap <= largest[name][0]:  # a NaN counts as larger
                    largest[name] = gap, row
    not_measured = []
    if not any(engine.is_keras_hub for engine in engines):
        not_measured.append("KerasHub: it was not used for either side")
    if padding_gap:
        not_measured.append(
            f"rows with only padding tokens: they differ by {padding_gap:.1e}, and all values are finite. With dropout "
            "0, KerasHub's attention averages the values of such a row; other libraries return zeros."
        )
    value, row = max(largest.values(), key=lambda pair: (np.isnan(pair[0]), pair[0]))
    return Check(
        summary=f"between the two libraries in float32, at {row}",
        value=value,
        limit=limit,
        failures=tuple(
            f"{name} differs by {gap:.1e} at {row}" for name, (gap, row) in largest.items() if not gap <= limit
        ),
        not_measured=tuple(not_measured),
    )


def row_differences(source: Mapping[str, np.ndarray], target: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the largest absolute difference of each row, (batch,), for the outputs that both sides have.

    A NaN on either side, or an infinity on both, gives NaN.
    """
    names = [name for name in source if name in target and source[name].shape == target[name].shape]
    with np.errstate(invalid="ignore"):
        return {name: np.abs(source[name] - target[name]).reshape(len(source[name]), -1).max(-1) for name in names}
