"""Any road through the house brings every tensor back, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.formats.lazy_tensors import DTYPES
from albert_hub_bridge.layouts.registry import read_checkpoint, write_checkpoint
from albert_hub_bridge.mapping.heads import HEADS, Head, HeadKind
from albert_hub_bridge.model.architecture import Architecture
from conversion.sample import random_checkpoint, train_vocabulary


LAYOUTS: list[Any] = ["keras", "albert_hub", "transformers"]
VOCABULARY = train_vocabulary()


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    groups, heads = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    return Architecture(
        vocabulary_size=draw(st.integers(200, 300)),
        num_layers=groups * draw(st.integers(1, 3)),
        num_heads=heads,
        embedding_dim=draw(st.integers(1, 9)),
        hidden_dim=heads * draw(st.integers(1, 5)),
        intermediate_dim=draw(st.integers(1, 12)),
        num_groups=groups,
        num_inner_repetitions=draw(st.integers(1, 3)),
        dropout=draw(st.sampled_from([0.0, 0.1, 0.25])),
        max_sequence_length=draw(st.integers(1, 9)),
        num_segments=draw(st.integers(1, 3)),
    )


@st.composite
def heads(draw: st.DrawFn) -> Head | None:
    kind: HeadKind | None = draw(st.sampled_from([None, *HEADS]))
    if kind is None:
        return None
    labels = draw(st.integers(1, 5)) if kind in ("sequence_classification", "token_classification") else 2
    head = Head(kind=kind, num_labels=labels)
    if kind == "sequence_classification":
        names = draw(st.lists(st.text(min_size=1), min_size=labels, max_size=labels, unique=True) | st.none())
        head = replace(
            head,
            labels=None if names is None else tuple(names),
            dropout=draw(st.sampled_from([0.0, 0.1, 0.5])),
            activation=draw(st.sampled_from([None, "softmax", "sigmoid"])),
        )
    return head


def _bits(checkpoint: Checkpoint) -> dict[str, tuple[tuple[int, ...], bytes]]:
    return {name: (weight.shape, weight.read().tobytes()) for name, weight in checkpoint.weights.items()}


def _comparable(head: Head | None) -> Head | None:
    """Return a head without the settings that a layout does not have: an epsilon of its own, and a problem type."""
    if head is None:
        return None
    # A classifier's dropout is nothing that other heads have in KerasHub.
    other = {} if head.kind == "sequence_classification" else {"dropout": 0.1}
    return replace(head, layer_norm_epsilon=1e-5, problem_type=None, **other)


@settings(max_examples=80, deadline=None)
@given(
    architecture=architectures(),
    head=heads(),
    dtype=st.sampled_from(sorted(DTYPES)),
    shards=st.booleans(),
    road=st.lists(st.sampled_from(LAYOUTS), min_size=2, max_size=5),
    seed=st.integers(0, 2**32),
)
def test_conversions_are_bit_identical(
    architecture: Architecture, head: Head | None, dtype: str, shards: bool, road: list[Any], seed: int
) -> None:
    checkpoint = random_checkpoint(architecture, VOCABULARY, dtype, seed, head=head)
    if head is not None and not HEADS[head.kind].keras:
        road = [layout for layout in road if layout != "keras"] or ["albert_hub"]
    expected = _bits(checkpoint)
    shard = max(weight.nbytes for weight in checkpoint.weights.values()) if shards else None  # as small as can be
    with TemporaryDirectory() as parent:
        for step, layout in enumerate(road):
            folder = Path(parent) / str(step)
            folder.mkdir()
            write_checkpoint(checkpoint, folder, layout, max_shard_bytes=shard)
            checkpoint.close()
            checkpoint = read_checkpoint(folder)
            assert checkpoint.layout == layout
            assert checkpoint.architecture == architecture
            assert checkpoint.dtype == dtype
            assert _comparable(checkpoint.head) == _comparable(head)
            assert checkpoint.tokenizer is not None
            assert checkpoint.tokenizer.proto == VOCABULARY
            assert all(tensor.reason == "the optimizer's state" for tensor in checkpoint.dropped)
            assert _bits(checkpoint) == expected
        checkpoint.close()


@settings(max_examples=20, deadline=None)
@given(architecture=architectures(), layout=st.sampled_from(LAYOUTS), between=st.sampled_from(LAYOUTS))
def test_round_trips_give_the_same_files(architecture: Architecture, layout: Any, between: Any) -> None:
    with TemporaryDirectory() as parent:
        folders = [Path(parent) / name for name in ("start", "between", "end")]
        for folder in folders:
            folder.mkdir()
        write_checkpoint(random_checkpoint(architecture, VOCABULARY), folders[0], layout)
        for source, target, to in ((folders[0], folders[1], between), (folders[1], folders[2], layout)):
            with read_checkpoint(source) as checkpoint:
                write_checkpoint(checkpoint, target, to)
        weights = "model.weights.h5" if layout == "keras" else "model.safetensors"
        for name in ("config.json", weights):
            assert (folders[0] / name).read_bytes() == (folders[2] / name).read_bytes(), name
