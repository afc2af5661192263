"""Any road through the house brings every tensor back, bit for bit."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.stores.checkpoint import DTYPES, Checkpoint
from albert_hub_bridge.stores.layouts import detect_layout, read_checkpoint, write_checkpoint
from conversion.sample import random_checkpoint, train_vocabulary


LAYOUTS: list[Any] = ["keras", "bridge", "stock"]
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


def _bits(checkpoint: Checkpoint) -> dict[str, tuple[tuple[int, ...], bytes]]:
    return {name: (weight.shape, weight.read().tobytes()) for name, weight in checkpoint.weights.items()}


@settings(max_examples=60, deadline=None)
@given(
    architecture=architectures(),
    dtype=st.sampled_from(sorted(DTYPES)),
    road=st.lists(st.sampled_from(LAYOUTS), min_size=2, max_size=5),
    seed=st.integers(0, 2**32),
)
def test_every_road_is_bit_identical(architecture: Architecture, dtype: str, road: list[Any], seed: int) -> None:
    checkpoint = random_checkpoint(architecture, VOCABULARY, dtype, seed)
    expected = _bits(checkpoint)
    with TemporaryDirectory() as parent:
        for step, layout in enumerate(road):
            folder = Path(parent) / str(step)
            folder.mkdir()
            write_checkpoint(checkpoint, folder, layout)
            checkpoint.close()
            assert detect_layout(folder) == layout
            checkpoint = read_checkpoint(folder)
            assert checkpoint.architecture == architecture
            assert checkpoint.dtype == dtype
            assert checkpoint.text is not None
            assert checkpoint.text.proto == VOCABULARY
            assert not checkpoint.dropped
            assert _bits(checkpoint) == expected
        checkpoint.close()


@settings(max_examples=20, deadline=None)
@given(architecture=architectures(), layout=st.sampled_from(LAYOUTS), between=st.sampled_from(LAYOUTS))
def test_there_and_back_gives_the_same_files(architecture: Architecture, layout: Any, between: Any) -> None:
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
