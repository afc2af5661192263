"""SentencePiece models in files: of a size that the model they belong to can have, before anything parses them."""

from __future__ import annotations

from pathlib import Path

from albert_hub_bridge.disk.regular_files import read_bytes
from albert_hub_bridge.errors import Problem, VocabularyError
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.model.sentencepiece_unigram import Vocabulary, parse_vocabulary


# Bytes of pieces with their scores, of which real ones have some 20 each: the tokenizers library makes a tree of them
# that takes 300 for each. And of all that is not a piece, of which the map of characters, with the rules of
# `mapping.vocabulary` in it, is the largest.
_A_PIECE, _LONG_PIECES, _ALL_ELSE = 48, 1 << 16, 4 << 20
_MOST_BYTES = 16 << 20  # with 250,000 pieces it has some 5 MB


def read_vocabulary(file: Path, architecture: Architecture) -> tuple[bytes, Vocabulary]:
    """Read a SentencePiece model that has to fit an architecture, and parse it.

    Raises:
        FileError: It is not a regular file, or larger than the architecture or any vocabulary is, or empty.
        VocabularyError: As `fitting_vocabulary`.
    """
    most = _LONG_PIECES + _A_PIECE * architecture.vocabulary_size
    proto = read_bytes(file, min(_MOST_BYTES, _ALL_ELSE + most))
    return proto, fitting_vocabulary(file, proto, architecture)


def fitting_vocabulary(file: Path, proto: bytes, architecture: Architecture) -> Vocabulary:
    """Parse a SentencePiece model that was read from a file, and that has to fit an architecture.

    Raises:
        VocabularyError: It is not a unigram model with ALBERT's special pieces, or has more pieces than the token
            embedding has rows.
    """
    rows = architecture.vocabulary_size
    try:
        pieces, other = _measure(proto, rows)
        if pieces > rows:
            detail = f"expected at most {rows} pieces, as the token embedding has rows, found {pieces} or more"
            raise VocabularyError(file, "vocabulary", [Problem("too large", file.name, detail)])
        if other > _ALL_ELSE:
            detail = f"expected at most {_ALL_ELSE:,} bytes beside the pieces, found {other:,}"
            raise VocabularyError(file, "vocabulary", [Problem("too large", file.name, detail)])
        if (size := len(proto) - other) > (most := _LONG_PIECES + _A_PIECE * rows):
            detail = f"expected at most {most:,} bytes of pieces, found {size:,}"
            raise VocabularyError(file, "vocabulary", [Problem("too large", file.name, detail)])
        return parse_vocabulary(proto)
    except ValueError as error:
        detail = f"expected a unigram model with ALBERT's special pieces, found: {error}"
        raise VocabularyError(file, "vocabulary", [Problem("unusable", file.name, detail)]) from error


def _measure(proto: bytes, rows: int) -> tuple[int, int]:
    """Return the number of pieces of a serialized model, and the bytes of all else, without parsing it.

    It counts no further where either is too much.

    Source:
        https://protobuf.dev/programming-guides/encoding/; `pieces` is the first field of sentencepiece_model.proto.
    """
    position, pieces, other = 0, 0, 0
    try:
        while position < len(proto) and pieces <= rows and other <= _ALL_ELSE:
            start = position
            tag, position = _varint(proto, position)
            if tag & 7 == 0:
                _, position = _varint(proto, position)
            elif tag & 7 == 1:
                position += 8
            elif tag & 7 == 2:
                length, position = _varint(proto, position)
                position += length
            elif tag & 7 == 5:
                position += 4
            else:
                raise ValueError(f"not a SentencePiece model: a field of kind {tag & 7}")
            if tag == 0x0A:
                pieces += 1
            else:
                other += position - start
    except IndexError as error:
        raise ValueError("not a SentencePiece model: it ends within a number") from error
    if position > len(proto):
        raise ValueError(f"not a SentencePiece model, or truncated at {len(proto):,} of {position:,} bytes or more")
    return pieces, other


def _varint(proto: bytes, position: int) -> tuple[int, int]:
    byte = proto[position]
    if byte < 0x80:
        return byte, position + 1
    value, shift = byte & 0x7F, 7
    while byte >= 0x80:
        position += 1
        byte = proto[position]
        value |= (byte & 0x7F) << shift
        shift += 7
        if shift > 70:
            raise ValueError("not a SentencePiece model: a number of more than 64 bits")
    return value, position + 1
