"""Check this package's model against the reference encoder, in float64."""

from __future__ import annotations

from typing import Literal

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.formats.lazy_tensors import DTYPES
from albert_hub_bridge.mapping.weights import ENCODERS
from albert_hub_bridge.verification.differences import Difference, largest, row_differences
from albert_hub_bridge.verification.engines.albert_hub import compute_in_float64
from albert_hub_bridge.verification.generated_inputs import probe_of_every_padding
from albert_hub_bridge.verification.reference_encoder import ReferenceEncoder
from albert_hub_bridge.verification.report import Check


REFERENCE_TOLERANCE = 1e-12  # float64 has 16 digits


def check_reference(source: Checkpoint, target: Checkpoint) -> Check:
    """Compare this package's model of the target with the reference encoder, on the files of both sides.

    The source's weights are rounded to the target's dtype first.
    """
    architecture = target.architecture
    length = min(12, architecture.max_sequence_length)
    inputs = probe_of_every_padding(architecture.vocabulary_size, architecture.num_segments, length).inputs
    found = compute_in_float64(target, inputs)
    differences, failures = [Difference(0.0, 0.0)], []
    for side, checkpoint in (("source", source), ("target", target)):
        try:
            expected = _reference_encoder(checkpoint, target.dtype).encode(**inputs, pooler=checkpoint.has_pooler)
        except KeyError as error:
            failures.append(f"the {side}'s file has no tensor {error}")
            continue
        for name, rows in row_differences(expected, found).items():
            differences.append(difference := largest(rows))
            if not difference.relative <= REFERENCE_TOLERANCE:
                failures.append(f"{name} differs from the reference on the {side}'s file: {difference}")
    summary = "between the model and the reference encoder in float64"
    return Check(summary=summary, largest=largest(differences), limit=REFERENCE_TOLERANCE, failures=tuple(failures))


def _reference_encoder(checkpoint: Checkpoint, dtype: str) -> ReferenceEncoder:
    """Return the reference encoder. It reads a checkpoint's tensors by their names in the file, rounded to a dtype."""
    dialect: Literal["keras", "albert_hub", "albert"] = "keras"
    if checkpoint.layout != "keras":
        dialect = "albert_hub" if checkpoint.layout == "albert_hub" else "albert"
    prefix = "" if dialect == "keras" else ENCODERS[dialect]
    weights = (checkpoint.weights.get(rule.albert_hub) for rule in checkpoint.encoder_rules)
    tensors = {
        weight.source_tensor.name.removeprefix(prefix): weight.source_tensor.weight
        for weight in weights
        if weight is not None and weight.source_tensor is not None
    }
    architecture = checkpoint.architecture
    return ReferenceEncoder(
        read=lambda name: tensors[name].read().astype(DTYPES[dtype], copy=False),
        dialect=dialect,
        num_layers=architecture.num_layers,
        num_heads=architecture.num_heads,
        num_groups=architecture.num_groups,
        num_inner_repetitions=architecture.num_inner_repetitions,
        activation=architecture.activation,
        epsilon=architecture.layer_norm_epsilon,
    )
