"""The command `convert`: convert a preset or repository to another layout."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from albert_hub_bridge.checkpoint import Checkpoint, Progress
from albert_hub_bridge.choices import PRESET_LAYOUTS, Dtype, HiddenAct, LayoutName, Normalize, Pooling, Quantize
from albert_hub_bridge.commands.adaptation import adapt
from albert_hub_bridge.commands.id_comparison import IdComparison, compare_ids
from albert_hub_bridge.commands.notes import conversion_notes, lost_keys
from albert_hub_bridge.commands.onnx_files import OnnxExport, export_models
from albert_hub_bridge.commands.options import ConvertOptions
from albert_hub_bridge.commands.record_files import read_card, write_new_record
from albert_hub_bridge.commands.recording import Digests, make_record
from albert_hub_bridge.commands.reports import Conversion
from albert_hub_bridge.commands.summary import summarize, summarize_target
from albert_hub_bridge.disk.atomic import check_target, new_folder
from albert_hub_bridge.disk.durable import write_file
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.errors import SourceError, TargetError
from albert_hub_bridge.formats.lazy_tensors import dtype_name
from albert_hub_bridge.hubs.local_source import LocalSource
from albert_hub_bridge.layouts.files import RECORD_FILES
from albert_hub_bridge.layouts.keras.compatibility import with_pooler
from albert_hub_bridge.layouts.registry import is_written_file, open_source, pull, read_checkpoint, write_checkpoint
from albert_hub_bridge.mapping.heads import HeadKind
from albert_hub_bridge.provenance.card_metadata import (
    CardMetadata,
    card_metadata,
    note_on_card,
    parse_languages,
    read_card_keys,
)
from albert_hub_bridge.provenance.digests import file_list, tensor_list
from albert_hub_bridge.provenance.model_card import compile_template
from albert_hub_bridge.provenance.record import RECORD, public_handle
from albert_hub_bridge.runtime.onnx_export import require_onnx
from albert_hub_bridge.verification.sample_texts import SAMPLE_TEXTS


if TYPE_CHECKING:
    import torch


def convert(
    source: str | Path,
    target: str | Path,
    *,
    to: LayoutName,
    normalize: Normalize = "keep",
    dtype: Dtype | torch.dtype | None = None,
    max_shard_size: int | str | None = None,
    include_code: bool = False,
    drop_head: bool = False,
    drop_tokenizer: bool = False,
    drop_unknown: Sequence[str] = (),
    head: HeadKind | None = None,
    sentence_transformers: Pooling | None = None,
    hidden_act: HiddenAct | None = None,
    allow_pickle: bool = False,
    allow_approximate_gelu: bool = False,
    no_duplicate_weights: bool = False,
    labels: str | Path | Sequence[str] | None = None,
    license: str | None = None,  # noqa: A002 (the metadata of a card has this name)
    language: str | Sequence[str] | None = None,
    onnx: bool = False,
    quantize: Quantize | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Convert a preset or repository to another layout.

    Args:
        source: A folder; the name of a preset that KerasHub publishes; `kaggle://org/model/keras/name[/version]`,
            `hf://user/repo[@revision]` or `modelscope://user/repo`; or `user/repo`, which is on Hugging Face unless
            there is such a folder. The needed files are downloaded into the cache of the hub's own client.
        target: The folder to make. It appears when it is complete, or not at all.
        to: Layout of the target: `keras` (a KerasHub preset), `albert_hub` (a repository for this package's classes),
            `transformers` (a repository for transformers alone) or `universal` (a KerasHub preset and a repository for
            transformers in one folder).
        normalize: What happens to a text before the vocabulary's own normalization. `keep`: the same as in the source.
            `none`: nothing. `uncased`: lower-case, strip accents and replace old quotes, as transformers and Google's
            release do. These also split numbers from the comma after them (`1984,`), so `uncased` does it too.
        dtype: Of the target's weights, rounded to the nearest value; that of the source by default, and float32 for a
            source in int8. `torch.bfloat16` is `"bfloat16"`. `int8` keeps the int8 weights of the source, in the
            albert_hub layout.
        max_shard_size: Largest size of the values in one file of weights, in bytes or as `"200MB"`; one file by
            default.
        include_code: Whether a repository in the albert_hub layout contains the Python files of its classes, for
            `trust_remote_code=True`.
        drop_head: Whether to drop a head that the target does not support, or that has no weights in the source,
            instead of raising an error.
        drop_tokenizer: Whether to drop what is no SentencePiece vocabulary of the tokenizer (added tokens, another kind
            of vocabulary) where the target does not support it, instead of raising an error. A SentencePiece vocabulary
            stays.
        drop_unknown: The names of tensors in the source that no ALBERT has, to drop instead of raising an error.
        head: The head of a source whose `config.json` names no class, where its tensors and settings do not tell it.
        sentence_transformers: How the target pools the states of the tokens for sentence-transformers: their `mean`, or
            the state of the first token (`cls`). The source needs a vocabulary, and no head. By default the target is
            not a model for sentence-transformers.
        hidden_act: What `config.json` calls the activation, in the layouts `transformers` and `universal`:
            `gelu_pytorch_tanh` (the default) or `gelu_new`. Both are the same function. Some programs only know
            `gelu_new`, which transformers computes more slowly.
        allow_pickle: Whether to read weights from a pickle (`pytorch_model.bin`). A separate process reads only its
            tensors.
        allow_approximate_gelu: Whether a preset may compute `gelu` by its tanh approximation, because KerasHub has
            nothing else. The report says how much that changes.
        no_duplicate_weights: Whether a universal folder has the weights of transformers alone, which KerasHub reads by
            its own importer: a repository in the layout `transformers`. Only for an encoder in float32.
        labels: Names of a classifier's labels, in the order of its scores; or `"negative,positive"`; or a file with one
            name a line. By default the names of the source, which a KerasHub preset does not have.
        license: Of the model, for its card: an identifier of the Hub such as `apache-2.0`. By default that of the
            source's card.
        language: Codes of the model's languages, for its card, such as `"en"` or `["en", "fr"]`. By default those of
            the source's card.
        onnx: Whether to add `onnx/model.onnx` to a repository, as `export_onnx` does.
        quantize: `int8` to also add `onnx/model_quantized.onnx`, whose weights are quantized.
        overwrite: Whether to replace an existing target.
        progress: Is called with the number of bytes done and the total number of bytes.

    Returns:
        What was converted, and what was not.

    Raises:
        SourceError, CheckpointError: The source cannot be found, is wrong, or does not support the options. Nothing
            was written.
        TargetError: The target exists, has no parent folder, is the source, is being written by another process, does
            not support the options, or cannot be written. Nothing was changed.
        AlbertHubBridgeError: The model cannot be exported to ONNX. Nothing was changed.
        ValueError: An option has an unsupported value.
    """
    options = ConvertOptions(
        to=to,
        normalize=normalize,
        dtype=dtype_name(dtype),
        max_shard_size=max_shard_size,
        include_code=include_code,
        drop_head=drop_head,
        drop_tokenizer=drop_tokenizer,
        drop_unknown=drop_unknown,
        head=head,
        sentence_transformers=sentence_transformers,
        hidden_act=hidden_act,
        allow_pickle=allow_pickle,
        allow_approximate_gelu=allow_approximate_gelu,
        no_duplicate_weights=no_duplicate_weights,
        labels=labels,
        license=license,
        language=language,
        onnx=onnx,
        quantize=quantize,
    )
    return convert_with(options, source, target, overwrite=overwrite, progress=progress)


def convert_with(
    options: ConvertOptions,
    source: str | Path,
    target: str | Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Convert with all options in one object. `convert` documents the rest."""
    if options.onnx:
        require_onnx()
    folder, is_replaceable = resolve_target(target, overwrite)
    pulled = _resolve_source(source, folder)
    opened = open_source(pulled.folder)
    with read_checkpoint(opened, options.reading) as checkpoint:
        _check_head(checkpoint, options, source)
        converted = adapt(checkpoint, options, source)
        before = read_card(folder)
        with new_folder(folder, overwrite, is_replaceable) as staging:
            digests = _write(converted, staging, options, opened, progress)
            ids = compare_ids(checkpoint, converted, options.layout, staging)
            report = replace(_report(checkpoint, converted, options, source, target, ids), onnx=digests.onnx)
            card_keys = read_card_keys(opened)
            if (note := note_on_card(card_keys)) is not None:
                report = replace(report, notes=(*report.notes, note))
            command = options.command(public_handle(pulled), folder.name)
            metadata, named_labels = _with_options(card_metadata(card_keys), options), options.labels is not None
            record = make_record(pulled, converted, report, digests, command, metadata, named_labels=named_labels)
            write_new_record(staging, record, folder, before)
    return report


def resolve_target(target: str | Path, overwrite: bool) -> tuple[Path, Callable[[str], bool]]:
    """Return the target's absolute path, and which of its files a conversion may replace.

    Raises:
        TargetError: The target must not be written.
    """
    folder = Path(os.path.abspath(os.path.expanduser(target)))
    # A card is replaced only beside a record, which shows that this package wrote it.
    has_record = (folder / RECORD).is_file()

    def is_replaceable(name: str) -> bool:
        return is_written_file(name) or (has_record and name in RECORD_FILES)

    check_target(folder, overwrite, is_replaceable)
    return folder, is_replaceable


def _resolve_source(source: str | Path, target: Path) -> LocalSource:
    pulled = pull(source)
    if target.resolve() == pulled.folder.resolve():
        raise TargetError(f"The target {target} is the source itself. Choose another target.")
    if pulled.folder.resolve() in target.resolve().parents:
        raise TargetError(f"The target {target} is inside the source {pulled.folder}. Choose another target.")
    return pulled


def _check_head(checkpoint: Checkpoint, options: ConvertOptions, source: str | Path) -> None:
    """Refuse the option `head` if it contradicts the source."""
    found = checkpoint.head.kind if checkpoint.head is not None else "none"
    if options.head not in (None, found) and not options.drop_head:
        raise SourceError(
            f"{source} itself says which head it has: {found}, not {options.head}. Leave out --head (head=...)."
        )


def _with_options(metadata: CardMetadata, options: ConvertOptions) -> CardMetadata:
    if options.license is not None:
        metadata = replace(metadata, license=options.license, license_name=None, license_link=None)
    if options.language is not None:
        metadata = replace(metadata, language=list(parse_languages(options.language)))
    return metadata


def _report(
    checkpoint: Checkpoint,
    converted: Checkpoint,
    options: ConvertOptions,
    source: str | Path,
    target: str | Path,
    ids: IdComparison,
) -> Conversion:
    """Report the conversion of a checkpoint."""
    summary = replace(summarize(checkpoint), source=str(source))
    notes = conversion_notes(
        checkpoint,
        converted,
        options.layout,
        options.sentence_transformers,
        for_keras_hub=options.to in PRESET_LAYOUTS,
    )
    vocabulary = summarize_target(converted, options.layout)
    return Conversion(
        source=summary,
        target=str(target),
        layout=options.layout,
        dtype=converted.dtype,
        head=converted.head.description if converted.head is not None else None,
        text_normalization=vocabulary.text_normalization if vocabulary is not None else None,
        text_normalization_from=vocabulary.text_normalization_from if vocabulary is not None else None,
        changed_texts=ids.changed,
        tokenizer=_carried_class(converted, options.layout),
        dropped_tokenizer=options.drop_tokenizer and _is_beyond(checkpoint) and not _is_beyond(converted),
        sample_size=len(SAMPLE_TEXTS),
        sentence_transformers=_pooling(converted, options),
        dropped=tuple(converted.dropped),
        ignored=lost_keys(converted, options.layout),
        notes=(*summary.notes, *notes, *ids.notes),
        includes_code=options.include_code,
        labels=converted.head.labels if converted.head is not None else None,
    )


def _pooling(checkpoint: Checkpoint, options: ConvertOptions) -> Pooling | None:
    """Return how the target pools for sentence-transformers: as the option says, or else as the source does."""
    if options.sentence_transformers is not None or checkpoint.modules is None or options.layout == "keras":
        return options.sentence_transformers
    return checkpoint.modules.pooling


def _is_beyond(checkpoint: Checkpoint) -> bool:
    """Return whether the tokenizer is more than a SentencePiece model."""
    return checkpoint.tokenizer_files is not None and bool(checkpoint.tokenizer_files.beyond_sentencepiece)


def _carried_class(checkpoint: Checkpoint, to: LayoutName) -> str | None:
    """Return the class of a tokenizer whose files were carried over; None if it was converted, or there is none."""
    files = checkpoint.tokenizer_files
    return files.class_name if files is not None and files.fit(to) else None


def _write(
    checkpoint: Checkpoint, folder: Path, options: ConvertOptions, source: SourceFolder, progress: Progress | None
) -> Digests:
    """Write a checkpoint into an empty folder. What does not need its files is done at the same time."""
    with ThreadPoolExecutor(3) as pool:
        source_files = pool.submit(file_list, source.folder, source.names)
        tensors = pool.submit(tensor_list, with_pooler(checkpoint) if options.layout in PRESET_LAYOUTS else checkpoint)
        pool.submit(compile_template)  # if it fails, rendering the card says why
        digests = write_checkpoint(
            checkpoint,
            folder,
            options.layout,
            progress,
            options.max_shard_bytes,
            include_code=options.include_code,
            sentence_transformers=options.sentence_transformers,
            hidden_act=options.hidden_act,
        )
        onnx = _write_onnx(folder, options) if options.onnx else None
        return Digests(source_files.result(), file_list(folder, precomputed=digests), tensors.result(), onnx)


def _write_onnx(folder: Path, options: ConvertOptions) -> OnnxExport:
    """Export what was written: a repository may round weights, or replace an epsilon."""
    with read_checkpoint(folder) as written:
        contents, report = export_models(written, options.quantize)
    (folder / "onnx").mkdir()
    for name, content in contents.items():
        write_file(folder / name, content)
    return report
