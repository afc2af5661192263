"""Compare the outputs of two libraries on generated inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.verification.probes import SHORT, every_padding, probes
from albert_hub_bridge.verification.report import Check


if TYPE_CHECKING:
    from albert_hub_bridge.verification.engines.common import Engine


Numbers = Mapping[str, np.ndarray]


def check_outputs(one: Checkpoint, engines: Sequence[Engine], longest: int, limit: float) -> Check:
    """Compare two libraries in float32 on made-up inputs."""
    sizes = one.architecture.vocabulary_size, one.architecture.num_segments
    worst: dict[str, tuple[float, str]] = {}
    not_measured = []
    if not any(engine.is_keras_hub for engine in engines):
        not_measured.append("KerasHub, which computes neither side here")
    # KerasHub without dropout takes the average of what a row of padding has, and everybody else takes zeros.
    other_padding = engines[0].averages_padding != engines[1].averages_padding
    apart = 0.0
    first = every_padding(*sizes, min(SHORT, longest))
    for probe in (first, *probes(*sizes, longest)):
        outputs = [engine.compute(probe.inputs, with_head=probe is first) for engine in engines]
        for name, gaps in row_differences(*outputs).items():
            for gap, row, mask in zip(gaps.tolist(), probe.rows, probe.inputs["padding_mask"], strict=True):
                if other_padding and not mask.any() and gap > limit:
                    apart = max(apart, gap)
                elif name not in worst or not gap <= worst[name][0]:
                    worst[name] = gap, row
    if apart:
        not_measured.append(
            f"rows that are all padding: finite, and {apart:.1e} apart, because KerasHub without dropout attends to "
            "their average, and other libraries to nothing"
        )
    failures = [f"{name} differs by {gap:.1e} at {row}" for name, (gap, row) in worst.items() if not gap <= limit]
    value, place = max(worst.values(), key=lambda pair: (np.isnan(pair[0]), pair[0]))
    return Check.of(f"between the two libraries in float32, at {place}", failures, value, limit, not_measured)


def row_differences(outputs: Numbers, other_outputs: Numbers) -> dict[str, np.ndarray]:
    """Return, for what both sides have, the largest absolute difference of each row; NaN where a number is none."""
    names = [name for name in outputs if name in other_outputs and outputs[name].shape == other_outputs[name].shape]
    with np.errstate(invalid="ignore"):
        return {
            name: np.abs(outputs[name] - other_outputs[name]).reshape(len(outputs[name]), -1).max(-1) for name in names
        }
