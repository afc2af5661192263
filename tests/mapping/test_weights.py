"""The table of weights has exactly the parameters of each of the three libraries."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import h5py
import pytest
import torch
from transformers import AlbertConfig, AlbertModel

from albert_hub_bridge import AlbertHubConfig, AlbertHubModel
from albert_hub_bridge.hubs.published import PUBLISHED_PRESETS
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.mapping.weights import parameter_count, weight_rules
from albert_hub_bridge.model.architecture import Architecture
from conversion.sample import SAMPLE_ARCHITECTURE
from tests.conftest import KerasPreset, albert_arguments


SIZES = {"vocabulary_size": 50, "embedding_dim": 6, "intermediate_dim": 20, "max_sequence_length": 9, "num_segments": 3}
ARCHITECTURES = [
    Architecture(num_layers=2, num_heads=2, hidden_dim=8, **SIZES),
    Architecture(num_layers=6, num_heads=4, hidden_dim=12, num_groups=3, **SIZES),
    Architecture(num_layers=4, num_heads=1, hidden_dim=10, num_groups=2, num_inner_repetitions=3, **SIZES),
]


def _table(architecture: Architecture, dialect: str) -> dict[str, tuple[int, ...]]:
    sizes = axis_sizes(architecture)
    return {rule.name(dialect): rule.shape(dialect, sizes) for rule in weight_rules(architecture)}  # type: ignore[arg-type]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_table_has_the_parameters_of_albert_hub_model(architecture: Architecture) -> None:
    state = AlbertHubModel(AlbertHubConfig(**asdict(architecture))).state_dict()
    assert _table(architecture, "albert_hub") == {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_table_has_the_parameters_of_albert_model(architecture: Architecture) -> None:
    with torch.device("meta"):
        state = AlbertModel(AlbertConfig(**albert_arguments(architecture))).state_dict()
    assert _table(architecture, "albert") == {name: tuple(tensor.shape) for name, tensor in state.items()}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_table_has_the_datasets_of_keras_hub(architecture: Architecture, tmp_path: Path) -> None:
    import keras_hub

    keras_hub.models.AlbertBackbone(**architecture.keras_arguments).save_to_preset(str(tmp_path))
    found: dict[str, tuple[int, ...]] = {}
    with h5py.File(tmp_path / "model.weights.h5") as file:
        file.visititems(lambda name, item: found.update({name: item.shape}) if isinstance(item, h5py.Dataset) else None)
    assert _table(architecture, "keras") == found


def test_names_are_unique_in_every_dialect() -> None:
    rules = weight_rules(SAMPLE_ARCHITECTURE)
    for dialect in ("keras", "albert_hub", "albert"):
        assert len({rule.name(dialect) for rule in rules}) == len(rules)


def test_both_layouts_of_a_row_have_the_same_axes() -> None:
    for rule in weight_rules(SAMPLE_ARCHITECTURE):
        keras, torch_axes = (
            sorted(axes.replace("(", "").replace(")", "").split()) for axes in (rule.keras_axes, rule.torch_axes)
        )
        assert keras == torch_axes, rule


PUBLISHED_ARCHITECTURES = {
    "albert_base_en_uncased": (12, 12, 768),
    "albert_large_en_uncased": (24, 16, 1024),
    "albert_extra_large_en_uncased": (24, 16, 2048),
    "albert_extra_extra_large_en_uncased": (12, 64, 4096),
}


@pytest.mark.parametrize("name", PUBLISHED_PRESETS)
def test_parameter_counts_match_published_presets(name: str) -> None:
    layers, heads, hidden = PUBLISHED_ARCHITECTURES[name]
    architecture = Architecture(
        vocabulary_size=30000,
        num_layers=layers,
        num_heads=heads,
        embedding_dim=128,
        hidden_dim=hidden,
        intermediate_dim=4 * hidden,
    )
    assert parameter_count(architecture) == PUBLISHED_PRESETS[name].parameters


def test_parameter_count_matches_keras_hub(keras_preset: KerasPreset) -> None:
    assert parameter_count(keras_preset.architecture) == keras_preset.backbone.count_params()
