"""The certificate: two presets or repositories compared in four ways, and on texts.

No single way is enough. A forward pass cannot see a key bias: it moves every score of a query alike, and the softmax by
nothing. Tensors that agree say nothing of an epsilon. What the table of names has wrong in both directions agrees with
itself; that is what a reference is for that shares nothing with it, and the libraries that everybody else uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from albert_hub_bridge.comparison import TensorComparison, compare_settings, compare_tensors
from albert_hub_bridge.errors import first_few
from albert_hub_bridge.mapping.weights import ENCODERS
from albert_hub_bridge.probes import SHORT, every_padding, probes
from albert_hub_bridge.provenance import read_record
from albert_hub_bridge.reference import Reference
from albert_hub_bridge.reports import Part, Verification
from albert_hub_bridge.stores.checkpoint import DTYPES, Checkpoint, Text
from albert_hub_bridge.stores.keras_preset import with_heads_of_keras
from albert_hub_bridge.stores.layouts import pull, read_checkpoint


if TYPE_CHECKING:
    from albert_hub_bridge.engines import Engine
# How many texts are compared layer by layer, because what every layer gives is kept at once.
LAYERWISE_TEXTS = 8

# Texts that tell libraries apart: case, accents, quotes, numbers, spaces, several scripts, unknown characters.
SAMPLE_TEXTS = (
    "ALBERT shares one set of weights between all of its layers.",
    "the river rose by two feet overnight, and nobody slept.",
    "Prices went from £3.50 to €4.20 (about 20 % more).",
    "Crème brûlée, façade, Ångström, naïve: accents everywhere!",
    "``Old quotes'' and \"new ones\" are not the same.",
    "two  spaces,\ta tab\nand a line break",
    "日本語と русский текст 🙂",
    "a",
)


REFERENCE_TOLERANCE = 1e-12  # of the largest value, or of 1 where all are smaller: float64 has 16 digits of each
PROBE_FACTOR = 5  # made-up inputs of 512 tokens differ by more than texts do

Numbers = Mapping[str, np.ndarray]


def verify(
    source: str | Path,
    target: str | Path,
    *,
    texts: Sequence[str] = SAMPLE_TEXTS,
    tolerance: float = 1e-5,
    allow_pickle: bool = False,
) -> Verification:
    """Compare two presets or repositories, and certify that they are the same model.

    1. `configuration`: architecture, variant, head, text rules and vocabulary, as both sides were read.
    2. `tensors`: every tensor of the target, read back into the source's layout, is the source's bit for bit; after the
       same rounding, where the target has another dtype.
    3. `reference`: an independent encoder in NumPy and float64, which reads both sides' files by names of its own,
       against this package's model of the target in float64.
    4. `engines`: both sides' own libraries in float32, on made-up inputs of every length, padding and segment.
    5. `texts`: ids, and the numbers that both sides compute from the source's.

    Each side is computed by the library that its layout is meant for: keras_hub for a preset (or this package's
    `AlbertBackbone`, where keras_hub is not installed, which the report says), `AutoModel` with this package for the
    bridge layout, and transformers alone for the stock layout.

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
    from albert_hub_bridge.engines import open_engine, pack

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
        comparable = one.architecture == replace(other.architecture, dropout=one.architecture.dropout)
        reference = _reference_part(one, other) if comparable else _NOT_ONE_FUNCTION
        rounded = other.dtype if other.dtype not in (one.dtype, "float32") else None
        engines = open_engine(one, rounded), open_engine(other)
        longest = min(_longest(one), _longest(other))
        positions = min(checkpoint.architecture.max_sequence_length for checkpoint in (one, other))
        epsilons = [checkpoint.head_epsilon for checkpoint in (one, other)]
    notes = [f"Left out of the target, as its conversion.json says: {first_few(left_out, 3)}."] if left_out else []
    if other.layout != "bridge" and epsilons[0] and epsilons[1] and epsilons[0] != epsilons[1]:
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
        differences = {name: float(np.max(gaps)) for name, gaps in _gaps(outputs, other_outputs).items()}
        first = {name: array[:LAYERWISE_TEXTS] for name, array in inputs.items()}
        states, other_states = (engine.hidden_states(first) for engine in engines)
        layers = tuple(np.abs(states - other_states).max(axis=(1, 2, 3)).tolist())
        probed = _engine_part(one, engines, positions, PROBE_FACTOR * tolerance)
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
            "configuration": _configuration_part(compared, different_fields),
            "tensors": _tensor_part(tensors),
            "reference": reference,
            "engines": probed,
            "texts": _text_part(texts, vocabularies, [text for text, *_ in differing], differences, tolerance),
        },
        different_fields=different_fields,
        different_tensors=list(tensors.different),
        vocabularies=vocabularies,
        different_ids=len(differing),
        first_difference=_piece_by_piece(differing[0], one.text or other.text) if differing else None,
        max_abs_difference=differences,
        tolerance=tolerance,
        notes=tuple(notes),
        layer_differences=layers,
    )


def _left_out(one: Checkpoint, other: Checkpoint) -> list[str]:
    """Name the tensors of the source's head that the target was made without, as KerasHub has no place for them."""
    record = read_record(other.folder) if other.layout == "keras" else None
    dropped = {tensor["name"] for tensor in record["dropped"]} if record is not None else set()
    return sorted({rule.bridge for rule in one.head_rules} & set(one.weights) & dropped)


_NOT_ONE_FUNCTION = Part("not measured", "", not_measured=("the architectures differ: there is nothing to compare",))


def _configuration_part(compared: int, different: Mapping[str, tuple[Any, Any]]) -> Part:
    pairs = different.items()
    failures = [f"{name}: {ours!r} in the source, {theirs!r} in the target" for name, (ours, theirs) in pairs]
    return Part.of(f"{compared} settings", failures)


def _tensor_part(tensors: TensorComparison) -> Part:
    figure = f"{tensors.tensors} tensors of {tensors.values:,} values, compared bit for bit"
    figure += f" after the source's were {tensors.cast}" if tensors.cast else ""
    absent = [f"{name}, which is zeros on one side and absent on the other" for name in tensors.absent]
    return Part.of(figure, [f"{name}: {how}" for name, how in tensors.different.items()], not_measured=absent)


def _reference_part(one: Checkpoint, other: Checkpoint) -> Part:
    """Compare this package's model of the target with the reference on both sides' files, in float64."""
    from albert_hub_bridge.engines import compute_in_float64

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
    return Part.of(figure, failures, value=worst, limit=REFERENCE_TOLERANCE)


def _reference(checkpoint: Checkpoint, dtype: str) -> Reference:
    """Return the reference on what a checkpoint's files have, by their own names, after rounding to a dtype."""
    dialect: Literal["keras", "bridge", "albert"] = "keras"
    if checkpoint.layout != "keras":
        dialect = "bridge" if checkpoint.layout == "bridge" else "albert"
    prefix = "" if dialect == "keras" else ENCODERS[dialect]
    weights = (checkpoint.weights.get(rule.bridge) for rule in checkpoint.encoder_rules)
    stored = {
        weight.stored.name.removeprefix(prefix): weight.stored.weight
        for weight in weights
        if weight is not None and weight.stored is not None
    }
    return Reference(
        read=lambda name: stored[name].read().astype(DTYPES[dtype], copy=False),
        dialect=dialect,
        num_layers=checkpoint.architecture.num_layers,
        num_heads=checkpoint.architecture.num_heads,
        num_groups=checkpoint.architecture.num_groups,
        num_inner_repetitions=checkpoint.architecture.num_inner_repetitions,
        activation=checkpoint.variant.activation,
        epsilon=checkpoint.variant.layer_norm_epsilon,
    )


def _engine_part(one: Checkpoint, engines: Sequence[Engine], longest: int, limit: float) -> Part:
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
        for name, gaps in _gaps(*outputs).items():
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
    return Part.of(f"between the two libraries in float32, at {place}", failures, value, limit, not_measured)


def _gaps(outputs: Numbers, other_outputs: Numbers) -> dict[str, np.ndarray]:
    """Return, for what both sides have, the largest absolute difference of each row; NaN where a number is none."""
    names = [name for name in outputs if name in other_outputs and outputs[name].shape == other_outputs[name].shape]
    with np.errstate(invalid="ignore"):
        return {
            name: np.abs(outputs[name] - other_outputs[name]).reshape(len(outputs[name]), -1).max(-1) for name in names
        }


def _text_part(
    texts: Sequence[str],
    vocabularies: tuple[bool, bool],
    differing: Sequence[str],
    differences: Mapping[str, float],
    tolerance: float,
) -> Part:
    failures, not_measured = [], []
    if vocabularies[0] != vocabularies[1]:
        failures.append(f"only the {'source' if vocabularies[0] else 'target'} has a vocabulary")
    elif not vocabularies[0]:
        not_measured.append("ids: neither side has a vocabulary")
    if differing:
        failures.append(f"{len(differing)} of {len(texts)} texts become other ids, the first is {differing[0]!r}")
    failures += [f"{name} differs by {gap:.1e}" for name, gap in differences.items() if not gap <= tolerance]
    figure = f"on {len(texts)} texts, all with the same ids" if all(vocabularies) else "on made-up ids"
    value = float(np.max(list(differences.values()))) if differences else None
    return Part.of(figure, failures, value, tolerance if differences else None, not_measured)


def _piece_by_piece(differing: tuple[str, list[int], list[int]], text: Text | None) -> dict[str, Any]:
    """Show a text and both sides' pieces, from the first that differs on."""
    typed, *sides = differing
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*sides, strict=False)))
    pieces = text.vocabulary.pieces if text is not None else ()
    named = [[pieces[i][0] if i < len(pieces) else str(i) for i in side[same : same + 8]] for side in sides]
    return {"text": typed, "from piece": same, "source": named[0], "target": named[1]}


def _longest(checkpoint: Checkpoint) -> int:
    """Return how many ids a packed input of a checkpoint can have."""
    limits = [checkpoint.architecture.max_sequence_length]
    if checkpoint.text is not None and checkpoint.text.sequence_length is not None:
        limits.append(checkpoint.text.sequence_length)
    return min(limits)


def _special_ids(*checkpoints: Checkpoint) -> dict[str, int]:
    for checkpoint in checkpoints:
        if checkpoint.text is not None:
            return checkpoint.text.vocabulary.special_ids
    return {"pad": 0, "cls": 0, "sep": 0}
