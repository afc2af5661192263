"""Hub repositories: `config.json`, `model.safetensors` and a tokenizer, in two layouts.

This package's classes load *albert_hub* (`model_type: albert_hub`). transformers alone loads *transformers*
(`model_type: albert`). KerasHub's own importer needs names that begin with `albert.`, a pooler, and `spiece.model`.

Source:
    transformers/models/albert, and keras_hub/src/utils/transformers/convert_albert.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from albert_hub_bridge.checkpoint import Checkpoint, closed_on_failure
from albert_hub_bridge.disk.durable import write_file
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.disk.strict_json import write_json
from albert_hub_bridge.formats.lazy_tensors import LazyTensor
from albert_hub_bridge.layouts.configuration import Configuration, read_configuration
from albert_hub_bridge.layouts.files import FileRow
from albert_hub_bridge.layouts.hub.any_tokenizer import read_tokenizer, write_tokenizer
from albert_hub_bridge.layouts.hub.files import CONFIG, FILES
from albert_hub_bridge.layouts.hub.head import head_fields, named_head
from albert_hub_bridge.layouts.hub.int8 import QUANTIZATION_CONFIG, check_quantization_config, quantization_config_of
from albert_hub_bridge.layouts.hub.matching import match_tensors
from albert_hub_bridge.layouts.hub.remote_code import TOKENIZER_AUTO_MAP, code_files, model_auto_map
from albert_hub_bridge.layouts.hub.sentence_transformers import (
    read_modules,
    write_modules,
    write_sentence_transformers,
)
from albert_hub_bridge.layouts.hub.spelling import SPELLINGS, RepositoryLayout, Spelling
from albert_hub_bridge.layouts.hub.weights import open_weights, plan_weights
from albert_hub_bridge.layouts.layout import DEFAULT_WRITING, Layout, ReadOptions, WriteOptions
from albert_hub_bridge.layouts.weight_files import write_weights
from albert_hub_bridge.mapping.configs import IgnoredKey, Renamed, write_keys
from albert_hub_bridge.mapping.heads import HEADS, Head
from albert_hub_bridge.mapping.unused_keys import kept_keys, with_unused_keys
from albert_hub_bridge.mapping.weights import POOLER


# Keys of transformers' ALBERT, which no other architecture has. Before 2.5 there was no model_type.
_KEYS_OF_ALBERT = {"inner_group_num", "num_hidden_groups"}
_IDS_OF_TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id")


def is_repository(source: SourceFolder, layout: RepositoryLayout) -> bool:
    """Return whether a folder has the `config.json` of a repository in this layout."""
    if CONFIG not in source:
        return False
    keys = source.json(CONFIG)
    if "model_type" in keys:
        return bool(keys["model_type"] == SPELLINGS[layout].model_type)
    return layout == "transformers" and set(keys) >= _KEYS_OF_ALBERT


def read_repository(source: SourceFolder, options: ReadOptions, layout: RepositoryLayout) -> Checkpoint:
    """Read a repository. The weights stay on the disk until they are asked for.

    Args:
        source: A folder that `is_repository`.
        options: How to read it.
        layout: The layout of the repository.

    Raises:
        ConfigurationError, WeightsError, VocabularyError: The repository is wrong; all problems are listed.
    """
    configuration = read_repository_configuration(source, layout)
    with closed_on_failure() as resources:
        file, tensors = open_weights(source, resources, options.allow_pickle)
        checkpoint = read_opened_repository(source, options, layout, configuration, file, tensors)
        return replace(checkpoint, resources=resources)


def read_repository_configuration(source: SourceFolder, layout: RepositoryLayout) -> Configuration:
    """Read the configuration from a repository's `config.json`.

    Raises:
        ConfigurationError: The configuration is wrong; all problems are listed.
    """
    keys = source.json(CONFIG)
    return read_configuration(source.path(CONFIG), with_unused_keys(SPELLINGS[layout].table, keys), keys)


def read_opened_repository(
    source: SourceFolder,
    options: ReadOptions,
    layout: RepositoryLayout,
    configuration: Configuration,
    file: Path,
    tensors: dict[str, LazyTensor],
) -> Checkpoint:
    """Read a repository whose configuration was read, and whose weights were opened.

    Args:
        source: The repository.
        options: How to read it.
        layout: The layout of the repository.
        configuration: The content of its `config.json`.
        file: The file of the weights, or the index of its shards, for messages.
        tensors: Every tensor by its name, unread.

    Raises:
        ConfigurationError, WeightsError, VocabularyError: The repository is wrong; all problems are listed.
    """
    spelling, keys = SPELLINGS[layout], source.json(CONFIG)
    found = match_tensors(source, options, spelling, configuration, file, tensors)
    if layout == "albert_hub":
        check_quantization_config(source.path(CONFIG), keys.get(QUANTIZATION_CONFIG), found.int8, found.weights)
    tokenizer, files, ignored, notes = read_tokenizer(source, layout, configuration.architecture)
    if not set(found.weights) >= POOLER:
        notes.append("The source has no pooler.")
    if found.head is None and (named := named_head(keys)) is not None:
        notes.append(f"{CONFIG} names the class {named}, and its head is left out.")
    return Checkpoint(
        layout=layout,
        folder=source.folder,
        architecture=configuration.architecture,
        weights=found.weights,
        dtype=next(iter(found.weights.values())).dtype,
        head=found.head,
        tokenizer=tokenizer,
        tokenizer_files=files,
        dropped=found.dropped,
        ignored=[*configuration.ignored, *_ignored_head_keys(configuration, found.head, keys, spelling), *ignored],
        notes=notes,
        modules=read_modules(source),
        weights_file=file,
        int8=found.int8,
    )


def _ignored_head_keys(
    configuration: Configuration, head: Head | None, keys: Mapping[str, Any], spelling: Spelling
) -> list[IgnoredKey]:
    """Return the keys of `config.json` that describe a head, if there is no head."""
    if head is not None:
        return []
    written = {rule.field: key for key, rule in spelling.table.items() if isinstance(rule, Renamed) and key in keys}
    return [
        IgnoredKey(written[field], value, "belongs to a head, and there is none")
        for field, value in configuration.head.items()
        if field in written and value is not None
    ]


def write_repository(
    checkpoint: Checkpoint,
    folder: Path,
    layout: RepositoryLayout,
    options: WriteOptions = DEFAULT_WRITING,
    other_keys: Mapping[str, Any] | None = None,
) -> dict[Path, str]:
    """Write a checkpoint as a repository.

    Args:
        checkpoint: The checkpoint to write.
        folder: An existing, empty folder.
        layout: The layout of the repository.
        options: How it is written.
        other_keys: Keys of another library, which `config.json` has too.

    Returns:
        The SHA-256 of every file of weights, computed from what was read back, in hexadecimal.

    Raises:
        TargetError: One weight alone is larger than a shard may be.
        OSError: The system did not write a file, which it names.
    """
    spelling, head = SPELLINGS[layout], checkpoint.head
    config = {**(other_keys or {}), **repository_config(checkpoint, layout)}
    if options.hidden_act is not None:
        config["hidden_act"] = options.hidden_act
    if options.include_code:
        config["auto_map"] = model_auto_map(head.kind if head is not None else None)
        for name, content in code_files().items():
            write_file(folder / name, content)
    write_tokenizer(checkpoint, folder, layout, TOKENIZER_AUTO_MAP if options.include_code else None)
    write_json(folder / CONFIG, config)
    if options.sentence_transformers is not None:
        write_sentence_transformers(folder, options.sentence_transformers, checkpoint.architecture.hidden_dim)
    elif checkpoint.modules is not None:
        write_modules(folder, checkpoint.modules)
    prefix = spelling.prefix if layout == "transformers" or head is not None else ""
    plans = plan_weights(checkpoint, folder, spelling, prefix, options.max_shard_bytes)
    return write_weights(checkpoint, plans, spelling.dialect, options.progress)


def repository_config(checkpoint: Checkpoint, layout: RepositoryLayout) -> dict[str, Any]:
    """Return the content of `config.json`."""
    spelling, head, architecture = SPELLINGS[layout], checkpoint.head, checkpoint.architecture
    class_name = HEADS[head.kind].name(spelling.dialect) if head is not None else spelling.bare_class
    fields = asdict(architecture)
    if layout == "transformers" and architecture.attention_dropout is None:
        fields["attention_dropout"] = architecture.dropout
    if head is not None:
        fields |= head_fields(head)
        if layout == "transformers" and head.dropout is None:  # transformers' ALBERT needs a number
            fields["classifier_dropout"] = architecture.dropout
    config = kept_keys(checkpoint.ignored, spelling.table)
    config |= {"architectures": [class_name], "model_type": spelling.model_type}
    config |= write_keys(spelling.table, fields)
    if checkpoint.dtype == "int8":
        config |= {"dtype": "float32", QUANTIZATION_CONFIG: quantization_config_of(checkpoint.int8)}
    else:
        config["dtype"] = checkpoint.dtype
    if "id2label" in config:
        config["label2id"] = {label: int(index) for index, label in config["id2label"].items()}
    if checkpoint.tokenizer_files is not None and checkpoint.tokenizer_files.fit(layout):
        config |= {key.key: key.value for key in checkpoint.ignored if key.key in _IDS_OF_TOKENS}
    elif checkpoint.tokenizer is not None:
        ids = checkpoint.tokenizer.vocabulary.special_ids
        config |= dict(zip(_IDS_OF_TOKENS, (ids["pad"], ids["cls"], ids["sep"]), strict=True))
    return config


def _layout(name: RepositoryLayout, files: tuple[FileRow, ...]) -> Layout:
    def write(checkpoint: Checkpoint, folder: Path, options: WriteOptions) -> dict[Path, str]:
        return write_repository(checkpoint, folder, name, options)

    return Layout(
        name,
        files,
        detect=partial(is_repository, layout=name),
        read_configuration=partial(read_repository_configuration, layout=name),
        read=partial(read_repository, layout=name),
        write=write,
    )


TRANSFORMERS_REPOSITORY = _layout("transformers", FILES)
ALBERT_HUB_REPOSITORY = _layout("albert_hub", (*FILES, FileRow(tuple(code_files()), "code")))
