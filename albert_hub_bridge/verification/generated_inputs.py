"""Generated inputs for the checks: every length that matters, every kind of padding, mixed segments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


LENGTHS = (1, 2, 8, 128, 257, 512)
SEEDS = 3
SHORT = 8  # Up to this length, each seed is combined with each kind of padding.
# Longer inputs take most of the time: minutes, in a model of 200 million parameters. So each kind of padding has one
# row. Beyond 128, there is one row with an odd length and no mask, and one with all positions and the hardest mask.
_LONG_ROWS = {257: ("no padding",), 512: ("holes",)}
_OTHER_ROWS = ("right padding", "left padding", "holes")


class Probe(NamedTuple):
    """A batch of random inputs of one length."""

    inputs: dict[str, np.ndarray]  # token_ids, segment_ids and padding_mask, each (batch, seq)
    rows: tuple[str, ...]  # a description of each row, for messages
    length: int


class _Row(NamedTuple):
    kind: str  # of padding
    seed: int
    mask: np.ndarray  # (seq,), 1 for tokens and 0 for padding
    random: np.random.Generator


def generate_probes(vocabulary_size: int, num_segments: int, max_length: int) -> Iterator[Probe]:
    """Yield batches of random ids and segments, of each length in `LENGTHS`.

    Up to length 8, there are three seeds, each with no padding, and with padding on the right, on the left and in
    holes. Beyond that, see `_LONG_ROWS`.

    Args:
        vocabulary_size: Number of token ids.
        num_segments: Number of segment ids.
        max_length: The largest length: the number of positions. It replaces each length above it.
    """
    for length in sorted({min(length, max_length) for length in LENGTHS}):
        rows = []
        for seed in range(SEEDS if length <= SHORT else 1):
            random = np.random.default_rng((seed, length))
            masks = {"no padding": np.ones(length, np.int32), **padding_masks(length, random)}
            wanted = masks if length <= SHORT else _LONG_ROWS.get(length, _OTHER_ROWS)
            rows += [_Row(kind, seed, masks[kind], random) for kind in wanted]
        # A batch without padding needs no mask, and libraries compute it differently.
        for batch in ([row for row in rows if row.mask.all()], [row for row in rows if not row.mask.all()]):
            if batch:
                yield _probe(vocabulary_size, num_segments, batch)


def probe_of_every_padding(vocabulary_size: int, num_segments: int, length: int) -> Probe:
    """Return one batch with every kind of padding that is possible for a length. The last row is all padding."""
    random = np.random.default_rng((SEEDS, length))
    masks = {"no padding": np.ones(length, np.int32), **padding_masks(length, random)}
    masks["all padding"] = np.zeros(length, np.int32)
    rows = [_Row(kind, SEEDS, mask, random) for kind, mask in masks.items()]
    return _probe(vocabulary_size, num_segments, rows)


def padding_masks(length: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a mask, (length,), 1 for tokens and 0 for padding, for each kind of padding that is possible."""
    if length < 2:
        return {}
    cut = int(random.integers(1, length))
    positions = np.arange(length)
    masks = {"right padding": positions < cut, "left padding": positions >= cut}
    if length > 2:
        holes = random.random(length) < 0.7
        holes[[0, -1]], holes[random.integers(1, length - 1)] = True, False
        masks["holes"] = holes
    return {kind: mask.astype(np.int32) for kind, mask in masks.items()}


def _probe(vocabulary_size: int, num_segments: int, rows: list[_Row]) -> Probe:
    masks = np.stack([row.mask for row in rows])
    length = masks.shape[1]
    ids, segments = (
        np.stack([row.random.integers(0, size, length, np.int32) for row in rows])
        for size in (vocabulary_size, num_segments)
    )
    inputs = {"token_ids": ids, "segment_ids": segments, "padding_mask": masks}
    return Probe(inputs, tuple(f"length {length}, {row.kind}, seed {row.seed}" for row in rows), length)
