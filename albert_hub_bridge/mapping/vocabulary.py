"""SentencePiece vocabularies with text normalization compiled into them.

KerasHub runs only the SentencePiece model. So the text normalization of transformers has to become a part of the
model's own normalizer. This is a map from sequences of characters to their replacements, and the longest match comes
first (`precompiled_charsmap`). This module composes text normalization with the map of a vocabulary, and sentencepiece
compiles the result.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto_types

from albert_hub_bridge.mapping.cut_out import begin_words, set_apart
from albert_hub_bridge.model.sentencepiece_unigram import (
    AFTER,
    WHITE_SPACE,
    TextNormalization,
    baked_normalization,
    parse_proto,
    text_normalizer,
)


# AlbertTokenizer splits texts at Unicode's White_Space and at U+2581, the space of pieces. SentencePiece splits only at
# spaces.
_SPLIT_AT = re.compile(f"[{WHITE_SPACE}\u2581]")


@lru_cache(maxsize=8)  # a conversion needs the result twice, and many presets have the same vocabulary
def bake_normalization(proto: bytes, normalization: TextNormalization, cut_out: str = "") -> bytes:
    """Compile text normalization into a vocabulary.

    The result gives the ids that `proto` gives for normalized texts.

    Args:
        proto: A serialized SentencePiece model.
        normalization: The steps that run before the model.
        cut_out: Characters that are cut out of a text first, as in `mapping.cut_out`.

    Returns:
        The same model with another normalizer. It is `proto` itself if the model already has these steps.
    """
    model = parse_proto(proto)
    spec = model.normalizer_spec
    baked = baked_normalization(spec.name)
    if normalization | baked == baked and not cut_out:
        return proto
    normalization |= baked  # steps that are already in the map can run again without an effect
    compiled: Any = proto_types.NormalizerSpec()  # type: ignore[attr-defined]
    sentencepiece.set_min_log_level(2)
    composed = _compose(normalization, _decompile(spec.precompiled_charsmap))
    if cut_out:
        begin_words(model, cut_out)
        composed = set_apart(composed, cut_out)
    compiled.ParseFromString(
        sentencepiece.SentencePieceNormalizer(norm_map=list(composed.items())).serialized_normalizer_spec()
    )
    spec.precompiled_charsmap = compiled.precompiled_charsmap
    if normalization != TextNormalization():
        spec.name = f"{spec.name.partition(AFTER)[0] or 'identity'}{AFTER}{normalization.name}"
    return bytes(model.SerializeToString())


def piece_types(proto: bytes) -> list[str]:
    """Return the type of each piece of a SentencePiece model: `NORMAL`, `USER_DEFINED`, ..."""
    model = parse_proto(proto)
    return [piece.Type.Name(piece.type) for piece in model.pieces]


def same_character_map(charsmap: bytes, other: bytes) -> bool:
    """Return whether two compiled maps of characters are the same map. Versions of sentencepiece compile otherwise."""
    return charsmap == other or _decompile(charsmap) == _decompile(other)


def _decompile(charsmap: bytes) -> dict[str, str]:
    if not charsmap:
        return {}
    spec: Any = proto_types.NormalizerSpec(precompiled_charsmap=charsmap)  # type: ignore[attr-defined]
    return dict(sentencepiece.SentencePieceNormalizer(normalizer_spec=spec).Decompile())


def _compose(normalization: TextNormalization, charsmap: Mapping[str, str]) -> dict[str, str]:
    """Return the map that runs text normalization first, `charsmap` second, and turns white space into spaces last."""
    if normalization.strip_accents:
        # Without accents, the only sequences left are of Hangul letters, typed as such or decomposed by NFKD. The map
        # would compose them, but the pipeline of transformers does not.
        charsmap = {sequence: text for sequence, text in charsmap.items() if len(sequence) == 1}
    longest = max(map(len, charsmap), default=1)
    # Quotes are replaced in the original text. The other steps normalize each character independently.
    normalizer = text_normalizer(replace(normalization, replace_quotes=False))
    normalized = {character: normalizer.normalize_str(character) for character in _characters()}
    composed = {character: _apply(charsmap, text, longest) for character, text in normalized.items()}
    # A sequence of the map also matches all characters that the normalization turns into those of the sequence.
    origins: dict[str, list[str]] = {}
    for character, text in normalized.items():
        origins.setdefault(text, []).append(character)
    for sequence, text in charsmap.items():
        if len(sequence) > 1:
            for original in product(*(origins.get(character, []) for character in sequence)):
                composed["".join(original)] = text
    if normalization.replace_quotes:
        composed |= dict.fromkeys(("``", "''"), _apply(charsmap, normalizer.normalize_str('"'), longest))
    if normalization.split_white_space:
        composed = {sequence: _SPLIT_AT.sub(" ", text) for sequence, text in composed.items()}
    return {sequence: text for sequence, text in composed.items() if len(sequence) > 1 or text != sequence}


def _apply(charsmap: Mapping[str, str], text: str, longest: int) -> str:
    """Apply a map like SentencePiece: from left to right, the longest match first."""
    result, position = "", 0
    while position < len(text):
        for length in range(min(longest, len(text) - position), 0, -1):
            if (part := text[position : position + length]) in charsmap:
                result, position = result + charsmap[part], position + length
                break
        else:
            result, position = result + text[position], position + 1
    return result


def _characters() -> Iterator[str]:
    """Yield all characters that normalization or a map can change."""
    for code in range(1, 0x20000):
        ideograph = 0x3400 <= code < 0xA000  # not cased, accented or composed
        if not ideograph and unicodedata.category(chr(code)) not in ("Cs", "Co"):
            yield chr(code)
    yield from map(chr, (*range(0x2F800, 0x2FA20), *range(0xE0000, 0xE0200)))  # compatibility ideographs; tags
