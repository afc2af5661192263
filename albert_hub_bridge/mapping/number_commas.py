"""ALBERT's rule for numbers with a comma: the text `1984,` becomes `▁1984` and `,`, and never the piece `▁1984,`.

Google's `encode_pieces` and transformers' slow tokenizer split such a piece after SentencePiece. transformers' fast
tokenizer lowers the scores of these pieces by 100 instead, so that no text becomes them. KerasHub runs nothing but the
SentencePiece model. So the scores are the one form of the rule that every layout can hold: a `TokenizerSpec` has the
rule if the scores of its model are lowered.

Source:
    https://github.com/google-research/albert/blob/master/tokenization.py;
    transformers/convert_slow_tokenizer.py (`AlbertConverter`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from albert_hub_bridge.model.sentencepiece_unigram import parse_proto


_LOWERED_BY = 100.0


def is_number_comma(piece: str) -> bool:
    """Return whether a piece ends with a digit and a comma."""
    return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()


def splits_number_commas(pieces: Iterable[tuple[str, float]]) -> bool | None:
    """Return whether the scores of a vocabulary have the rule.

    Args:
        pieces: The pieces and their scores.

    Returns:
        Whether all pieces that are numbers with a comma have lowered scores; None if there are no such pieces.
    """
    numbers: list[float] = []
    others: list[float] = []
    for piece, score in pieces:
        (numbers if is_number_comma(piece) else others).append(score)
    if not numbers:
        return None
    # Scores are logarithms of probabilities. The lowest score of a trained piece is about -20.
    return max(numbers) < min(others, default=0.0) - _LOWERED_BY / 2


def split_number_commas(proto: bytes) -> bytes:
    """Lower the scores of a SentencePiece model's numbers with a comma.

    Args:
        proto: The serialized model.

    Returns:
        The model with the rule. It is `proto` itself if it has the rule already, or no such pieces.
    """
    model = parse_proto(proto)
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    if splits_number_commas(pieces) is not False:
        return proto
    return with_scores(proto, [score - _LOWERED_BY * is_number_comma(piece) for piece, score in pieces])


def with_scores(proto: bytes, scores: Sequence[float]) -> bytes:
    """Return a SentencePiece model with other scores.

    Args:
        proto: The serialized model.
        scores: The score of each piece. They are rounded to float32.

    Returns:
        The model. It is `proto` itself if it has these scores.

    Raises:
        ValueError: A score is too large.
    """
    model = parse_proto(proto)
    before = [piece.score for piece in model.pieces]
    try:
        for piece, score in zip(model.pieces, scores, strict=True):
            piece.score = score
    except (TypeError, OverflowError) as error:
        raise ValueError(f"a score that is no number of float32: {error}") from error
    if [piece.score for piece in model.pieces] == before:
        return proto
    return bytes(model.SerializeToString())
