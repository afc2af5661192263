"""What a layout is: a table of files, and how such a folder is recognized, read and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from albert_hub_bridge.choices import HiddenAct, Pooling, SourceLayoutName
from albert_hub_bridge.mapping.heads import HeadKind


if TYPE_CHECKING:
    from albert_hub_bridge.checkpoint import Checkpoint, Progress
    from albert_hub_bridge.disk.source_folder import SourceFolder
    from albert_hub_bridge.layouts.configuration import Configuration
    from albert_hub_bridge.layouts.files import FileRow


# What a folder of a layout is, in a sentence.
DESCRIPTIONS: Mapping[SourceLayoutName, str] = {
    "keras": "a KerasHub preset",
    "albert_hub": "a Hub repository in the albert_hub layout",
    "transformers": "a Hub repository in the transformers layout",
    "universal": "a KerasHub preset and a Hub repository in the transformers layout, in one folder",
    "google": "Google's original release",
}


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a folder is read.

    Args:
        drop_head: Whether to leave out a head that is unknown or has no weights, instead of refusing it.
        drop_unknown: The names of tensors that no ALBERT has, and that are left out.
        head: The head, where the source does not say which one it has; None to tell it by the source alone.
        allow_pickle: Whether to read weights that are a pickle. A separate process reads only tensors from it.
    """

    drop_head: bool = False
    drop_unknown: tuple[str, ...] = ()
    head: HeadKind | None = None
    allow_pickle: bool = False


DEFAULT_READING = ReadOptions()


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How a folder is written.

    Args:
        progress: Called after every tensor.
        max_shard_bytes: The largest size of the values in one file of weights, in bytes; None for one file.
        include_code: Whether the repository carries the Python files of its classes.
        sentence_transformers: The pooling of a model for sentence-transformers; None for none.
        hidden_act: What `config.json` of transformers calls the activation; None for the name in `Architecture`.
    """

    progress: Progress | None = None
    max_shard_bytes: int | None = None
    include_code: bool = False
    sentence_transformers: Pooling | None = None
    hidden_act: HiddenAct | None = None


DEFAULT_WRITING = WriteOptions()


@dataclass(frozen=True, slots=True)
class Layout:
    """One kind of folder that holds an ALBERT.

    Args:
        name: The name in `--to`, reports and records.
        files: The table of its files.
        detect: Returns whether a folder has this layout.
        read_configuration: Reads the configuration alone, which needs no weights.
        read: Reads a folder. The weights stay on the disk until they are asked for.
        write: Writes a checkpoint into an empty folder, and returns the SHA-256 of each file of weights; None where
            the layout is only read.
    """

    name: SourceLayoutName
    files: tuple[FileRow, ...]
    detect: Callable[[SourceFolder], bool]
    read_configuration: Callable[[SourceFolder], Configuration]
    read: Callable[[SourceFolder, ReadOptions], Checkpoint]
    write: Callable[[Checkpoint, Path, WriteOptions], dict[Path, str]] | None = None
