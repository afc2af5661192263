"""ALBERT's tokenizer in a Hub repository: `spiece.model`, `tokenizer.json` and `tokenizer_config.json`.

KerasHub and transformers' slow tokenizers read SentencePiece's model. transformers' fast tokenizers read
`tokenizer.json`. A repository can have one of them or both. If it has both, they must have the same pieces. The scores
are those that the layout's library computes with.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from albert_hub_bridge.checkpoint import TokenizerSpec
from albert_hub_bridge.choices import SourceLayoutName
from albert_hub_bridge.disk.durable import write_file
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.disk.strict_json import write_json
from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.formats.sentencepiece import fitting_vocabulary, read_vocabulary
from albert_hub_bridge.layouts.configuration import read_fields
from albert_hub_bridge.layouts.hub.files import (
    SPECIAL_TOKENS,
    TOKENIZER,
    TOKENIZER_CONFIG,
    VOCABULARY,
)
from albert_hub_bridge.layouts.hub.token_checks import (
    as_vocabulary_error,
    check_pieces,
    check_special_tokens,
    in_table,
    text_of,
)
from albert_hub_bridge.layouts.hub.tokenizer_files import MAX_TOKENIZER_BYTES
from albert_hub_bridge.mapping.configs import TOKENIZER_CONFIG as TOKENIZER_CONFIG_KEYS
from albert_hub_bridge.mapping.configs import IgnoredKey
from albert_hub_bridge.mapping.number_commas import is_number_comma, split_number_commas, with_scores
from albert_hub_bridge.mapping.tokenizer_json import (
    added_tokens,
    pieces_of,
    proto_from_tokenizer,
    without_added_tokens,
)
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.model.sentencepiece_unigram import (
    MASK,
    SPECIAL_PIECES,
    TextNormalization,
    Vocabulary,
    build_tokenizer,
    parse_vocabulary,
)
from albert_hub_bridge.text import first_few


CUT_OUT = "added tokens that are cut out of a text first"
_MISSPELT_MASK = "[MASK]>"  # transformers 2.2.0 and 2.2.1 wrote it, and gave it the id of <unk>
_NO_LIMIT = 1 << 31  # transformers writes 1e30 for a tokenizer without a limit
_NORMALIZATION_KEYS = {"do_lower_case", "keep_accents", "strip_accents", "replace_quotes", "split_white_space"}


class _FoundVocabulary(NamedTuple):
    """A vocabulary as it was read.

    Args:
        proto: The serialized SentencePiece model.
        vocabulary: The same, parsed.
        tokenizer: The content of `tokenizer.json`; empty if there is none.
        normalization: The normalization of `tokenizer.json`, if the vocabulary was made from it.
        other_scores: Number of pieces that have another score in `spiece.model`, without numbers with a comma.
    """

    proto: bytes
    vocabulary: Vocabulary
    tokenizer: Mapping[str, Any]
    normalization: TextNormalization | None
    other_scores: int = 0


def read_alberts_tokenizer(
    source: SourceFolder,
    layout: SourceLayoutName,
    architecture: Architecture,
    *,
    as_the_file_says: bool = False,
    without_added: bool = False,
) -> tuple[TokenizerSpec, list[IgnoredKey], list[str]]:
    """Read ALBERT's tokenizer from a repository that has `spiece.model` or `tokenizer.json`.

    Args:
        source: The repository.
        layout: Its layout.
        architecture: Of its encoder.
        as_the_file_says: Whether the class of the tokenizer runs `tokenizer.json` as it is. Otherwise it builds its
            pipeline from `tokenizer_config.json`.
        without_added: Whether to leave out added tokens, instead of refusing them.

    Returns:
        The tokenizer, the settings that are not converted, and notes for the report.

    Raises:
        FileError, ConfigurationError, VocabularyError: A file is wrong, two files contradict each other, or there is
            something that no SentencePiece model can hold.
    """
    content = source.json(TOKENIZER, MAX_TOKENIZER_BYTES) if TOKENIZER in source else {}
    if without_added and content:
        content = without_added_tokens(content)
    found = _read_vocabulary(source, layout, architecture, content, as_the_file_says, not without_added)
    notes = []
    if VOCABULARY not in source:
        notes.append(f"The repository has no {VOCABULARY}: the vocabulary was made from {TOKENIZER}.")
    if found.other_scores:
        notes.append(
            f"{found.other_scores} pieces have another score in {VOCABULARY} than in {TOKENIZER}. The scores are those "
            f"of {TOKENIZER}, which transformers uses."
        )
    settings, special = _read_settings(source, TOKENIZER_CONFIG), _read_settings(source, SPECIAL_TOKENS)
    if misspelt := [each for each in (settings, special) if each.get("mask_token") == _MISSPELT_MASK]:
        notes.append(f"The mask token was {_MISSPELT_MASK!r}, as transformers 2.2 misspelt it: it is {MASK!r} now.")
        for each in misspelt:
            each["mask_token"] = MASK
    if not without_added:
        check_special_tokens(source, settings, special, found.vocabulary)
        if cut_out := added_tokens(found.tokenizer):
            with as_vocabulary_error(source, TOKENIZER):
                raise ValueError(f"{CUT_OUT}: {first_few(cut_out, 20)}")
    fields, ignored = _read_fields(source, settings)
    normalization, normalization_from = found.normalization, TOKENIZER
    if normalization is None:
        normalization, normalization_from = _normalization(fields, layout), TOKENIZER_CONFIG
        if not _NORMALIZATION_KEYS & set(settings):
            default = "absent settings mean none" if layout == "albert_hub" else "what AlbertTokenizer does by default"
            normalization_from = f"{default}; {TOKENIZER_CONFIG} does not say"
    length = fields["sequence_length"]
    tokenizer = TokenizerSpec(
        found.proto,
        found.vocabulary,
        normalization,
        int(length) if length is not None and 1 <= length < _NO_LIMIT else None,
        fields["truncate"],
        normalization_from,
        fields["padding_side"],
        fields["truncation_side"],
    )
    return tokenizer, ignored, notes


def _read_vocabulary(
    source: SourceFolder,
    layout: SourceLayoutName,
    architecture: Architecture,
    content: Mapping[str, Any],
    as_the_file_says: bool,
    exactly: bool,
) -> _FoundVocabulary:
    """Read `spiece.model`, or else make a vocabulary from `tokenizer.json`, which has this content."""
    if VOCABULARY in source:
        proto, vocabulary = read_vocabulary(source.path(VOCABULARY), architecture, partial(source.read, VOCABULARY))
        if TOKENIZER in source:
            check_pieces(source, content, vocabulary)
        if not as_the_file_says:
            found = _FoundVocabulary(proto, vocabulary, content, None)
            return _with_scores_of_transformers(source, found) if layout == "transformers" else found
    with as_vocabulary_error(source, TOKENIZER):
        proto, normalization = proto_from_tokenizer(content, keep_last_space=as_the_file_says and exactly)
    vocabulary = fitting_vocabulary(source.path(TOKENIZER), proto, architecture)
    return _FoundVocabulary(proto, vocabulary, content, normalization)


def _with_scores_of_transformers(source: SourceFolder, found: _FoundVocabulary) -> _FoundVocabulary:
    """Return the vocabulary of `spiece.model` with the scores of `tokenizer.json`, or else with ALBERT's rule.

    transformers' slow tokenizer, which reads `spiece.model` alone, splits numbers from commas after SentencePiece.
    """
    if not found.tokenizer:
        proto = split_number_commas(found.proto)
    else:
        with as_vocabulary_error(source, TOKENIZER):
            proto = with_scores(found.proto, [score for _, score in pieces_of(found.tokenizer)])
    if proto is found.proto:
        return found
    with as_vocabulary_error(source, TOKENIZER):
        vocabulary = parse_vocabulary(proto)
    pairs = zip(found.vocabulary.pieces, vocabulary.pieces, strict=True)
    changed = sum(before != after for before, after in pairs if not is_number_comma(before[0]))
    return found._replace(proto=proto, vocabulary=vocabulary, other_scores=changed)


def _read_settings(source: SourceFolder, name: str) -> dict[str, Any]:
    """Read a file of settings, if there is one, with special tokens as plain texts."""
    settings = source.json(name) if name in source else {}
    return {key: text_of(value) if key.endswith("_token") else value for key, value in settings.items()}


def _read_fields(source: SourceFolder, settings: Mapping[str, Any]) -> tuple[dict[str, Any], list[IgnoredKey]]:
    file = source.path(TOKENIZER_CONFIG)
    fields, ignored = read_fields(file, TOKENIZER_CONFIG_KEYS, in_table(settings))
    reason = "a setting of the tokenizer that changes no ids, or that nothing is known about"
    ignored += [IgnoredKey(key, value, reason) for key, value in settings.items() if key not in TOKENIZER_CONFIG_KEYS]
    if None is not fields["keep_accents"] is fields["strip_accents"]:
        detail = f"expected the contrary of strip_accents, found {fields['keep_accents']} for both"
        raise ConfigurationError(file, "configuration", [Problem("contradiction", "keep_accents", detail)])
    return fields, ignored


def _normalization(fields: Mapping[str, Any], layout: SourceLayoutName) -> TextNormalization:
    """Return what `tokenizer_config.json` says happens to a text before the vocabulary."""
    lower_case, strip_accents = fields["lower_case"], fields["strip_accents"]
    if layout == "albert_hub" or fields["replace_quotes"] is not None:  # this package wrote it: absent means no
        split_white_space = bool(fields["split_white_space"])
        return TextNormalization(
            bool(fields["replace_quotes"]), bool(strip_accents), bool(lower_case), split_white_space
        )
    # The defaults of transformers' AlbertTokenizer, which also hold without a tokenizer_config.json.
    return TextNormalization(True, not fields["keep_accents"], lower_case is None or lower_case, True)


def is_as_written(source: SourceFolder, tokenizer: TokenizerSpec, settings: Mapping[str, Any]) -> bool:
    """Return whether `write_alberts_tokenizer` writes the `tokenizer.json` of a repository.

    Args:
        source: The repository.
        tokenizer: What was read from it.
        settings: The content of its `tokenizer_config.json`.
    """
    if "replace_quotes" not in settings:  # only this package writes it
        return False
    return source.read(TOKENIZER, MAX_TOKENIZER_BYTES) == _tokenizer_file(tokenizer)


def _tokenizer_file(tokenizer: TokenizerSpec) -> bytes:
    return build_tokenizer(tokenizer.vocabulary, tokenizer.normalization).to_str().encode()


def write_alberts_tokenizer(
    tokenizer: TokenizerSpec,
    folder: Path,
    layout: SourceLayoutName,
    architecture: Architecture,
    auto_map: Mapping[str, Any] | None = None,
) -> None:
    """Write the tokenizer of a repository.

    Args:
        tokenizer: The tokenizer.
        folder: The folder of the repository.
        layout: The layout of the repository.
        architecture: The architecture of the encoder.
        auto_map: The class of the tokenizer in the code that the repository carries, if it carries any.

    Raises:
        OSError: The system did not write a file, which it names.
    """
    normalization = tokenizer.normalization
    write_file(folder / VOCABULARY, tokenizer.proto)
    write_file(folder / TOKENIZER, _tokenizer_file(tokenizer))
    # The generic class uses tokenizer.json as it is. AlbertTokenizer would build its own normalization.
    tokenizer_class = "AlbertHubTokenizer" if layout == "albert_hub" else "PreTrainedTokenizerFast"
    config: dict[str, Any] = {f"{name}_token": piece for name, piece in SPECIAL_PIECES.items()}
    config |= {
        "tokenizer_class": tokenizer_class,
        "model_max_length": min(tokenizer.sequence_length or 512, architecture.max_sequence_length),
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "replace_quotes": normalization.replace_quotes,
        "strip_accents": normalization.strip_accents,
        "keep_accents": not normalization.strip_accents,  # for users who ask for AlbertTokenizer
        "do_lower_case": normalization.lower_case,
        "split_white_space": normalization.split_white_space,
        "truncate": tokenizer.truncate,
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
    }
    if auto_map is not None:
        config["auto_map"] = auto_map
    write_json(folder / TOKENIZER_CONFIG, config)
