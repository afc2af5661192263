"""The two halves of a universal folder, each as a folder that its own layout reads.

Two names mean different things in the two halves. `config.json` has the keys of both, which have no name in common. Of
the two files that are called `tokenizer.json`, one has another name: KerasHub's is `keras_tokenizer.json`, unless a
preset was completed, which keeps its files. The tokenizers library's is then `tokenizer.4.0.0.json`, and transformers
finds it by `fast_tokenizer_files` in `tokenizer_config.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.disk.strict_json import MAX_JSON_BYTES
from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.layouts.hub.files import TOKENIZER_CONFIG
from albert_hub_bridge.layouts.keras.files import CONFIG, KERAS_TOKENIZER, TOKENIZER
from albert_hub_bridge.layouts.keras.objects import KEYS_OF_OBJECTS


# transformers takes the file with the largest version that is not above its own.
VERSIONED_TOKENIZER, VERSIONED_TOKENIZERS = "tokenizer.4.0.0.json", "fast_tokenizer_files"


# Keras reads these keys of an object too, if they are there.
_OF_KERAS = KEYS_OF_OBJECTS | {"compile_config", "shared_object_id"}


def check_keys(file: Path, keys: Iterable[str]) -> None:
    """Refuse keys of a repository's `config.json` that mean something else in a preset's.

    Args:
        file: The file, for the message.
        keys: The keys.

    Raises:
        ConfigurationError: There are such keys; all are listed.
    """
    detail = "expected no key that Keras reads, because one file has the keys of both libraries"
    if problems := [Problem("taken name", key, detail) for key in keys if key in _OF_KERAS]:
        advice = "ALBERT does not use them: rename or remove them, or convert to the albert_hub or transformers layout."
        raise ConfigurationError(file, "configuration, for a universal folder,", problems, advice)


class Half(SourceFolder):
    """One half of a folder: it has the files of the whole, some under other names, and a part of `config.json`.

    Args:
        whole: The folder. What is asked of a half is asked of it.
        has_key: Returns whether a key of `config.json` belongs to the half.
        names: Names of the whole, by the names that they have in the half.
    """

    def __init__(self, whole: SourceFolder, has_key: Callable[[str], bool], names: Mapping[str, str]) -> None:
        self.folder, self._whole, self._has_key, self._renamed = whole.folder, whole, has_key, names

    @cached_property
    def names(self) -> list[str]:
        """The names of all files of the whole, as they are there."""
        return self._whole.names

    @property
    def unread(self) -> list[str]:
        """The names of the files of the whole that neither half asked for so far."""
        return self._whole.unread

    def matching(self, pattern: str) -> list[str]:
        """See `SourceFolder.matching`."""
        return self._whole.matching(pattern)

    def __contains__(self, name: str) -> bool:
        """See `SourceFolder.__contains__`."""
        return self._renamed.get(name, name) in self._whole

    def path(self, name: str) -> Path:
        """See `SourceFolder.path`."""
        return self._whole.path(self._renamed.get(name, name))

    def read(self, name: str, max_bytes: int) -> bytes:
        """See `SourceFolder.read`."""
        return self._whole.read(self._renamed.get(name, name), max_bytes)

    def json(self, name: str, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
        """See `SourceFolder.json`."""
        content = self._whole.json(self._renamed.get(name, name), max_bytes)
        if name == TOKENIZER_CONFIG and TOKENIZER in self._renamed:  # a half has no other names
            content.pop(VERSIONED_TOKENIZERS, None)
        return {key: value for key, value in content.items() if self._has_key(key)} if name == CONFIG else content


def keras_half(whole: SourceFolder) -> Half:
    """Return the half that is a KerasHub preset."""
    names = {} if VERSIONED_TOKENIZER in whole else {TOKENIZER: KERAS_TOKENIZER}
    return Half(whole, KEYS_OF_OBJECTS.__contains__, names)


def repository_half(whole: SourceFolder) -> Half:
    """Return the half that is a transformers repository."""
    names = {TOKENIZER: VERSIONED_TOKENIZER} if VERSIONED_TOKENIZER in whole else {}
    return Half(whole, lambda key: key not in KEYS_OF_OBJECTS, names)
