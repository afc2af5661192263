"""Inputs that tell models apart, made up: every length that matters, every kind of padding, segments mixed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


LENGTHS = (1, 2, 8, 128, 511, 512)
SEEDS = 3
SHORT = 8  # up to this length every seed meets every padding


class Probe(NamedTuple):
    """A batch of inputs of one length."""

    inputs: dict[str, np.ndarray]  # KerasHub's three, each (rows, length)
    rows: tuple[str, ...]  # what each row is
    length: int


def probes(vocabulary_size: int, num_segments: int, longest: int) -> Iterator[Probe]:
    """Yield batches of random ids and segments of the lengths 1, 2, 8, 128, 511 and 512.

    Every length meets padding on the right, on the left and in holes, and three seeds. Up to length 8 every seed meets
    all of them, and no padding; beyond that, which costs minutes otherwise, each seed has one of the three in turn.

    Args:
        vocabulary_size: Number of ids.
        num_segments: Number of segments.
        longest: Length instead of all that are longer, as the position embedding has rows.
    """
    for length in sorted({min(length, longest) for length in LENGTHS}):
        whole, padded = [], []
        for seed in range(SEEDS):
            random = np.random.default_rng((seed, length))
            kinds = padding_masks(length, random)
            if length > SHORT:
                kinds = dict([list(kinds.items())[seed % len(kinds)]])
            else:
                whole.append(("no padding", seed, np.ones(length, np.int32), random))
            padded += [(kind, seed, mask, random) for kind, mask in kinds.items()]
        for rows in (whole, padded):  # apart, because a batch without padding needs no mask
            if rows:
                names = tuple(f"length {length}, {kind}, seed {seed}" for kind, seed, *_ in rows)
                yield Probe(_inputs(vocabulary_size, num_segments, rows), names, length)


def every_padding(vocabulary_size: int, num_segments: int, length: int) -> Probe:
    """Return one batch with every kind of padding that a length has room for; the last row is all padding."""
    random = np.random.default_rng((SEEDS, length))
    masks = {"no padding": np.ones(length, np.int32), **padding_masks(length, random)}
    masks["all padding"] = np.zeros(length, np.int32)
    rows = [(kind, SEEDS, mask, random) for kind, mask in masks.items()]
    names = tuple(f"length {length}, {kind}, seed {SEEDS}" for kind in masks)
    return Probe(_inputs(vocabulary_size, num_segments, rows), names, length)


def padding_masks(length: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a padding mask, (length,), for each kind of padding that a length has room for."""
    if length < 2:
        return {}
    cut = int(random.integers(1, length))
    places = np.arange(length)
    masks = {"right padding": places < cut, "left padding": places >= cut}
    if length > 2:
        holes = random.random(length) < 0.7
        holes[[0, -1]], holes[random.integers(1, length - 1)] = True, False
        masks["holes"] = holes
    return {kind: mask.astype(np.int32) for kind, mask in masks.items()}


def _inputs(
    vocabulary_size: int, num_segments: int, rows: list[tuple[str, int, np.ndarray, np.random.Generator]]
) -> dict[str, np.ndarray]:
    masks = np.stack([mask for _, _, mask, _ in rows])
    ids, segments = (
        np.stack([random.integers(0, size, masks.shape[1], np.int32) for *_, random in rows])
        for size in (vocabulary_size, num_segments)
    )
    return {"token_ids": ids, "segment_ids": segments, "padding_mask": masks}
