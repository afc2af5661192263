"""Files of weights, LoRA and repositories: the real keras_hub and transformers read and write the other side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import transformers

from albert_hub_bridge import AlbertBackbone
from albert_hub_bridge.errors import CheckpointError, TargetError, WeightsError
from conversion.sample import SAMPLE_ARCHITECTURE
from tests.conftest import KerasPreset


TOLERANCE = 1e-5
ARGUMENTS = SAMPLE_ARCHITECTURE.keras_arguments
EVERY_LAYER = [
    "query", "key", "value", "attention_output", "feedforward_intermediate_dense", "feedforward_output_dense",
    "embedding_projection", "pooled_dense",
]  # fmt: skip


def _keras_backbone(folder: Path, **options: Any) -> Any:
    import keras_hub

    return keras_hub.models.AlbertBackbone.from_preset(str(folder), **options)


def _assert_same(ours: AlbertBackbone, theirs: Any, inputs: dict[str, np.ndarray]) -> None:
    expected, found = theirs.predict(inputs, verbose=0), ours.predict(inputs)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], atol=TOLERANCE, rtol=0, err_msg=name)


def _assert_differs(ours: AlbertBackbone, outputs: dict[str, np.ndarray], inputs: dict[str, np.ndarray]) -> None:
    assert np.abs(ours.predict(inputs)["pooled_output"] - outputs["pooled_output"]).max() > 1e-3


def _datasets(file: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with h5py.File(file) as h5:
        h5.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return found


def _assert_same_datasets(first: Path, second: Path) -> None:
    found, expected = _datasets(first), _datasets(second)
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype, name
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def _train_lora(backbone: Any) -> None:
    """Give the factors of a backbone of Keras values as after a training."""
    random = np.random.default_rng(11)
    for weight in backbone.trainable_weights:
        if "lora_kernel" in weight.path:
            weight.assign(0.3 * random.standard_normal(weight.shape))


def test_load_weights_reads_what_keras_saves(keras_preset: KerasPreset, tmp_path: Path) -> None:
    keras_preset.backbone.save_weights(str(tmp_path / "theirs.weights.h5"))
    ours = AlbertBackbone(**ARGUMENTS)
    _assert_differs(ours, keras_preset.outputs, keras_preset.inputs)
    ours.load_weights(tmp_path / "theirs.weights.h5")
    _assert_same(ours, keras_preset.backbone, keras_preset.inputs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "mixed_bfloat16"])
def test_save_weights_writes_what_keras_loads_and_saves(dtype: str, keras_preset: KerasPreset, tmp_path: Path) -> None:
    import keras_hub

    ours = AlbertBackbone.from_preset(keras_preset.folder, dtype=dtype)
    ours.save_weights(str(tmp_path / "ours.weights.h5"))
    theirs = keras_hub.models.AlbertBackbone(**ARGUMENTS, dtype=dtype)
    theirs.load_weights(str(tmp_path / "ours.weights.h5"))
    theirs.save_weights(str(tmp_path / "theirs.weights.h5"))
    _assert_same_datasets(tmp_path / "ours.weights.h5", tmp_path / "theirs.weights.h5")
    if dtype == "float32":
        _assert_same(ours, theirs, keras_preset.inputs)


def test_load_weights_reads_the_file_of_a_preset_and_of_a_compiled_model(
    keras_preset: KerasPreset, tmp_path: Path
) -> None:
    trained = _keras_backbone(keras_preset.folder)
    trained.compile("adam", loss={"pooled_output": "mse"})
    trained.fit(keras_preset.inputs, {"pooled_output": keras_preset.outputs["pooled_output"] + 1}, verbose=0)
    trained.save_weights(str(tmp_path / "trained.weights.h5"))
    assert any(name.startswith("optimizer/") for name in _datasets(tmp_path / "trained.weights.h5"))
    ours = AlbertBackbone(**ARGUMENTS)
    ours.load_weights(tmp_path / "trained.weights.h5")
    _assert_same(ours, trained, keras_preset.inputs)
    ours.load_weights(keras_preset.folder / "model.weights.h5")
    _assert_same(ours, keras_preset.backbone, keras_preset.inputs)


def test_load_weights_refuses_wrong_files_and_changes_nothing(keras_preset: KerasPreset, tmp_path: Path) -> None:
    backbone = AlbertBackbone(**ARGUMENTS)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with pytest.raises(ValueError, match=r"must end in \.weights\.h5, as in Keras, not 'weights\.h5\.bak'"):
        backbone.load_weights("weights.h5.bak")
    with pytest.raises(FileNotFoundError):
        backbone.load_weights(tmp_path / "nowhere.weights.h5")
    other = AlbertBackbone(**{**ARGUMENTS, "hidden_dim": 64})
    other.save_weights(tmp_path / "other.weights.h5")
    with pytest.raises(WeightsError, match=r"wrong shape +layers/dense/vars/0 +expected \(16, 32\), found \(16, 64\)"):
        backbone.load_weights(tmp_path / "other.weights.h5")
    file = tmp_path / "nan.weights.h5"
    file.write_bytes((keras_preset.folder / "model.weights.h5").read_bytes())
    with h5py.File(file, "r+") as h5:
        h5["layers/dense_1/vars/1"][3] = np.nan
    with pytest.raises(WeightsError, match=r"not finite +layers/dense_1/vars/1"):
        backbone.load_weights(file)
    file.write_bytes(b"something else")
    with pytest.raises(WeightsError, match="expected a whole HDF5 file"):
        backbone.load_weights(file)
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_save_weights_replaces_a_file_only_if_it_may(tmp_path: Path) -> None:
    backbone, file = AlbertBackbone(**ARGUMENTS), tmp_path / "a.weights.h5"
    file.write_bytes(b"before")
    with pytest.raises(TargetError, match="exists"):
        backbone.save_weights(file, overwrite=False)
    assert file.read_bytes() == b"before"
    backbone.save_weights(file)
    assert file.read_bytes().startswith(b"\x89HDF")
    with pytest.raises(ValueError, match=r"must end in \.weights\.h5"):
        backbone.save_weights(tmp_path / "a.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["a.weights.h5"]


@pytest.mark.parametrize("names", [None, EVERY_LAYER], ids=["default", "every layer"])
def test_enable_lora_trains_what_keras_hub_trains(names: list[str] | None, keras_preset: KerasPreset) -> None:
    theirs, ours = _keras_backbone(keras_preset.folder), AlbertBackbone.from_preset(keras_preset.folder)
    assert ours.default_lora_layer_names() == theirs.default_lora_layer_names()
    for model in (ours, theirs):
        model.enable_lora(3, target_layer_names=names)
    expected = sorted(weight.value.numel() for weight in theirs.trainable_weights)
    assert sorted(parameter.numel() for parameter in ours.parameters() if parameter.requires_grad) == expected
    assert ours.count_params() == theirs.count_params()
    _assert_same(ours, theirs, keras_preset.inputs)  # the second factors are zeros
    ours.trainable = theirs.trainable = True  # in Keras, this unfreezes the kernels
    expected = sorted(weight.value.numel() for weight in theirs.trainable_weights)
    assert sorted(parameter.numel() for parameter in ours.parameters() if parameter.requires_grad) == expected


def test_new_factors_are_those_of_keras() -> None:
    import keras_hub

    theirs, ours = keras_hub.models.AlbertBackbone(**ARGUMENTS), AlbertBackbone(**ARGUMENTS)
    for model in (ours, theirs):
        model.enable_lora(8, target_layer_names=EVERY_LAYER)
    factors = {tuple(weight.shape): weight.numpy() for weight in theirs.trainable_weights if "lora_" in weight.path}
    found = {tuple(parameter.shape): parameter for name, parameter in ours.named_parameters() if "0." in name}
    for shape, expected in factors.items():
        # The largest of at least 128 uniform numbers is near the limit: below 0.9 with a probability of 0.9**128.
        limits = [np.abs(values).max() for values in (found[shape].detach().numpy(), expected)]
        assert limits[0] == pytest.approx(limits[1], rel=0.12), shape


@pytest.mark.parametrize("names", [None, EVERY_LAYER], ids=["default", "every layer"])
def test_lora_weights_go_to_keras_hub_and_back(
    names: list[str] | None, keras_preset: KerasPreset, tmp_path: Path
) -> None:
    theirs = _keras_backbone(keras_preset.folder)
    theirs.enable_lora(3, target_layer_names=names)
    _train_lora(theirs)
    theirs.save_lora_weights(str(tmp_path / "theirs.lora.h5"))
    ours = AlbertBackbone.from_preset(keras_preset.folder)
    ours.load_lora_weights(tmp_path / "theirs.lora.h5")
    _assert_differs(ours, keras_preset.outputs, keras_preset.inputs)
    _assert_same(ours, theirs, keras_preset.inputs)
    ours.save_lora_weights(tmp_path / "ours.lora.h5")
    _assert_same_datasets(tmp_path / "ours.lora.h5", tmp_path / "theirs.lora.h5")
    again = _keras_backbone(keras_preset.folder)
    again.enable_lora(3, target_layer_names=names)
    again.load_lora_weights(str(tmp_path / "ours.lora.h5"))
    _assert_same(ours, again, keras_preset.inputs)


def test_a_step_of_training_is_the_same(keras_preset: KerasPreset, tmp_path: Path) -> None:
    theirs, ours = (
        _keras_backbone(keras_preset.folder, dropout=0.0),
        AlbertBackbone.from_preset(keras_preset.folder, dropout=0.0),
    )
    theirs.enable_lora(2)
    _train_lora(theirs)
    theirs.save_lora_weights(str(tmp_path / "start.lora.h5"))
    ours.load_lora_weights(tmp_path / "start.lora.h5")
    weights = [weight.value for weight in theirs.trainable_weights]
    parameters = [parameter for parameter in ours.parameters() if parameter.requires_grad]
    for model, values in ((theirs, weights), (ours, parameters)):
        loss = model(keras_preset.inputs)["pooled_output"].square().sum()
        gradients = torch.autograd.grad(loss, values)
        with torch.no_grad():
            for value, gradient in zip(values, gradients, strict=True):
                value.sub_(1e-3 * gradient)
    _assert_differs(ours, keras_preset.outputs, keras_preset.inputs)
    _assert_same(ours, theirs, keras_preset.inputs)


def test_saved_weights_have_lora_merged_as_in_keras(keras_preset: KerasPreset, tmp_path: Path) -> None:
    theirs, ours = _keras_backbone(keras_preset.folder), AlbertBackbone.from_preset(keras_preset.folder)
    theirs.enable_lora(3, target_layer_names=EVERY_LAYER)
    _train_lora(theirs)
    theirs.save_lora_weights(str(tmp_path / "a.lora.h5"))
    ours.load_lora_weights(tmp_path / "a.lora.h5")
    ours.save_weights(tmp_path / "ours.weights.h5")
    theirs.save_weights(str(tmp_path / "theirs.weights.h5"))
    found, expected = _datasets(tmp_path / "ours.weights.h5"), _datasets(tmp_path / "theirs.weights.h5")
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6, rtol=0, err_msg=name)  # one sum of 3 products
    ours.save_to_preset(tmp_path / "preset")
    _assert_same(ours, _keras_backbone(tmp_path / "preset"), keras_preset.inputs)
    # Loaded weights have no adapter yet, in both libraries.
    for model, file in ((ours, tmp_path / "ours.weights.h5"), (theirs, str(tmp_path / "theirs.weights.h5"))):
        model.load_weights(file)
    _assert_same(ours, theirs, keras_preset.inputs)
    loss = ours(keras_preset.inputs)["pooled_output"].sum()
    trained = [parameter for name, parameter in ours.named_parameters() if name.endswith(".weight.0.b")]
    assert all(gradient.any() for gradient in torch.autograd.grad(loss, trained))


def test_lora_in_half_precision_keeps_float32_factors(keras_preset: KerasPreset, tmp_path: Path) -> None:
    theirs = _keras_backbone(keras_preset.folder)
    theirs.enable_lora(3)
    _train_lora(theirs)
    theirs.save_lora_weights(str(tmp_path / "theirs.lora.h5"))
    exact = theirs.predict(keras_preset.inputs, verbose=0)["pooled_output"]
    for dtype in ("bfloat16", "mixed_float16"):
        ours = AlbertBackbone.from_preset(keras_preset.folder, dtype=dtype)
        ours.load_lora_weights(tmp_path / "theirs.lora.h5")
        ours.save_lora_weights(tmp_path / "ours.lora.h5")
        _assert_same_datasets(tmp_path / "ours.lora.h5", tmp_path / "theirs.lora.h5")
        assert ours.dtype_policy.name == dtype
        half = _keras_backbone(keras_preset.folder, dtype=dtype)
        half.load_lora_weights(str(tmp_path / "theirs.lora.h5"))
        errors = [
            np.abs(model.predict(keras_preset.inputs, verbose=0)["pooled_output"].astype("float32") - exact).max()
            for model in (ours, half)
        ]
        # Both round after every step, in other orders. Measured on an AMD EPYC: ours is 0.90 and 1.10 times theirs.
        assert errors[0] < 2 * errors[1]


def test_lora_refuses_wrong_calls(keras_preset: KerasPreset, tmp_path: Path) -> None:
    backbone = AlbertBackbone.from_preset(keras_preset.folder)
    with pytest.raises(ValueError, match=r"has no LoRA\. Call enable_lora\(rank\) first"):
        backbone.save_lora_weights(tmp_path / "a.lora.h5")
    with pytest.raises(ValueError, match=r"LoRA adapts layers called embedding_projection, .*, not token_embedding"):
        backbone.enable_lora(2, target_layer_names=["query", "token_embedding"])
    with pytest.raises(ValueError, match="rank must be a positive integer, not 0"):
        backbone.enable_lora(0)
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    backbone.enable_lora(2)
    with pytest.raises(ValueError, match="LoRA is enabled already"):
        backbone.enable_lora(2)
    with pytest.raises(ValueError, match=r"must end in \.lora\.h5, as in Keras"):
        backbone.save_lora_weights(tmp_path / "a.h5")
    assert not list(tmp_path.iterdir())
    backbone.save_lora_weights(tmp_path / "a.lora.h5")
    for rank, names in ((3, None), (2, ["query"])):
        other = AlbertBackbone.from_preset(keras_preset.folder)
        other.enable_lora(rank, target_layer_names=names)
        with pytest.raises(ValueError, match=r"has rank 2 for query, value|has rank 2 for value, query"):
            other.load_lora_weights(tmp_path / "a.lora.h5")
    other = AlbertBackbone(**{**ARGUMENTS, "num_heads": 2})
    with pytest.raises(CheckpointError, match=r"wrong shape +lora/12/vars/lora_kernel_a +expected \(32, 2, 2\)"):
        other.load_lora_weights(tmp_path / "a.lora.h5")
    with pytest.raises(FileNotFoundError):
        other.load_lora_weights(tmp_path / "nowhere.lora.h5")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_export_to_transformers_is_loaded_by_transformers(
    dtype: str, keras_preset: KerasPreset, tmp_path: Path
) -> None:
    backbone = AlbertBackbone.from_preset(keras_preset.folder, dtype=dtype)
    backbone.export_to_transformers(str(tmp_path / "new" / "repository"))
    model = transformers.AutoModel.from_pretrained(tmp_path / "new" / "repository")
    assert type(model) is transformers.AlbertModel
    assert model.dtype == getattr(torch, dtype)
    if dtype == "float32":
        ids, segments, mask = (torch.from_numpy(np.array(value)).long() for value in keras_preset.inputs.values())
        names = dict(zip(keras_preset.inputs, (ids, segments, mask), strict=True))
        with torch.no_grad():
            outputs = model(names["token_ids"], names["padding_mask"], names["segment_ids"])
        for name, found in (("sequence_output", outputs[0]), ("pooled_output", outputs[1])):
            np.testing.assert_allclose(found, keras_preset.outputs[name], atol=TOLERANCE, rtol=0)
    with pytest.raises(TargetError, match="exists"):
        backbone.export_to_transformers(tmp_path / "new" / "repository")
    backbone.export_to_transformers(tmp_path / "new" / "repository", overwrite=True)


def test_save_to_preset_writes_shards(keras_preset: KerasPreset, tmp_path: Path) -> None:
    backbone = AlbertBackbone.from_preset(keras_preset.folder)
    backbone.save_to_preset(tmp_path / "preset", max_shard_size=6e-5)  # 64 KB
    assert len(list((tmp_path / "preset").glob("model_*.weights.h5"))) > 1
    _assert_same(backbone, _keras_backbone(tmp_path / "preset"), keras_preset.inputs)
