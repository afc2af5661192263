"""Universal folders: a KerasHub preset and a repository for transformers at once, each with all of its files.

Both libraries load such a folder by one name. Every file is written and read by the layout of its own half.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from albert_hub_bridge.checkpoint import Checkpoint, Progress, TokenizerSpec, closed_on_failure
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.layouts.configuration import Configuration
from albert_hub_bridge.layouts.files import FileRow
from albert_hub_bridge.layouts.hub.files import FILES as FILES_OF_REPOSITORIES
from albert_hub_bridge.layouts.hub.repository import (
    is_repository,
    read_repository,
    read_repository_configuration,
    repository_config,
    write_repository,
)
from albert_hub_bridge.layouts.keras.compatibility import with_cut_out_pieces, with_pooler
from albert_hub_bridge.layouts.keras.files import CONFIG, KERAS_TOKENIZER
from albert_hub_bridge.layouts.keras.files import FILES as FILES_OF_PRESETS
from albert_hub_bridge.layouts.keras.preset import (
    backbone_object,
    check_supported,
    is_preset,
    read_preset,
    write_preset,
)
from albert_hub_bridge.layouts.keras.tokenizer import keras_truncate
from albert_hub_bridge.layouts.layout import Layout, ReadOptions, WriteOptions
from albert_hub_bridge.layouts.universal.comparison import check_halves
from albert_hub_bridge.layouts.universal.halves import VERSIONED_TOKENIZER, check_keys, keras_half, repository_half
from albert_hub_bridge.mapping.vocabulary import bake_normalization


def is_universal(source: SourceFolder) -> bool:
    """Return whether a folder has the `config.json` of a preset and of a transformers repository at once."""
    return is_preset(source) and is_repository(repository_half(source), "transformers")


def read_universal(source: SourceFolder, options: ReadOptions) -> Checkpoint:
    """Read both halves, and compare them. That reads the values of all weights.

    Args:
        source: A folder that `is_universal`.
        options: How to read it.

    Returns:
        The checkpoint as the repository has it, which can say more: names of labels, and more settings.

    Raises:
        SourceError, ConfigurationError, WeightsError, VocabularyError: A half is wrong, or the halves contradict each
            other.
    """
    with closed_on_failure() as resources:
        keras = read_preset(keras_half(source), options)
        resources.callback(keras.close)
        repository = read_repository(repository_half(source), options, "transformers")
        resources.callback(repository.close)
        check_halves(keras, repository)
        return replace(
            repository,
            layout="universal",
            dropped=[*repository.dropped, *keras.dropped],
            ignored=[*repository.ignored, *keras.ignored],
            notes=[*repository.notes, *keras.notes],
            resources=resources,
        )


def read_universal_configuration(source: SourceFolder) -> Configuration:
    """Read the configuration alone, from the keys of transformers.

    Raises:
        ConfigurationError: The configuration is wrong; all problems are listed.
    """
    return read_repository_configuration(repository_half(source), "transformers")


def write_universal(checkpoint: Checkpoint, folder: Path, options: WriteOptions) -> dict[Path, str]:
    """Write a checkpoint as a preset and as a repository, into one folder.

    Args:
        checkpoint: The checkpoint to write. If it has no pooler, both halves get one of zeros, which KerasHub needs.
        folder: An existing, empty folder.
        options: How it is written.

    Returns:
        The SHA-256 of every file of weights, computed from what was read back, in hexadecimal.

    Raises:
        ConfigurationError: KerasHub cannot compute the checkpoint, or its `config.json` would have a key of both
            libraries; all reasons are listed.
        TargetError: One weight alone is larger than a shard may be.
        OSError: The system did not write a file, which it names.
    """
    check_supported(with_cut_out_pieces(checkpoint))
    check_keys(checkpoint.folder / CONFIG, repository_config(checkpoint, "transformers"))
    checkpoint = with_pooler(checkpoint)
    keras_keys = backbone_object(checkpoint.architecture, checkpoint.dtype)
    first, second = _halves_of(options.progress)
    digests = write_repository(checkpoint, folder, "transformers", replace(options, progress=first), keras_keys)
    preset = with_cut_out_pieces(checkpoint)
    return digests | write_preset(preset, folder, second, options.max_shard_bytes, beside_repository=True)


def _halves_of(progress: Progress | None) -> tuple[Progress | None, Progress | None]:
    """Return what reports the progress of each half as a part of the whole."""
    if progress is None:
        return None, None
    return lambda done, total: progress(done, 2 * total), lambda done, total: progress(total + done, 2 * total)


def as_preset(checkpoint: Checkpoint) -> Checkpoint:
    """Return a universal checkpoint as KerasHub sees it: its settings and its tokenizer."""
    tokenizer = with_cut_out_pieces(checkpoint).tokenizer
    return replace(
        checkpoint,
        layout="keras",
        tokenizer=_keras_tokenizer(tokenizer) if tokenizer is not None else None,
        tokenizer_files=None,
    )


def _keras_tokenizer(tokenizer: TokenizerSpec) -> TokenizerSpec:
    proto = bake_normalization(tokenizer.proto, tokenizer.normalization)
    return replace(tokenizer.with_proto(proto), truncate=keras_truncate(tokenizer), padding_side="right")


UNIVERSAL = Layout(
    "universal",
    tuple(
        dict.fromkeys(
            (*FILES_OF_REPOSITORIES, *FILES_OF_PRESETS, FileRow((KERAS_TOKENIZER, VERSIONED_TOKENIZER), "tokenizer"))
        )
    ),
    is_universal,
    read_universal_configuration,
    read_universal,
    write_universal,
)
