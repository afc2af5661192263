"""SentencePiece vocabularies with text normalization in them, where KerasHub finds them, and from a `tokenizer.json`.

KerasHub knows a SentencePiece model and nothing else, so what transformers does to a text before the vocabulary has to
go into the model's own normalizer: a map from sequences of characters to their replacement, applied longest match
first (`precompiled_charsmap`). This module works out that map for a set of rules followed by the map that is there,
and lets sentencepiece compile it.
"""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from itertools import product
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto_types
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

from albert_hub_bridge.model.sentencepiece_unigram import (
    AFTER,
    SPECIAL_PIECES,
    TextNormalization,
    baked_normalization,
    handle_spaces,
    text_normalizer,
)
from albert_hub_bridge.text import first_few, shown


# transformers' AlbertTokenizer splits a text at all of Unicode's White_Space, and at the sign that stands for a space
# in pieces; SentencePiece knows only the space.
_WHITE_SPACE = frozenset(
    "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\u2581" + "".join(map(chr, range(0x2000, 0x200B)))
)


@lru_cache(maxsize=1)  # a report asks for what was just written
def bake_normalization(proto: bytes, rules: TextNormalization) -> bytes:
    """Put text normalization into a vocabulary: what comes out gives, without rules, the ids that `proto` gave with them.

    Args:
        proto: A serialized SentencePiece model.
        rules: What happens to a text before it.

    Returns:
        The same model with another normalizer; `proto` itself where the rules are in it, or there are none.
    """
    model: Any = proto_types.ModelProto()  # type: ignore[attr-defined]
    model.ParseFromString(proto)
    spec = model.normalizer_spec
    inside = baked_normalization(spec.name)
    if rules | inside == inside:
        return proto
    rules |= inside  # what is inside changes nothing when it comes first, too
    compiled: Any = proto_types.NormalizerSpec()  # type: ignore[attr-defined]
    sentencepiece.set_min_log_level(2)
    with_rules = _with_rules(_decompile(spec.precompiled_charsmap), rules)
    compiled.ParseFromString(
        sentencepiece.SentencePieceNormalizer(norm_map=list(with_rules.items())).serialized_normalizer_spec()
    )
    spec.precompiled_charsmap = compiled.precompiled_charsmap
    spec.name = f"{spec.name.partition(AFTER)[0] or 'identity'}{AFTER}{rules.name}"
    return bytes(model.SerializeToString())


def _decompile(charsmap: bytes) -> dict[str, str]:
    if not charsmap:
        return {}
    spec: Any = proto_types.NormalizerSpec(precompiled_charsmap=charsmap)  # type: ignore[attr-defined]
    return dict(sentencepiece.SentencePieceNormalizer(normalizer_spec=spec).Decompile())


def _with_rules(before: Mapping[str, str], rules: TextNormalization) -> dict[str, str]:
    """Compose: rules first, then the map that was there."""
    if rules.strip_accents:
        # What is left of sequences without accents is Hangul, typed in parts or decomposed by NFKD. The map would
        # compose it, and transformers' pipeline never does.
        before = {sequence: text for sequence, text in before.items() if len(sequence) == 1}
    longest = max(map(len, before), default=1)
    # Quotes are replaced in the text as it was typed; the other rules then work on each character alone.
    alone = text_normalizer(replace(rules, replace_quotes=False))
    ruled = {character: alone.normalize_str(character) for character in _characters()}
    after: dict[str, str] = {}
    for character, text in ruled.items():
        if (result := _spaces(_normalize(text, before, longest))) != character:
            after[character] = result
    # A sequence that the map knows may now be typed with any characters that the rules turn into its own.
    origins: dict[str, list[str]] = {}
    for character, text in ruled.items():
        origins.setdefault(text, []).append(character)
    for sequence, text in before.items():
        if len(sequence) > 1:
            for typed in product(*(origins.get(character, []) for character in sequence)):
                after["".join(typed)] = _spaces(text)
    if rules.replace_quotes:
        after |= dict.fromkeys(("``", "''"), _spaces(_normalize(alone.normalize_str('"'), before, longest)))
    return after


def _normalize(text: str, charsmap: Mapping[str, str], longest: int) -> str:
    """Apply a map as SentencePiece does: the longest match first, from left to right."""
    result, position = "", 0
    while position < len(text):
        for length in range(min(longest, len(text) - position), 0, -1):
            if (part := text[position : position + length]) in charsmap:
                result, position = result + charsmap[part], position + length
                break
        else:
            result, position = result + text[position], position + 1
    return result


def _spaces(text: str) -> str:
    return "".join(" " if character in _WHITE_SPACE else character for character in text)


def _characters() -> Iterator[str]:
    """Yield all characters that rules or maps could change."""
    for code in range(1, 0x20000):
        ideograph = 0x3400 <= code < 0xA000  # never cased, accented or composed
        if not ideograph and unicodedata.category(chr(code)) not in ("Cs", "Co"):
            yield chr(code)
    yield from map(chr, (*range(0x2F800, 0x2FA20), *range(0xE0000, 0xE0200)))  # compatibility ideographs; tags


def pieces_of(content: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the pieces of a `tokenizer.json` in the order of their ids, and their scores.

    Args:
        content: The parsed file.

    Raises:
        ValueError: The file is not a unigram tokenizer, or has tokens beyond its pieces.
    """
    model = content.get("model")
    # The first files had no type, as those that many models of 2020 still have; a list of pieces is Unigram's alone.
    if not isinstance(model, dict) or model.get("type", "Unigram") != "Unigram":
        raise ValueError(f"expected a Unigram model, found {model.get('type') if isinstance(model, dict) else 'none'}")
    rows = model.get("vocab")
    if not isinstance(rows, list) or not all(
        isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) and type(row[1]) in (int, float)
        for row in rows
    ):
        raise ValueError("not the tokenizer.json of a unigram model: its vocab is not a list of pieces and scores")
    pieces = [(piece, score) for piece, score in rows]
    check_tokens(added_tokens(content), pieces)
    return pieces


def check_tokens(tokens: Iterable[str], pieces: Iterable[tuple[str, float]]) -> None:
    """Refuse tokens that were added to a vocabulary.

    Raises:
        ValueError: Not all are pieces.
    """
    if beyond := set(tokens) - {piece for piece, _ in pieces}:
        named = first_few([shown(token) for token in sorted(beyond)], 10)
        raise ValueError(f"no SentencePiece model has tokens beyond its vocabulary, as {named}")


def check_ids(ids: Mapping[str, Any], pieces: Sequence[tuple[str, float]]) -> None:
    """Refuse tokens that were added to a vocabulary, or have other ids than there.

    Args:
        ids: Of tokens, as a file says.
        pieces: Of the vocabulary, in the order of their ids.

    Raises:
        ValueError: Not all are pieces, at the place that their id says.
    """
    check_tokens(ids, pieces)
    expected = {piece: index for index, (piece, _) in enumerate(pieces)}
    if moved := [token for token, found in ids.items() if type(found) is not int or found != expected[token]]:
        named = [f"{shown(token)} has {shown(ids[token])} instead of {expected[token]}" for token in moved[:10]]
        raise ValueError(f"ids that are not the vocabulary's: {', '.join(named)}")


def proto_from_tokenizer(content: Mapping[str, Any]) -> tuple[bytes, TextNormalization]:
    """Turn a `tokenizer.json` back into a SentencePiece model, which transformers 5 no longer saves beside it.

    Args:
        content: The parsed file: what this package or transformers writes for ALBERT.

    Returns:
        The serialized model, and the text normalization that the file applies before it.

    Raises:
        ValueError: The file is not a unigram tokenizer, or does something that no SentencePiece model does.
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
    # Without the pieces and the added tokens, of which the library makes trees of some 300 bytes a character.
    alone = {**content["model"], "vocab": [[SPECIAL_PIECES["unk"], 0.0]], "unk_id": 0}
    tokenizer = _parse({**content, "model": alone, "added_tokens": []})
    spec = model.normalizer_spec
    rules = _read_normalization(tokenizer, spec)
    spec.name = "tokenizer.json"
    trainer = model.trainer_spec
    trainer.model_type, trainer.vocab_size, trainer.unk_id = trainer.UNIGRAM, len(pieces), unk_id
    trainer.bos_id = trainer.eos_id = -1
    return bytes(model.SerializeToString()), rules


def _parse(content: Mapping[str, Any]) -> Tokenizer:
    """Have the tokenizers library read a `tokenizer.json`, and bring old spellings up to date."""
    try:
        for step in _flat(content["normalizer"]) if content.get("normalizer") else ():
            if step["type"] == "Precompiled":  # at a damaged map in JSON the library panics, and here it does not
                normalizers.Precompiled(base64.b64decode(step["precompiled_charsmap"]))
        return Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the library raises nothing more precise
        raise ValueError(f"not a file that the tokenizers library reads: {error}") from error
    except BaseException as error:  # nor are its panics exceptions
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError("not a file that the tokenizers library reads") from error


def added_tokens(content: Mapping[str, Any]) -> list[str]:
    """List the tokens that a `tokenizer.json` cuts out of a text before the vocabulary sees it, special ones aside.

    transformers makes them of the pieces that the trainer of a SentencePiece model had defined, as `(` and `.`. What
    comes after one then begins a word, and `3.0` has other ids than the model was trained with.

    Raises:
        ValueError: It is no list of tokens.
    """
    rows = content.get("added_tokens") or []
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "content" in row for row in rows):
        raise ValueError("added_tokens that are not a list of tokens")
    tokens = [str(row["content"]) for row in rows]
    return [token for token in tokens if token not in SPECIAL_PIECES.values()]


def _piece_type(index: int, piece: str, score: float, unk_id: int) -> Any:
    types = proto_types.ModelProto.SentencePiece  # type: ignore[attr-defined]
    if index == unk_id:
        return types.UNKNOWN
    if piece in SPECIAL_PIECES.values():
        return types.CONTROL
    # A trained score is the logarithm of a probability and below zero; only what a user defined has none.
    return types.USER_DEFINED if score == 0.0 else types.NORMAL


def _read_normalization(tokenizer: Tokenizer, spec: Any) -> TextNormalization:
    """Find out which rules, map and handling of spaces a pipeline is made of, in this order and of nothing else.

    Args:
        tokenizer: The pipeline.
        spec: A NormalizerSpec, which gets the map and the handling of spaces.

    Returns:
        The rules.
    """
    steps, splits = _steps(tokenizer.normalizer), _steps(tokenizer.pre_tokenizer)
    rules = TextNormalization()
    for rule in fields(TextNormalization):
        one = TextNormalization(**{rule.name: True})
        parts = _steps(text_normalizer(one))
        if steps[: len(parts)] == parts:
            rules, steps = rules | one, steps[len(parts) :]
    if steps and steps[0]["type"] == "Precompiled":
        spec.precompiled_charsmap = base64.b64decode(steps.pop(0)["precompiled_charsmap"])
    for (spec.add_dummy_prefix, spec.remove_extra_whitespaces), last, pre_tokenizer in _ways_with_spaces():
        if (steps, splits) == (_steps(normalizers.Sequence(last)), _steps(pre_tokenizer)):
            return rules
    wrong = splits if steps in [_steps(normalizers.Sequence(last)) for _, last, _ in _ways_with_spaces()] else steps
    what = ", ".join(json.dumps(step, ensure_ascii=False)[:100] for step in wrong) or "no pre-tokenizer at all"
    raise ValueError(f"no SentencePiece model does this, or at this place: {what}")


def _ways_with_spaces() -> Iterator[
    tuple[tuple[bool, bool], list[normalizers.Normalizer], pre_tokenizers.PreTokenizer]
]:
    """Yield add_dummy_prefix and remove_extra_whitespaces, and with what a pipeline ends and splits to do the same."""
    for add_dummy_prefix, remove_extra_whitespaces in product((True, False), repeat=2):
        choice = add_dummy_prefix, remove_extra_whitespaces
        yield choice, *handle_spaces(*choice)
    always = pre_tokenizers.Metaspace(prepend_scheme="always")
    # transformers' AlbertTokenizer.
    yield (True, True), [], pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), always])
    # What transformers 4 makes of a SentencePiece model: the same but for a space at the end of a text.
    yield (True, True), [normalizers.Replace(Regex(" {2,}"), " ")], always


def _steps(part: Any) -> list[dict[str, Any]]:
    """Return the steps of a normalizer or a pre-tokenizer, as they are written in `tokenizer.json`."""
    tree = {"type": "Sequence"} if part is None else json.loads(part.__getstate__())
    return list(_flat(tree))


def _flat(tree: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if tree["type"] != "Sequence":
        yield tree
    for step in tree.get("normalizers", tree.get("pretokenizers", [])):
        yield from _flat(step)
