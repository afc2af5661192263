"""The public verbs `convert` and `inspect`; `verification` has `verify`, and `publish` those that push."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from math import prod
from pathlib import Path
from typing import Literal, get_args

from albert_hub_bridge.errors import SourceError, TargetError
from albert_hub_bridge.mapping.heads import HEADS, IMPLIED_PROBLEM_TYPES, KERAS_EPSILON
from albert_hub_bridge.mapping.vocabulary import bake_rules
from albert_hub_bridge.model.architecture import Variant
from albert_hub_bridge.model.sentencepiece_unigram import (
    AFTER,
    NAMED_RULES,
    TextRules,
    build_tokenizer,
    parse_vocabulary,
)
from albert_hub_bridge.model_card import render_card, written_by_hand
from albert_hub_bridge.provenance import (
    CARD,
    PICTURE,
    RECORD,
    changed_files,
    file_list,
    made_by,
    make_record,
    public_handle,
    read_record,
    record_bytes,
    tensor_list,
)
from albert_hub_bridge.reports import Conversion, Inspection, VocabularySummary
from albert_hub_bridge.stores.checkpoint import DTYPES, Checkpoint, Layout, Progress, SourceLayout, Text
from albert_hub_bridge.stores.files import write_file
from albert_hub_bridge.stores.folders import check_target, new_folder
from albert_hub_bridge.stores.keras_preset import with_heads_of_keras, with_pooler
from albert_hub_bridge.stores.layouts import is_written_file, pull, read_checkpoint, write_checkpoint
from albert_hub_bridge.stores.remote_code import add_code
from albert_hub_bridge.stores.sentence_transformers import Pooling, encoder_of, write_sentence_transformers
from albert_hub_bridge.verification import SAMPLE_TEXTS


TextRulesChoice = Literal["keep", "sentencepiece", "uncased"]


def inspect(source: str | Path, *, allow_pickle: bool = False) -> Inspection:
    """Say what a preset or repository holds, without reading its weights.

    Args:
        source: A folder.
        allow_pickle: As `convert` takes it.

    Raises:
        SourceError, CheckpointError: The source cannot be found, or is wrong.
    """
    with read_checkpoint(pull(source).folder, allow_pickle=allow_pickle) as checkpoint:
        return replace(_summary(checkpoint), source=str(source), made_by=_made_by(checkpoint.folder))


def convert(
    source: str | Path,
    target: str | Path,
    *,
    to: Layout,
    text_rules: TextRulesChoice = "keep",
    dtype: str | None = None,
    max_shard_size: int | str | None = None,
    include_code: bool = False,
    drop_head: bool = False,
    sentence_transformers: Pooling | None = None,
    overwrite: bool = False,
    allow_pickle: bool = False,
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
        include_code: Whether a repository in the bridge layout carries the classes that load it, as Python files for
            `trust_remote_code=True`.
        drop_head: Whether to leave out what the target has no place for, or that the source names and does not have,
            instead of refusing it.
        sentence_transformers: Whether the repository shall be a model for sentence-transformers too, whose vector of a
            text is the `mean` of the states of all its tokens, or the state of its `cls` token. It takes an encoder
            with a vocabulary.
        overwrite: Whether to replace an existing target.
        allow_pickle: Whether to read weights that are a pickle (`pytorch_model.bin`), which are refused otherwise;
            another process unpickles tensors, and nothing else.
        progress: Called with the bytes done and the bytes in all.

    Raises:
        SourceError, CheckpointError: The source cannot be found, or is wrong, or cannot be what was asked for.
            Nothing was written.
        TargetError: The target exists, or its parent does not, or it is the source, or its layout has no place for code
            or is none that sentence-transformers loads, or another process writes it, or the system did not write
            something. Nothing was changed.
        ValueError: There is no such layout, dtype, size or pooling, or no such text rules.
    """
    for name, value, choices in (
        ("to", to, get_args(Layout)),
        ("text_rules", text_rules, get_args(TextRulesChoice)),
        ("dtype", dtype, (None, *DTYPES)),
        ("sentence_transformers", sentence_transformers, (None, *get_args(Pooling))),
    ):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}.")
    if include_code and to != "bridge":
        raise TargetError(
            f"Code goes with the bridge layout only, and {to} was asked for: "
            f"{'KerasHub' if to == 'keras' else 'transformers'} has its own. Leave out --include-code "
            "(include_code=True), or convert to bridge."
        )
    if sentence_transformers is not None and to == "keras":
        raise TargetError("sentence-transformers loads no KerasHub presets. Convert to stock or bridge instead.")
    max_shard_bytes = None if max_shard_size is None else parse_size(max_shard_size)
    folder = Path(os.path.abspath(os.path.expanduser(target)))
    # A card is replaced where a record beside it says that it was made here.
    is_known = _is_known_with_papers if (folder / RECORD).is_file() else is_written_file
    check_target(folder, overwrite, is_known)
    pulled = pull(source)
    origin = pulled.folder
    if folder.resolve() == origin.resolve():
        raise TargetError(f"The target {target} is the source itself. Choose another target.")
    with read_checkpoint(origin, drop_head, allow_pickle) as checkpoint:
        converted = checkpoint if dtype in (None, checkpoint.dtype) else checkpoint.cast(str(dtype))
        if text_rules != "keep":
            if converted.text is None:
                raise SourceError(f"{source} has no vocabulary that is read, so text rules cannot be changed.")
            converted = replace(
                converted, text=replace(converted.text, rules=NAMED_RULES[text_rules], rules_from="asked for")
            )
        if drop_head and to == "keras":
            converted = with_heads_of_keras(converted)
        if sentence_transformers is not None:
            converted = encoder_of(converted, source, drop_head)
        changed, rules, rules_from = None, None, None
        if checkpoint.text is not None and converted.text is not None:
            before, after = _ids(checkpoint.text, checkpoint.layout), _ids(converted.text, to)
            changed = sum(one != other for one, other in zip(before, after, strict=True))
            said = _vocabulary_summary(converted.text)
            rules, rules_from = said.text_rules, said.text_rules_from
        summary = replace(_summary(checkpoint), source=str(source))
        report = Conversion(
            source=summary,
            target=str(target),
            layout=to,
            dtype=converted.dtype,
            head=converted.head.description if converted.head is not None else None,
            text_rules=rules,
            text_rules_from=rules_from,
            changed_texts=changed,
            sample_size=len(SAMPLE_TEXTS),
            sentence_transformers=sentence_transformers,
            dropped=tuple(converted.dropped),
            notes=(*summary.notes, *_conversion_notes(checkpoint, converted, to)),
        )
        by_hand = written_by_hand(folder)
        # The source's files and the tensors are hashed while the target is written.
        with new_folder(folder, overwrite, is_known) as draft, ThreadPoolExecutor(2) as beside:
            source_files = beside.submit(file_list, origin)
            tensors = beside.submit(tensor_list, with_pooler(converted) if to == "keras" else converted)
            sums = write_checkpoint(converted, draft, to, progress, max_shard_bytes)
            if include_code:
                add_code(draft, converted.head.kind if converted.head is not None else None)
            if sentence_transformers is not None:
                write_sentence_transformers(draft, sentence_transformers, converted.architecture.hidden_dim)
            options = {
                "to": to,
                "text-rules": None if text_rules == "keep" else text_rules,
                "dtype": dtype,
                "max-shard-size": max_shard_size,
                "include-code": include_code,
                "drop-head": drop_head,
                "sentence-transformers": sentence_transformers,
                "allow-pickle": allow_pickle,
            }
            command = _command(public_handle(pulled), folder.name, options)
            summarized = _vocabulary_summary(converted.text) if converted.text is not None else None
            target_sums = {"files": file_list(draft, known=sums), "tensors": tensors.result()}
            record = make_record(pulled, source_files.result(), target_sums, converted, report, summarized, command)
            write_file(draft / RECORD, record_bytes(record))
            write_file(draft / CARD, render_card(record, folder.name, by_hand).encode())
        return report


def _command(source: str, target: str, options: Mapping[str, object]) -> str:
    """Return the command that converts so; options that are None or False are not given."""
    words = ["albert-hub-bridge", "convert", source, target]
    for name, value in options.items():
        if value is not None and value is not False:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return " ".join(words)


def _is_known_with_papers(name: str) -> bool:
    return name in (RECORD, CARD, PICTURE) or is_written_file(name)


def _made_by(folder: Path) -> str | None:
    record = read_record(folder)
    if record is None:
        return None
    changes = changed_files(folder, record)
    return made_by(record) + (f"; since then: {changes}" if changes else "")


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


def _ids(text: Text, layout: SourceLayout) -> list[list[int]]:
    """Return what a layout's own library makes of the sample texts."""
    processor = text.vocabulary.processor
    if layout == "keras":  # which has no rules but those in the vocabulary
        processor = parse_vocabulary(bake_rules(text.proto, text.rules)).processor
    elif layout == "stock" or text.rules != TextRules():
        pipeline = build_tokenizer(text.vocabulary, text.rules)
        return [row.ids for row in pipeline.encode_batch(SAMPLE_TEXTS, add_special_tokens=False)]
    return [list(row) for row in processor.encode(list(SAMPLE_TEXTS))]


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
        head = target.head
        if head is not None and head.problem_type not in (None, IMPLIED_PROBLEM_TYPES[head.activation]):
            notes.append(f"KerasHub has no place for problem_type {head.problem_type}.")
    pooled = target.head is None or target.head.kind in ("pretraining", "sequence_classification", "multiple_choice")
    if to == "stock" and target.head is not None and target.has_pooler and not pooled:
        notes.append(
            f"{HEADS[target.head.kind].albert} has no pooler, and reports that of the file as unexpected; "
            "AutoModel and KerasHub use it."
        )
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


def _vocabulary_summary(text: Text) -> VocabularySummary:
    normalization, _, inside = text.vocabulary.normalization.partition(AFTER)
    in_vocabulary = text.rules == TextRules() and bool(inside)
    return VocabularySummary(
        pieces=text.vocabulary.size,
        text_rules=inside if in_vocabulary else text.rules.name,
        text_rules_from="the vocabulary itself" if in_vocabulary else text.rules_from,
        rules_in_vocabulary=bool(inside),
        normalization=normalization,
        sequence_length=text.sequence_length,
        truncate=text.truncate,
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
