"""SentencePiece models from a `tokenizer.json` of the tokenizers library.

transformers 5 saves no `spiece.model`, but KerasHub reads nothing else.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any

from sentencepiece import sentencepiece_model_pb2 as proto_types
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from albert_hub_bridge.model.sentencepiece_unigram import (
    SPECIAL_PIECES,
    TextNormalization,
    fold_case,
    handle_spaces,
    lower_case,
    text_normalizer,
)
from albert_hub_bridge.text import first_few, short_repr


def pieces_of(content: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the pieces and scores in a `tokenizer.json`, in the order of their ids.

    Args:
        content: The parsed file.

    Raises:
        ValueError: The file has no unigram model, or has tokens that are not pieces.
    """
    model = content.get("model")
    # The first files of the library have no type. Only Unigram has a list of pieces.
    if not isinstance(model, dict) or model.get("type", "Unigram") != "Unigram":
        found = f"a {model.get('type')} model" if isinstance(model, dict) else "no model"
        raise ValueError(f"{found} instead of a Unigram model")
    rows = model.get("vocab")
    if not isinstance(rows, list) or not all(
        isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) and type(row[1]) in (int, float)
        for row in rows
    ):
        raise ValueError("not the tokenizer.json of a unigram model: its vocab is not a list of pieces and scores")
    pieces = [(piece, score) for piece, score in rows]
    check_tokens(added_tokens(content), pieces)
    return pieces


def without_added_tokens(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `tokenizer.json` without its added tokens, but for ALBERT's special pieces."""
    rows = content.get("added_tokens")
    special = SPECIAL_PIECES.values()
    kept = [row for row in rows if isinstance(row, dict) and row.get("content") in special] if rows else []
    return {**content, "added_tokens": kept}


def added_tokens(content: Mapping[str, Any]) -> list[str]:
    """Return the added tokens of a `tokenizer.json`, without special tokens.

    The tokenizer cuts added tokens out of a text first. transformers makes added tokens from the user-defined pieces of
    a SentencePiece model, such as `(` and `.`. The text after them begins a word, so `3.0` has different ids than in
    the training.

    Raises:
        ValueError: The value is not a list of tokens.
    """
    rows = content.get("added_tokens") or []
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "content" in row for row in rows):
        raise ValueError("added_tokens is not a list of tokens")
    tokens = [str(row["content"]) for row in rows]
    return [token for token in tokens if token not in SPECIAL_PIECES.values()]


def check_tokens(tokens: Iterable[str], pieces: Iterable[tuple[str, float]]) -> None:
    """Check that all tokens are pieces of the vocabulary.

    Raises:
        ValueError: Some are not.
    """
    if unknown := set(tokens) - {piece for piece, _ in pieces}:
        names = first_few([short_repr(token) for token in sorted(unknown)], 10)
        raise ValueError(f"tokens beyond its vocabulary, such as {names}")


def check_ids(ids: Mapping[str, Any], pieces: Sequence[tuple[str, float]]) -> None:
    """Check that all tokens are pieces of the vocabulary and have the ids of these pieces.

    Args:
        ids: The ids by token.
        pieces: The pieces of the vocabulary, in the order of their ids.

    Raises:
        ValueError: A token is not a piece, or has a different id.
    """
    check_tokens(ids, pieces)
    expected = {piece: index for index, (piece, _) in enumerate(pieces)}
    if wrong := [token for token, found in ids.items() if type(found) is not int or found != expected[token]]:
        details = [
            f"{short_repr(token)} has {short_repr(ids[token])} instead of {expected[token]}" for token in wrong[:10]
        ]
        raise ValueError(f"ids that differ from the vocabulary: {', '.join(details)}")


def proto_from_tokenizer(content: Mapping[str, Any], keep_last_space: bool = False) -> tuple[bytes, TextNormalization]:
    """Convert a `tokenizer.json` back to a SentencePiece model.

    Args:
        content: The parsed file, written by this package or by transformers for ALBERT.
        keep_last_space: Whether to refuse a pipeline that makes a piece of a space at the end of a text, instead of
            converting it without that.

    Returns:
        The serialized model, and the text normalization before it.

    Raises:
        ValueError: The file has no unigram model, or does something that SentencePiece cannot do.
    """
    pieces, unk_id = pieces_of(content), content["model"].get("unk_id")
    if type(unk_id) is not int or not 0 <= unk_id < len(pieces) or content["model"].get("byte_fallback"):
        raise ValueError("a model that has no unknown piece, or falls back to bytes")
    model: Any = proto_types.ModelProto()  # type: ignore[attr-defined]
    try:
        for index, (piece, score) in enumerate(pieces):
            model.pieces.add(piece=piece, score=score, type=_piece_type(index, piece, score, unk_id))
    except (TypeError, OverflowError) as error:
        raise ValueError(f"not the tokenizer.json of a unigram model: {error!r}") from error
    # The library builds trees of pieces and tokens, about 300 bytes per character. The pipeline does not need them.
    unknown_only = {**content["model"], "vocab": [[SPECIAL_PIECES["unk"], 0.0]], "unk_id": 0}
    tokenizer = parse_tokenizer({**content, "model": unknown_only, "added_tokens": []})
    spec = model.normalizer_spec
    normalization = _read_pipeline(tokenizer, spec, keep_last_space)
    spec.name = "tokenizer.json"
    trainer = model.trainer_spec
    trainer.model_type, trainer.vocab_size, trainer.unk_id = trainer.UNIGRAM, len(pieces), unk_id
    trainer.bos_id = trainer.eos_id = -1
    return bytes(model.SerializeToString()), normalization


def _piece_type(index: int, piece: str, score: float, unk_id: int) -> Any:
    types = proto_types.ModelProto.SentencePiece  # type: ignore[attr-defined]
    if index == unk_id:
        return types.UNKNOWN
    if piece in SPECIAL_PIECES.values():
        return types.CONTROL
    # Trained scores are logarithms of probabilities, below zero. User-defined pieces have the score zero.
    return types.USER_DEFINED if score == 0.0 else types.NORMAL


def parse_tokenizer(content: Mapping[str, Any]) -> Tokenizer:
    """Parse a `tokenizer.json` with the tokenizers library, which also updates old spellings.

    Raises:
        ValueError: The library rejects it.
    """
    try:
        # For a damaged map, Tokenizer.from_str panics. Precompiled raises an exception.
        for step in _flat(content["normalizer"]) if content.get("normalizer") else ():
            if step["type"] == "Precompiled":
                normalizers.Precompiled(base64.b64decode(step["precompiled_charsmap"]))
        return Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the library raises only Exception
        raise ValueError(f"not a file for the tokenizers library: {error}") from error
    except BaseException as error:  # panics are not an Exception
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError("not a file for the tokenizers library") from error


def _read_pipeline(tokenizer: Tokenizer, spec: Any, keep_last_space: bool) -> TextNormalization:
    """Return the text normalization of a pipeline, and copy its map and its handling of spaces to `spec`.

    A supported pipeline has text normalization, a map and the handling of spaces, in this order, and nothing else.

    Args:
        tokenizer: The pipeline.
        spec: The NormalizerSpec of the new model.
        keep_last_space: As for `proto_from_tokenizer`.

    Raises:
        ValueError: The pipeline has other steps, or a different order.
    """
    steps, splits = _steps(tokenizer.normalizer), _steps(tokenizer.pre_tokenizer)
    normalization, steps = _read_normalization(steps)
    if steps and steps[0]["type"] == "Precompiled":
        spec.precompiled_charsmap = base64.b64decode(steps[0]["precompiled_charsmap"])
        _, steps = _without(_steps_of(fold_case(spec.precompiled_charsmap)), steps[1:])
    for choice, last, pre_tokenizer in _space_handling():
        if (steps, splits) == (_steps_of(last), _steps(pre_tokenizer)):
            spec.add_dummy_prefix, spec.remove_extra_whitespaces, split_white_space = choice
            return replace(normalization, split_white_space=split_white_space)
    if (steps, splits) == _WITH_LAST_SPACE:
        if keep_last_space:
            raise ValueError("a space at the end of a text that becomes a piece")
        spec.add_dummy_prefix = spec.remove_extra_whitespaces = True
        return normalization
    normalizer_is_known = steps in [_steps_of(last) for _, last, _ in _space_handling()]
    wrong = splits if normalizer_is_known else steps
    names = ", ".join(json.dumps(step, ensure_ascii=False)[:100] for step in wrong) or "no pre-tokenizer"
    raise ValueError(f"steps that SentencePiece does not have, or not at this place: {names}")


def _read_normalization(steps: list[dict[str, Any]]) -> tuple[TextNormalization, list[dict[str, Any]]]:
    """Return the text normalization that steps begin with, and the steps after it."""
    normalization = TextNormalization()
    for field in fields(TextNormalization):
        candidate = TextNormalization(**{field.name: True})
        spellings = [_steps(text_normalizer(candidate))]
        if candidate.lower_case:
            spellings.append(_steps_of(lower_case()[-1:]))  # transformers' own, without the step for transformers.js
        for spelling in filter(None, spellings):
            found, steps = _without(spelling, steps)
            if found:
                normalization |= candidate
                break
    return normalization, steps


def _without(first: list[dict[str, Any]], steps: list[dict[str, Any]]) -> tuple[bool, list[dict[str, Any]]]:
    """Return whether steps begin with `first`, and the steps after it."""
    found = steps[: len(first)] == first
    return found, steps[len(first) :] if found else steps


def _space_handling() -> Iterator[
    tuple[tuple[bool, bool, bool], list[normalizers.Normalizer], pre_tokenizers.PreTokenizer]
]:
    """Yield the arguments of `handle_spaces`, and the equivalent last normalizers and pre-tokenizer."""
    both = (True, False)
    for choice in product(both, both, both):
        yield choice, *handle_spaces(*choice)
    always = pre_tokenizers.Metaspace(prepend_scheme="always")
    # This package, before it considered transformers.js.
    yield (True, True, False), [], pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "removed"), always])
    # AlbertTokenizer of transformers 5.
    yield (True, True, True), [], pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), always])


def _steps(part: Any) -> list[dict[str, Any]]:
    """Return the steps of a normalizer or pre-tokenizer, in the form of `tokenizer.json`."""
    tree = {"type": "Sequence"} if part is None else json.loads(part.__getstate__())
    return list(_flat(tree))


def _steps_of(parts: Sequence[normalizers.Normalizer]) -> list[dict[str, Any]]:
    return _steps(normalizers.Sequence(list(parts)))


def _flat(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if tree["type"] != "Sequence":
        yield tree
    for step in tree.get("normalizers", tree.get("pretokenizers", [])):
        yield from _flat(step)


# The conversion of transformers 4. It differs from SentencePiece only for a space at the end of a text.
_WITH_LAST_SPACE = (
    _steps(normalizers.Replace(Regex(" {2,}"), " ")),
    _steps(pre_tokenizers.Metaspace(prepend_scheme="always")),
)
