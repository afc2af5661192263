"""Checks that the tokenizer files of a repository agree with its vocabulary on every token.

Versions of transformers before 5 add tokens that the vocabulary lacks, or move them; version 5 does not. `verify` runs
one version, and would not see the difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.errors import Problem, VocabularyError
from albert_hub_bridge.layouts.configuration import read_fields
from albert_hub_bridge.layouts.hub.files import ADDED_TOKENS, SPECIAL_TOKENS, TOKENIZER, TOKENIZER_CONFIG, VOCABULARY
from albert_hub_bridge.mapping.configs import TOKENIZER_CONFIG as TOKENIZER_CONFIG_KEYS
from albert_hub_bridge.mapping.tokenizer_json import check_ids, check_tokens, pieces_of
from albert_hub_bridge.model.sentencepiece_unigram import Vocabulary


def text_of(token: Any) -> Any:
    """Return the text of a special token, which is written alone or in an object. Return any other value as it is."""
    return token["content"] if isinstance(token, dict) and "content" in token else token


def in_table(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `tokenizer_config.json` that the table of keys has."""
    return {key: value for key, value in settings.items() if key in TOKENIZER_CONFIG_KEYS}


def check_special_tokens(
    source: SourceFolder, settings: Mapping[str, Any], special: Mapping[str, Any], vocabulary: Vocabulary
) -> None:
    """Refuse files that give tokens other ids than the vocabulary, or that name tokens it does not have.

    Args:
        source: The repository.
        settings: The content of `tokenizer_config.json`.
        special: The content of `special_tokens_map.json`.
        vocabulary: The vocabulary.

    Raises:
        VocabularyError, ConfigurationError: A file disagrees with the vocabulary.
    """
    if ADDED_TOKENS in source:
        with as_vocabulary_error(source, ADDED_TOKENS):
            check_ids(source.json(ADDED_TOKENS), vocabulary.pieces)
    with as_vocabulary_error(source, TOKENIZER_CONFIG):
        check_ids(decoder_ids(settings.get("added_tokens_decoder")), vocabulary.pieces)
        check_tokens(named_tokens(settings), vocabulary.pieces)
    with as_vocabulary_error(source, SPECIAL_TOKENS):
        check_tokens(named_tokens(special), vocabulary.pieces)
    read_fields(source.path(SPECIAL_TOKENS), TOKENIZER_CONFIG_KEYS, in_table(special))


def check_pieces(source: SourceFolder, tokenizer: Mapping[str, Any], vocabulary: Vocabulary) -> None:
    """Refuse a `tokenizer.json` that gives pieces other ids than `spiece.model`.

    Scores may differ: transformers lowers those of numbers with a comma.

    Args:
        source: The repository.
        tokenizer: The content of `tokenizer.json`.
        vocabulary: The vocabulary of `spiece.model`.

    Raises:
        VocabularyError: The pieces differ.
    """
    with as_vocabulary_error(source, TOKENIZER):
        found = [piece for piece, _ in pieces_of(tokenizer)]
    expected = [piece for piece, _ in vocabulary.pieces]
    if found != expected:
        pairs = enumerate(zip(found, expected, strict=False))
        index = next((index for index, (piece, other) in pairs if piece != other), None)
        detail = f"expected {len(expected)} pieces, as {VOCABULARY} has, found {len(found)}"
        if index is not None:
            detail = f"expected {expected[index]!r} as piece {index}, as {VOCABULARY} has, found {found[index]!r}"
        problem = Problem("contradiction", TOKENIZER, f"{detail}: one is left over from another model")
        raise VocabularyError(source.path(TOKENIZER), "vocabulary", [problem])


def decoder_ids(rows: Any) -> dict[str, Any]:
    """Return the tokens of `added_tokens_decoder`, which is by id, with their ids.

    Raises:
        ValueError: It has another form, or a token twice.
    """
    if rows is None:
        return {}
    if not isinstance(rows, dict) or not all(isinstance(text_of(row), str) for row in rows.values()):
        raise ValueError("an added_tokens_decoder that is no object of tokens")
    if len({text_of(row) for row in rows.values()}) < len(rows):
        raise ValueError("an added_tokens_decoder that has a token twice")
    return {text_of(row): int(key) if key.isdecimal() and len(key) < 10 else key for key, row in rows.items()}


def named_tokens(settings: Mapping[str, Any]) -> list[str]:
    """Return the tokens that settings name, besides those in the table of keys.

    Raises:
        ValueError: They are no texts.
    """
    found = [settings.get("bos_token"), settings.get("eos_token")]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        more = settings.get(key) or []
        found += more.values() if isinstance(more, dict) else more if isinstance(more, list) else [more]
    texts = [text_of(token) for token in found if token is not None]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("special tokens that are no texts")
    return texts


@contextmanager
def as_vocabulary_error(source: SourceFolder, name: str) -> Iterator[None]:
    """Turn a ValueError of the block into a VocabularyError about a file of the repository."""
    try:
        yield
    except ValueError as error:
        detail = f"expected the unigram tokenizer of an ALBERT, found: {error}"
        copy = f"Or convert a copy of the folder without {name}, and what it says."
        if name == TOKENIZER and VOCABULARY not in source:
            copy = f"Or convert a copy of the folder without {name}: the result has no tokenizer then."
        elif name == TOKENIZER_CONFIG:
            copy = f"Or convert a copy of the folder in which {name} does not name those tokens."
        advice = f"{VocabularyError.default_advice} {copy}"
        raise VocabularyError(source.path(name), "vocabulary", [Problem("unusable", name, detail)], advice) from error
