"""Check that the libraries of both sides compute the same outputs on generated inputs."""

from __future__ import annotations

from albert_hub_bridge.provenance.record import ONLY_PADDING
from albert_hub_bridge.verification.differences import Comparison, compare_engines, worst
from albert_hub_bridge.verification.generated_inputs import SHORT, generate_probes, probe_of_every_padding
from albert_hub_bridge.verification.progress import StageProgress, ignore_progress, with_progress
from albert_hub_bridge.verification.report import Check
from albert_hub_bridge.verification.side import Side


WITHOUT_KERAS_HUB = "KerasHub: it was not used for either side"


def check_outputs(source: Side, target: Side, limit: float, progress: StageProgress = ignore_progress) -> Check:
    """Compare the outputs of both engines in float32 on generated inputs.

    Args:
        source: The source.
        target: The target. Its architecture computes the same function as the source's.
        limit: The largest relative difference that passes.
        progress: As for `verify`.
    """
    architecture = source.checkpoint.architecture
    sizes = architecture.vocabulary_size, architecture.num_segments
    max_length = min(side.checkpoint.architecture.max_sequence_length for side in (source, target))
    pads_differently = source.engine.averages_padding != target.engine.averages_padding
    found: dict[str, Comparison] = {}
    not_measured, padding_gap = [], 0.0
    first = probe_of_every_padding(*sizes, min(SHORT, max_length))
    probes = [first, *generate_probes(*sizes, max_length)]
    for inputs, rows, length in with_progress(probes, "engines", progress, lambda each: each.inputs["token_ids"].size):
        only_padding = [pads_differently and not mask.any() for mask in inputs["padding_mask"]]
        with_head = inputs is first.inputs
        each_output, gap = compare_engines(
            source.engine, target.engine, inputs, rows, limit, with_head=with_head, uncounted=only_padding
        )
        padding_gap = max(padding_gap, gap)
        for name, comparison in each_output.items():
            found[name] = worst([found.get(name, comparison), comparison])
        if any(not comparison.passes for comparison in each_output.values()):
            not_measured.append(f"inputs of more than {length} tokens, because these differ already")
            break
    if not any(engine.is_keras_hub for engine in (source.engine, target.engine)):
        not_measured.append(WITHOUT_KERAS_HUB)
    if padding_gap:
        not_measured.append(
            f"{ONLY_PADDING}: they differ by {padding_gap:.1e}, and all values are finite. With dropout "
            "0, KerasHub's attention averages the values of such a row; other libraries return zeros."
        )
    result = worst(found.values())
    return Check(
        summary=f"between the two libraries in float32, at {result.row}",
        largest=result.difference,
        limit=limit,
        rounding=result.rounding,
        failures=tuple(
            f"{name} differs at {comparison.row}: {comparison}"
            for name, comparison in found.items()
            if not comparison.passes
        ),
        not_measured=(*not_measured, *result.caveat),
    )
