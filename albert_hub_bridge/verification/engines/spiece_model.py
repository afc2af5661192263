"""transformers' tokenizer of a repository that has `spiece.model` and no `tokenizer.json`.

What transformers makes of such a repository depends on its version. Version 4's slow tokenizer has ALBERT's rule for
numbers with a comma, as Google's code has. Version 5 reads the scores as they are, and cuts user-defined pieces out of
a text first. The model was trained with ALBERT's rules, so these are the source.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from albert_hub_bridge.checkpoint import Checkpoint, TokenizerSpec
from albert_hub_bridge.choices import TRANSFORMERS_LAYOUTS
from albert_hub_bridge.disk.regular_files import read_bytes
from albert_hub_bridge.layouts.hub.files import TOKENIZER, VOCABULARY
from albert_hub_bridge.layouts.hub.tokenizer_files import MAX_TOKENIZER_BYTES
from albert_hub_bridge.mapping.number_commas import splits_number_commas
from albert_hub_bridge.model.sentencepiece_unigram import parse_proto
from albert_hub_bridge.text import first_few


def spiece_model_alone(checkpoint: Checkpoint) -> TokenizerSpec | None:
    """Return the tokenizer of a repository for transformers without `tokenizer.json`; None for all others."""
    if checkpoint.layout not in TRANSFORMERS_LAYOUTS or checkpoint.tokenizer_files is not None:
        return None
    if (checkpoint.folder / TOKENIZER).is_file():  # what is more than a SentencePiece model was left out
        return None
    return checkpoint.tokenizer


def tokenizer_with_albert_rules(tokenizer: TokenizerSpec) -> Any:
    """Return transformers' AlbertTokenizer with the scores of a tokenizer, as it would read a `tokenizer.json`."""
    from transformers import AlbertTokenizer

    vocabulary = tokenizer.vocabulary
    arguments = {"_spm_precompiled_charsmap": vocabulary.charsmap or None, **_arguments_of_albert(tokenizer)}
    return AlbertTokenizer(vocab=list(vocabulary.pieces), **arguments)


def note_on_spiece_model(checkpoint: Checkpoint, texts: Sequence[str]) -> str | None:
    """Return a note on how many texts have other ids if transformers reads `spiece.model` itself.

    Args:
        checkpoint: A checkpoint of any layout.
        texts: The texts.

    Returns:
        The note; None if no text has other ids, or if there is a `tokenizer.json`.
    """
    if (tokenizer := spiece_model_alone(checkpoint)) is None:
        return None
    import transformers

    proto = read_bytes(checkpoint.folder / VOCABULARY, MAX_TOKENIZER_BYTES)
    ours = _encode(tokenizer_with_albert_rules(tokenizer), texts)
    with TemporaryDirectory() as folder:  # transformers would also read other files of the repository
        (Path(folder) / VOCABULARY).write_bytes(proto)
        theirs = transformers.AlbertTokenizer.from_pretrained(folder, **_arguments_of_albert(tokenizer))
    changed = sum(ids != others for ids, others in zip(ours, _encode(theirs, texts), strict=True))
    if not changed:
        return None
    return (
        f"The repository has no {TOKENIZER}. Its ids are those of ALBERT's rules, as in Google's code and in the slow "
        f"tokenizer of transformers 4. transformers {transformers.__version__} {' and '.join(_causes(tokenizer))}: "
        f"{changed} of {len(texts)} texts have other ids there."
    )


def _arguments_of_albert(tokenizer: TokenizerSpec) -> dict[str, Any]:
    normalization = tokenizer.normalization
    return {
        "do_lower_case": normalization.lower_case,
        "keep_accents": not normalization.strip_accents,
        "padding_side": tokenizer.padding_side,
        "truncation_side": tokenizer.truncation_side,
    }


def _encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    rows = tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [list(row) for row in rows]


def _causes(tokenizer: TokenizerSpec) -> Iterator[str]:
    if splits_number_commas(tokenizer.vocabulary.pieces):
        yield "does not split numbers from commas"
    pieces = parse_proto(tokenizer.proto).pieces
    if cut_out := [piece.piece for piece in pieces if piece.type == piece.USER_DEFINED]:
        yield f"cuts {first_few(cut_out, 5)} out of a text first"
