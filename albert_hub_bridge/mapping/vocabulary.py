"""SentencePiece vocabularies with text rules in them, where KerasHub finds them, and from a `tokenizer.json`.

KerasHub knows a SentencePiece model and nothing else, so what transformers does to a text before the vocabulary has to
go into the model's own normalizer: a map from sequences of characters to their replacement, applied longest match
first (`precompiled_charsmap`). This module works out that map for a set of rules followed by the map that is there,
and lets sentencepiece compile it.
"""

from __future__ import annotations

import base64
import binascii
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto_types

from albert_hub_bridge.model.sentencepiece_unigram import AFTER, SPECIAL_PIECES, TextRules, rule_normalizer


# transformers' AlbertTokenizer splits a text at all of Unicode's White_Space, and at the sign that stands for a space
# in pieces; SentencePiece knows only the space.
_WHITE_SPACE = frozenset(
    "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000\u2581" + "".join(map(chr, range(0x2000, 0x200B)))
)


def bake_rules(proto: bytes, rules: TextRules) -> bytes:
    """Put text rules into a vocabulary: what comes out gives, without rules, the ids that `proto` gave with them.

    Args:
        proto: A serialized SentencePiece model.
        rules: What happens to a text before it.

    Returns:
        The same model with another normalizer; `proto` itself where there are no rules.
    """
    if rules == TextRules():
        return proto
    model: Any = proto_types.ModelProto()  # type: ignore[attr-defined]
    model.ParseFromString(proto)
    spec = model.normalizer_spec
    compiled: Any = proto_types.NormalizerSpec()  # type: ignore[attr-defined]
    sentencepiece.set_min_log_level(2)
    with_rules = _with_rules(_decompile(spec.precompiled_charsmap), rules)
    compiled.ParseFromString(
        sentencepiece.SentencePieceNormalizer(norm_map=list(with_rules.items())).serialized_normalizer_spec()
    )
    spec.precompiled_charsmap = compiled.precompiled_charsmap
    spec.name = f"{spec.name or 'identity'}{AFTER}{rules.name}"
    return bytes(model.SerializeToString())


def _decompile(charsmap: bytes) -> dict[str, str]:
    if not charsmap:
        return {}
    spec: Any = proto_types.NormalizerSpec(precompiled_charsmap=charsmap)  # type: ignore[attr-defined]
    return dict(sentencepiece.SentencePieceNormalizer(normalizer_spec=spec).Decompile())


def _with_rules(before: Mapping[str, str], rules: TextRules) -> dict[str, str]:
    """Compose: rules first, then the map that was there."""
    if rules.strip_accents:
        # What is left of sequences without accents is Hangul, typed in parts or decomposed by NFKD. The map would
        # compose it, and transformers' pipeline never does.
        before = {sequence: text for sequence, text in before.items() if len(sequence) == 1}
    longest = max(map(len, before), default=1)
    # Quotes are replaced in the text as it was typed; the other rules then work on each character alone.
    alone = rule_normalizer(replace(rules, replace_quotes=False))
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


def proto_from_tokenizer(content: Mapping[str, Any]) -> tuple[bytes, TextRules]:
    """Turn a `tokenizer.json` back into a SentencePiece model, which transformers 5 no longer saves beside it.

    Args:
        content: The parsed file: a unigram model with ALBERT's special pieces.

    Returns:
        The serialized model, and the text rules that the file applies before it.

    Raises:
        ValueError: The file is not a unigram tokenizer, or has a normalizer that no SentencePiece model has.
    """
    try:
        if (kind := content["model"]["type"]) != "Unigram":
            raise ValueError(f"expected a Unigram model, found {kind}")
        pieces, unk_id = content["model"]["vocab"], content["model"]["unk_id"]
        charsmap, rules = _read_normalizers(content.get("normalizer"))
        model: Any = proto_types.ModelProto()  # type: ignore[attr-defined]
        for index, (piece, score) in enumerate(pieces):
            model.pieces.add(piece=piece, score=score, type=_piece_type(index, piece, score, unk_id))
    except (KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise ValueError(f"not the tokenizer.json of a unigram model: {error!r}") from error
    model.trainer_spec.model_type = model.trainer_spec.UNIGRAM
    model.trainer_spec.vocab_size = len(pieces)
    model.trainer_spec.unk_id = unk_id
    model.trainer_spec.bos_id = model.trainer_spec.eos_id = -1
    model.normalizer_spec.name = "tokenizer.json"
    model.normalizer_spec.precompiled_charsmap = charsmap
    return bytes(model.SerializeToString()), rules


def _piece_type(index: int, piece: str, score: float, unk_id: int) -> Any:
    types = proto_types.ModelProto.SentencePiece  # type: ignore[attr-defined]
    if index == unk_id:
        return types.UNKNOWN
    if piece in SPECIAL_PIECES.values():
        return types.CONTROL
    # A trained score is the logarithm of a probability and below zero; only what a user defined has none.
    return types.USER_DEFINED if score == 0.0 else types.NORMAL


def _read_normalizers(tree: Mapping[str, Any] | None) -> tuple[bytes, TextRules]:
    """Tell text rules from a vocabulary's own normalization in a pipeline of `tokenizers`."""
    charsmap, found = b"", set()
    for step in [] if tree is None else tree["normalizers"] if tree["type"] == "Sequence" else [tree]:
        if step["type"] == "Sequence":
            _, nested = _read_normalizers(step)
            found |= {name for name in ("replace_quotes", "strip_accents", "lower_case") if getattr(nested, name)}
        elif step["type"] == "Precompiled":
            charsmap = base64.b64decode(step["precompiled_charsmap"], validate=True)
        elif step["type"] == "Replace" and step["content"] == '"':
            found.add("replace_quotes")
        elif step["type"] in ("NFKD", "StripAccents"):
            found.add("strip_accents")
        elif step["type"] == "Lowercase":
            found.add("lower_case")
        elif step["type"] not in ("Replace", "Strip") or step.get("content", " ").strip():
            raise ValueError(f"no SentencePiece model normalizes with {step['type']}")
    return charsmap, TextRules(**dict.fromkeys(found, True))
