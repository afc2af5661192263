"""The tokenizer of a Hub repository: ALBERT's, which is converted, or any other one, whose files are carried over.

What transformers computes decides. Where it runs more than a SentencePiece model with ALBERT's rules, the repository's
files stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from albert_hub_bridge.checkpoint import Checkpoint, TokenizerFiles, TokenizerSpec
from albert_hub_bridge.choices import SourceLayoutName
from albert_hub_bridge.disk.durable import write_file
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.errors import VocabularyError
from albert_hub_bridge.layouts.hub.files import (
    ADDED_TOKENS,
    SPECIAL_TOKENS,
    TOKENIZER,
    TOKENIZER_CONFIG,
    VOCABULARY,
)
from albert_hub_bridge.layouts.hub.tokenizer import (
    CUT_OUT,
    is_as_written,
    read_alberts_tokenizer,
    write_alberts_tokenizer,
)
from albert_hub_bridge.layouts.hub.tokenizer_files import (
    MAX_TOKENIZER_BYTES,
    OURS,
    TRANSFORMERS_OWN,
    class_of,
    is_foreign,
    read_tokenizer_files,
    runs_the_file,
    write_tokenizer_files,
)
from albert_hub_bridge.mapping.configs import IgnoredKey
from albert_hub_bridge.mapping.cut_out import characters_apart
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.text import first_few


class FoundTokenizer(NamedTuple):
    """The tokenizer of a repository.

    Args:
        tokenizer: What of it is ALBERT's; None if nothing is.
        files: All of it; None if there is no vocabulary.
        ignored: The settings that are not in `tokenizer`.
        notes: Notes for the report.
    """

    tokenizer: TokenizerSpec | None
    files: TokenizerFiles | None
    ignored: list[IgnoredKey]
    notes: list[str]


def read_tokenizer(source: SourceFolder, layout: SourceLayoutName, architecture: Architecture) -> FoundTokenizer:
    """Read the tokenizer of a repository, if it has one.

    Raises:
        FileError, ConfigurationError, VocabularyError: A file is wrong, or two files contradict each other.
    """
    settings = source.json(TOKENIZER_CONFIG) if TOKENIZER_CONFIG in source else {}
    class_name = class_of(source, settings, layout)
    if is_foreign(source, class_name):
        return _read_foreign_tokenizer(source, architecture, class_name)
    as_the_file_says = runs_the_file(class_name, settings)
    # The other class of the layout has the other layout's defaults.
    layout = "albert_hub" if class_name == OURS else "transformers"
    try:
        found = read_alberts_tokenizer(source, layout, architecture, as_the_file_says=as_the_file_says)
    except VocabularyError as error:
        return _read_extended_tokenizer(source, layout, architecture, class_name, as_the_file_says, error)
    tokenizer, ignored, notes = found
    # Without a tokenizer.json, transformers 5 does not split by ALBERT's rules. And what this package wrote, it can
    # write again: nothing has to be carried over, or compared with transformers, which takes seconds to import.
    if TOKENIZER not in source or (not as_the_file_says and is_as_written(source, tokenizer, settings)):
        return FoundTokenizer(tokenizer, None, ignored, notes)
    files = read_tokenizer_files(source, architecture, class_name, is_alberts=not as_the_file_says)
    return FoundTokenizer(tokenizer, _with_ignored(files, ignored), ignored, notes)


def _read_foreign_tokenizer(source: SourceFolder, architecture: Architecture, class_name: str) -> FoundTokenizer:
    files = read_tokenizer_files(source, architecture, class_name, beyond_sentencepiece=f"a {class_name}")
    if files is not None:
        return FoundTokenizer(None, files, [], [])
    left = [name for name in (ADDED_TOKENS, SPECIAL_TOKENS, TOKENIZER_CONFIG) if name in source]
    lost = f", and what {first_few(left, 10)} says is lost" if left else ""
    return FoundTokenizer(None, None, [], [f"The repository has no {VOCABULARY}: the result has no tokenizer{lost}."])


def _read_extended_tokenizer(
    source: SourceFolder,
    layout: SourceLayoutName,
    architecture: Architecture,
    class_name: str,
    as_the_file_says: bool,
    error: VocabularyError,
) -> FoundTokenizer:
    """Read a tokenizer that does more than a SentencePiece model can.

    Raises:
        VocabularyError: It is none, but wrong. That is `error`, with what else is wrong.
    """
    problem = error.problems[0]
    if problem.kind != "unusable" or error.where.name == VOCABULARY:
        raise error
    tokenizer: TokenizerSpec | None = None
    ignored: list[IgnoredKey] = []
    notes: list[str] = []
    try:
        tokenizer, ignored, notes = read_alberts_tokenizer(
            source, layout, architecture, as_the_file_says=as_the_file_says, without_added=True
        )
    except VocabularyError:
        if class_name == OURS:  # it reads the SentencePiece model, and nothing else
            raise error from None
    beyond = f"{problem.where} with {problem.detail.partition('found: ')[2]}"
    try:
        files = read_tokenizer_files(source, architecture, class_name, beyond_sentencepiece=beyond)
    except VocabularyError as other:
        problems = [*error.problems, *other.problems]
        raise VocabularyError(error.where, "vocabulary", problems, error.advice) from other
    if files is not None and tokenizer is not None and class_name in TRANSFORMERS_OWN and CUT_OUT in problem.detail:
        content = source.json(TOKENIZER, MAX_TOKENIZER_BYTES)
        files = replace(files, cut_out=characters_apart(content, tokenizer.vocabulary))
    return FoundTokenizer(tokenizer, _with_ignored(files, ignored), ignored, notes)


def _with_ignored(files: TokenizerFiles | None, ignored: list[IgnoredKey]) -> TokenizerFiles | None:
    return replace(files, ignored=ignored) if files is not None else None


def write_tokenizer(
    checkpoint: Checkpoint, folder: Path, layout: SourceLayoutName, auto_map: Mapping[str, Any] | None = None
) -> None:
    """Write the tokenizer of a checkpoint into a repository, if it has one.

    Args:
        checkpoint: The checkpoint.
        folder: The folder of the repository.
        layout: The layout of the repository.
        auto_map: The class of the tokenizer in the code that the repository carries, if it carries any.

    Raises:
        OSError: The system did not write a file, which it names.
    """
    tokenizer, files = checkpoint.tokenizer, checkpoint.tokenizer_files
    if files is not None and files.fit(layout):
        write_tokenizer_files(files, folder, layout, auto_map)
        if tokenizer is not None and not files.beyond_sentencepiece and VOCABULARY not in files.contents:
            write_file(folder / VOCABULARY, tokenizer.proto)  # KerasHub reads nothing else
    elif tokenizer is not None:
        write_alberts_tokenizer(tokenizer, folder, layout, checkpoint.architecture, auto_map)
