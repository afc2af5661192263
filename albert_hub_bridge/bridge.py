"""The public verbs: convert, inspect, verify. Each returns a report that says everything it found."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from math import isfinite, prod
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from albert_hub_bridge import __version__
from albert_hub_bridge.errors import SourceError, TargetError
from albert_hub_bridge.mapping.configs import IgnoredKey
from albert_hub_bridge.mapping.heads import KERAS_EPSILON
from albert_hub_bridge.mapping.weights import POOLER
from albert_hub_bridge.model.architecture import Architecture, Variant
from albert_hub_bridge.model.sentencepiece_unigram import AFTER, NAMED_RULES, TextRules, build_tokenizer
from albert_hub_bridge.model_card import write_card, written_by_hand
from albert_hub_bridge.provenance import CARD, RECORD, changed_files, file_list, read_record, write_record
from albert_hub_bridge.stores.checkpoint import DTYPES, Checkpoint, DroppedTensor, Layout, Progress, SourceLayout, Text
from albert_hub_bridge.stores.folders import check_target, new_folder
from albert_hub_bridge.stores.hub import Source
from albert_hub_bridge.stores.keras_preset import with_heads_of_keras
from albert_hub_bridge.stores.layouts import is_known_file, pull, read_checkpoint, write_checkpoint
from albert_hub_bridge.stores.published import PUBLISHED_PRESETS


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
    layout: SourceLayout
    architecture: Architecture
    variant: dict[str, Any]  # what it does otherwise than KerasHub's
    parameters: int
    tensors: int
    bytes: int
    dtype: str
    head: str | None
    vocabulary: VocabularySummary | None
    dropped: Sequence[DroppedTensor]
    ignored: Sequence[IgnoredKey]
    notes: Sequence[str]
    made_by: str | None = None  # what `conversion.json` says of where it comes from

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
        dtype: Of its weights.
        head: What is on its encoder, or None.
        text_rules: Of the target: the source's, or those that were asked for.
        changed_texts: How many of `SAMPLE_TEXTS` become other ids than in the source; None without a vocabulary.
        dropped: Tensors of the source that are not in the target.
        notes: What else the user should know, of the source and of the conversion.
    """

    source: Inspection
    target: str
    layout: Layout
    dtype: str
    head: str | None
    text_rules: str | None
    changed_texts: int | None
    dropped: Sequence[DroppedTensor]
    notes: Sequence[str]

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
        different_fields: Fields of the architecture and the head that differ, with both values.
        different_tensors: Tensors whose bits differ, by bridge names; empty where all are identical. A pooler that
            only one side has is not compared.
        vocabularies: Whether each side has one.
        different_ids: Texts that become different ids.
        first_difference: The first such text, with both sides' pieces from where they part.
        max_abs_difference: Of `sequence_output`, `pooled_output` and `head_output`, as far as both sides have them,
            computed in float32 on the source's ids; empty where the architectures differ, so that there is nothing
            to compare.
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
    with read_checkpoint(pull(source).folder) as checkpoint:
        return replace(_summary(checkpoint), made_by=_made_by(checkpoint.folder))


def convert(
    source: str | Path,
    target: str | Path,
    *,
    to: Layout,
    text_rules: TextRulesChoice = "keep",
    dtype: str | None = None,
    max_shard_size: int | str | None = None,
    drop_head: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Convert a preset or repository to any layout.

    Args:
        source: A folder; the name of a preset that KerasHub publishes; `kaggle://org/model/keras/name[/version]`,
            `hf://user/repo[@revision]` or `modelscope://user/repo`; or `user/repo`, which is on Hugging Face unless
            there is such a folder. What is needed is downloaded into the cache of the hub's own client.
        target: The folder to make. It appears when it is whole, or not at all.
        to: `keras` (a KerasHub preset), `bridge` (a repository for this package's classes) or `stock` (a repository
            for transformers alone).
        text_rules: What happens to a text before the vocabulary. `keep` computes what the source computes;
            `sentencepiece` (nothing) and `uncased` (what transformers and Google's release do) repair on purpose.
        dtype: Of the target's weights: `float32`, `bfloat16` or `float16`, rounded to the nearest; by default, that of
            the source.
        max_shard_size: Size of the values in one file of weights, in bytes or as `"200MB"`; one file by default.
        drop_head: Whether to leave out what the target has no place for, or that the source names and does not have,
            instead of refusing it.
        overwrite: Whether to replace an existing target.
        progress: Called with the bytes done and the bytes in all.

    Raises:
        SourceError, CheckpointError: The source cannot be found, or is wrong, or cannot be what was asked for.
            Nothing was written.
        TargetError: The target exists, or its parent does not, or it is the source. Nothing was written.
        ValueError: There is no such layout, dtype or size, or no such text rules.
    """
    for name, value, choices in (
        ("to", to, get_args(Layout)),
        ("text_rules", text_rules, get_args(TextRulesChoice)),
        ("dtype", dtype, (None, *DTYPES)),
    ):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}.")
    max_shard_bytes = None if max_shard_size is None else parse_size(max_shard_size)
    folder = Path(os.path.abspath(os.path.expanduser(target)))
    # A card is replaced where a record beside it says that it was made here.
    is_known = _is_known_with_papers if (folder / RECORD).is_file() else is_known_file
    check_target(folder, overwrite, is_known)
    pulled = pull(source)
    origin = pulled.folder
    if folder.resolve() == origin.resolve():
        raise TargetError(f"The target {target} is the source itself. Choose another target.")
    with read_checkpoint(origin, drop_head) as checkpoint:
        converted = checkpoint if dtype in (None, checkpoint.dtype) else checkpoint.cast(str(dtype))
        if text_rules != "keep":
            if converted.text is None:
                raise SourceError(f"{source} has no vocabulary that is read, so text rules cannot be changed.")
            converted = replace(converted, text=replace(converted.text, rules=NAMED_RULES[text_rules]))
        if drop_head and to == "keras":
            converted = with_heads_of_keras(converted)
        changed, rules = None, None
        if checkpoint.text is not None and converted.text is not None:
            changed = _changed_texts(checkpoint.text, converted.text)
            rules = _vocabulary_summary(converted.text).text_rules
        summary = _summary(checkpoint)
        report = Conversion(
            source=summary,
            target=str(target),
            layout=to,
            dtype=converted.dtype,
            head=converted.head.description if converted.head is not None else None,
            text_rules=rules,
            changed_texts=changed,
            dropped=tuple(converted.dropped),
            notes=(*summary.notes, *_conversion_notes(checkpoint, converted, to)),
        )
        by_hand = written_by_hand(folder)
        with new_folder(folder, overwrite, is_known) as draft:
            write_checkpoint(converted, draft, to, progress, max_shard_bytes)
            command = f"albert-hub-bridge convert {public_handle(pulled)} {folder.name} --to {to}"
            command += "" if text_rules == "keep" else f" --text-rules {text_rules}"
            command += "" if dtype is None else f" --dtype {dtype}"
            command += "" if max_shard_size is None else f" --max-shard-size {max_shard_size}"
            record = _record(pulled, converted, report, command + (" --drop-head" if drop_head else ""), draft)
            write_record(draft, record)
            write_card(draft, record, folder.name, by_hand)
        return report


def _is_known_with_papers(name: str) -> bool:
    return name in (RECORD, CARD) or is_known_file(name)


def _record(source: Source, target: Checkpoint, report: Conversion, command: str, draft: Path) -> dict[str, Any]:
    """Say of a conversion what `conversion.json` keeps."""
    vocabulary = None
    if target.text is not None:
        rules = NAMED_RULES["sentencepiece"] if report.layout == "keras" else target.text.rules
        summary = _vocabulary_summary(target.text)
        lower_cases = target.text.rules.lower_case or "uncased" in summary.text_rules
        vocabulary = asdict(summary) | {
            "lower_cases": lower_cases or target.text.vocabulary.normalization.endswith("_cf"),
            "rules_in_vocabulary": summary.rules_in_vocabulary or rules != target.text.rules,
        }
    handle = public_handle(source)
    published = next((p for p in PUBLISHED_PRESETS.values() if handle.startswith(f"kaggle://{p.kaggle[:-2]}")), None)
    official = handle.startswith("hf://albert/albert-")
    return {
        "tool": f"albert-hub-bridge {__version__}",
        "command": command,
        "source": {
            "handle": handle,
            "revision": source.revision,
            "layout": report.source.layout,
            "dtype": report.source.dtype,
            "files": file_list(source.folder),
        },
        "target": {"layout": report.layout, "dtype": report.dtype, "files": file_list(draft)},
        "published": {"license": "apache-2.0", "language": "en"} if published or official else None,
        "architecture": asdict(target.architecture),
        "variant": report.source.variant,
        "head": report.head,
        "head_kind": target.head.kind if target.head is not None else None,
        "parameters": sum(prod(weight.shape) for weight in target.weights.values()),
        "vocabulary": vocabulary,
        "changed_texts": report.changed_texts,
        "sample_size": len(SAMPLE_TEXTS),
        "ignored": [asdict(key) for key in report.source.ignored],
        "dropped": [asdict(tensor) for tensor in report.dropped],
        "notes": list(report.notes),
        "verification": None,
    }


def public_handle(source: Source) -> str:
    """Return what a source is called elsewhere: of a folder only its name, because its path is nobody's business."""
    return source.handle if "://" in source.handle else source.folder.resolve().name


def _made_by(folder: Path) -> str | None:
    record = read_record(folder)
    if record is None:
        return None
    made = f"converted from {record['source']['handle']}"
    made += f", revision {record['source']['revision']}" if record["source"].get("revision") else ""
    changes = changed_files(folder, record)
    return f"{made}, by {record['tool']}" + (f"; since then: {changes}" if changes else "")


def parse_size(size: int | str) -> int:
    """Return a number of bytes, given as one or as `"200MB"` (KB, MB and GB are powers of 1000).

    Raises:
        ValueError: It is not a positive size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(|KB|MB|GB)", str(size).strip().upper())
    number = int(float(match[1]) * {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}[match[2]]) if match else 0
    if number < 1:
        raise ValueError(f"A size is a number of bytes, or such as 200MB, not {size!r}.")
    return number


def _conversion_notes(source: Checkpoint, target: Checkpoint, to: Layout) -> list[str]:
    """Say what is not the same in the target."""
    notes = []
    if source.dtype != target.dtype:
        exact = source.dtype != "float32" and target.dtype == "float32"
        notes.append(f"The weights were {source.dtype}, and are {target.dtype}{'' if exact else ', rounded'}.")
    if to == "keras":
        if target.text is not None and target.text.truncate == "longest_first":
            notes.append(
                "Of pairs that are too long transformers keeps the odd piece of the longer or the second text, "
                "and KerasHub of the first (round_robin)."
            )
        if not target.has_pooler:
            notes.append("KerasHub needs a pooler, and the source has none: its pooled_output will be zeros.")
        implied = {None: None, "softmax": "single_label_classification", "sigmoid": "multi_label_classification"}
        if target.head is not None and target.head.problem_type not in (None, implied[target.head.activation]):
            notes.append(f"KerasHub has no place for problem_type {target.head.problem_type}.")
    if target.head is not None and target.head.kind in ("masked_lm", "pretraining"):
        epsilon = {"keras": KERAS_EPSILON, "bridge": target.head.layer_norm_epsilon}.get(
            to, target.variant.layer_norm_epsilon
        )
        if epsilon != target.head.layer_norm_epsilon:
            from albert_hub_bridge.engines import epsilon_effect

            library = "KerasHub" if to == "keras" else "transformers' ALBERT"
            notes.append(
                f"The layer norm of the masked-LM head has epsilon {target.head.layer_norm_epsilon:g}, and in "
                f"{library} it is {epsilon:g}: that changes the scores of the sample texts by up to "
                f"{epsilon_effect(target, epsilon, SAMPLE_TEXTS):.1e}. The bridge layout is exact."
            )
    return notes


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
    with read_checkpoint(pull(source).folder) as one, read_checkpoint(pull(target).folder) as other:
        different_fields = _different_fields(one, other)
        different_tensors = _different_tensors(one, other)
        engines = open_engine(one), open_engine(other)
        longest = min(_longest(one), _longest(other))
    ids, other_ids = (engine.tokenize(texts) for engine in engines)
    differences: dict[str, float] = {}
    if one.architecture == replace(other.architecture, dropout=one.architecture.dropout):  # else not one function
        # Where neither side has a vocabulary, any ids will do to compare the numbers.
        size = one.architecture.vocabulary_size
        rows = ids or other_ids or [[index % size for index in range(40)], [size - 1]]
        inputs = pack(rows, _special_ids(one, other), one.architecture.num_segments, longest)
        outputs, other_outputs = (engine.compute(inputs) for engine in engines)
        comparable = [n for n in outputs if n in other_outputs and outputs[n].shape == other_outputs[n].shape]
        differences = {name: float(np.max(np.abs(outputs[name] - other_outputs[name]))) for name in comparable}
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


def _summary(checkpoint: Checkpoint) -> Inspection:
    text, notes = checkpoint.text, list(checkpoint.notes)
    if text is not None and AFTER in text.vocabulary.normalization:
        notes.append(
            "The text rules are part of the vocabulary's own normalization, and stay there whatever is asked for."
        )
    positions, usual = checkpoint.architecture.max_sequence_length, asdict(Variant())
    if text is not None and (text.sequence_length or 0) > positions:
        notes.append(f"The source packs {text.sequence_length} tokens, and the model has {positions} positions.")
    return Inspection(
        source=str(checkpoint.folder),
        layout=checkpoint.layout,
        architecture=checkpoint.architecture,
        variant={name: value for name, value in asdict(checkpoint.variant).items() if value != usual[name]},
        parameters=sum(prod(weight.shape) for weight in checkpoint.weights.values()),
        tensors=len(checkpoint.weights),
        bytes=checkpoint.nbytes,
        dtype=checkpoint.dtype,
        head=checkpoint.head.description if checkpoint.head is not None else None,
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


def _different_fields(one: Checkpoint, other: Checkpoint) -> dict[str, tuple[Any, Any]]:
    ours, theirs = _comparable_fields(one), _comparable_fields(other)
    names = dict.fromkeys([*ours, *theirs])
    return {name: (ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)}


def _comparable_fields(checkpoint: Checkpoint) -> dict[str, Any]:
    fields = asdict(checkpoint.architecture) | asdict(checkpoint.variant)
    head = checkpoint.head
    fields["head"] = head.description if head is not None else None
    if head is not None and head.kind == "sequence_classification":
        fields["labels"] = head.label_names
        fields["classifier_dropout"] = head.dropout if head.dropout is not None else fields["dropout"]
    if head is not None and head.kind in ("masked_lm", "pretraining"):
        fields["masked_lm_layer_norm_epsilon"] = head.layer_norm_epsilon
    return fields


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

    compared = {*one.weights, *other.weights}
    if one.has_pooler != other.has_pooler:
        compared -= POOLER
    return sorted(name for name in compared if differs(name))


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
