"""The tokenizer of a Hub repository: `spiece.model`, `tokenizer.json` and `tokenizer_config.json`, in both layouts.

SentencePiece's model is what KerasHub and transformers' slow tokenizers read, and `tokenizer.json` what its fast ones
do. A repository can have one of them, or both, which then have to have the same pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from albert_hub_bridge.checkpoint import TokenizerSpec
from albert_hub_bridge.disk.durable import write_file
from albert_hub_bridge.disk.json_files import read_json, write_json
from albert_hub_bridge.errors import ConfigurationError, Problem, VocabularyError
from albert_hub_bridge.formats.sentencepiece import fitting_vocabulary, read_vocabulary
from albert_hub_bridge.layouts.configuration import read_fields
from albert_hub_bridge.mapping.configs import TOKENIZER_CONFIG as TOKENIZER_CONFIG_KEYS
from albert_hub_bridge.mapping.configs import IgnoredKey
from albert_hub_bridge.mapping.tokenizer_json import (
    added_tokens,
    check_ids,
    check_tokens,
    pieces_of,
    proto_from_tokenizer,
)
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.model.sentencepiece_unigram import (
    MASK,
    SPECIAL_PIECES,
    TextNormalization,
    Vocabulary,
    build_tokenizer,
)
from albert_hub_bridge.text import first_few


TOKENIZER, TOKENIZER_CONFIG, VOCABULARY = "tokenizer.json", "tokenizer_config.json", "spiece.model"
# What transformers before 5 wrote besides, which says nothing that the others do not.
_ADDED, _SPECIAL = "added_tokens.json", "special_tokens_map.json"
READ_ONLY = frozenset({_ADDED, _SPECIAL})
TEXT_FILES = frozenset({TOKENIZER, TOKENIZER_CONFIG, VOCABULARY}) | READ_ONLY

_MISSPELT_MASK = "[MASK]>"  # what transformers 2.2.0 and 2.2.1 call it, and give the id of <unk>

MOST_TOKENIZER_BYTES = 32 << 20  # with 250,000 pieces it has some 16 MB

RepositoryLayout = Literal["albert_hub", "transformers"]


def read_text(
    folder: Path, layout: RepositoryLayout, architecture: Architecture
) -> tuple[TokenizerSpec | None, list[IgnoredKey], list[str]]:
    """Read the tokenizer of a repository, if it has one.

    Returns:
        The tokenizer, what of its settings is not carried over, and notes for the report.

    Raises:
        FileError, ConfigurationError, VocabularyError: A file is wrong, or two of them contradict each other.
    """
    notes, found_rules = [], None
    if (folder / VOCABULARY).is_file():
        proto, vocabulary = read_vocabulary(folder / VOCABULARY, architecture)
        content = {}
        if (folder / TOKENIZER).is_file():
            content = read_json(folder / TOKENIZER, MOST_TOKENIZER_BYTES)
            _check_pieces(folder / TOKENIZER, content, vocabulary)
    elif (folder / TOKENIZER).is_file():
        try:
            content = read_json(folder / TOKENIZER, MOST_TOKENIZER_BYTES)
            proto, found_rules = proto_from_tokenizer(content)
        except ValueError as error:
            raise _unusable(folder / TOKENIZER, error) from error
        vocabulary = fitting_vocabulary(folder / TOKENIZER, proto, architecture)
        notes.append(f"The repository has no {VOCABULARY}: the vocabulary was made from {TOKENIZER}.")
    else:
        left = [name for name in sorted(TEXT_FILES) if (folder / name).is_file()]
        lost = f", and what {first_few(left, 10)} says is lost" if left else ""
        return None, [], [f"The repository has no {VOCABULARY}: the result has no tokenizer{lost}."]
    file = folder / TOKENIZER_CONFIG
    keys, special = _settings(file), _settings(folder / _SPECIAL)
    if misspelt := [settings for settings in (keys, special) if settings.get("mask_token") == _MISSPELT_MASK]:
        notes.append(f"The mask token was {_MISSPELT_MASK!r}, as transformers 2.2 misspelt it: it is {MASK!r} now.")
        for settings in misspelt:
            settings["mask_token"] = MASK
    _check_tokens(folder, keys, special, vocabulary)
    if cut_out := added_tokens(content):
        notes.append(
            f"{TOKENIZER} cuts {first_few(cut_out, 20)} out of a text first, so that what follows begins a word there. "
            "In the result it does not, as when the vocabulary was trained."
        )
    fields, ignored = read_fields(file, TOKENIZER_CONFIG_KEYS, _known(keys))
    reason = "a setting of the tokenizer that changes no ids, or that nothing is known about"
    ignored += [IgnoredKey(key, value, reason) for key, value in keys.items() if key not in TOKENIZER_CONFIG_KEYS]
    if None is not fields["keep_accents"] is fields["strip_accents"]:
        detail = f"expected the contrary of strip_accents, found {fields['keep_accents']} for both"
        raise ConfigurationError(file, "configuration", [Problem("contradiction", "keep_accents", detail)])
    length = fields["sequence_length"]
    sequence_length = int(length) if length is not None and 1 <= length < _NO_LIMIT else None
    rules, normalization_from = found_rules, TOKENIZER
    if rules is None:
        rules = _text_rules(fields, layout)
        normalization_from = TOKENIZER_CONFIG
        if not {"do_lower_case", "keep_accents", "strip_accents", "replace_quotes"} & set(keys):
            default = "absent settings mean none" if layout == "albert_hub" else "what AlbertTokenizer does by default"
            normalization_from = f"{default}; {TOKENIZER_CONFIG} does not say"
    return (
        TokenizerSpec(proto, vocabulary, rules, sequence_length, fields["truncate"], normalization_from),
        ignored,
        notes,
    )


def _settings(file: Path) -> dict[str, Any]:
    """Read a file of settings, where there is one, with the texts of its special tokens."""
    settings = read_json(file) if file.is_file() else {}
    return {key: _text_of(value) if key.endswith("_token") else value for key, value in settings.items()}


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the table has."""
    return {key: value for key, value in settings.items() if key in TOKENIZER_CONFIG_KEYS}


def _text_of(token: Any) -> Any:
    """Return the text of a special token, which is written alone, or in an object; any other value as it is."""
    return token["content"] if isinstance(token, dict) and "content" in token else token


def _check_tokens(folder: Path, settings: dict[str, Any], special: dict[str, Any], vocabulary: Vocabulary) -> None:
    """Refuse what gives tokens other ids than the vocabulary, or names tokens that are not in it.

    Versions of transformers before 5 add such tokens, or move them, where 5 does not: `verify` would not see it.
    """
    if (folder / _ADDED).is_file():
        with _unusable_where(folder / _ADDED):
            check_ids(read_json(folder / _ADDED), vocabulary.pieces)
    with _unusable_where(folder / TOKENIZER_CONFIG):
        check_ids(_decoded(settings.get("added_tokens_decoder")), vocabulary.pieces)
        check_tokens(_named(settings), vocabulary.pieces)
    with _unusable_where(folder / _SPECIAL):
        check_tokens(_named(special), vocabulary.pieces)
    read_fields(folder / _SPECIAL, TOKENIZER_CONFIG_KEYS, _known(special))


def _decoded(rows: Any) -> dict[str, Any]:
    """Return the ids of tokens that `added_tokens_decoder` has by their ids."""
    if rows is None:
        return {}
    if not isinstance(rows, dict) or not all(isinstance(_text_of(row), str) for row in rows.values()):
        raise ValueError("an added_tokens_decoder that is no object of tokens")
    if len({_text_of(row) for row in rows.values()}) < len(rows):
        raise ValueError("an added_tokens_decoder that has a token twice")
    return {_text_of(row): int(key) if key.isdecimal() and len(key) < 10 else key for key, row in rows.items()}


def _named(settings: dict[str, Any]) -> list[str]:
    """Return the tokens that settings name, besides those that the table has."""
    found = [settings.get("bos_token"), settings.get("eos_token")]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        more = settings.get(key) or []
        found += more.values() if isinstance(more, dict) else more if isinstance(more, list) else [more]
    texts = [_text_of(token) for token in found if token is not None]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("special tokens that are no texts")
    return texts


@contextmanager
def _unusable_where(file: Path) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise _unusable(file, error) from error


def _unusable(file: Path, error: ValueError) -> VocabularyError:
    detail = f"expected the unigram tokenizer of an ALBERT, found: {error}"
    copy = f"Or convert a copy of the folder without {file.name}, and what it says."
    if file.name == TOKENIZER and not (file.parent / VOCABULARY).is_file():
        copy = f"Or convert a copy of the folder without {file.name}: the result has no tokenizer then."
    elif file.name == TOKENIZER_CONFIG:
        copy = f"Or convert a copy of the folder in which {file.name} does not name those tokens."
    advice = f"{VocabularyError.default_advice} {copy}"
    return VocabularyError(file, "vocabulary", [Problem("unusable", file.name, detail)], advice)


def _check_pieces(file: Path, content: dict[str, Any], vocabulary: Vocabulary) -> None:
    """Refuse a `tokenizer.json` that gives other ids to pieces than the SentencePiece model beside it.

    Scores may differ: transformers lowers those of numbers with a comma.
    """
    try:
        found = [piece for piece, _ in pieces_of(content)]
    except ValueError as error:
        raise _unusable(file, error) from error
    expected = [piece for piece, _ in vocabulary.pieces]
    if found != expected:
        at = next((n for n, (one, other) in enumerate(zip(found, expected, strict=False)) if one != other), None)
        detail = f"expected {len(expected)} pieces, as {VOCABULARY} has, found {len(found)}"
        if at is not None:
            detail = f"expected {expected[at]!r} as piece {at}, as {VOCABULARY} has, found {found[at]!r}"
        problem = Problem("contradiction", file.name, f"{detail}: one is left over from another model")
        raise VocabularyError(file, "vocabulary", [problem])


_NO_LIMIT = 1 << 31  # transformers writes 1e30 where a tokenizer has none


def _text_rules(fields: dict[str, Any], layout: RepositoryLayout) -> TextNormalization:
    """Tell from tokenizer_config.json what happens to a text before the vocabulary."""
    lower_case, strip_accents = fields["lower_case"], fields["strip_accents"]
    if layout == "albert_hub" or fields["replace_quotes"] is not None:  # written by this package, where absent means no
        return TextNormalization(bool(fields["replace_quotes"]), bool(strip_accents), bool(lower_case))
    # transformers' AlbertTokenizer, which is also what an absent tokenizer_config.json means.
    return TextNormalization(True, not fields["keep_accents"], lower_case is None or lower_case)


def write_text(text: TokenizerSpec, folder: Path, layout: RepositoryLayout, architecture: Architecture) -> None:
    """Write a tokenizer into a repository.

    Raises:
        OSError: The system did not write a file, which it names.
    """
    write_file(folder / VOCABULARY, text.proto)
    write_file(folder / TOKENIZER, build_tokenizer(text.vocabulary, text.normalization).to_str().encode())
    # The generic class takes tokenizer.json as it is; AlbertTokenizer would rebuild it with rules of its own.
    tokenizer_class = "AlbertHubTokenizer" if layout == "albert_hub" else "PreTrainedTokenizerFast"
    config: dict[str, Any] = {f"{name}_token": piece for name, piece in SPECIAL_PIECES.items()}
    config |= {
        "tokenizer_class": tokenizer_class,
        "model_max_length": min(text.sequence_length or 512, architecture.max_sequence_length),
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "replace_quotes": text.normalization.replace_quotes,
        "strip_accents": text.normalization.strip_accents,
        "keep_accents": not text.normalization.strip_accents,  # what AlbertTokenizer calls it, where somebody asks for that
        "do_lower_case": text.normalization.lower_case,
        "truncate": text.truncate,
    }
    write_json(folder / TOKENIZER_CONFIG, config)
