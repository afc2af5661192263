"""Untrusted SentencePiece models: their size is checked against the architecture before they are parsed.

sentencepiece and the tokenizers library take many times the memory of a file, so a count of its pieces comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from albert_hub_bridge.disk.regular_files import read_bytes
from albert_hub_bridge.errors import Problem, VocabularyError
from albert_hub_bridge.formats.varint import read_varint
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.model.sentencepiece_unigram import Vocabulary, parse_proto, parse_vocabulary


# Pieces with their scores have some 20 bytes each; the tokenizers library makes a tree of them with 300 for each.
_PIECE_BYTES, _EXTRA_PIECE_BYTES = 48, 1 << 16
# Of everything else, the map of characters is the largest; the rules of `mapping.vocabulary` are in it.
_MAX_OTHER_BYTES = 4 << 20
_MAX_BYTES = 16 << 20  # a model of 250,000 pieces has some 5 MB

# Types of protobuf's fields.
_VARINT, _LENGTH, _FIXED_BYTES = 0, 2, {1: 8, 5: 4}
_PIECE_TAG = 1 << 3 | _LENGTH  # `pieces` is the first field


def read_vocabulary(
    file: Path, architecture: Architecture, read: Callable[[int], bytes] | None = None
) -> tuple[bytes, Vocabulary]:
    """Read and parse a SentencePiece model that has to fit an architecture.

    Args:
        file: The file.
        architecture: Its token embedding has a row for each piece.
        read: What reads the file, up to a number of bytes, if not this function.

    Returns:
        The content of the file, and the vocabulary.

    Raises:
        FileError: It is not a regular file, or is larger than the architecture or any vocabulary allows, or is empty.
        VocabularyError: As `fitting_vocabulary`.
    """
    max_bytes = min(_MAX_BYTES, _MAX_OTHER_BYTES + max_piece_bytes(architecture))
    proto = read(max_bytes) if read is not None else read_bytes(file, max_bytes)
    return proto, fitting_vocabulary(file, proto, architecture)


def fitting_vocabulary(file: Path, proto: bytes, architecture: Architecture) -> Vocabulary:
    """Parse a SentencePiece model that has to fit an architecture.

    Args:
        file: Named in messages.
        proto: Content of the file.
        architecture: Its token embedding has a row for each piece.

    Raises:
        VocabularyError: It is not a unigram model with ALBERT's special pieces, or has more pieces than the token
            embedding has rows.
    """
    try:
        _check_size(file, proto, architecture)
        return parse_vocabulary(proto)
    except ValueError as error:
        detail = f"expected a unigram model with ALBERT's special pieces, found: {error}"
        raise VocabularyError(file, "vocabulary", [Problem("unusable", file.name, detail)]) from error


def read_pieces(file: Path, proto: bytes, architecture: Architecture) -> list[str]:
    """Return the pieces of any SentencePiece model, which need not be ALBERT's.

    Args:
        file: Named in messages.
        proto: Content of the file.
        architecture: Its token embedding has a row for each piece.

    Raises:
        VocabularyError: It is not a SentencePiece model, or has more pieces than the token embedding has rows.
    """
    try:
        _check_size(file, proto, architecture)
        model = parse_proto(proto)
    except ValueError as error:
        detail = f"expected a SentencePiece model, found: {error}"
        raise VocabularyError(file, "vocabulary", [Problem("unusable", file.name, detail)]) from error
    return [str(piece.piece) for piece in model.pieces]


def _check_size(file: Path, proto: bytes, architecture: Architecture) -> None:
    rows = architecture.vocabulary_size
    pieces, other = _measure(proto, rows)
    detail = ""
    if pieces > rows:
        detail = f"expected at most {rows} pieces, the rows of the token embedding, found {pieces} or more"
    elif other > _MAX_OTHER_BYTES:
        detail = f"expected at most {_MAX_OTHER_BYTES:,} bytes other than pieces, found {other:,}"
    elif (size := len(proto) - other) > (max_bytes := max_piece_bytes(architecture)):
        detail = f"expected at most {max_bytes:,} bytes of pieces, found {size:,}"
    if detail:
        raise VocabularyError(file, "vocabulary", [Problem("too large", file.name, detail)])


def max_piece_bytes(architecture: Architecture) -> int:
    """Return the largest size of all pieces of a vocabulary that fits an architecture, in bytes."""
    return _EXTRA_PIECE_BYTES + _PIECE_BYTES * architecture.vocabulary_size


def _measure(proto: bytes, rows: int) -> tuple[int, int]:
    """Return the number of pieces of a serialized model, and the bytes of everything else, without parsing it.

    Counting ends when either is too large.

    Source:
        https://protobuf.dev/programming-guides/encoding/; `pieces` is the first field of sentencepiece_model.proto.
    """
    position, pieces, other = 0, 0, 0
    while position < len(proto) and pieces <= rows and other <= _MAX_OTHER_BYTES:
        start = position
        tag, position = read_varint(proto, position)
        kind = tag & 7
        if kind == _VARINT:
            _, position = read_varint(proto, position)
        elif kind == _LENGTH:
            length, position = read_varint(proto, position)
            position += length
        elif kind in _FIXED_BYTES:
            position += _FIXED_BYTES[kind]
        else:
            raise ValueError(f"not a SentencePiece model: a field of type {kind}")
        if tag == _PIECE_TAG:
            pieces += 1
        else:
            other += position - start
    if position > len(proto):
        raise ValueError(f"not a SentencePiece model, or truncated at {len(proto):,} of {position:,} bytes or more")
    return pieces, other
