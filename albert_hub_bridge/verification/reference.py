"""Compare the model with an independent reference, in float64."""

from __future__ import annotations

from typing import Literal

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.formats.lazy_tensors import DTYPES
from albert_hub_bridge.mapping.weights import ENCODERS
from albert_hub_bridge.verification.probes import every_padding
from albert_hub_bridge.verification.reference_encoder import Reference
from albert_hub_bridge.verification.report import Check


REFERENCE_TOLERANCE = 1e-12  # of the largest value, or of 1 where all are smaller: float64 has 16 digits of each


def check_reference(one: Checkpoint, other: Checkpoint) -> Check:
    """Compare this package's model of the target with the reference on both sides' files, in float64."""
    from albert_hub_bridge.verification.engines.albert_hub import compute_in_float64

    sizes = one.architecture
    inputs = every_padding(sizes.vocabulary_size, sizes.num_segments, min(12, sizes.max_sequence_length)).inputs
    found = compute_in_float64(other, inputs)
    worst, failures = 0.0, []
    for side, checkpoint in (("source", one), ("target", other)):
        try:
            expected = _reference(checkpoint, other.dtype).encode(**inputs, pooler=checkpoint.has_pooler)
        except KeyError as error:
            failures.append(f"the {side}'s file has no tensor {error}")
            continue
        for name in expected.keys() & found.keys():
            scale = max(1.0, float(np.max(np.abs(expected[name]))))
            gap = float(np.max(np.abs(expected[name] - found[name]))) / scale
            worst = float(np.max([worst, gap]))  # which keeps a NaN
            if not gap <= REFERENCE_TOLERANCE:
                failures.append(f"{name} differs by {gap:.1e} from the reference on the {side}'s file")
    figure = "of the largest value, between model and reference in float64"
    return Check.of(figure, failures, value=worst, limit=REFERENCE_TOLERANCE)


def _reference(checkpoint: Checkpoint, dtype: str) -> Reference:
    """Return the reference on what a checkpoint's files have, by their own names, after rounding to a dtype."""
    dialect: Literal["keras", "albert_hub", "albert"] = "keras"
    if checkpoint.layout != "keras":
        dialect = "albert_hub" if checkpoint.layout == "albert_hub" else "albert"
    prefix = "" if dialect == "keras" else ENCODERS[dialect]
    weights = (checkpoint.weights.get(rule.albert_hub) for rule in checkpoint.encoder_rules)
    source_tensor = {
        weight.source_tensor.name.removeprefix(prefix): weight.source_tensor.weight
        for weight in weights
        if weight is not None and weight.source_tensor is not None
    }
    return Reference(
        read=lambda name: source_tensor[name].read().astype(DTYPES[dtype], copy=False),
        dialect=dialect,
        num_layers=checkpoint.architecture.num_layers,
        num_heads=checkpoint.architecture.num_heads,
        num_groups=checkpoint.architecture.num_groups,
        num_inner_repetitions=checkpoint.architecture.num_inner_repetitions,
        activation=checkpoint.architecture.activation,
        epsilon=checkpoint.architecture.layer_norm_epsilon,
    )
