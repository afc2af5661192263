"""The files of a tokenizer that are carried over as they are, with the class that transformers loads them with.

A repository can have any tokenizer of transformers: a WordPiece vocabulary, a pipeline of the tokenizers library, words
that a user added. What this package cannot express as a SentencePiece model is not converted but copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from albert_hub_bridge.checkpoint import TokenizerFiles
from albert_hub_bridge.choices import SourceLayoutName
from albert_hub_bridge.disk.durable import write_file
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.disk.strict_json import json_bytes, parse_object
from albert_hub_bridge.errors import ConfigurationError, Problem, VocabularyError
from albert_hub_bridge.formats.sentencepiece import max_piece_bytes, read_pieces
from albert_hub_bridge.formats.tokenizer_json import check_ids, check_size, tokens_of
from albert_hub_bridge.layouts.hub.files import (
    ADDED_TOKENS,
    CONFIG,
    SPECIAL_TOKENS,
    TOKENIZER,
    TOKENIZER_CONFIG,
    TOKENIZER_FILES,
    VOCABULARY,
    WORD_PIECES,
)
from albert_hub_bridge.layouts.hub.token_checks import decoder_ids, named_tokens
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.text import short_repr


MAX_TOKENIZER_BYTES = 32 << 20  # with 250,000 pieces it has about 16 MB

OURS = "AlbertHubTokenizer"
_DEFAULT_CLASSES: Mapping[SourceLayoutName, str] = {"transformers": "AlbertTokenizer", "albert_hub": OURS}
TRANSFORMERS_OWN = ("AlbertTokenizer", "AlbertTokenizerFast")
_ALBERTS = (*TRANSFORMERS_OWN, OURS)
_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer")  # they run tokenizer.json as it is
# The class of transformers 4 and 5 for a repository that has to load without this package.
_GENERIC_CLASS = "PreTrainedTokenizerFast"
# `auto_map` names code. `fast_tokenizer_files` names versions of tokenizer.json, which are not carried over.
_NOT_CARRIED = ("auto_map", "fast_tokenizer_files")


def class_of(source: SourceFolder, settings: Mapping[str, Any], layout: SourceLayoutName) -> str:
    """Return the class that transformers takes for the tokenizer of a repository.

    Args:
        source: The repository.
        settings: The content of `tokenizer_config.json`.
        layout: The layout of the repository.

    Raises:
        ConfigurationError: It is not a name.
    """
    for name, keys in ((TOKENIZER_CONFIG, settings), (CONFIG, source.json(CONFIG))):
        found = keys.get("tokenizer_class")
        if found is not None and not (isinstance(found, str) and found.isidentifier()):
            problem = Problem("unsupported value", "tokenizer_class", f"expected a class, found {short_repr(found)}")
            raise ConfigurationError(source.path(name), "configuration", [problem])
        if found:
            return str(found)
    return _DEFAULT_CLASSES[layout]


def is_foreign(source: SourceFolder, class_name: str) -> bool:
    """Return whether a tokenizer is neither ALBERT's nor a pipeline that could be."""
    return class_name not in (*_ALBERTS, *_GENERIC) or (VOCABULARY not in source and TOKENIZER not in source)


def runs_the_file(class_name: str, settings: Mapping[str, Any]) -> bool:
    """Return whether a tokenizer is `tokenizer.json` as it is.

    ALBERT's classes build their own pipeline. So does this package, where it writes the file for a generic class: the
    file then says what `tokenizer_config.json` says.
    """
    return class_name in _GENERIC and "replace_quotes" not in settings


def read_tokenizer_files(
    source: SourceFolder,
    architecture: Architecture,
    class_name: str,
    *,
    is_alberts: bool = False,
    beyond_sentencepiece: str = "",
) -> TokenizerFiles | None:
    """Read the files of a tokenizer, if there are any.

    Args:
        source: The repository.
        architecture: Of its encoder.
        class_name: As `class_of`.
        is_alberts: As in `TokenizerFiles`.
        beyond_sentencepiece: As in `TokenizerFiles`. If there is something, the files are checked first: no other
            check has understood them.

    Raises:
        FileError, ConfigurationError, VocabularyError: A file cannot be used with the model.
    """
    contents = {name: source.read(name, MAX_TOKENIZER_BYTES) for name in TOKENIZER_FILES if name in source}
    if not set(contents) - {TOKENIZER_CONFIG, SPECIAL_TOKENS, ADDED_TOKENS}:
        return None
    if beyond_sentencepiece:
        _check(source, contents, architecture)
    return TokenizerFiles(contents, class_name, is_alberts, beyond_sentencepiece)


def _check(source: SourceFolder, contents: Mapping[str, bytes], architecture: Architecture) -> None:
    """Check files that this package does not understand: their size, and that they agree about ids.

    Raises:
        FileError, ConfigurationError, VocabularyError: As `read_tokenizer_files`.
    """
    settings = source.json(TOKENIZER_CONFIG) if TOKENIZER_CONFIG in contents else {}
    named: dict[str, dict[str, Any]] = {}  # the ids that files give to tokens
    with _errors(source, TOKENIZER_CONFIG):
        named[TOKENIZER_CONFIG] = decoder_ids(settings.get("added_tokens_decoder"))
        mentioned = named_tokens(settings)
    if ADDED_TOKENS in contents:
        named[ADDED_TOKENS] = source.json(ADDED_TOKENS)
    ids = _ids(source, contents, architecture, {token: n for found in named.values() for token, n in found.items()})
    if ids is None:
        return
    for name, found in named.items():
        with _errors(source, name):
            check_ids(found, ids)
    with _errors(source, TOKENIZER_CONFIG):
        check_ids({token: ids.get(token) for token in mentioned}, ids)
    if SPECIAL_TOKENS in contents:
        with _errors(source, SPECIAL_TOKENS):
            check_ids({token: ids.get(token) for token in named_tokens(source.json(SPECIAL_TOKENS))}, ids)


def _ids(
    source: SourceFolder, contents: Mapping[str, bytes], architecture: Architecture, added: Mapping[str, Any]
) -> dict[str, int] | None:
    """Return the ids of all tokens, from the file that transformers takes them from; None if it is another one.

    Args:
        source: The repository.
        contents: Its files.
        architecture: Of its encoder.
        added: The ids of added tokens in other files.
    """
    limits = architecture.vocabulary_size, max_piece_bytes(architecture)
    tokens: list[str] | None = None
    if VOCABULARY in contents:
        tokens = read_pieces(source.path(VOCABULARY), contents[VOCABULARY], architecture)
    if WORD_PIECES in contents:
        with _errors(source, WORD_PIECES):
            tokens = contents[WORD_PIECES].decode().splitlines()
            check_size(tokens, *limits)
    if TOKENIZER in contents:
        with _errors(source, TOKENIZER):
            return tokens_of(source.json(TOKENIZER, MAX_TOKENIZER_BYTES), *limits)
    if tokens is None:
        return None
    # transformers gives the next ids to added tokens, in their order.
    known = set(tokens)
    tokens += sorted((token for token in added if token not in known), key=lambda token: str(added[token]).zfill(9))
    with _errors(source, ADDED_TOKENS if ADDED_TOKENS in contents else TOKENIZER_CONFIG):
        check_size(tokens, *limits)
    return {token: index for index, token in enumerate(tokens)}


def write_tokenizer_files(
    files: TokenizerFiles, folder: Path, layout: SourceLayoutName, auto_map: Mapping[str, Any] | None = None
) -> None:
    """Write the files of a tokenizer into a repository. Only what names code, the class or other files is changed.

    Args:
        files: The files.
        folder: The folder of the repository.
        layout: The layout of the repository.
        auto_map: The class of the tokenizer in the code that the repository carries, if it carries any.

    Raises:
        OSError: The system did not write a file, which it names.
    """
    contents = dict(files.contents)
    before = parse_object(contents[TOKENIZER_CONFIG]) if TOKENIZER_CONFIG in contents else {}
    settings = {key: value for key, value in before.items() if key not in _NOT_CARRIED}
    if files.class_name != before.get("tokenizer_class", _DEFAULT_CLASSES[layout]):
        settings["tokenizer_class"] = files.class_name
    if files.class_name == OURS and layout == "transformers":
        settings["tokenizer_class"] = _GENERIC_CLASS
    if files.class_name == OURS and auto_map is not None:
        settings["auto_map"] = auto_map
    if settings != before:
        contents[TOKENIZER_CONFIG] = json_bytes(settings)
    for name, content in contents.items():
        write_file(folder / name, content)


def different_files(source: TokenizerFiles, target: TokenizerFiles) -> list[str]:
    """Return the names of the files that differ between two tokenizers.

    What names code, the class or other files may differ.
    """
    names = sorted({*source.contents, *target.contents} - {TOKENIZER_CONFIG})
    different = [name for name in names if source.contents.get(name) != target.contents.get(name)]
    settings = [
        {key: value for key, value in parse_object(content).items() if key not in (*_NOT_CARRIED, "tokenizer_class")}
        for files in (source, target)
        if (content := files.contents.get(TOKENIZER_CONFIG, b"{}"))
    ]
    return different + [TOKENIZER_CONFIG] * (settings[0] != settings[1])


@contextmanager
def _errors(source: SourceFolder, name: str) -> Iterator[None]:
    """Turn a ValueError of the block into a VocabularyError about a file of the repository."""
    try:
        yield
    except ValueError as error:
        problem = Problem("unusable", name, f"expected a tokenizer that fits the model, found: {error}")
        raise VocabularyError(source.path(name), "vocabulary", [problem]) from error
