"""All layouts: find the layout of a folder, read it and write it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from albert_hub_bridge.checkpoint import Checkpoint, Progress, closed_on_failure
from albert_hub_bridge.choices import TRANSFORMERS_LAYOUTS, HiddenAct, Pooling, SourceLayoutName
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.hubs.local_source import LocalSource
from albert_hub_bridge.hubs.source import pull_source
from albert_hub_bridge.layouts.configuration import Configuration
from albert_hub_bridge.layouts.files import RECORD_FILES
from albert_hub_bridge.layouts.google.release import RELEASE
from albert_hub_bridge.layouts.hub.files import POOLING_FILES, TOKENIZER_FILES
from albert_hub_bridge.layouts.hub.repository import ALBERT_HUB_REPOSITORY, TRANSFORMERS_REPOSITORY
from albert_hub_bridge.layouts.keras.preset import PRESET
from albert_hub_bridge.layouts.layout import DEFAULT_READING, Layout, ReadOptions, WriteOptions
from albert_hub_bridge.layouts.universal.folder import UNIVERSAL
from albert_hub_bridge.text import first_few, one_line


# A folder with the files of several libraries has the first of these layouts.
LAYOUTS: Mapping[SourceLayoutName, Layout] = {
    layout.name: layout for layout in (RELEASE, UNIVERSAL, PRESET, ALBERT_HUB_REPOSITORY, TRANSFORMERS_REPOSITORY)
}
_ROWS = tuple(dict.fromkeys(row for layout in LAYOUTS.values() for row in layout.files))
_CURRENT_ROWS = tuple(
    dict.fromkeys(
        row
        for layout in LAYOUTS.values()
        if layout.write is not None
        for row in layout.files
        if row.role != "legacy weights"
    )
)
_NESTED = tuple(
    dict.fromkeys(name.replace("#", n) for row in _ROWS for name in row.names if "/" in name for n in "123456789")
)
# What is carried over is needed as it is, and parsed.
_KEPT = {*TOKENIZER_FILES, *POOLING_FILES, *(name for name in _NESTED if name.endswith(".json"))}
_RECORD, _CARD, _ = RECORD_FILES


def is_checkpoint_file(name: str) -> bool:
    """Return whether current presets or repositories have a file of that name, relative to their folder."""
    return any(row.matches(name) for row in _CURRENT_ROWS)


def is_written_file(name: str) -> bool:
    """Return whether this package writes files of that name, relative to their folder."""
    return any(row.written and row.matches(name) for row in _ROWS)


def _is_read(name: str) -> bool:
    return name == _RECORD or any(row.matches(name) for row in _ROWS)


def needed_files(names: Iterable[str]) -> list[str]:
    """Return which files of a repository on a hub are needed: all that layouts have, but no weights in old formats.

    Of the old formats, the first is needed where there is no other.
    """
    present = set(names)
    if "config.json" not in present:
        return []
    rows = [row for row in _ROWS if row.downloaded]
    legacy = [row.among(present) for row in rows if row.role == "legacy weights"]
    others = {name for row in rows if row.role not in ("weights", "legacy weights") for name in row.among(present)}
    weights = sorted({name for row in rows if row.role == "weights" for name in row.among(present)})
    return sorted(others | (present & {_RECORD, _CARD})) + (weights or next(filter(None, legacy), []))


def pull(source: str | Path) -> LocalSource:
    """Return the folder of a source, after a hub's client has downloaded what is needed.

    Raises:
        SourceError: As `pull_source`.
    """
    return pull_source(source, needed_files)


def open_source(folder: Path) -> SourceFolder:
    """Open a folder of any layout.

    Raises:
        FileError: A file that would be read is not a regular file of the folder; lists them all.
    """
    return SourceFolder(folder, _is_read, _NESTED, _KEPT)


def read_configuration(folder: Path) -> Configuration:
    """Read the configuration alone, from a folder of any layout. It needs no weights.

    Raises:
        SourceError, CheckpointError: The folder has another content, or is wrong.
    """
    source = open_source(folder)
    return _detect(source).read_configuration(source)


def read_checkpoint(folder: Path | SourceFolder, options: ReadOptions = DEFAULT_READING) -> Checkpoint:
    """Read a folder of any layout. Close the checkpoint when done.

    Args:
        folder: The folder of a preset, a repository or Google's release, or what `open_source` returned of it.
        options: How to read it.

    Raises:
        SourceError, CheckpointError: The folder has another content, or is wrong.
    """
    source = folder if isinstance(folder, SourceFolder) else open_source(folder)
    layout = _detect(source)
    with closed_on_failure() as resources:
        checkpoint = layout.read(source, options)
        resources.callback(checkpoint.close)
        return replace(checkpoint, notes=[*checkpoint.notes, *_notes_on_unread_files(source, layout)])


def write_checkpoint(
    checkpoint: Checkpoint,
    folder: Path,
    layout: SourceLayoutName,
    progress: Progress | None = None,
    max_shard_bytes: int | None = None,
    *,
    include_code: bool = False,
    sentence_transformers: Pooling | None = None,
    hidden_act: HiddenAct | None = None,
) -> dict[Path, str]:
    """Write a checkpoint into an existing, empty folder.

    Args:
        checkpoint: The checkpoint to write.
        folder: The folder.
        layout: The layout to write.
        progress: Called after every tensor.
        max_shard_bytes: The largest size of the values in one file of weights, in bytes; None for one file.
        include_code: Whether the repository carries the Python files of its classes.
        sentence_transformers: The pooling of a model for sentence-transformers; None for none.
        hidden_act: What `config.json` of transformers calls the activation; None for the name in `Architecture`.

    Returns:
        The SHA-256 of every file of weights, computed from what was read back, in hexadecimal.

    Raises:
        ConfigurationError: The layout cannot hold the checkpoint; all reasons are listed.
        TargetError: One weight alone is larger than a shard may be.
        OSError: The system did not write a file, which it names.
        ValueError: The layout is only read, or has no place for code, pooling or `hidden_act`.
    """
    write = LAYOUTS[layout].write
    roles = {row.role for row in LAYOUTS[layout].files}
    unsupported = {
        "writing": write is None,
        "include_code": include_code and "code" not in roles,
        "sentence_transformers": sentence_transformers is not None and "pooling" not in roles,
        "hidden_act": hidden_act is not None and layout not in TRANSFORMERS_LAYOUTS,
    }
    if write is None or any(unsupported.values()):
        found = ", ".join(name for name, is_unsupported in unsupported.items() if is_unsupported)
        raise ValueError(f"The {layout} layout does not support {found}.")
    options = WriteOptions(progress, max_shard_bytes, include_code, sentence_transformers, hidden_act)
    return write(checkpoint, folder, options)


def _detect(source: SourceFolder) -> Layout:
    for layout in LAYOUTS.values():
        if layout.detect(source):
            return layout
    folder = source.folder
    if "config.json" not in source and "adapter_config.json" in source:
        raise SourceError(
            f"{folder} is a LoRA adapter of PEFT. Run: albert-hub-bridge convert-adapter {folder} TARGET --base MODEL "
            "--to LAYOUT"
        )
    if "config.json" not in source:
        raise SourceError(f"{folder} has no config.json: it is neither a KerasHub preset nor a Hub repository.")
    config = source.json("config.json")
    found = f"model_type {config['model_type']!r}" if "model_type" in config else "neither class_name nor model_type"
    raise SourceError(
        f"{folder / 'config.json'} describes something else: expected the class_name of a KerasHub preset, or "
        f"model_type 'albert_hub' or 'albert', found {found[:200]}. Is this an ALBERT?"
    )


def _notes_on_unread_files(source: SourceFolder, layout: Layout) -> list[str]:
    """Return notes on the files that were not asked for. Records are left out: they hold nothing to convert."""
    records = [row for row in layout.files if row.role == "record"]
    added = RECORD_FILES if _RECORD in source.names else ()
    unread = [name for name in source.unread if name not in added and not any(row.matches(name) for row in records)]
    names = [one_line(name, 200) for name in unread]
    notes = []
    if code := [name for name in names if name.endswith(".py")]:
        notes.append(f"Code of a source is neither run nor converted: {first_few(code, 10)}.")
    if others := [name for name in names if not name.endswith(".py")]:
        notes.append(f"Files that were not converted: {first_few(others, 10)}.")
    return notes
