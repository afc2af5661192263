"""Which layout a folder has, and which reader and writer go with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from albert_hub_bridge.checkpoint import Checkpoint, Layout, Progress, SourceLayout
from albert_hub_bridge.disk.json_files import read_json
from albert_hub_bridge.disk.regular_files import check_files
from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.hubs.local_source import LocalSource
from albert_hub_bridge.hubs.source import pull_source
from albert_hub_bridge.layouts.configuration import Configuration
from albert_hub_bridge.layouts.google import release as google_checkpoint
from albert_hub_bridge.layouts.hub import repository as hf_repository
from albert_hub_bridge.layouts.hub import sentence_transformers
from albert_hub_bridge.layouts.hub import tokenizer as repository_text
from albert_hub_bridge.layouts.hub import weights as repository_weights
from albert_hub_bridge.layouts.hub.remote_code import code_files
from albert_hub_bridge.layouts.keras import preset as keras_preset
from albert_hub_bridge.layouts.keras import weights as keras_weights
from albert_hub_bridge.text import first_few, one_line


_MODEL_TYPES: dict[str, SourceLayout] = {"albert_hub": "albert_hub", "albert": "transformers"}


def is_checkpoint_file(name: str) -> bool:
    """Tell whether a file of that name, relative to its folder, is one that presets or repositories have."""
    return keras_preset.is_checkpoint_file(name) or hf_repository.is_checkpoint_file(name) or name in code_files()


def is_written_file(name: str) -> bool:
    """Tell whether a file of that name, relative to its folder, is one that is written here."""
    return is_checkpoint_file(name) and name not in repository_text.READ_ONLY


def pull(source: str | Path) -> LocalSource:
    """Return the folder of a source, of which a hub's client downloads what is needed first.

    Raises:
        SourceError: As `pull_source`.
    """
    return pull_source(source, needed_files)


def needed_files(names: Iterable[str]) -> list[str]:
    """Tell which files of a repository on a hub are needed: everything known, and weights in one format."""
    present = set(names)
    if "config.json" not in present:
        return []
    settings = present & (keras_preset.SETTINGS | hf_repository.SETTINGS | {"conversion.json"})
    settings |= present & set(code_files())  # not to be run: the record of a conversion has their checksums
    return sorted(settings) + (keras_weights.weights_among(present) or repository_weights.weights_among(present))


def _is_read(name: str) -> bool:
    """Tell whether a file of that name is opened where it is in a source."""
    other = google_checkpoint.is_checkpoint_file(name) or name.endswith(".index") or name == "conversion.json"
    return other or is_checkpoint_file(name) or bool(repository_weights.weights_among([name]))


def check_own_files(folder: Path) -> None:
    """Refuse a folder in which something that would be read is not a regular file of its own.

    Raises:
        FileError: As `source_files.check_files`.
    """
    check_files(folder, _is_read, (keras_preset.VOCABULARY, sentence_transformers.POOLING))


def detect_layout(folder: Path) -> SourceLayout:
    """Tell what a folder holds by its `config.json`, or by Google's `albert_config.json`.

    Raises:
        SourceError: It is neither a KerasHub preset nor a repository of an ALBERT.
        FileError: What would be read is not a regular file of the folder.
        ConfigurationError: `config.json` is not a JSON object.
    """
    check_own_files(folder)
    file = folder / "config.json"
    if not file.is_file():
        if (folder / google_checkpoint.CONFIG).is_file():
            return "google"
        raise SourceError(f"{folder} has no config.json: it is neither a KerasHub preset nor a Hub repository.")
    config = read_json(file)
    if "registered_name" in config or "class_name" in config:
        return "keras"
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in _MODEL_TYPES:
        return _MODEL_TYPES[model_type]
    if "model_type" not in config and {"inner_group_num", "num_hidden_groups"} <= set(config):
        return "transformers"  # transformers before 2.5 wrote no model_type, and no other architecture has such keys
    found = f"model_type {model_type!r}" if "model_type" in config else "neither class_name nor model_type"
    expected = " or ".join(repr(name) for name in _MODEL_TYPES)
    raise SourceError(
        f"{file} describes something else: expected the class_name of a KerasHub preset, or model_type {expected}, "
        f"found {found[:200]}. Is this an ALBERT?"
    )


def read_configuration(folder: Path) -> Configuration:
    """Read the configuration alone, from a folder of any layout; it needs no weights."""
    layout = detect_layout(folder)
    if layout == "google":
        return google_checkpoint.read_config(folder)
    return keras_preset.read_config(folder) if layout == "keras" else hf_repository.read_config(folder, layout)


def read_checkpoint(folder: Path, drop_head: bool = False, allow_pickle: bool = False) -> Checkpoint:
    """Read a folder of any layout; close the checkpoint when done.

    Args:
        folder: Of a preset, a repository or Google's release.
        drop_head: Whether to leave out a head without weights.
        allow_pickle: Whether to read weights that are a pickle, in another process and nothing but tensors.

    Raises:
        SourceError, CheckpointError: The folder is something else, or is wrong.
    """
    layout = detect_layout(folder)
    if layout == "keras":
        checkpoint, settings = keras_preset.read_preset(folder, drop_head), keras_preset.SETTINGS
    elif layout == "google":
        checkpoint, settings = google_checkpoint.read_google(folder), frozenset()
    else:
        checkpoint, settings = (
            hf_repository.read_repository(folder, layout, drop_head, allow_pickle),
            hf_repository.SETTINGS,
        )
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    read = set(settings)
    if checkpoint.weights_file is not None and checkpoint.weights_file.suffix == ".json":  # and its shards
        read |= set(keras_weights.weights_among(found) or repository_weights.weights_among(found))
    elif checkpoint.weights_file is not None:
        read |= {checkpoint.weights_file.name, "task.weights.h5"}
    # The record and the card of an earlier conversion; the new folder gets its own.
    papers = ("conversion.json", "README.md", "parity.png") if "conversion.json" in found else ()
    read |= set(papers) | {name for name in found if layout == "google" and google_checkpoint.is_checkpoint_file(name)}
    others = [one_line(name, 200) for name in found if name not in read]
    code = [name for name in others if name.endswith(".py")]
    notes = list(checkpoint.notes)
    if code:
        notes.append(f"Code of a source is neither run nor carried over: {first_few(code, 10)}.")
    if others := [name for name in others if not name.endswith(".py")]:
        notes.append(f"Files that are not carried over: {first_few(others, 10)}.")
    return replace(checkpoint, notes=notes)


def write_checkpoint(
    checkpoint: Checkpoint,
    folder: Path,
    layout: Layout,
    progress: Progress | None = None,
    max_shard_bytes: int | None = None,
) -> dict[Path, str]:
    """Write a checkpoint into an existing, empty folder, in any layout, in files of at most `max_shard_bytes`.

    Returns:
        The SHA-256 of every file of weights, as it was read back, in hexadecimal.
    """
    if layout == "keras":
        return keras_preset.write_preset(checkpoint, folder, progress, max_shard_bytes)
    return hf_repository.write_repository(checkpoint, folder, layout, progress, max_shard_bytes)
