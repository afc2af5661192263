"""The certificate: two presets or repositories compared in four ways, and on texts.

No single way is enough. A forward pass cannot see a key bias: it moves every score of a query alike, and the softmax by
nothing. Tensors that agree say nothing of an epsilon. What the table of names has wrong in both directions agrees with
itself; that is what a reference is for that shares nothing with it, and the libraries that everybody else uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.layouts.keras.compatibility import with_heads_of_keras
from albert_hub_bridge.layouts.registry import pull, read_checkpoint
from albert_hub_bridge.provenance.record import read_record
from albert_hub_bridge.text import first_few
from albert_hub_bridge.verification.outputs import check_outputs, row_differences
from albert_hub_bridge.verification.reference import check_reference
from albert_hub_bridge.verification.report import Check, Verification
from albert_hub_bridge.verification.sample_texts import SAMPLE_TEXTS
from albert_hub_bridge.verification.settings import check_settings, compare_settings
from albert_hub_bridge.verification.tensors import check_tensors, compare_tensors
from albert_hub_bridge.verification.texts import check_texts, first_difference_of


# How many texts are compared layer by layer, because what every layer gives is kept at once.
LAYERWISE_TEXTS = 8
PROBE_FACTOR = 5  # made-up inputs of 512 tokens differ by more than texts do


def verify(
    source: str | Path,
    target: str | Path,
    *,
    texts: Sequence[str] = SAMPLE_TEXTS,
    tolerance: float = 1e-5,
    allow_pickle: bool = False,
) -> Verification:
    """Compare two presets or repositories, and certify that they are the same model.

    1. `configuration`: architecture, head, text normalization and vocabulary, as both sides were read.
    2. `tensors`: every tensor of the target, read back into the source's layout, is the source's bit for bit; after the
       same rounding, where the target has another dtype.
    3. `reference`: an independent encoder in NumPy and float64, which reads both sides' files by names of its own,
       against this package's model of the target in float64.
    4. `engines`: both sides' own libraries in float32, on made-up inputs of every length, padding and segment.
    5. `texts`: ids, and the numbers that both sides compute from the source's.

    Each side is computed by the library that its layout is meant for: keras_hub for a preset (or this package's
    `AlbertBackbone`, where keras_hub is not installed, which the report says), `AutoModel` with this package for the
    albert_hub layout, and transformers alone for the transformers layout.

    Args:
        source: A folder.
        target: A folder.
        texts: What goes in.
        tolerance: The largest absolute difference of outputs that passes on texts; five times that on made-up inputs.
        allow_pickle: Whether to read weights that are a pickle, which a side's own library then reads too.

    Raises:
        SourceError, CheckpointError: A folder cannot be found, or is wrong.
        EngineError: A side's own library cannot load or compute it.
        ValueError: There are no texts.
    """
    from albert_hub_bridge.verification.engines.common import pack
    from albert_hub_bridge.verification.engines.registry import open_engine

    if not texts:
        raise ValueError("verify needs at least one text.")
    with (
        read_checkpoint(pull(source).folder, allow_pickle=allow_pickle) as whole,
        read_checkpoint(pull(target).folder, allow_pickle=allow_pickle) as other,
    ):
        for checkpoint in (whole, other):
            checkpoint.check_values()
        left_out = _left_out(whole, other)
        one = with_heads_of_keras(whole) if left_out else whole
        compared, different_fields = compare_settings(one, other)
        tensors = compare_tensors(one, other)
        # Else the two are not one function.
        comparable = _shapes(one) == _shapes(other)
        reference = check_reference(one, other) if comparable else _NOT_ONE_FUNCTION
        rounded = other.dtype if other.dtype not in (one.dtype, "float32") else None
        engines = open_engine(one, rounded), open_engine(other)
        longest = min(_longest(one), _longest(other))
        positions = min(checkpoint.architecture.max_sequence_length for checkpoint in (one, other))
        epsilons = [checkpoint.head_epsilon for checkpoint in (one, other)]
    notes = [f"Left out of the target, as its conversion.json says: {first_few(left_out, 3)}."] if left_out else []
    if other.layout != "albert_hub" and epsilons[0] and epsilons[1] and epsilons[0] != epsilons[1]:
        # The target's own library forces it, which convert said; all the rest still has to be the same.
        del different_fields["masked_lm_layer_norm_epsilon"]
        common = epsilons[0] if engines[1].use_epsilon(epsilons[0]) else epsilons[1]
        engines[0].use_epsilon(common)
        notes.append(
            f"The masked-LM head's epsilon is {epsilons[0]:g} and {epsilons[1]:g}, as each layout's library has it; "
            f"compared with {common:g} on both sides."
        )
    ids, other_ids = (engine.tokenize(texts) for engine in engines)
    differences: dict[str, float] = {}
    layers: tuple[float, ...] = ()
    probed = _NOT_ONE_FUNCTION
    if comparable:
        # Where neither side has a vocabulary, any ids will do to compare the numbers.
        size = one.architecture.vocabulary_size
        rows = ids or other_ids or [[index % size for index in range(40)], [size - 1]]
        inputs = pack(rows, _special_ids(one, other), one.architecture.num_segments, longest)
        outputs, other_outputs = (engine.compute(inputs) for engine in engines)
        differences = {name: float(np.max(gaps)) for name, gaps in row_differences(outputs, other_outputs).items()}
        first = {name: array[:LAYERWISE_TEXTS] for name, array in inputs.items()}
        states, other_states = (engine.hidden_states(first) for engine in engines)
        layers = tuple(np.abs(states - other_states).max(axis=(1, 2, 3)).tolist())
        probed = check_outputs(one, engines, positions, PROBE_FACTOR * tolerance)
    compared_ids = list(zip(texts, ids or [], other_ids or [], strict=False))
    differing = [(text, row, other_row) for text, row, other_row in compared_ids if row != other_row]
    vocabularies = ids is not None, other_ids is not None
    return Verification(
        source=str(source),
        target=str(target),
        source_engine=engines[0].name,
        target_engine=engines[1].name,
        texts=len(texts),
        parts={
            "configuration": check_settings(compared, different_fields),
            "tensors": check_tensors(tensors),
            "reference": reference,
            "engines": probed,
            "texts": check_texts(texts, vocabularies, [text for text, *_ in differing], differences, tolerance),
        },
        different_fields=different_fields,
        different_tensors=list(tensors.different),
        vocabularies=vocabularies,
        different_ids=len(differing),
        first_difference=first_difference_of(differing[0], one.tokenizer or other.tokenizer) if differing else None,
        max_abs_difference=differences,
        tolerance=tolerance,
        notes=tuple(notes),
        layer_differences=layers,
    )


def _left_out(one: Checkpoint, other: Checkpoint) -> list[str]:
    """Name the tensors of the source's head that the target was made without, as KerasHub has no place for them."""
    record = read_record(other.folder) if other.layout == "keras" else None
    dropped = {tensor["name"] for tensor in record["dropped"]} if record is not None else set()
    return sorted({rule.albert_hub for rule in one.head_rules} & set(one.weights) & dropped)


_NOT_ONE_FUNCTION = Check("not measured", "", not_measured=("the architectures differ: there is nothing to compare",))


def _shapes(checkpoint: Checkpoint) -> dict[str, Any]:
    return {name: value for name, value in checkpoint.architecture.keras_arguments.items() if name != "dropout"}


def _longest(checkpoint: Checkpoint) -> int:
    """Return how many ids a packed input of a checkpoint can have."""
    limits = [checkpoint.architecture.max_sequence_length]
    if checkpoint.tokenizer is not None and checkpoint.tokenizer.sequence_length is not None:
        limits.append(checkpoint.tokenizer.sequence_length)
    return min(limits)


def _special_ids(*checkpoints: Checkpoint) -> dict[str, int]:
    for checkpoint in checkpoints:
        if checkpoint.tokenizer is not None:
            return checkpoint.tokenizer.vocabulary.special_ids
    return {"pad": 0, "cls": 0, "sep": 0}
