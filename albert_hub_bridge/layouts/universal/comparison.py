"""Compare the halves of a universal folder: a contradiction is refused, because nothing says which half is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from albert_hub_bridge.checkpoint import Checkpoint, TokenizerSpec
from albert_hub_bridge.errors import ConfigurationError, Problem, VocabularyError
from albert_hub_bridge.formats.lazy_tensors import LazyTensor, TiedPair, check_tied
from albert_hub_bridge.layouts.hub.files import TOKENIZER
from albert_hub_bridge.layouts.keras.files import CONFIG, TASK, VOCABULARY
from albert_hub_bridge.layouts.keras.tokenizer import keras_truncate, packed_length
from albert_hub_bridge.mapping.heads import LABELED_HEADS
from albert_hub_bridge.mapping.vocabulary import bake_normalization, piece_types, same_character_map
from albert_hub_bridge.mapping.weights import POOLER, POOLER_RULES
from albert_hub_bridge.model.sentencepiece_unigram import parse_vocabulary
from albert_hub_bridge.text import short_repr


_POOLER_IN_KERAS = {rule.keras for rule in POOLER_RULES}
_ADVICE = (
    "One of the two was changed. Convert the right one alone: to universal again, from a folder without the other."
)


def check_halves(keras: Checkpoint, repository: Checkpoint) -> None:
    """Compare everything that both halves of a folder have: settings, head, tokenizer and each tensor, bit for bit.

    Args:
        keras: The half that is a preset. Its weights are open.
        repository: The half that is a repository. Its weights are open.

    Raises:
        ConfigurationError, VocabularyError, WeightsError: The halves contradict each other. All problems of the file
            are listed.
    """
    folder = keras.folder
    _check_settings(folder, CONFIG, asdict(repository.architecture), asdict(keras.architecture))
    _check_settings(folder, TASK, _head_settings(repository), _head_settings(keras))
    _check_tokenizers(folder, keras, repository)
    _check_tensors(keras, repository)


def _check_settings(folder: Path, name: str, repository: dict[str, Any], keras: dict[str, Any]) -> None:
    problems = [
        Problem("contradiction", key, f"expected {value!r} as the keys of transformers say, found {keras[key]!r}")
        for key, value in repository.items()
        if keras[key] != value
    ]
    if problems:
        raise ConfigurationError(folder / name, "configuration, of KerasHub's half,", problems, _ADVICE)


def _head_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    head = checkpoint.head
    settings: dict[str, Any] = {"head": head.kind if head is not None else None}
    # Without names, the labels of a repository are LABEL_0, LABEL_1, ...; a task of KerasHub has none.
    settings |= dict.fromkeys(("num_labels", "activation", "dropout", "labels"))
    if head is not None and head.kind in LABELED_HEADS:
        dropout = head.dropout if head.dropout is not None else checkpoint.architecture.dropout
        settings |= {"num_labels": head.num_labels, "activation": head.activation, "dropout": dropout}
        settings["labels"] = head.label_names
    return settings


def _check_tokenizers(folder: Path, keras: Checkpoint, repository: Checkpoint) -> None:
    files = repository.tokenizer_files
    if files is not None and files.beyond_sentencepiece and not files.cut_out:
        detail = f"expected what {VOCABULARY} can say, found {files.beyond_sentencepiece}"
        problem = Problem("contradiction", "tokenizer", detail)
        raise VocabularyError(folder / TOKENIZER, "vocabulary", [problem], _ADVICE)
    if keras.has_tokenizer != repository.has_tokenizer:
        has, other = ("a transformers", "KerasHub") if repository.has_tokenizer else ("a KerasHub", "transformers")
        problem = Problem("contradiction", "tokenizer", f"expected one for {other} beside {has} tokenizer, found none")
        raise VocabularyError(folder / VOCABULARY, "vocabulary", [problem], _ADVICE)
    if keras.tokenizer is None or repository.tokenizer is None:
        return
    packing = {
        each: {"sequence_length": packed_length(spec, keras.architecture), "truncate": keras_truncate(spec)}
        for each, spec in (("keras", keras.tokenizer), ("repository", repository.tokenizer))
    }
    _check_settings(folder, "preprocessor.json", packing["repository"], packing["keras"])
    cut_out = files.cut_out if files is not None else ""
    if problems := list(_vocabulary_problems(keras.tokenizer, repository.tokenizer, cut_out)):
        raise VocabularyError(folder / VOCABULARY, "vocabulary", problems, _ADVICE)


def _vocabulary_problems(keras: TokenizerSpec, repository: TokenizerSpec, cut_out: str) -> Iterator[Problem]:
    """Yield how the vocabularies differ, after what the repository does to a text first was put into its own."""
    baked = bake_normalization(repository.proto, repository.normalization, cut_out)
    if baked == keras.proto:
        return
    expected, found = parse_vocabulary(baked), keras.vocabulary
    if expected.size != found.size:
        yield Problem("contradiction", "pieces", f"expected {expected.size} as {TOKENIZER} has, found {found.size}")
    for index, (piece, other) in enumerate(zip(expected.pieces, found.pieces, strict=False)):
        if piece != other:
            detail = f"expected {short_repr(piece)} as {TOKENIZER} has, found {short_repr(other)}"
            yield Problem("contradiction", f"piece {index}", detail)
            break
    types = zip(piece_types(baked), piece_types(keras.proto), strict=False)
    for index, (ours, theirs) in enumerate(types):
        if ours != theirs:
            detail = f"expected the type {ours}, as {TOKENIZER} makes it, found {theirs}: texts would have other ids"
            yield Problem("contradiction", f"piece {index}", detail)
            break
    for name in ("special_ids", "add_dummy_prefix", "remove_extra_whitespaces"):
        one, another = getattr(expected, name), getattr(found, name)
        if one != another:
            yield Problem("contradiction", name, f"expected {one!r} as {TOKENIZER} has, found {another!r}")
    if not same_character_map(expected.charsmap, found.charsmap):
        detail = f"expected {expected.normalization}, as the repository has, found {found.normalization}"
        yield Problem("contradiction", "text normalization", f"{detail}: texts would have other ids")


def _check_tensors(keras: Checkpoint, repository: Checkpoint) -> None:
    file = repository.weights_file or repository.folder
    pairs = []
    for name, weight in keras.weights.items():
        other = repository.weights.get(name)
        ours, theirs = (name if each is None else _name(name, each) for each in (weight, other))
        detail = f"expected the values of {theirs} in {file.name}, found others"
        pairs.append(TiedPair(Problem("contradiction", ours, detail), weight, other))
    poolers = set(repository.weights) & POOLER
    pairs = [pair for pair in pairs if poolers or not _is_pooler_of_zeros(pair)]
    pairs += [
        TiedPair(Problem("missing", name, f"expected it as in {file.name}, found none"), weight, None)
        for name, weight in repository.weights.items()
        if name not in keras.weights
    ]
    check_tied(keras.weights_file or keras.folder, pairs)


def _is_pooler_of_zeros(pair: TiedPair) -> bool:
    """Return whether a tensor is of the pooler that KerasHub needs, where the repository has none."""
    return pair.original is None and pair.problem.where in _POOLER_IN_KERAS and not pair.copy.load().any()


def _name(name: str, weight: LazyTensor) -> str:
    """Return the name of a weight in its file."""
    return weight.source_tensor.name if weight.source_tensor is not None else name
