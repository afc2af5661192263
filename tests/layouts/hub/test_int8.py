"""`--dtype int8` keeps the int8 weights of a preset, and the result computes what KerasHub computed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from albert_hub_bridge import (
    AlbertHubForMaskedLM,
    AlbertHubForSequenceClassification,
    AlbertHubModel,
    Embedder,
    convert,
    export_onnx,
    inspect,
    verify,
)
from albert_hub_bridge.errors import AlbertHubBridgeError, ConfigurationError, SourceError, TargetError, WeightsError
from albert_hub_bridge.layouts.registry import read_checkpoint
from albert_hub_bridge.model.int8 import Int8Embedding, Int8Linear
from conversion.sample import SAMPLE_ARCHITECTURE
from tests.conftest import KerasPreset, quantize
from tests.forked import run_forked


FIXTURES = Path(__file__).parents[2] / "fixtures"
AUTO = {
    "keras_hub_int8": "AutoModel",
    "keras_hub_int8_classifier": "AutoModelForSequenceClassification",
    "keras_hub_int8_masked_lm": "AutoModelForMaskedLM",
}
OURS = {
    "keras_hub_int8": AlbertHubModel,
    "keras_hub_int8_classifier": AlbertHubForSequenceClassification,
    "keras_hub_int8_masked_lm": AlbertHubForMaskedLM,
}
# KerasHub computed in TensorFlow. The rest are the rounding errors of float32, which reach no other integer here.
TOLERANCE = 2e-6
Unpacked = Callable[[str], Path]
QUIET = pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")


@pytest.fixture
def repository(unpacked: Unpacked, tmp_path: Path) -> Path:
    """Return an int8 classifier in the albert_hub layout."""
    convert(unpacked("keras_hub_int8_classifier"), tmp_path / "int8", to="albert_hub", dtype="int8")
    return tmp_path / "int8"


def _load(name: str, folder: Path) -> Any:
    return getattr(transformers, AUTO[name]).from_pretrained(folder)


def _outputs(name: str, model: Any, with_head: bool = True) -> dict[str, np.ndarray]:
    """Return what a model computes on the recorded inputs, by the names of what KerasHub computed."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        recorded = dict(file)
    keys = {"input_ids": "token_ids", "token_type_ids": "segment_ids", "attention_mask": "padding_mask"}
    inputs = {key: torch.from_numpy(recorded[twin]).long() for key, twin in keys.items()}
    with torch.inference_mode():
        encoded = model.base_model(**inputs)
        outputs = {"sequence_output": encoded.last_hidden_state}
        if encoded.pooler_output is not None:
            outputs["pooled_output"] = encoded.pooler_output
        if with_head and name.endswith("classifier"):
            outputs["output"] = model(**inputs).logits.softmax(-1)
        if with_head and name.endswith("masked_lm"):
            positions = torch.from_numpy(recorded["mask_positions"]).long()
            outputs["logits"] = torch.take_along_dim(model(**inputs).logits, positions.unsqueeze(-1), dim=1)
    return {key: value.numpy() for key, value in outputs.items()}


def _expected(name: str) -> dict[str, np.ndarray]:
    with np.load(FIXTURES / f"{name}.npz") as file:
        return {key.removeprefix("quantized_"): file[key] for key in file if key.startswith("quantized_")}


@pytest.mark.parametrize("name", AUTO)
def test_it_computes_what_keras_hub_computed(name: str, unpacked: Unpacked, tmp_path: Path) -> None:
    report = convert(unpacked(name), tmp_path / "int8", to="albert_hub", dtype="int8")
    assert (report.dtype, report.source.dtype) == ("int8", "int8")
    assert not [note for note in report.notes if "dequantized" in note]
    model = _load(name, tmp_path / "int8")
    assert model.is_quantized
    assert sum(isinstance(module, Int8Linear | Int8Embedding) for module in model.modules()) >= 27
    found, expected = _outputs(name, model), _expected(name)
    assert set(found) >= set(expected) - {"pooled_output"}
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], rtol=0, atol=TOLERANCE, err_msg=key)
    # The same weights without rounded inputs compute something else.
    dequantized = _outputs(name, AlbertHubModel.from_preset(unpacked(name)), with_head=False)
    assert np.abs(dequantized["sequence_output"] - expected["sequence_output"]).max() > 1000 * TOLERANCE


@pytest.mark.parametrize("name", AUTO)
def test_the_file_has_the_integers_and_scales_of_the_preset(name: str, unpacked: Unpacked, tmp_path: Path) -> None:
    convert(unpacked(name), tmp_path / "int8", to="albert_hub", dtype="int8")
    tensors = load_file(tmp_path / "int8" / "model.safetensors")
    with read_checkpoint(unpacked(name)) as source, read_checkpoint(tmp_path / "int8") as target:
        assert source.int8.keys() == target.int8.keys()
        for name_of_weight, ours in target.int8.items():
            theirs = source.int8[name_of_weight]
            assert ours.values.dtype == "int8"
            np.testing.assert_array_equal(ours.values.load(), theirs.values.load())
            np.testing.assert_array_equal(ours.scales.load(), theirs.scales.load())
        for weight in target.weights:
            np.testing.assert_array_equal(target.weights[weight].load(), source.weights[weight].load())
        assert len(tensors) == len(source.weights) + len(source.int8)
    assert sum(tensor.dtype == np.int8 for tensor in tensors.values()) == len(target.int8)


@QUIET
def test_it_is_a_quarter_of_the_size(keras_int8: Path, tmp_path: Path) -> None:
    for dtype in ("float32", "int8"):
        convert(keras_int8, tmp_path / dtype, to="albert_hub", dtype=dtype)
    large, small = ((tmp_path / dtype / "model.safetensors").stat().st_size for dtype in ("float32", "int8"))
    assert small < 0.29 * large  # scales, biases and layer norms stay float32


def _short_backbone() -> Any:
    """Return a backbone for few positions: KerasHub multiplies integers slowly on torch."""
    keras_hub = pytest.importorskip("keras_hub")
    return keras_hub.models.AlbertBackbone(**{**SAMPLE_ARCHITECTURE.keras_arguments, "max_sequence_length": 12})


@QUIET
@pytest.mark.parametrize("head", ["AlbertTextClassifier", "AlbertMaskedLM"])
def test_verify_passes_with_a_head(head: str, tmp_path: Path) -> None:
    import keras_hub

    options = {"num_classes": 3} if head == "AlbertTextClassifier" else {}
    task = getattr(keras_hub.models, head)(_short_backbone(), preprocessor=None, **options)
    quantize(task)
    task.save_to_preset(str(tmp_path / "preset"))
    convert(tmp_path / "preset", tmp_path / "int8", to="albert_hub", dtype="int8")
    report = verify(tmp_path / "preset", tmp_path / "int8")
    assert report.passed, report
    assert report.source_engine.startswith("keras_hub ")


@QUIET
def test_a_preset_of_which_a_part_is_int8_is_verified(tmp_path: Path) -> None:
    import keras_hub

    backbone = _short_backbone()
    quantize(backbone)
    classifier = keras_hub.models.AlbertTextClassifier(backbone, num_classes=3, preprocessor=None)  # a head of floats
    classifier.save_to_preset(str(tmp_path / "preset"))
    convert(tmp_path / "preset", tmp_path / "int8", to="albert_hub", dtype="int8")
    report = verify(tmp_path / "preset", tmp_path / "int8")
    assert report.passed, report
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "int8")
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trainable == ["classifier.weight", "classifier.bias"]
    model(torch.ones(1, 4, dtype=torch.long), labels=torch.tensor([1])).loss.backward()


@pytest.fixture
def keras_int8(tmp_path: Path) -> Path:
    """Return a preset that the installed keras_hub quantized, of layers that are not tiny."""
    keras_hub = pytest.importorskip("keras_hub")
    folder = tmp_path / "preset"
    backbone = keras_hub.models.AlbertBackbone(
        vocabulary_size=500, num_layers=3, num_heads=4, embedding_dim=64, hidden_dim=128, intermediate_dim=512,
        max_sequence_length=12,
    )  # fmt: skip
    quantize(backbone)
    backbone.save_to_preset(str(folder))
    return folder


@QUIET
def test_verify_compares_both_libraries_with_rounded_inputs(keras_int8: Path, tmp_path: Path) -> None:
    convert(keras_int8, tmp_path / "int8", to="albert_hub", dtype="int8")
    report = verify(keras_int8, tmp_path / "int8")
    assert report.passed, report
    assert report.source_engine.startswith("keras_hub ")
    assert "cast" not in report.checks["tensors"].summary
    # A scale that is off by a thousandth fails, and so does a step of one integer.
    file = tmp_path / "int8" / "model.safetensors"
    tensors = load_file(file)
    name = "transformer_layers.0.0.feedforward_output_dense.weight"
    tensors[f"{name}_scale"][3] *= 1.001
    tensors[name][7, 5] += 1 if tensors[name][7, 5] < 0 else -1
    save_file(tensors, file, {"format": "pt"})
    report = verify(keras_int8, tmp_path / "int8")
    assert not report.passed
    assert [failure.partition(":")[0] for failure in report.checks["tensors"].failures] == [name, f"{name}_scale"]
    assert report.checks["engines"].failures


def test_an_encoder_that_is_saved_without_its_head_is_read(repository: Path, tmp_path: Path) -> None:
    """transformers keeps the name of the head's layer in the configuration."""
    transformers.AutoModel.from_pretrained(repository).save_pretrained(tmp_path / "encoder")
    config = json.loads((tmp_path / "encoder" / "config.json").read_text())
    assert "classifier" in config["quantization_config"]["modules"]
    with read_checkpoint(tmp_path / "encoder") as encoder, read_checkpoint(repository) as classifier:
        assert set(encoder.int8) == {*classifier.int8} - {"classifier.weight"}


def test_what_transformers_saves_is_read_again(repository: Path, tmp_path: Path) -> None:
    name = "keras_hub_int8_classifier"
    model = _load(name, repository)
    model.save_pretrained(tmp_path / "saved")
    before, after = (load_file(folder / "model.safetensors") for folder in (repository, tmp_path / "saved"))
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[key], after[key]) for key in before)
    with read_checkpoint(tmp_path / "saved") as checkpoint:
        assert len(checkpoint.int8) >= 27
    for key, value in _outputs(name, _load(name, tmp_path / "saved")).items():
        np.testing.assert_array_equal(value, _outputs(name, model)[key])


@pytest.mark.parametrize("to", ["keras", "transformers", "albert_hub"])
def test_it_is_dequantized_for_other_targets(to: Any, repository: Path, unpacked: Unpacked, tmp_path: Path) -> None:
    report = convert(repository, tmp_path / "again", to=to)
    assert (report.source.dtype, report.dtype) == ("int8", "float32")
    assert [note for note in report.notes if note.startswith("The int8 weights were dequantized to float32.")]
    with read_checkpoint(tmp_path / "again") as again, read_checkpoint(repository) as int8:
        assert not again.int8
        for name, weight in int8.weights.items():
            np.testing.assert_array_equal(again.weights[name].load(), weight.load())
    verification = verify(repository, tmp_path / "again")
    assert verification.passed, verification


def test_shards_have_a_weight_or_its_scales(unpacked: Unpacked, tmp_path: Path) -> None:
    name = "keras_hub_int8_masked_lm"
    convert(unpacked(name), tmp_path / "int8", to="albert_hub", dtype="int8", max_shard_size=1500)
    assert len(list((tmp_path / "int8").glob("model-*.safetensors"))) > 2
    for key, value in _outputs(name, _load(name, tmp_path / "int8")).items():
        np.testing.assert_allclose(value, _expected(name)[key], rtol=0, atol=TOLERANCE, err_msg=key)


@pytest.mark.parametrize("name", AUTO)
def test_from_preset_keeps_int8_on_request(name: str, unpacked: Unpacked, tmp_path: Path) -> None:
    convert(unpacked(name), tmp_path / "int8", to="albert_hub", dtype="int8")
    for source in (unpacked(name), tmp_path / "int8"):
        model = OURS[name].from_preset(source, dtype="int8")
        model.tie_weights()
        assert isinstance(model.base_model.token_embedding, Int8Embedding)
        assert not any(parameter.requires_grad for parameter in model.parameters())
        for key, value in _outputs(name, model).items():
            np.testing.assert_allclose(value, _expected(name)[key], rtol=0, atol=TOLERANCE, err_msg=key)


def test_from_preset_in_int8_needs_int8_weights(keras_preset: KerasPreset) -> None:
    with pytest.raises(ValueError, match="has no int8 weights, not 'int8'"):
        AlbertHubModel.from_preset(keras_preset.folder, dtype="int8")


def test_the_code_in_the_repository_computes_the_same(unpacked: Unpacked, tmp_path: Path) -> None:
    """The package may be imported later. It registers the same method."""
    name = "keras_hub_int8"
    convert(unpacked(name), tmp_path / "int8", to="albert_hub", dtype="int8", include_code=True)
    code = f"""
import numpy as np, sys, torch, transformers
recorded = np.load({str(FIXTURES / name)!r} + ".npz")
model = transformers.AutoModel.from_pretrained({str(tmp_path / "int8")!r}, trust_remote_code=True)
assert "albert_hub_bridge" not in sys.modules
keys = {{"input_ids": "token_ids", "token_type_ids": "segment_ids", "attention_mask": "padding_mask"}}
inputs = {{key: torch.from_numpy(recorded[twin]).long() for key, twin in keys.items()}}
with torch.inference_mode():
    states = model(**inputs).last_hidden_state
print(type(model.token_embedding).__name__, float(np.abs(states.numpy() - recorded["quantized_sequence_output"]).max()))
import albert_hub_bridge
albert_hub_bridge.AlbertHubModel
"""
    ended = run_forked(code)
    assert ended.code == 0, ended.stderr
    layer, difference = ended.stdout.splitlines()[-1].split()
    assert layer == "Int8Embedding"
    assert float(difference) < TOLERANCE


def test_programs_that_embed_compute_in_int8(unpacked: Unpacked, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["a bridge joins two banks", "bread"]
    source = unpacked("keras_hub_int8")
    convert(source, tmp_path / "int8", to="albert_hub", dtype="int8", sentence_transformers="mean")
    convert(source, tmp_path / "float32", to="albert_hub", sentence_transformers="mean")
    expected = SentenceTransformer(str(tmp_path / "int8"), device="cpu").encode(texts)
    for model in (tmp_path / "int8", source):
        found = Embedder(model, pooling="mean", normalize=False, device="cpu").encode(texts)
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    dequantized = Embedder(tmp_path / "float32", device="cpu").encode(texts)
    assert np.abs(np.asarray(dequantized) - expected).max() > 1000 * TOLERANCE


def test_half_precision_of_the_rest(repository: Path) -> None:
    name = "keras_hub_int8_classifier"
    model = _load(name, repository)
    assert type(model).from_pretrained(repository, dtype=torch.bfloat16).dtype == torch.float32  # and a warning
    before = _outputs(name, model)["sequence_output"]
    model.to(torch.bfloat16)
    found = model.base_model(torch.ones(1, 4, dtype=torch.long)).last_hidden_state
    assert found.dtype == torch.bfloat16
    assert torch.isfinite(found).all()
    assert np.isfinite(before).all()


def test_onnx_files_are_refused_later_too(repository: Path) -> None:
    with pytest.raises(SourceError, match=r"ONNX files are not exported of int8 weights, which .*int8 has"):
        export_onnx(repository)
    assert not (repository / "onnx").exists()


def test_inspect_says_int8(unpacked: Unpacked, repository: Path) -> None:
    for folder in (unpacked("keras_hub_int8_classifier"), repository):
        found = inspect(folder)
        assert found.dtype == "int8"
        assert [note for note in found.notes if note.startswith("Its weights are quantized to int8 (")]
    assert inspect(repository).parameters == inspect(unpacked("keras_hub_int8_classifier")).parameters


def test_the_record_and_the_card_say_int8(repository: Path) -> None:
    record = json.loads((repository / "conversion.json").read_text())
    assert record["target"]["dtype"] == record["source"]["dtype"] == "int8"
    assert "--dtype int8" in record["command"]
    assert len([name for name in record["target"]["tensors"] if name.endswith("_scale")]) >= 27
    assert "in int8" in (repository / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"to": "transformers"},
            "Only the albert_hub layout has int8 weights, and the target's layout is transform",
        ),
        ({"to": "keras"}, "Only the albert_hub layout has int8 weights, and the target's layout is keras"),
        ({"to": "albert_hub", "onnx": True}, "ONNX files are not exported of int8 weights"),
    ],
)
def test_other_targets_are_refused(options: dict[str, Any], message: str, unpacked: Unpacked, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=message):
        convert(unpacked("keras_hub_int8"), tmp_path / "int8", dtype="int8", **options)
    assert not (tmp_path / "int8").exists()


def test_a_source_of_floats_is_refused(keras_preset: KerasPreset, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no int8 weights: they are float32.*that KerasHub quantized"):
        convert(keras_preset.folder, tmp_path / "int8", to="albert_hub", dtype="int8")
    assert not (tmp_path / "int8").exists()


@pytest.mark.parametrize("value", [0, -3, 1e-40, np.inf, np.nan])
@pytest.mark.parametrize("dtype", [None, "int8"])
def test_a_scale_that_is_no_positive_number_is_refused(
    value: float, dtype: Any, unpacked: Unpacked, tmp_path: Path
) -> None:
    source = shutil.copytree(unpacked("keras_hub_int8"), tmp_path / "preset")
    with h5py.File(source / "model.weights.h5", "a") as file:
        file["layers/dense/vars/2"][0] = value
    with pytest.raises(
        WeightsError, match=r"model\.weights\.h5\n.*layers/dense/vars/2 +expected positive scales, found 1"
    ):
        convert(source, tmp_path / "int8", to="albert_hub", dtype=dtype)
    assert not (tmp_path / "int8").exists()


_QUERY = "layers/transformer_encoder/_self_attention_layer/query_dense/vars/2"


@pytest.mark.parametrize(
    ("name", "shape"), [("layers/dense/vars/2", ()), ("layers/dense/vars/2", (1,)), (_QUERY, (8,)), (_QUERY, (8, 1, 1))]
)
def test_scales_of_another_shape_are_refused(name: str, shape: Any, unpacked: Unpacked, tmp_path: Path) -> None:
    """One for each input of a square kernel would fit by its size."""
    source = shutil.copytree(unpacked("keras_hub_int8"), tmp_path / "preset")
    with h5py.File(source / "model.weights.h5", "a") as file:
        del file[name]
        file[name] = np.ones(shape, np.float32)
    with pytest.raises(
        WeightsError, match=r"wrong scale +\S+/vars/0 +expected scales \(.*\) of float32, .* found float32"
    ):
        inspect(source)


SCALE = "backbone.pooled_dense.weight_scale"


def _without_scale(tensors: dict[str, np.ndarray], _: dict[str, Any]) -> None:
    del tensors[SCALE]


def _short_scale(tensors: dict[str, np.ndarray], _: dict[str, Any]) -> None:
    tensors[SCALE] = tensors[SCALE][1:].copy()


def _scale_alone(tensors: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    tensors["backbone.pooled_dense.weight"] = tensors["backbone.pooled_dense.weight"].astype(np.float32)
    config["quantization_config"]["modules"].remove("pooled_dense")


def _other_method(_: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}


def _no_method(_: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    del config["quantization_config"]


def _int8_positions(tensors: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    name = "backbone.position_embedding.weight"
    tensors[f"{name}_scale"] = np.ones(len(tensors[name]), np.float32)
    tensors[name] = tensors[name].astype(np.int8)
    config["quantization_config"]["modules"].append("position_embedding")


def _no_list(_: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    config["quantization_config"]["modules"] = ["pooled_dense", 1]


def _float_module(_: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    config["quantization_config"]["modules"].append("position_embedding")


def _one_module_less(_: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    config["quantization_config"]["modules"].pop()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (_without_scale, WeightsError, rf"wrong scale +{SCALE} +expected float32 \(8,\), .*found none"),
        (_short_scale, WeightsError, rf"wrong scale +{SCALE} +expected float32 \(8,\), .*found float32 \(7,\)"),
        (_scale_alone, WeightsError, rf"unexpected +{SCALE}"),
        (
            _other_method,
            ConfigurationError,
            "expected quant_method 'keras_int8' and a list .* found .*bitsandbytes",
        ),
        (_no_method, ConfigurationError, "expected quant_method 'keras_int8' and a list .* found None"),
        (_int8_positions, WeightsError, r"wrong dtype +backbone\.position_embedding\.weight +expected .*found int8"),
        (_no_list, ConfigurationError, "expected quant_method 'keras_int8' and a list of modules, because 2. tensors"),
        (_float_module, ConfigurationError, "expected only layers with int8 weights in modules, found position_embed"),
        (_one_module_less, ConfigurationError, "expected classifier in modules, because the weights are int8"),
    ],
)
def test_a_wrong_repository_is_refused(
    change: Callable[[dict[str, np.ndarray], dict[str, Any]], None],
    error: type[AlbertHubBridgeError],
    message: str,
    repository: Path,
) -> None:
    weights, config = repository / "model.safetensors", repository / "config.json"
    tensors, content = load_file(weights), json.loads(config.read_text())
    change(tensors, content)
    save_file(tensors, weights, {"format": "pt"})
    config.write_text(json.dumps(content))
    with pytest.raises(error, match=message):
        inspect(repository)


def test_floats_with_a_quantization_config_are_refused(keras_preset: KerasPreset, tmp_path: Path) -> None:
    convert(keras_preset.folder, tmp_path / "float", to="albert_hub")
    config = tmp_path / "float" / "config.json"
    content = json.loads(config.read_text())
    content["quantization_config"] = {"quant_method": "keras_int8", "modules": ["pooled_dense"]}
    config.write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match="expected none, because no tensor is int8, found"):
        inspect(tmp_path / "float")
