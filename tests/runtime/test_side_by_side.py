"""What KerasHub's documentation says of `Backbone` and `AlbertBackbone`, run with the real classes and with ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import albert_hub_bridge
from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.runtime.stored_weights import stored_parameters
from conversion.sample import SAMPLE_ARCHITECTURE
from tests.conftest import KerasPreset


ARGUMENTS = SAMPLE_ARCHITECTURE.keras_arguments


@pytest.fixture(scope="module")
def sides() -> tuple[Any, Any]:
    """Return the module of the real classes, and that of ours."""
    import keras_hub

    return keras_hub.models, albert_hub_bridge


def _first_row(backbone: Any) -> np.ndarray:
    """Return the first row of the token embedding as it is stored: a mixed policy computes with another."""
    if isinstance(backbone, albert_hub_bridge.AlbertBackbone):
        weight = stored_parameters(backbone.model)["token_embedding.weight"]
    else:
        weight = backbone.token_embedding.embeddings.value
    return weight.detach().float().numpy()[0]


def test_the_base_class_infers_the_class(keras_preset: KerasPreset, sides: tuple[Any, Any]) -> None:
    found = [models.Backbone.from_preset(str(keras_preset.folder)) for models in sides]
    for models, backbone in zip(sides, found, strict=True):
        assert type(backbone) is models.AlbertBackbone
        assert isinstance(backbone, models.Backbone)
    np.testing.assert_array_equal(*map(_first_row, found))


def test_get_config_is_the_same_and_creates_an_equal_backbone(sides: tuple[Any, Any]) -> None:
    for options in ({}, {"dtype": "bfloat16", "name": "mine"}, {"dtype": "mixed_float16", "trainable": False}):
        ours, theirs = (models.AlbertBackbone(**ARGUMENTS, **{"name": "b", **options}) for models in sides[::-1])
        assert ours.get_config() == theirs.get_config()
        assert json.loads(json.dumps(ours.get_config())) == ours.get_config()
        for models in sides:
            for config in (ours.get_config(), theirs.get_config()):
                assert models.AlbertBackbone.from_config(config).get_config() == config


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"dtype": "bfloat16"},
        {"dtype": "mixed_bfloat16"},
        {"dropout": 0.25, "name": "mine", "trainable": False},
        {"load_weights": False, "hidden_dim": 64, "max_sequence_length": 9},
    ],
)
def test_from_preset_takes_the_same_overrides(
    overrides: dict[str, Any], keras_preset: KerasPreset, sides: tuple[Any, Any]
) -> None:
    named = {"name": "backbone", **overrides}  # Keras numbers the default
    found = [models.AlbertBackbone.from_preset(str(keras_preset.folder), **named) for models in sides]
    assert found[0].get_config() == found[1].get_config()
    rows = [_first_row(backbone) for backbone in found]
    same = np.array_equal(*rows)
    assert same is overrides.get("load_weights", True)


def test_a_policy_is_a_dtype(keras_preset: KerasPreset, sides: tuple[Any, Any]) -> None:
    import keras

    policy = keras.DTypePolicy("mixed_bfloat16")
    for models in sides:
        backbone = models.Backbone.from_preset(str(keras_preset.folder), dtype=policy)
        assert backbone.dtype_policy.name == backbone.get_config()["dtype"]["config"]["name"] == "mixed_bfloat16"


def test_save_to_preset_writes_the_same_configuration(sides: tuple[Any, Any], tmp_path: Path) -> None:
    configs = []
    for models in sides:
        folder = tmp_path / models.__name__
        models.AlbertBackbone(**ARGUMENTS, name="albert_backbone").save_to_preset(str(folder))
        configs.append(json.loads((folder / "config.json").read_text()))
        for other in sides:
            assert type(other.Backbone.from_preset(str(folder))).__name__ == "AlbertBackbone"
    assert configs[0] == configs[1]


def test_presets_have_the_same_keys(sides: tuple[Any, Any]) -> None:
    theirs, ours = sides
    assert set(ours.AlbertBackbone.presets) == set(theirs.AlbertBackbone.presets)
    assert set(ours.Backbone.presets) == set(ours.AlbertBackbone.presets)
    assert set(ours.Backbone.presets) < set(theirs.Backbone.presets)  # which has those of other architectures too


@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")  # of Keras, before it refuses
def test_both_refuse_wrong_arguments(keras_preset: KerasPreset, sides: tuple[Any, Any]) -> None:
    for models in sides:
        with pytest.raises(ValueError, match="num_groups"):
            models.AlbertBackbone(**{**ARGUMENTS, "num_groups": 3})
        with pytest.raises((ValueError, TypeError), match="sequence_length"):
            models.AlbertBackbone(**{**ARGUMENTS, "max_sequence_length": None})
        with pytest.raises(ValueError, match=r"dtype|policy"):
            models.AlbertBackbone(**ARGUMENTS, dtype="nothing")
        with pytest.raises(ValueError):  # noqa: PT011 (of Keras' file of weights, and ours)
            models.AlbertBackbone.from_preset(str(keras_preset.folder), hidden_dim=64)


def test_what_is_left_out_says_so(sides: tuple[Any, Any], tmp_path: Path) -> None:
    theirs, ours = sides
    other = theirs.BertBackbone(100, 1, 1, 4, 4, max_sequence_length=8)
    other.save_to_preset(str(tmp_path / "bert"))
    assert type(theirs.Backbone.from_preset(str(tmp_path / "bert"))) is theirs.BertBackbone
    with pytest.raises(SourceError, match=r"found 'BertBackbone'\. This package only converts ALBERT"):
        ours.Backbone.from_preset(str(tmp_path / "bert"))
    with pytest.raises(TypeError, match=r"Call AlbertBackbone\(\.\.\.\), or Backbone\.from_preset\(preset\)"):
        ours.Backbone(inputs=1, outputs=2)
    with pytest.raises(AttributeError, match="AlbertBackbone has no quantize as in Keras"):
        ours.AlbertBackbone(**ARGUMENTS).quantize("int8")
