"""Verify that two presets or repositories are the same model, with five independent checks.

No check is enough alone:

- A forward pass cannot detect a wrong key bias. It shifts all scores of a query equally, and softmax ignores that.
- Equal tensors say nothing about settings, such as an epsilon.
- A mistake in the weight table that is made in both directions cancels out when a file is read back. The reference
  encoder and the other libraries do not use the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from albert_hub_bridge.checkpoint import DROPPED_HEAD, DROPPED_UNKNOWN, Checkpoint
from albert_hub_bridge.choices import DEFAULT_TOLERANCE, PRESET_LAYOUTS
from albert_hub_bridge.layouts.keras.compatibility import (
    APPROXIMATED,
    with_approximate_gelu,
    with_cut_out_pieces,
    with_heads_of_keras,
    without_other_tokenizer,
)
from albert_hub_bridge.layouts.layout import ReadOptions
from albert_hub_bridge.layouts.registry import pull, read_checkpoint
from albert_hub_bridge.layouts.universal.folder import as_preset
from albert_hub_bridge.mapping.cut_out import holds
from albert_hub_bridge.mapping.heads import KERAS_EPSILON
from albert_hub_bridge.provenance.integrity import is_source_of
from albert_hub_bridge.provenance.record import read_record
from albert_hub_bridge.text import first_few
from albert_hub_bridge.verification.engines import registry
from albert_hub_bridge.verification.engines.common import Engine
from albert_hub_bridge.verification.engines.spiece_model import note_on_spiece_model
from albert_hub_bridge.verification.example import example_output
from albert_hub_bridge.verification.front_door import Pair
from albert_hub_bridge.verification.onnx import check_onnx_files
from albert_hub_bridge.verification.outputs import WITHOUT_KERAS_HUB, check_outputs
from albert_hub_bridge.verification.progress import StageProgress, ignore_progress
from albert_hub_bridge.verification.reference import check_reference
from albert_hub_bridge.verification.report import NOT_COMPARABLE, Check, Verification
from albert_hub_bridge.verification.sample_texts import SAMPLE_TEXTS
from albert_hub_bridge.verification.settings import HEAD_EPSILON, LABELS, check_settings
from albert_hub_bridge.verification.side import Side
from albert_hub_bridge.verification.tensors import check_tensors
from albert_hub_bridge.verification.texts import check_texts, texts_and_pairs


PROBE_FACTOR = 5  # Rounding errors grow with length: probes of 512 random ids differ by more than texts.


def verify(
    source: str | Path,
    target: str | Path,
    *,
    texts: Sequence[str | Pair] = SAMPLE_TEXTS,
    tolerance: float = DEFAULT_TOLERANCE,
    allow_pickle: bool = False,
    progress: StageProgress = ignore_progress,
) -> Verification:
    """Verify that two presets or repositories are the same model.

    The checks:

    1. `configuration`: architecture, head, text normalization and vocabulary.
    2. `tensors`: each tensor of the target, in the source's layout, equals the source's tensor bit for bit. If the
       target has another dtype, the source's tensor is cast first.
    3. `reference`: an independent encoder in NumPy and float64 reads the files of both sides. It is compared with this
       package's model of the target in float64.
    4. `engines`: the libraries of both sides compute the same outputs in float32, on generated inputs of every length,
       with every kind of padding, and with mixed segments.
    5. `texts`: the same token ids, the same outputs for the source's ids, and the same batches for texts and pairs as
       users encode them: with special tokens and segments, cut and padded.

    A universal target is compared with the source once more, as KerasHub loads it: `engines (KerasHub)` and
    `texts (KerasHub)`. If the target has ONNX files, ONNX Runtime computes them: `onnx` and `onnx int8` compare them
    with the target.

    The layout of a side decides which library computes it: keras_hub for `keras`, transformers with this package for
    `albert_hub`, and transformers alone for `transformers` and `universal`. If keras_hub is not installed, this
    package's model computes a preset, and the report says so.

    Args:
        source: A folder.
        target: A folder.
        texts: The texts and pairs of texts to compare. At least one. Without pairs, each text and the next one are one.
        tolerance: Largest relative difference of outputs that passes on texts. On generated inputs, five times as much.
            A larger difference passes if it is explained by the rounding errors of both libraries.
        allow_pickle: Whether to read weights that are pickled. The library of that side reads them too.
        progress: Is called with a stage, the work done in it, and the work in all, when the stage begins and later.

    Returns:
        The report.

    Raises:
        SourceError, CheckpointError: A folder cannot be found, or is not valid.
        EngineError: The library of a side cannot load or compute it.
        ValueError: There are no texts.
    """
    if not texts:
        raise ValueError("verify needs at least one text.")
    flat, pairs = texts_and_pairs(texts)
    progress("reading", 0, 1)
    source_folder = pull(source).folder
    with (
        read_checkpoint(pull(target).folder, ReadOptions(allow_pickle=allow_pickle)) as target_read,
        read_checkpoint(source_folder, source_options(source_folder, target_read, allow_pickle)) as whole_source,
    ):
        for checkpoint in (whole_source, target_read):
            checkpoint.check_values()
        source_read, notes = without_dropped(whole_source, target_read)
        approximated = _has_approximate_gelu(source_read, target_read)
        if approximated:
            source_read = with_approximate_gelu(source_read)
        comparable = _shapes(source_read) == _shapes(target_read)
        epsilons = _forced_epsilons(source_read, target_read)
        allowed = [HEAD_EPSILON] if epsilons else []
        if (renamed := _renamed_labels(source_read, target_read)) is not None:
            allowed.append(LABELS)
            notes.append(renamed)
        settings = check_settings(source_read, target_read, allowed)
        sides = source_read, target_read
        if source_read.int8 and target_read.int8:
            sides = source_read.in_int8(), target_read.in_int8()
        tensors = check_tensors(*sides, progress)
        progress("reference", 0, 1)
        reference = check_reference(source_read, target_read) if comparable else NOT_COMPARABLE
        progress("loading", 0, 1)
        source_side, target_side = open_sides(*sides)
    # Before the epsilon is changed: the ONNX files have the repository's own.
    on_onnx = check_onnx_files(target_side, flat, PROBE_FACTOR * tolerance)
    if approximated:
        notes.append(_use_approximate_gelu(source_side, target_side, flat, tolerance))
    if epsilons:
        notes.append(_use_one_epsilon(source_side.engine, target_side.engine, *epsilons))
    outputs = NOT_COMPARABLE
    if comparable:
        outputs = check_outputs(source_side, target_side, PROBE_FACTOR * tolerance, progress)
    progress("texts", 0, 1)
    rules = [note for side in (source_side, target_side) if (note := note_on_spiece_model(side.checkpoint, flat))]
    on_texts = check_texts(
        source_side, target_side, flat, pairs, tolerance, comparable=comparable, by_rules=bool(rules)
    )
    on_keras: dict[str, Check] = {}
    remarks = on_texts.remarks
    if target_read.layout == "universal":
        outputs, on_keras, of_keras = _check_keras_half(
            source_side, target_side, outputs, flat, pairs, tolerance, comparable=comparable, by_rules=bool(rules)
        )
        remarks = (*remarks, *(f"As KerasHub loads the target: {remark}" for remark in of_keras))
    return Verification(
        source=str(source),
        target=str(target),
        source_engine=source_side.engine.name,
        target_engine=target_side.engine.name,
        configuration=settings,
        tensors=tensors,
        reference=reference,
        engines=outputs,
        on_texts=on_texts,
        on_keras=on_keras,
        on_onnx=on_onnx,
        tolerance=tolerance,
        notes=(*notes, *rules, *remarks),
        example_output=example_output(target_side),
    )


def source_options(source: Path, target: Checkpoint, allow_pickle: bool) -> ReadOptions:
    """Return how to read the source: as the conversion read it, which the target's conversion.json says."""
    record, head = read_record(target.folder), target.head.kind if target.head is not None else None
    if record is None:
        return ReadOptions(head=head, allow_pickle=allow_pickle)
    named = tuple(tensor.name for tensor in record.dropped if tensor.reason == DROPPED_UNKNOWN)
    if named and not is_source_of(source, record):
        named = ()
    return ReadOptions(head is None, named, head, allow_pickle)


def without_dropped(source: Checkpoint, target: Checkpoint) -> tuple[Checkpoint, list[str]]:
    """Return the source without what its conversion dropped, and notes that name it.

    Tensors may have been left out when the source was read. The conversion.json of a preset lists what KerasHub does
    not support: tensors of the head, and what of the tokenizer is no SentencePiece model.
    """
    left_out = [tensor.name for tensor in source.dropped if tensor.reason in (DROPPED_HEAD, DROPPED_UNKNOWN)]
    record = read_record(target.folder) if target.layout in PRESET_LAYOUTS else None
    notes = []
    if record is not None and record.dropped_tokenizer and source.tokenizer_files is not None:
        beyond = source.tokenizer_files.beyond_sentencepiece
        notes.append(f"Left out of the target's tokenizer, as its conversion.json says: {beyond}.")
        source = without_other_tokenizer(source)
    elif _holds_cut_out_pieces(source, target):
        source = with_cut_out_pieces(source)
    recorded = {tensor.name for tensor in record.dropped} if record is not None else set()
    dropped = sorted({rule.albert_hub for rule in source.head_rules} & set(source.weights) & recorded)
    if names := [*left_out, *dropped]:
        notes.append(f"Left out of the target, as its conversion.json says: {first_few(names, 3)}.")
    return with_heads_of_keras(source) if dropped else source, notes


def _holds_cut_out_pieces(source: Checkpoint, target: Checkpoint) -> bool:
    """Return whether the target's SentencePiece model cuts out of a text what the source's tokenizer does."""
    files, tokenizer = source.tokenizer_files, target.tokenizer
    return files is not None and tokenizer is not None and holds(tokenizer.vocabulary, files.cut_out)


def _renamed_labels(source: Checkpoint, target: Checkpoint) -> str | None:
    """Return a note if the option `labels` of the conversion gave the target other labels; None if it did not."""
    record = read_record(target.folder)
    if source.head is None or target.head is None or record is None or not record.labels_from_option:
        return None
    before, after = source.head.labels, target.head.labels
    if before is None or before == after or after is None or list(after) != record.labels:
        return None
    if not is_source_of(source.folder, record):
        return None
    return (
        f"The option labels of the conversion named the labels {first_few(after, 5)}. In the source they are "
        f"{first_few(before, 5)}."
    )


def _has_approximate_gelu(source: Checkpoint, target: Checkpoint) -> bool:
    """Return whether the target is the preset that `--allow-approximate-gelu` made of the source."""
    record = read_record(target.folder) if target.layout in PRESET_LAYOUTS else None
    return source.architecture.activation == APPROXIMATED and record is not None and record.approximate_gelu


def _use_approximate_gelu(source: Side, target: Side, texts: Sequence[str], tolerance: float) -> str:
    """Let the source's engine compute gelu as KerasHub does, and return a note on what that changes."""
    effects = check_texts(source, target, texts, [], tolerance, comparable=True, by_rules=False).outputs.items()
    source.engine.use_activation(target.checkpoint.architecture.activation)
    listed = ", ".join(f"{name} by up to {effect.absolute:.1e}" for name, effect in effects)
    return (
        f"The target computes gelu by its tanh approximation, as its conversion.json says. On the texts, this changes "
        f"{listed}. Everything else was compared with the approximation on both sides."
    )


def _shapes(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the settings that must be equal before outputs can be compared."""
    return {name: value for name, value in checkpoint.architecture.keras_arguments.items() if name != "dropout"}


def open_sides(source: Checkpoint, target: Checkpoint) -> tuple[Side, Side]:
    """Open both engines. If the target was rounded to another dtype, round the source's weights too."""
    rounded = target.dtype if target.dtype not in (source.dtype, "float32") else None
    return Side(source, registry.open_engine(source, rounded)), Side(target, registry.open_engine(target))


def _check_keras_half(
    source: Side,
    target: Side,
    outputs: Check,
    texts: Sequence[str],
    pairs: Sequence[Pair],
    tolerance: float,
    *,
    comparable: bool,
    by_rules: bool,
) -> tuple[Check, dict[str, Check], Sequence[str]]:
    """Compare the source with a universal target as KerasHub loads it.

    Returns:
        The check of the other half's outputs, without the remark that KerasHub was not used; the checks; and
        what users get that differs because KerasHub has no other way.
    """
    half = as_preset(target.checkpoint)
    side = Side(half, registry.open_engine(half))
    remarks: tuple[str, ...] = ()
    if half.head_epsilon is not None:
        source.engine.use_epsilon(KERAS_EPSILON)
        if source.checkpoint.head_epsilon != KERAS_EPSILON:
            remarks = (
                f"the masked-LM head's epsilon is {KERAS_EPSILON:g}, and {source.checkpoint.head_epsilon:g} in the "
                f"source; both sides were computed with {KERAS_EPSILON:g}.",
            )
    on_texts = check_texts(source, side, texts, pairs, tolerance, comparable=comparable, by_rules=by_rules)
    if not comparable:
        return outputs, {"texts (KerasHub)": on_texts}, (*remarks, *on_texts.remarks)
    in_keras = check_outputs(source, side, PROBE_FACTOR * tolerance)
    if side.engine.is_keras_hub:
        outputs = replace(
            outputs, not_measured=tuple(each for each in outputs.not_measured if each != WITHOUT_KERAS_HUB)
        )
    return outputs, {"engines (KerasHub)": in_keras, "texts (KerasHub)": on_texts}, (*remarks, *on_texts.remarks)


def _forced_epsilons(source: Checkpoint, target: Checkpoint) -> tuple[float, float] | None:
    """Return the epsilons of both masked-LM heads if they differ because the target's layout cannot store one.

    In KerasHub it is fixed, and in transformers' ALBERT it is that of the encoder. `convert` reports the change, so it
    is not a failure.
    """
    epsilons = source.head_epsilon, target.head_epsilon
    if target.layout == "albert_hub" or not epsilons[0] or not epsilons[1] or epsilons[0] == epsilons[1]:
        return None
    return epsilons[0], epsilons[1]


def _use_one_epsilon(source: Engine, target: Engine, source_epsilon: float, target_epsilon: float) -> str:
    """Let both engines compute the masked-LM head with the same epsilon, and return a note about it."""
    # KerasHub cannot change its epsilon. The source then takes the target's.
    common = source_epsilon if target.use_epsilon(source_epsilon) else target_epsilon
    source.use_epsilon(common)
    return (
        f"The masked-LM head's epsilon is {source_epsilon:g} in the source and {target_epsilon:g} in the target, which "
        f"the target's library requires; both sides were computed with {common:g}."
    )
