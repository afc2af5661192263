"""The command `convert`: convert a preset or repository to another layout."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import get_args

from albert_hub_bridge.checkpoint import Layout, Progress
from albert_hub_bridge.commands.notes import conversion_notes
from albert_hub_bridge.commands.options import Normalize, parse_size
from albert_hub_bridge.commands.recording import make_record
from albert_hub_bridge.commands.reports import Conversion
from albert_hub_bridge.commands.summary import summarize, summarize_vocabulary
from albert_hub_bridge.disk.atomic import check_target, new_folder
from albert_hub_bridge.disk.durable import write_file
from albert_hub_bridge.errors import SourceError, TargetError
from albert_hub_bridge.formats.lazy_tensors import DTYPES
from albert_hub_bridge.layouts.hub.sentence_transformers import encoder_of
from albert_hub_bridge.layouts.keras.compatibility import with_heads_of_keras, with_pooler
from albert_hub_bridge.layouts.layout import Pooling
from albert_hub_bridge.layouts.registry import is_written_file, pull, read_checkpoint, write_checkpoint
from albert_hub_bridge.layouts.tokenize import tokenize
from albert_hub_bridge.model.sentencepiece_unigram import NAMED_NORMALIZATIONS
from albert_hub_bridge.provenance.digests import file_list, tensor_list
from albert_hub_bridge.provenance.model_card import render_card, written_by_hand
from albert_hub_bridge.provenance.record import CARD, PICTURE, RECORD, public_handle, record_bytes
from albert_hub_bridge.verification.sample_texts import SAMPLE_TEXTS


def convert(
    source: str | Path,
    target: str | Path,
    *,
    to: Layout,
    normalize: Normalize = "keep",
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
        to: `keras` (a KerasHub preset), `albert_hub` (a repository for this package's classes) or `transformers` (a repository
            for transformers alone).
        normalize: What happens to a text before the vocabulary. `keep` computes what the source computes;
            `none` (nothing) and `uncased` (what transformers and Google's release do) repair on purpose.
        dtype: Of the target's weights: `float32`, `bfloat16` or `float16`, rounded to the nearest; by default, that of
            the source.
        max_shard_size: Size of the values in one file of weights, in bytes or as `"200MB"`; one file by default.
        include_code: Whether a repository in the albert_hub layout carries the classes that load it, as Python files for
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
        ValueError: There is no such layout, dtype, size or pooling, or no such text normalization.
    """
    for name, value, choices in (
        ("to", to, get_args(Layout)),
        ("normalize", normalize, get_args(Normalize)),
        ("dtype", dtype, (None, *DTYPES)),
        ("sentence_transformers", sentence_transformers, (None, *get_args(Pooling))),
    ):
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, not {value!r}.")
    if include_code and to != "albert_hub":
        raise TargetError(
            f"Code goes with the albert_hub layout only, and {to} was asked for: "
            f"{'KerasHub' if to == 'keras' else 'transformers'} has its own. Leave out --include-code "
            "(include_code=True), or convert to albert_hub."
        )
    if sentence_transformers is not None and to == "keras":
        raise TargetError(
            "sentence-transformers loads no KerasHub presets. Convert to transformers or albert_hub instead."
        )
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
        if normalize != "keep":
            if converted.tokenizer is None:
                raise SourceError(f"{source} has no vocabulary that is read, so text normalization cannot be changed.")
            converted = replace(
                converted,
                tokenizer=replace(
                    converted.tokenizer,
                    normalization=NAMED_NORMALIZATIONS[normalize],
                    normalization_from="asked for",
                ),
            )
        if drop_head and to == "keras":
            converted = with_heads_of_keras(converted)
        if sentence_transformers is not None:
            converted = encoder_of(converted, source, drop_head)
        changed, rules, normalization_from = None, None, None
        if checkpoint.tokenizer is not None and converted.tokenizer is not None:
            before = tokenize(checkpoint.tokenizer, checkpoint.layout, SAMPLE_TEXTS)
            after = tokenize(converted.tokenizer, to, SAMPLE_TEXTS)
            changed = sum(one != other for one, other in zip(before, after, strict=True))
            said = summarize_vocabulary(converted.tokenizer)
            rules, normalization_from = said.text_normalization, said.text_normalization_from
        summary = replace(summarize(checkpoint), source=str(source))
        report = Conversion(
            source=summary,
            target=str(target),
            layout=to,
            dtype=converted.dtype,
            head=converted.head.description if converted.head is not None else None,
            text_normalization=rules,
            text_normalization_from=normalization_from,
            changed_texts=changed,
            sample_size=len(SAMPLE_TEXTS),
            sentence_transformers=sentence_transformers,
            dropped=tuple(converted.dropped),
            notes=(*summary.notes, *conversion_notes(checkpoint, converted, to)),
        )
        by_hand = written_by_hand(folder)
        # The source's files and the tensors are hashed while the target is written.
        with new_folder(folder, overwrite, is_known) as staging, ThreadPoolExecutor(2) as beside:
            names = checkpoint.source.names if checkpoint.source is not None else None
            source_files = beside.submit(file_list, origin, names)
            tensors = beside.submit(tensor_list, with_pooler(converted) if to == "keras" else converted)
            sums = write_checkpoint(
                converted,
                staging,
                to,
                progress,
                max_shard_bytes,
                include_code=include_code,
                sentence_transformers=sentence_transformers,
            )
            options = {
                "to": to,
                "normalize": None if normalize == "keep" else normalize,
                "dtype": dtype,
                "max-shard-size": max_shard_size,
                "include-code": include_code,
                "drop-head": drop_head,
                "sentence-transformers": sentence_transformers,
                "allow-pickle": allow_pickle,
            }
            command = _command(public_handle(pulled), folder.name, options)
            summarized = summarize_vocabulary(converted.tokenizer) if converted.tokenizer is not None else None
            target_sums = {"files": file_list(staging, precomputed=sums), "tensors": tensors.result()}
            record = make_record(pulled, source_files.result(), target_sums, converted, report, summarized, command)
            write_file(staging / RECORD, record_bytes(record))
            write_file(staging / CARD, render_card(record, folder.name, by_hand).encode())
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
