from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import albert_hub_bridge
from albert_hub_bridge import AlbertBackbone, AlbertHubModel, Backbone, convert
from albert_hub_bridge.errors import SourceError, TargetError, WeightsError
from conversion.sample import SAMPLE_ARCHITECTURE
from tests.conftest import KerasPreset


def test_backbone_runs_the_example_of_keras_hubs_documentation() -> None:
    keras_hub = type("keras_hub", (), {"models": albert_hub_bridge})  # only the import differs
    input_data = {
        "token_ids": np.ones(shape=(1, 12), dtype="int32"),
        "segment_ids": np.array([[0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0]]),
        "padding_mask": np.array([[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]]),
    }
    model = keras_hub.models.AlbertBackbone(
        vocabulary_size=30000,
        num_layers=12,
        num_heads=12,
        num_groups=1,
        num_inner_repetitions=1,
        embedding_dim=128,
        hidden_dim=768,
        intermediate_dim=3072,
        max_sequence_length=12,
    )
    output = model(input_data)
    assert output["sequence_output"].shape == (1, 12, 768)
    assert output["pooled_output"].shape == (1, 768)
    assert model.token_embedding.weight.shape == (30000, 128)


def test_backbone_has_the_signature_of_keras_hub() -> None:
    import keras_hub

    expected = [name for name in inspect.signature(keras_hub.models.AlbertBackbone).parameters if name != "kwargs"]
    found = inspect.signature(AlbertBackbone).parameters
    assert list(found)[: len(expected)] == expected
    assert set(list(found)[len(expected) :]) == {"name", "trainable"}


def test_backbone_presets_are_those_of_keras_hub() -> None:
    import keras_hub

    expected = keras_hub.models.AlbertBackbone.presets
    assert set(AlbertBackbone.presets) == set(expected)
    for name, preset in AlbertBackbone.presets.items():
        assert preset["metadata"]["params"] == expected[name]["metadata"]["params"]
        assert preset["kaggle_handle"] == expected[name]["kaggle_handle"]
        assert preset["metadata"]["description"]


def test_from_preset_matches_keras_hubs_outputs(keras_preset: KerasPreset) -> None:
    backbone = AlbertBackbone.from_preset(keras_preset.folder)
    with torch.no_grad():
        outputs = backbone(keras_preset.inputs)
    for name, expected in keras_preset.outputs.items():
        np.testing.assert_allclose(outputs[name].numpy(), expected, atol=1e-5, rtol=0, err_msg=name)
    assert backbone.count_params() == keras_preset.backbone.count_params()
    assert {
        name: getattr(backbone, name) for name in keras_preset.architecture.keras_arguments
    } == keras_preset.architecture.keras_arguments


@pytest.mark.parametrize("name", ["keras_hub_classifier", "transformers_sequence_classification"])
def test_from_preset_leaves_the_head(name: str, unpacked: Callable[[str], Path]) -> None:
    expected = AlbertHubModel.from_preset(unpacked(name)).state_dict()
    found = Backbone.from_preset(unpacked(name)).model.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_backbone_takes_tensors_and_arrays(keras_preset: KerasPreset) -> None:
    backbone = AlbertBackbone.from_preset(keras_preset.folder)
    tensors = {name: torch.from_numpy(np.array(value)) for name, value in keras_preset.inputs.items()}
    for name, value in backbone(tensors).items():
        assert torch.equal(value, backbone(keras_preset.inputs)[name])


def test_from_preset_overrides_replace_the_presets_arguments(keras_preset: KerasPreset) -> None:
    backbone = AlbertBackbone.from_preset(
        keras_preset.folder, dropout=0.5, dtype="bfloat16", name="mine", trainable=False
    )
    assert (backbone.dropout, backbone.dtype, backbone.name) == (0.5, "bfloat16", "mine")
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    with pytest.raises(ValueError, match="do not fit with hidden_dim overridden"):
        AlbertBackbone.from_preset(keras_preset.folder, hidden_dim=64)
    new = AlbertBackbone.from_preset(keras_preset.folder, load_weights=False, hidden_dim=64)
    assert new.hidden_dim == 64


@pytest.mark.parametrize("dtype", [torch.float16, np.float16, np.dtype("float16"), "fp16"])
def test_dtypes_of_torch_and_numpy_are_dtypes(dtype: Any, keras_preset: KerasPreset, tmp_path: Path) -> None:
    assert AlbertBackbone.from_preset(keras_preset.folder, dtype=dtype).dtype == "float16"
    assert AlbertHubModel.from_preset(keras_preset.folder, dtype=dtype).dtype == torch.float16
    assert convert(keras_preset.folder, tmp_path / "target", to="transformers", dtype=dtype).dtype == "float16"
    with pytest.raises(ValueError, match="dtype must be one of float32, bfloat16, float16, int8, not 'int16'"):
        AlbertHubModel.from_preset(keras_preset.folder, dtype=torch.int16)


def test_from_preset_without_weights_gives_random_weights(keras_preset: KerasPreset) -> None:
    loaded = AlbertBackbone.from_preset(keras_preset.folder)
    new = AlbertBackbone.from_preset(keras_preset.folder, load_weights=False)
    assert not torch.equal(loaded.token_embedding.weight, new.token_embedding.weight)
    assert (new.model.pooled_dense.bias == 0).all()


def test_backbone_applies_dropout_only_in_training(keras_preset: KerasPreset) -> None:
    backbone = AlbertBackbone.from_preset(keras_preset.folder)
    outputs = backbone(keras_preset.inputs)["pooled_output"]
    assert torch.equal(outputs, backbone(keras_preset.inputs)["pooled_output"])
    assert not torch.equal(outputs, backbone(keras_preset.inputs, training=True)["pooled_output"])
    assert not backbone.training
    backbone.train()
    assert torch.equal(outputs, backbone(keras_preset.inputs, training=False)["pooled_output"])
    assert backbone.training


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_save_to_preset_is_loaded_by_keras_hub(dtype: str, tmp_path: Path) -> None:
    import keras_hub

    backbone = AlbertBackbone(**SAMPLE_ARCHITECTURE.keras_arguments, dtype=dtype)
    backbone.save_to_preset(tmp_path / "preset")
    loaded = keras_hub.models.AlbertBackbone.from_preset(str(tmp_path / "preset"))
    assert loaded.dtype_policy.name == AlbertBackbone.from_preset(tmp_path / "preset").dtype == "float32"
    expected = backbone.token_embedding.weight.detach().float().numpy()
    np.testing.assert_array_equal(np.asarray(loaded.token_embedding.embeddings.value.detach()), expected)
    back = AlbertBackbone.from_preset(tmp_path / "preset", dtype=dtype)
    for name, tensor in backbone.model.state_dict().items():
        assert torch.equal(back.model.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("before", "after"), [("float32", "float16"), ("bfloat16", "float32"), ("float16", "bfloat16")]
)
def test_save_to_preset_keeps_the_dtype_of_a_cast_model(before: str, after: str, tmp_path: Path) -> None:
    backbone = AlbertBackbone(**SAMPLE_ARCHITECTURE.keras_arguments, dtype=before).to(getattr(torch, after))
    assert backbone.dtype == after
    backbone.save_to_preset(tmp_path / "new" / "preset")
    back = AlbertBackbone.from_preset(tmp_path / "new" / "preset", dtype=after)
    for name, tensor in backbone.model.state_dict().items():
        assert torch.equal(back.model.state_dict()[name], tensor), name
    with pytest.raises(ValueError, match=r"A file can be float32, bfloat16, float16, not float64; cast the model"):
        backbone.double().save_to_preset(tmp_path / "double")
    assert not (tmp_path / "double").exists()


def test_from_preset_without_weights_reads_only_the_config(keras_preset: KerasPreset, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((keras_preset.folder / "config.json").read_bytes())
    assert AlbertBackbone.from_preset(tmp_path, load_weights=False).architecture == keras_preset.architecture


def test_from_config_creates_an_equal_backbone() -> None:
    backbone = AlbertBackbone(**SAMPLE_ARCHITECTURE.keras_arguments, dtype="float16", name="mine")
    assert AlbertBackbone.from_config(backbone.get_config()).get_config() == backbone.get_config()


def test_backbone_refuses_wrong_calls(keras_preset: KerasPreset, tmp_path: Path) -> None:
    backbone = AlbertBackbone(**SAMPLE_ARCHITECTURE.keras_arguments)
    with pytest.raises(ValueError, match="expected the inputs token_ids, segment_ids, padding_mask, found token_ids"):
        backbone({"token_ids": np.ones((1, 4), dtype="int32")})
    with pytest.raises(
        ValueError, match="dtype must be one of float32, bfloat16, float16, mixed_bfloat16, mixed_float16, not 'int8'"
    ):
        AlbertBackbone(**SAMPLE_ARCHITECTURE.keras_arguments, dtype="int8")
    found = r"Did you mean mixed_bfloat16\? from_preset dequantizes int8 presets, and AlbertHubModel"
    with pytest.raises(ValueError, match=found):
        AlbertBackbone(**SAMPLE_ARCHITECTURE.keras_arguments, dtype="mixed_bfloat32")
    with pytest.raises(ValueError, match="num_layers=4 must be divisible by num_groups=3"):
        AlbertBackbone(**{**SAMPLE_ARCHITECTURE.keras_arguments, "num_groups": 3})
    with pytest.raises(SourceError, match=r"should be kaggle://org/model/keras/name"):
        AlbertBackbone.from_preset("kaggle://keras/albert")
    with pytest.raises(SourceError, match="does not exist"):
        AlbertBackbone.from_preset(tmp_path / "nowhere")
    with pytest.raises(TargetError, match="exists"):
        backbone.save_to_preset(keras_preset.folder)
    (tmp_path / "config.json").write_bytes((keras_preset.folder / "config.json").read_bytes())
    with pytest.raises(WeightsError, match=r"missing +model.weights.h5"):
        AlbertBackbone.from_preset(tmp_path)
