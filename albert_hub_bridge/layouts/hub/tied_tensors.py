"""Tensors that old versions of transformers saved twice: the masked LM's decoder is tied to the token embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from albert_hub_bridge.checkpoint import BUFFER, COPY, DroppedTensor
from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.formats.lazy_tensors import LazyTensor, TiedPair
from albert_hub_bridge.layouts.hub.files import CONFIG
from albert_hub_bridge.layouts.hub.spelling import Spelling
from albert_hub_bridge.mapping.heads import Head


_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")


def drop_copies(
    tensors: Mapping[str, LazyTensor], spelling: Spelling, prefix: str
) -> tuple[dict[str, LazyTensor], list[DroppedTensor], list[TiedPair]]:
    """Leave out buffers, and the masked LM's decoder, which transformers ties and old versions saved too.

    Returns:
        The other tensors, the dropped ones, and the pairs that must have the same values.
    """
    kept, dropped, tied_pairs = dict(tensors), [], []
    for leaf, tied in spelling.tied.items():
        copy, original = spelling.decoder + leaf, prefix + tied if leaf == "weight" else tied
        if copy in kept and original in kept:
            detail = f"expected the values of {original}, found others: an untied masked LM is not converted"
            tied_pairs.append(TiedPair(Problem("not tied", copy, detail), kept[copy], kept[original]))
            shape = kept.pop(copy).shape
            if leaf == "weight":  # the second name of the bias is in all files that this package writes
                dropped.append(DroppedTensor(copy, shape, f"{COPY}{original}"))
        elif copy.endswith("bias") and copy in kept:  # the oldest writers had only this one
            kept[original] = kept.pop(copy)
    if spelling.dialect == "albert":
        for name in [name for name in kept if name.removeprefix(prefix) in _BUFFERS]:
            dropped.append(DroppedTensor(name, kept.pop(name).shape, BUFFER))
    return kept, dropped, tied_pairs


def check_decoder(file: Path, head: Head, spelling: Spelling, dropped: Sequence[DroppedTensor]) -> None:
    """Refuse a masked LM that is not tied and has no decoder. transformers would give it random numbers."""
    decoder = f"{spelling.decoder}weight"
    if head.kind in ("masked_lm", "pretraining") and decoder not in [tensor.name for tensor in dropped]:
        problem = Problem("missing", decoder, f"expected, because {CONFIG} says that nothing is tied; found none")
        raise WeightsError(file, "weights", [problem])
