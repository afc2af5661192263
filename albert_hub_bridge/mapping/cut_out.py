"""Characters that a tokenizer cuts out of a text first, in a SentencePiece model.

transformers 5 makes added tokens of the user-defined pieces of ALBERT's vocabulary, such as `(` and `.`. Its tokenizer
cuts them out of a text, and begins a word after each: `3.0` is `▁3` `.` `▁0`, where SentencePiece gives `▁3` `.` `0`. A
SentencePiece model does the same if its map of characters sets them apart by spaces, and its pieces have that space:
`▁3` `▁.` `▁0`. The ids are those of transformers.

A character that only becomes one of them by normalization, such as a quote of two apostrophes or a full-width bracket,
is not cut out by transformers. Here it is too, because a piece has one id. On 20,000 lines of documentation, this
changes the ids of 594 of 596 lines with such quotes, and of 11 of the other 19,401.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albert_hub_bridge.mapping.tokenizer_json import added_tokens
from albert_hub_bridge.model.sentencepiece_unigram import SPECIAL_PIECES, Vocabulary


SPACE = "▁"  # of pieces
_CHANGE_MATCHES = ("lstrip", "rstrip", "single_word", "special")


def characters_apart(content: Mapping[str, Any], vocabulary: Vocabulary) -> str:
    """Return the characters that a `tokenizer.json` cuts out of a text, if a SentencePiece model can hold that.

    Args:
        content: The file, which is valid. Each added token of it has the id of its piece.
        vocabulary: Its pieces.

    Returns:
        The characters; empty if an added token is anything else, or the model does not handle spaces as ALBERT does.
    """
    pieces = {piece for piece, _ in vocabulary.pieces}
    rows = [row for row in content.get("added_tokens") or () if row["content"] not in SPECIAL_PIECES.values()]
    characters = added_tokens(content)
    fits = all(
        len(character) == 1 and not character.isspace() and character != SPACE and SPACE + character not in pieces
        for character in characters
    )
    plain = not any(row.get(key) for row in rows for key in _CHANGE_MATCHES)
    spaces = vocabulary.add_dummy_prefix and vocabulary.remove_extra_whitespaces
    return "".join(characters) if fits and plain and spaces else ""


def holds(vocabulary: Vocabulary, characters: str) -> bool:
    """Return whether `begin_words` changed the pieces of a vocabulary for these characters, of which there are some."""
    pieces = {piece for piece, _ in vocabulary.pieces}
    return bool(characters) and pieces >= {SPACE + character for character in characters}


def in_another_way(text: str, characters: str, vocabulary: Vocabulary) -> bool:
    """Return whether a text has one of these characters in another spelling, which only normalization turns into it.

    Args:
        text: The text.
        characters: The characters that are cut out of a text.
        vocabulary: One that `holds` them.
    """
    normalized = vocabulary.processor.normalize(text)
    return any(normalized.count(character) != text.count(character) for character in characters)


def begin_words(model: Any, characters: str) -> None:
    """Change the pieces of a SentencePiece model, a `ModelProto`: each of some characters has a space before it."""
    for piece in model.pieces:
        if piece.piece in characters and len(piece.piece) == 1:
            piece.piece, piece.score, piece.type = SPACE + piece.piece, 0.0, piece.USER_DEFINED


def set_apart(composed: Mapping[str, str], characters: str) -> dict[str, str]:
    """Return a map of characters that puts a space before and after each of some characters."""
    apart = {character: f" {character} " for character in characters}
    table = str.maketrans(apart)
    return {**{sequence: text.translate(table) for sequence, text in composed.items()}, **apart}
