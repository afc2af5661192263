"""The public verbs: convert, inspect, verify. Each returns a report that says everything it found."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from albert_hub_bridge.errors import SourceError, TargetError
from albert_hub_bridge.mapping.configs import IgnoredKey
from albert_hub_bridge.mapping.weights import parameter_count
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.model.sentencepiece_unigram import AFTER, NAMED_RULES, TextRules, build_tokenizer
from albert_hub_bridge.stores.checkpoint import DTYPES, Checkpoint, DroppedTensor, Layout, Progress, Text
from albert_hub_bridge.stores.folders import check_target, new_folder
from albert_hub_bridge.stores.hub import resolve_source
from albert_hub_bridge.stores.layouts import KNOWN_FILES, read_checkpoint, write_checkpoint


TextRulesChoice = Literal["keep", "sentencepiece", "uncased"]


@dataclass(frozen=True, slots=True)
class VocabularySummary:
    """What a vocabulary is, and what happens to texts before it."""

    pieces: int
    text_rules: str  # what happens first: "sentencepiece" for nothing, "uncased", ...
    rules_in_vocabulary: bool  # whether that is part of the vocabulary's own normalization, where it stays
    normalization: str  # what the vocabulary does then
    sequence_length: int | None
    truncate: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a folder holds."""

    source: str
    layout: Layout
    architecture: Architecture
    parameters: int
    tensors: int
    bytes: int
    dtype: str
    head: str | None
    vocabulary: VocabularySummary | None
    dropped: Sequence[DroppedTensor]
    ignored: Sequence[IgnoredKey]
    notes: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was converted, and what was not.

    Args:
        source: What was read.
        target: The folder that was made.
        layout: Its layout.
        text_rules: Of the target: the source's, or those that were asked for.
        changed_texts: How many of `SAMPLE_TEXTS` become other ids than in the source; None without a vocabulary.
    """

    source: Inspection
    target: str
    layout: Layout
    text_rules: str | None
    changed_texts: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Verification:
    """How far two folders agree: configurations, tensors, ids, numbers.

    Args:
        source: The first folder.
        target: The second folder.
        source_engine: What computed the first side: library and version.
        target_engine: What computed the second side.
        texts: Number of texts that went in.
        different_fields: Fields of the architecture that differ, with both values.
        different_tensors: Tensors whose bits differ, by bridge names; empty where all are identical.
        vocabularies: Whether each side has one.
        different_ids: Texts that become different ids.
        first_difference: The first such text, with both sides' pieces from where they part.
        max_abs_difference: Of `sequence_output` and `pooled_output`, computed in float32 on the source's ids; empty
            where the architectures differ, so that there is nothing to compare.
        tolerance: What is allowed of it.
    """

    source: str
    target: str
    source_engine: str
    target_engine: str
    texts: int
    different_fields: dict[str, tuple[Any, Any]]
    different_tensors: Sequence[str]
    vocabularies: tuple[bool, bool]
    different_ids: int
    first_difference: dict[str, Any] | None
    max_abs_difference: dict[str, float]
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether nothing differs that must not."""
        exact = not self.different_fields and not self.different_tensors and not self.different_ids
        same_vocabularies = self.vocabularies[0] == self.vocabularies[1]
        return (
            exact and same_vocabularies and all(value <= self.tolerance for value in self.max_abs_difference.values())
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        finite = {name: value if isfinite(value) else None for name, value in self.max_abs_difference.items()}
        return {"passed": self.passed, **asdict(self), "max_abs_difference": finite}  # JSON has no NaN


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


def inspect(source: str | Path) -> Inspection:
    """Say what a preset or repository holds, without reading its weights.

    Args:
        source: A folder.

    Raises:
        SourceError, CheckpointError: The source cannot be found, or is wrong.
    """
    with read_checkpoint(resolve_source(source)) as checkpoint:
        return _summary(checkpoint)


def convert(
    source: str | Path,
    target: str | Path,
    *,
    to: Layout,
    text_rules: TextRulesChoice = "keep",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Convert a preset or repository to any layout.

    Args:
        source: A folder.
        target: The folder to make. It appears when it is whole, or not at all.
        to: `keras` (a KerasHub preset), `bridge` (a repository for this package's classes) or `stock` (a repository
            for transformers alone).
        text_rules: What happens to a text before the vocabulary. `keep` computes what the source computes;
            `sentencepiece` (nothing) and `uncased` (what transformers and Google's release do) repair on purpose.
        overwrite: Whether to replace an existing target.
        progress: Called with the bytes done and the bytes in all.

    Raises:
        SourceError, CheckpointError: The source cannot be found, or is wrong. Nothing was written.
        TargetError: The target exists, or its parent does not, or it is the source. Nothing was written.
        ValueError: There is no such layout, or no such text rules.
    """
    if to not in get_args(Layout):
        raise ValueError(f"to must be one of {', '.join(get_args(Layout))}, not {to!r}.")
    if text_rules not in get_args(TextRulesChoice):
        raise ValueError(f"text_rules must be one of {', '.join(get_args(TextRulesChoice))}, not {text_rules!r}.")
    folder = Path(os.path.abspath(os.path.expanduser(target)))
    check_target(folder, overwrite, KNOWN_FILES)
    origin = resolve_source(source)
    if folder.resolve() == origin.resolve():
        raise TargetError(f"The target {target} is the source itself. Choose another target.")
    with read_checkpoint(origin) as checkpoint:
        text = checkpoint.text
        if text_rules != "keep":
            if text is None:
                raise SourceError(f"{source} has no vocabulary that is read, so text rules cannot be changed.")
            text = replace(text, rules=NAMED_RULES[text_rules])
        with new_folder(folder, overwrite, KNOWN_FILES) as draft:
            write_checkpoint(replace(checkpoint, text=text), draft, to, progress)
        changed, rules = None, None
        if checkpoint.text is not None and text is not None:
            changed, rules = _changed_texts(checkpoint.text, text), _vocabulary_summary(text).text_rules
        return Conversion(_summary(checkpoint, to), str(target), to, rules, changed)


def verify(
    source: str | Path, target: str | Path, *, texts: Sequence[str] = SAMPLE_TEXTS, tolerance: float = 1e-5
) -> Verification:
    """Compare two presets or repositories: configurations, tensors bit by bit, ids, and the numbers they compute.

    Each side is computed by the library that its layout is meant for: keras_hub for a preset (or this package's
    `AlbertBackbone`, where keras_hub is not installed), `AutoModel` with this package for the bridge layout, and
    transformers alone for the stock layout. Both compute in float32, on the source's ids, padded to the longest.

    Args:
        source: A folder.
        target: A folder.
        texts: What goes in.
        tolerance: The largest absolute difference of outputs that passes.

    Raises:
        SourceError, CheckpointError: A folder cannot be found, or is wrong.
        EngineError: A side's own library cannot load or compute it.
        ValueError: There are no texts.
    """
    from albert_hub_bridge.engines import open_engine, pack

    if not texts:
        raise ValueError("verify needs at least one text.")
    with read_checkpoint(resolve_source(source)) as one, read_checkpoint(resolve_source(target)) as other:
        different_fields = _different_fields(one.architecture, other.architecture)
        different_tensors = _different_tensors(one, other)
        engines = open_engine(one), open_engine(other)
        longest = min(_longest(one), _longest(other))
    ids, other_ids = (engine.tokenize(texts) for engine in engines)
    differences: dict[str, float] = {}
    if not set(different_fields) - {"dropout"}:  # else the two are not even the same function
        # Where neither side has a vocabulary, any ids will do to compare the numbers.
        size = one.architecture.vocabulary_size
        rows = ids or other_ids or [[index % size for index in range(40)], [size - 1]]
        inputs = pack(rows, _special_ids(one, other), one.architecture.num_segments, longest)
        outputs, other_outputs = (engine.compute(inputs) for engine in engines)
        differences = {name: float(np.max(np.abs(outputs[name] - other_outputs[name]))) for name in outputs}
    compared = list(zip(texts, ids or [], other_ids or [], strict=False))
    differing = [(text, row, other_row) for text, row, other_row in compared if row != other_row]
    return Verification(
        source=str(source),
        target=str(target),
        source_engine=engines[0].name,
        target_engine=engines[1].name,
        texts=len(texts),
        different_fields=different_fields,
        different_tensors=different_tensors,
        vocabularies=(ids is not None, other_ids is not None),
        different_ids=len(differing),
        first_difference=_piece_by_piece(differing[0], one.text or other.text) if differing else None,
        max_abs_difference=differences,
        tolerance=tolerance,
    )


def _changed_texts(before: Text, after: Text) -> int:
    """Count the sample texts that become other ids under other rules."""
    if before.rules == after.rules:
        return 0
    one, other = (build_tokenizer(text.vocabulary, text.rules) for text in (before, after))
    return sum(one.encode(text).ids != other.encode(text).ids for text in SAMPLE_TEXTS)


def _vocabulary_summary(text: Text) -> VocabularySummary:
    normalization, _, inside = text.vocabulary.normalization.partition(AFTER)
    rules = text.rules.name if text.rules != TextRules() or not inside else inside
    return VocabularySummary(
        text.vocabulary.size, rules, bool(inside), normalization, text.sequence_length, text.truncate
    )


def _summary(checkpoint: Checkpoint, target: Layout | None = None) -> Inspection:
    text, notes = checkpoint.text, list(checkpoint.notes)
    if target == "keras" and text is not None and text.truncate == "longest_first":
        notes.append(
            "Of pairs that are too long transformers keeps the odd piece of the longer or the second text, "
            "and KerasHub of the first (round_robin)."
        )
    if text is not None and AFTER in text.vocabulary.normalization:
        notes.append(
            "The text rules are part of the vocabulary's own normalization, and stay there whatever is asked for."
        )
    positions = checkpoint.architecture.max_sequence_length
    if text is not None and (text.sequence_length or 0) > positions:
        notes.append(f"The source packs {text.sequence_length} tokens, and the model has {positions} positions.")
    return Inspection(
        source=str(checkpoint.folder),
        layout=checkpoint.layout,
        architecture=checkpoint.architecture,
        parameters=parameter_count(checkpoint.architecture),
        tensors=len(checkpoint.weights),
        bytes=checkpoint.nbytes,
        dtype=checkpoint.dtype,
        head=checkpoint.head,
        vocabulary=_vocabulary_summary(text) if text is not None else None,
        dropped=tuple(checkpoint.dropped),
        ignored=tuple(checkpoint.ignored),
        notes=tuple(notes),
    )


def _piece_by_piece(differing: tuple[str, list[int], list[int]], text: Text | None) -> dict[str, Any]:
    """Show a text and both sides' pieces, from the first that differs on."""
    typed, *sides = differing
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*sides, strict=False)))
    pieces = text.vocabulary.pieces if text is not None else ()
    named = [[pieces[i][0] if i < len(pieces) else str(i) for i in side[same : same + 8]] for side in sides]
    return {"text": typed, "from piece": same, "source": named[0], "target": named[1]}


def _different_fields(one: Architecture, other: Architecture) -> dict[str, tuple[Any, Any]]:
    pairs = {name: (value, getattr(other, name)) for name, value in asdict(one).items()}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _different_tensors(one: Checkpoint, other: Checkpoint) -> list[str]:
    """Name the tensors that are not the same, bit for bit."""

    def differs(name: str) -> bool:
        if name not in one.weights or name not in other.weights:
            return True
        ours, theirs = one.weights[name], other.weights[name]
        if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            return True
        bits = f"V{DTYPES[ours.dtype].itemsize}"  # NaN and -0.0 too must be themselves
        return not np.array_equal(
            np.ascontiguousarray(ours.read()).view(bits), np.ascontiguousarray(theirs.read()).view(bits)
        )

    return sorted(name for name in {*one.weights, *other.weights} if differs(name))


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
