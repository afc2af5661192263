"""Convert LoRA adapters in both directions. keras_hub and PEFT compute each other's recorded outputs."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import peft
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from albert_hub_bridge import convert, convert_adapter
from albert_hub_bridge.cli import app
from albert_hub_bridge.errors import CheckpointError, SourceError, TargetError
from albert_hub_bridge.lora.convert import base_name
from albert_hub_bridge.lora.factors import DEFAULT_LAYERS, Factors, LoraLayer, from_keras, lora_layers, to_keras
from albert_hub_bridge.lora.peft_config import PEFT, BaseName
from albert_hub_bridge.mapping.axes import axis_sizes, rearrange
from albert_hub_bridge.model.architecture import Architecture
from tests.conftest import FIXTURES, albert_arguments


TOLERANCE = 1e-5
KERAS_ADAPTERS = ("default", "every")
PEFT_FIXTURES = ("peft_model", "peft_model_every", "peft_classifier")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
SIZES = {"vocabulary_size": 30, "embedding_dim": 4, "intermediate_dim": 20, "max_sequence_length": 9}
Source = Callable[[str], Path]


@pytest.fixture
def adapter(unpacked: Source, tmp_path: Path) -> Path:
    """Return a copy of the PEFT adapter for the base of peft_model."""
    return Path(shutil.copytree(unpacked("peft_model") / "adapter", tmp_path / "changed"))


def _recorded(name: str) -> dict[str, np.ndarray]:
    with np.load(FIXTURES / f"{name}.npz") as file:
        return dict(file)


def _by_peft(base: Path, adapter: Path, recorded: Mapping[str, np.ndarray], auto: str = "AutoModel") -> Any:
    twins = {"input_ids": "token_ids", "token_type_ids": "segment_ids", "attention_mask": "padding_mask"}
    inputs = {name: torch.from_numpy(recorded[name if name in recorded else twin]) for name, twin in twins.items()}
    model = peft.PeftModel.from_pretrained(getattr(transformers, auto).from_pretrained(base), adapter)
    with torch.no_grad():
        return model.eval()(**{name: value.long() for name, value in inputs.items()})


def _by_keras(base: Path, adapter: Path, notes: list[str], recorded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Load with keras_hub, after the calls that the report asks for."""
    import keras_hub

    backbone = keras_hub.models.AlbertBackbone.from_preset(str(base))
    for note in notes:
        if call := re.search(r"enable_lora\((\d+), target_layer_names=(.*)\) before", note):
            backbone.enable_lora(int(call[1]), target_layer_names=json.loads(call[2].replace("'", '"')))
    backbone.load_lora_weights(str(adapter))
    twins = {"token_ids": "input_ids", "segment_ids": "token_type_ids", "padding_mask": "attention_mask"}
    inputs = {name: recorded[name if name in recorded else twin].astype("int32") for name, twin in twins.items()}
    return {name: np.asarray(value) for name, value in backbone.predict(inputs, verbose=0).items()}


def _assert_close(found: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.asarray(found), expected, atol=TOLERANCE, rtol=0)


def _datasets(file: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}

    def collect(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = f"{item.dtype} {item.shape} ".encode() + item[()].tobytes()

    with h5py.File(file) as h5:
        h5.visititems(collect)
    return found


def _merged_by_keras(file: Path, architecture: Architecture) -> dict[str, np.ndarray]:
    """Return the products that Keras adds to the kernels, by albert_hub names, in the layout of torch."""
    sizes, merged = axis_sizes(architecture), {}
    with h5py.File(file) as h5:
        for layer in lora_layers(architecture):
            if f"lora/{layer.number}" in h5:
                a, b = (h5[f"lora/{layer.number}/vars/lora_kernel_{part}"][()] for part in "ab")
                merged[layer.module("albert_hub")] = _merge_as_keras(layer, a, b, sizes)
    return merged


def _merge_as_keras(layer: LoraLayer, a: np.ndarray, b: np.ndarray, sizes: Mapping[str, int]) -> np.ndarray:
    product = np.matmul(a.astype(np.float64), b.astype(np.float64))
    return rearrange(product, layer.rule.keras_axes, layer.rule.torch_axes, sizes)


def test_transformers_finds_the_base_of_an_adapter(adapter: Path, unpacked: Source, tmp_path: Path) -> None:
    base = unpacked("peft_model") / "base"
    convert_adapter(adapter, tmp_path / "named", base=base, to="transformers")
    recorded = _recorded("peft_model")
    model = transformers.AutoModel.from_pretrained(tmp_path / "named").eval()
    inputs = {
        name: torch.from_numpy(recorded[name]).long() for name in ("input_ids", "token_type_ids", "attention_mask")
    }
    with torch.no_grad():
        found = model(**inputs)
    _assert_close(found.last_hidden_state, recorded["adapted_last_hidden_state"])


def test_a_base_in_another_layout_is_not_named(adapter: Path, unpacked: Source, tmp_path: Path) -> None:
    convert_adapter(adapter, tmp_path / "unnamed", base=unpacked("peft_model") / "base", to="albert_hub")
    assert json.loads((tmp_path / "unnamed" / CONFIG).read_text())["base_model_name_or_path"] is None


@pytest.mark.parametrize(
    ("handle", "name"),
    [
        ("hf://user/repo", BaseName("user/repo")),
        ("hf://user/repo@v1", BaseName("user/repo", "v1")),
        ("kaggle://user/albert/transformers/base", BaseName()),
        ("./base", BaseName("./base")),
    ],
)
def test_names_of_bases_are_what_peft_takes(handle: str, name: BaseName) -> None:
    assert base_name(handle) == name


@pytest.mark.parametrize(
    ("groups", "repetitions", "calls", "heads", "dropout"),
    [(1, 1, 1, 1, 0.0), (1, 1, 3, 2, 0.1), (2, 2, 2, 2, 0.1), (3, 1, 2, 4, 0.0), (1, 3, 1, 2, 0.1), (6, 2, 1, 2, 0.0)],
)
def test_lora_layers_have_the_numbers_of_keras(
    groups: int, repetitions: int, calls: int, heads: int, dropout: float
) -> None:
    import keras_hub

    architecture = Architecture(
        num_layers=groups * calls,
        num_heads=heads,
        hidden_dim=8,
        num_groups=groups,
        num_inner_repetitions=repetitions,
        dropout=dropout,
        **SIZES,
    )
    backbone = keras_hub.models.AlbertBackbone(**architecture.keras_arguments)
    classifier = keras_hub.models.AlbertTextClassifier(backbone, num_classes=2)
    masked_lm = keras_hub.models.AlbertMaskedLM(backbone)
    assert not hasattr(classifier, "save_lora_weights")  # only backbones have it
    sizes = axis_sizes(architecture)
    ours = {layer.number: layer for layer in lora_layers(architecture)}
    for each in (backbone, classifier.backbone, masked_lm.backbone):
        found = [layer for layer in each._flatten_layers(include_self=False) if layer.weights]
        kernels = {number: layer for number, layer in enumerate(found) if hasattr(layer, "kernel")}
        assert list(kernels) == list(ours)
        for number, layer in ours.items():
            assert kernels[number].name == layer.keras
            group, inner = [*re.findall(r"\d+", layer.rule.albert_hub), "", ""][:2]
            assert kernels[number].path.startswith(f"group_{group}_inner_layer_{inner}/" if group else layer.keras)
    backbone.enable_lora(3, target_layer_names=list({layer.keras for layer in ours.values()}))
    assert backbone._lora_enabled_layers == list(ours)
    for number, layer in ours.items():
        shapes = tuple(tuple(getattr(kernels[number], f"lora_kernel_{part}").shape) for part in "ab")
        assert shapes == layer.keras_shapes(3, sizes)


@pytest.mark.parametrize("name", KERAS_ADAPTERS)
@pytest.mark.parametrize("to", ["albert_hub", "transformers"])
def test_peft_computes_what_keras_computed(name: str, to: Any, unpacked: Source, tmp_path: Path) -> None:
    folder, recorded = unpacked("keras_hub_lora"), _recorded("keras_hub_lora")
    convert(folder, tmp_path / "base", to=to)
    report = convert_adapter(folder / f"{name}.lora.h5", tmp_path / "adapter", base=folder, to=to)
    # The numbers in the file belong to the layers that Keras recorded.
    paths = [str(line).partition(" ")[2] for line in recorded[f"{name}_layers"]]
    assert len(report.layers) == len(paths)
    for ours, path in zip(report.layers, paths, strict=True):
        assert re.findall(r"\d+", ours) == re.findall(r"\d+", path)
    assert set(report.ranks.values()) == ({8} if name == "default" else {2, 4})  # heads * rank
    outputs = _by_peft(tmp_path / "base", tmp_path / "adapter", recorded)
    _assert_close(outputs.last_hidden_state, recorded[f"{name}_sequence_output"])
    _assert_close(outputs.pooler_output, recorded[f"{name}_pooled_output"])
    assert np.abs(recorded[f"{name}_sequence_output"] - recorded["sequence_output"]).max() > 0.1
    assert not [*report.dropped, *report.ignored]
    json.dumps(report.as_dict())


@pytest.mark.parametrize("name", PEFT_FIXTURES)
def test_keras_computes_what_peft_computed(name: str, unpacked: Source, tmp_path: Path) -> None:
    folder, recorded, target = unpacked(name), _recorded(name), tmp_path / "a.lora.h5"
    drop_head = name == "peft_classifier"
    convert(folder / "base", tmp_path / "base", to="keras", drop_tokenizer=True)
    report = convert_adapter(folder / "adapter", target, base=tmp_path / "base", to="keras", drop_head=drop_head)
    assert set(report.ranks.values()) == {4}  # head_dim
    assert {tensor.name.rpartition(".")[0] for tensor in report.dropped} == (
        {"base_model.model.classifier"} if drop_head else set()
    )
    outputs = _by_keras(tmp_path / "base", target, list(report.notes), recorded)
    _assert_close(outputs["sequence_output"], recorded["adapted_last_hidden_state"])
    _assert_close(outputs["pooled_output"], recorded["adapted_pooler_output"])
    assert any("Otherwise KerasHub loads only query and value" in note for note in report.notes) == (
        name == "peft_model_every"
    )


@pytest.mark.parametrize("name", PEFT_FIXTURES)
@pytest.mark.parametrize("to", ["albert_hub", "transformers"])
def test_peft_computes_the_same_on_either_layout(name: str, to: Any, unpacked: Source, tmp_path: Path) -> None:
    folder, recorded = unpacked(name), _recorded(name)
    convert(folder / "base", tmp_path / "base", to=to)
    convert_adapter(folder / "adapter", tmp_path / "adapter", base=folder / "base", to=to)
    if name == "peft_classifier":
        outputs = _by_peft(tmp_path / "base", tmp_path / "adapter", recorded, "AutoModelForSequenceClassification")
        _assert_close(outputs.logits, recorded["adapted_logits"])
    else:
        outputs = _by_peft(tmp_path / "base", tmp_path / "adapter", recorded)
        _assert_close(outputs.last_hidden_state, recorded["adapted_last_hidden_state"])
    convert_adapter(tmp_path / "adapter", tmp_path / "back", base=folder / "base", to="transformers")
    original, back = (load_file(path / WEIGHTS) for path in (folder / "adapter", tmp_path / "back"))
    assert original.keys() == back.keys()
    assert all(np.array_equal(original[key], back[key]) for key in original)


@pytest.mark.parametrize("name", KERAS_ADAPTERS)
def test_round_trips_of_keras_are_bit_identical(name: str, unpacked: Source, tmp_path: Path) -> None:
    base = unpacked("keras_hub_lora")
    original = base / f"{name}.lora.h5"
    convert_adapter(original, tmp_path / "transformers", base=base, to="transformers")
    convert_adapter(tmp_path / "transformers", tmp_path / "one.lora.h5", base=base, to="keras")
    convert_adapter(tmp_path / "transformers", tmp_path / "albert_hub", base=base, to="albert_hub")
    convert_adapter(tmp_path / "albert_hub", tmp_path / "two.lora.h5", base=base, to="keras")
    assert _datasets(original) == _datasets(tmp_path / "one.lora.h5") == _datasets(tmp_path / "two.lora.h5")


def test_a_keras_task_with_an_adapter_runs_in_peft_with_its_head(unpacked: Source, tmp_path: Path) -> None:
    import keras_hub

    folder, recorded = unpacked("keras_hub_classifier_sigmoid"), _recorded("keras_hub_classifier_sigmoid")
    task = keras_hub.models.AlbertTextClassifier.from_preset(str(folder), preprocessor=None)
    task.backbone.enable_lora(2)
    random = np.random.default_rng(0)
    for weight in task.backbone.weights:
        if weight.name.startswith("lora_kernel"):
            weight.assign(0.5 * random.standard_normal(weight.shape))
    task.backbone.save_lora_weights(str(tmp_path / "task.lora.h5"))
    inputs = {name: recorded[name].astype("int32") for name in ("token_ids", "segment_ids", "padding_mask")}
    expected = np.asarray(task.predict(inputs, verbose=0))
    assert np.abs(expected - recorded["output"]).max() > 0.01
    for to in ("albert_hub", "transformers"):
        convert(folder, tmp_path / f"{to}-base", to=to)
        report = convert_adapter(tmp_path / "task.lora.h5", tmp_path / to, base=folder, to=to)
        assert report.notes == [
            "Load the base with an AutoModelFor... class: PEFT finds the layers only by the names of that model."
        ]
        outputs = _by_peft(tmp_path / f"{to}-base", tmp_path / to, recorded, "AutoModelForSequenceClassification")
        _assert_close(outputs.logits.sigmoid(), expected)
    convert_adapter(
        tmp_path / "transformers", tmp_path / "back.lora.h5", base=tmp_path / "transformers-base", to="keras"
    )
    assert _datasets(tmp_path / "back.lora.h5") == _datasets(tmp_path / "task.lora.h5")


@pytest.mark.parametrize("stabilized", [False, True])
def test_rank_and_alpha_patterns_match_peft(stabilized: bool, tmp_path: Path) -> None:
    """Different ranks and alphas, several groups and repetitions, and one excluded layer."""
    architecture = Architecture(
        num_layers=4, num_heads=2, hidden_dim=16, num_groups=2, num_inner_repetitions=2, **SIZES
    )
    config = transformers.AlbertConfig(**albert_arguments(architecture))
    model = transformers.AlbertModel(config)
    model.save_pretrained(tmp_path / "base")
    settings = peft.LoraConfig(
        r=3,
        lora_alpha=5,
        use_rslora=stabilized,
        target_modules=r".*(query|attention\.dense|ffn|pooler)",
        exclude_modules=r".*groups\.1\.albert_layers\.0\.attention\.query",
        rank_pattern={"ffn": 2, r"^encoder.albert_layer_groups.0.albert_layers.\d.attention.query": 1},
        alpha_pattern={"pooler": 7, r"albert_layers\.1\.attention\.dense": 0.3},
    )
    adapted = peft.get_peft_model(model, settings)
    expected = {}
    for name, module in adapted.base_model.model.named_modules():
        if hasattr(module, "lora_A"):
            torch.nn.init.normal_(module.lora_A["default"].weight)
            torch.nn.init.normal_(module.lora_B["default"].weight)
            expected[name] = module.get_delta_weight("default").detach().numpy()
    adapted.save_pretrained(tmp_path / "adapter")
    ours = {layer.module("albert"): layer for layer in lora_layers(architecture)}
    assert len(expected) == 3 + 4 + 4 + 1
    report = convert_adapter(tmp_path / "adapter", tmp_path / "a.lora.h5", base=tmp_path / "base", to="keras")
    assert set(report.ranks.values()) == {6}  # heads * rank, less than head_dim = 8
    assert any("one factor of query: their rank changes from 3 to 6." in note for note in report.notes)
    merged = _merged_by_keras(tmp_path / "a.lora.h5", architecture)
    for name, layer in ours.items():
        if name in expected:
            np.testing.assert_allclose(merged[layer.module("albert_hub")], expected[name], atol=1e-6, rtol=1e-6)
        else:  # layers without an adapter are zeros
            assert not merged.get(layer.module("albert_hub"), np.zeros(1)).any()
    names = {layer.keras for layer in ours.values() if layer.module("albert_hub") in merged}
    assert names == DEFAULT_LAYERS | {"attention_output", "feedforward_intermediate_dense", "pooled_dense"}
    # Back in PEFT, the ranks are the original ones.
    convert_adapter(tmp_path / "a.lora.h5", tmp_path / "back", base=tmp_path / "base", to="transformers")
    for name, before in load_file(tmp_path / "adapter" / WEIGHTS).items():
        after = load_file(tmp_path / "back" / WEIGHTS)[name]
        assert before.shape == after.shape
        assert "lora_B" in name or np.array_equal(before, after)


def test_keras_loads_an_adapter_of_query_only(adapter: Path, unpacked: Source, tmp_path: Path) -> None:
    base, recorded = unpacked("peft_model") / "base", _recorded("peft_model")
    tensors = load_file(adapter / WEIGHTS)
    save_file({name: value for name, value in tensors.items() if ".query." in name}, adapter / WEIGHTS)
    _edit(adapter, target_modules=["query"])
    report = convert_adapter(adapter, tmp_path / "query.lora.h5", base=base, to="keras")
    assert any("padded with zeros" in note for note in report.notes)
    convert(base, tmp_path / "keras", to="keras", drop_tokenizer=True)
    found = _by_keras(tmp_path / "keras", tmp_path / "query.lora.h5", list(report.notes), recorded)
    _assert_close(found["sequence_output"], _by_peft(base, adapter, recorded).last_hidden_state)


@st.composite
def _cases(draw: Callable[[Any], Any]) -> tuple[Architecture, int, float, int]:
    heads = draw(st.integers(1, 4))
    groups = draw(st.integers(1, 3))
    architecture = Architecture(
        num_layers=groups * draw(st.integers(1, 2)),
        num_heads=heads,
        hidden_dim=heads * draw(st.integers(1, 9)),
        num_groups=groups,
        num_inner_repetitions=draw(st.integers(1, 3)),
        **SIZES,
    )
    scale = draw(st.sampled_from([1.0, 2.0, 0.5, 1 / 3, 2**0.5, -1.0]))
    return architecture, draw(st.integers(1, 9)), scale, draw(st.integers(0, 1000))


@given(_cases())
def test_converted_factors_merge_to_the_same_kernel(case: tuple[Architecture, int, float, int]) -> None:
    architecture, rank, scale, seed = case
    random, sizes = np.random.default_rng(seed), axis_sizes(architecture)
    for layer in lora_layers(architecture):
        # PEFT -> Keras -> PEFT
        a, b = (random.standard_normal(shape).astype(np.float32) for shape in layer.torch_shapes(rank, sizes))
        expected = scale * (b.astype(np.float64) @ a)
        keras_a, keras_b = to_keras(layer, Factors(a, b, scale), sizes)
        assert (keras_a.shape, keras_b.shape) == layer.keras_shapes(len(keras_b), sizes)
        by_head = layer.per_head and sizes["heads"] > 1
        assert len(keras_b) == (min(sizes["heads"] * rank, sizes["head_dim"]) if by_head else rank)
        np.testing.assert_allclose(_merge_as_keras(layer, keras_a, keras_b, sizes), expected, atol=1e-5)
        back = from_keras(layer, keras_a, keras_b, sizes)
        np.testing.assert_allclose(back.b.astype(np.float64) @ back.a, expected, atol=1e-5)
        if not by_head or sizes["heads"] * rank < sizes["head_dim"]:
            assert back.rank == rank
            assert np.array_equal(back.a, a)
        # Keras -> PEFT -> Keras; b is zero before training
        a, b = (random.standard_normal(shape).astype(np.float32) for shape in layer.keras_shapes(rank, sizes))
        b *= np.float32(seed % 3 > 0)
        factors = from_keras(layer, a, b, sizes)
        merged = factors.b.astype(np.float64) @ factors.a
        np.testing.assert_allclose(merged, _merge_as_keras(layer, a, b, sizes), atol=1e-12)
        again = to_keras(layer, factors, sizes)
        assert np.array_equal(again[0], a)
        assert np.array_equal(again[1], b)


def test_peft_table_has_every_key_of_lora_config() -> None:
    assert not set(peft.LoraConfig().to_dict()) - set(PEFT)


def _edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | changes))


REFUSED = {
    "dora": ({"use_dora": True}, "use_dora"),
    "biases": ({"bias": "all"}, "bias .*found 'all'"),
    "another kind": ({"peft_type": "IA3", "feedforward_modules": []}, "peft_type .*found 'IA3'"),
    "a changed base": ({"init_lora_weights": "pissa"}, "init_lora_weights .*found 'pissa'"),
    "tokens": ({"trainable_token_indices": [1]}, "trainable_token_indices"),
    "a variant": ({"arrow_config": {"top_k": 1}}, "arrow_config"),
    "an unknown setting": ({"use_new": True}, "unknown key +use_new"),
    "a bad pattern": ({"rank_pattern": {"(": 1}}, "rank_pattern"),
    "a text for a rank": ({"r": "4"}, "r +expected a positive integer"),
    "another rank": ({"r": 3}, r"wrong shape .*expected \(3, 8\), found \(4, 8\)"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("to", ["keras", "albert_hub"])
def test_unsupported_settings_of_peft_are_refused(
    name: str, to: Any, adapter: Path, unpacked: Source, tmp_path: Path
) -> None:
    changes, message = REFUSED[name]
    _edit(adapter, **changes)
    before = set(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match=message):
        convert_adapter(adapter, tmp_path / "a.lora.h5", base=unpacked("peft_model") / "base", to=to)
    assert set(tmp_path.iterdir()) == before


def test_all_problems_are_listed(adapter: Path, unpacked: Source, tmp_path: Path) -> None:
    _edit(adapter, use_dora=True, lora_bias=True)
    tensors = load_file(adapter / WEIGHTS)
    names = sorted(tensors)
    tensors["base_model.model.embeddings.word_embeddings.lora_embedding_A"] = np.zeros((4, 160), np.float32)
    tensors["base_model.model.encoder.albert_layer_groups.9.albert_layers.0.ffn.lora_A.weight"] = np.zeros((4, 8))
    tensors[names[0]] = tensors[names[0]].astype(np.int32)
    del tensors[names[3]]
    save_file(tensors, adapter / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"^6 problems in the adapter") as caught:
        convert_adapter(adapter, tmp_path / "a.lora.h5", base=unpacked("peft_model") / "base", to="keras")
    kinds = [problem.kind for problem in caught.value.problems]
    assert sorted(kinds) == ["missing", *["unexpected"] * 2, *["unsupported value"] * 2, "wrong dtype"]
    assert "Check that the adapter was made for this base." in str(caught.value)


def test_a_head_is_refused_for_keras_unless_it_is_dropped(unpacked: Source, tmp_path: Path) -> None:
    folder = unpacked("peft_classifier")
    with pytest.raises(
        CheckpointError, match=r"(?s)2 problems.*unsupported .*classifier.*--drop-head.*merge_and_unload"
    ):
        convert_adapter(folder / "adapter", tmp_path / "a.lora.h5", base=folder / "base", to="keras")
    assert not list(tmp_path.iterdir())


def test_lora_on_a_head_is_unsupported(adapter: Path, unpacked: Source, tmp_path: Path) -> None:
    tensors = load_file(adapter / WEIGHTS)
    tensors["base_model.model.predictions.dense.lora_A.weight"] = np.zeros((4, 8), np.float32)
    save_file(tensors, adapter / WEIGHTS)
    base = unpacked("peft_model") / "base"
    with pytest.raises(CheckpointError, match=r"unsupported .*predictions"):
        convert_adapter(adapter, tmp_path / "albert_hub", base=base, to="albert_hub")
    report = convert_adapter(adapter, tmp_path / "albert_hub", base=base, to="albert_hub", drop_head=True)
    assert [tensor.shape for tensor in report.dropped] == [(4, 8)]


@pytest.mark.parametrize("wrong", ["fewer groups", "more groups", "wider"])
def test_a_wrong_base_is_refused(wrong: str, unpacked: Source, tmp_path: Path) -> None:
    architecture = Architecture(
        num_layers=6,
        num_heads=2,
        hidden_dim=16 if wrong == "wider" else 8,
        num_groups={"fewer groups": 1, "more groups": 3}.get(wrong, 2),
        num_inner_repetitions=2,
        **{**SIZES, "intermediate_dim": 16},
    )
    transformers.AlbertModel(transformers.AlbertConfig(**albert_arguments(architecture))).save_pretrained(
        tmp_path / "b"
    )
    with pytest.raises(CheckpointError, match="Check that the adapter was made for this base"):
        convert_adapter(
            unpacked("keras_hub_lora") / "every.lora.h5", tmp_path / "a", base=tmp_path / "b", to="transformers"
        )
    if wrong != "more groups":  # PEFT may leave layers out
        with pytest.raises(CheckpointError, match="Check that the adapter was made for this base"):
            convert_adapter(unpacked("peft_model") / "adapter", tmp_path / "a.lora.h5", base=tmp_path / "b", to="keras")


def _no_rank(h5: h5py.File) -> None:
    del h5["lora/vars/rank"]


def _another_rank(h5: h5py.File) -> None:
    h5["lora/vars/rank"][()] = 3


def _a_layer_norm(h5: h5py.File) -> None:
    h5.move("lora/14", "lora/15")


def _a_factor_less(h5: h5py.File) -> None:
    del h5["lora/14/vars/lora_kernel_b"]


def _something_more(h5: h5py.File) -> None:
    h5["lora/14/vars/more"] = 1.0


def _nothing(h5: h5py.File) -> None:
    for name in set(h5["lora"]) - {"vars"}:
        del h5["lora"][name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_no_rank, "wrong rank +lora/vars/rank"),
        (_another_rank, r"wrong shape .*expected \(8, 2, 3\), found \(8, 2, 4\)"),
        (_a_layer_norm, "(?s)no such layer .*lora/15.*missing .*lora/14"),
        (_a_factor_less, "missing +lora/14/vars/lora_kernel_b"),
        (_something_more, "unexpected +lora/14/vars/more"),
        (_nothing, "missing +lora +expected an adapter of some layer, found none"),
    ],
)
def test_damaged_keras_files_are_refused(
    change: Callable[[h5py.File], None], message: str, unpacked: Source, tmp_path: Path
) -> None:
    base = unpacked("keras_hub_lora")
    file = Path(shutil.copy(base / "default.lora.h5", tmp_path))
    with h5py.File(file, "r+") as h5:
        change(h5)
    with pytest.raises(CheckpointError, match=message):
        convert_adapter(file, tmp_path / "target", base=base, to="transformers")
    assert list(tmp_path.iterdir()) == [file]


def test_pickled_bfloat16_adapters_are_read(adapter: Path, unpacked: Source, tmp_path: Path) -> None:
    base = unpacked("peft_model") / "base"
    tensors = {name: torch.from_numpy(value).bfloat16() for name, value in load_file(adapter / WEIGHTS).items()}
    (adapter / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"missing +adapter_model.safetensors"):
        convert_adapter(adapter, tmp_path / "a", base=base, to="transformers")
    torch.save(tensors, adapter / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"a pickle +adapter_model.bin .*\n.*--allow-pickle"):
        convert_adapter(adapter, tmp_path / "a", base=base, to="transformers")
    report = convert_adapter(adapter, tmp_path / "a", base=base, to="transformers", allow_pickle=True)
    assert "The factors were bfloat16. They are float32 now, without rounding." in report.notes
    found = load_file(tmp_path / "a" / WEIGHTS)
    assert all(np.array_equal(found[name], tensor.float().numpy()) for name, tensor in tensors.items())


def test_targets_are_replaced_only_with_overwrite(adapter: Path, unpacked: Source, tmp_path: Path) -> None:
    base = unpacked("peft_model") / "base"
    for target, to in ((tmp_path / "a.lora.h5", "keras"), (tmp_path / "folder", "albert_hub")):
        convert_adapter(adapter, target, base=base, to=to)
        with pytest.raises(TargetError, match="exists"):
            convert_adapter(adapter, target, base=base, to=to)
        convert_adapter(adapter, target, base=base, to=to, overwrite=True)
    (tmp_path / "folder" / "notes.txt").touch()
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").touch()
    for target, to, message in (
        (tmp_path / "folder", "transformers", "notes.txt"),
        (other, "transformers", "it is not an adapter"),
        (tmp_path / "a.h5", "keras", r"does not end in \.lora\.h5"),
        (tmp_path / "nowhere" / "a.lora.h5", "keras", "Create it first"),
        (other, "keras", r"does not end in \.lora\.h5"),
        (adapter, "albert_hub", "the source itself"),
    ):
        with pytest.raises(TargetError, match=message):
            convert_adapter(adapter, target, base=base, to=to, overwrite=True)
    shutil.rmtree(other)
    (tmp_path / "x.lora.h5").mkdir()
    with pytest.raises(TargetError, match="is not a file"):
        convert_adapter(adapter, tmp_path / "x.lora.h5", base=base, to="keras", overwrite=True)


def test_a_failed_write_leaves_no_files(
    adapter: Path, unpacked: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(file: Path, _content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    for module in ("keras_file", "peft_folder"):
        monkeypatch.setattr(f"albert_hub_bridge.lora.{module}.write_file", fail)
    before = sorted(os.listdir(tmp_path))
    for target, to in (("a.lora.h5", "keras"), ("folder", "albert_hub")):
        with pytest.raises(TargetError, match="No space left on device"):
            convert_adapter(adapter, tmp_path / target, base=unpacked("peft_model") / "base", to=to)  # type: ignore[arg-type]
        assert sorted(os.listdir(tmp_path)) == before


def test_invalid_sources_are_refused(adapter: Path, unpacked: Source, tmp_path: Path) -> None:
    base = unpacked("peft_model") / "base"
    with pytest.raises(SourceError, match="For PEFT, pass the folder"):
        convert_adapter(adapter / WEIGHTS, tmp_path / "a", base=base, to="albert_hub")
    with pytest.raises(SourceError, match=r"has no adapter_config\.json"):
        convert_adapter(base, tmp_path / "a", base=base, to="albert_hub")
    with pytest.raises(SourceError, match="does not exist"):
        convert_adapter(tmp_path / "no.lora.h5", tmp_path / "a", base=base, to="albert_hub")
    with pytest.raises(SourceError, match="does not exist"):
        convert_adapter(adapter, tmp_path / "a", base=tmp_path / "no", to="albert_hub")
    with pytest.raises(ValueError, match="to must be one of"):
        convert_adapter(adapter, tmp_path / "a", base=base, to="peft")  # type: ignore[arg-type]


def test_convert_adapter_command_prints_a_report(unpacked: Source, tmp_path: Path) -> None:
    runner, folder = CliRunner(), unpacked("peft_classifier")
    command = ["convert-adapter", str(folder / "adapter"), str(tmp_path / "a.lora.h5"), "--base", str(folder / "base")]
    result = runner.invoke(app, [*command, "--to", "keras"])
    assert result.exit_code == 2
    assert "--drop-head" in result.stderr
    result = runner.invoke(app, [*command, "--to", "keras", "--drop-head"])
    assert result.exit_code == 0, result.output
    assert "a LoRA adapter for a KerasHub preset" in result.stdout
    assert "8 layers, rank 4" in result.stdout
    assert "2 tensors were not converted" in result.stdout
    assert runner.invoke(app, [*command, "--to", "keras", "--drop-head"]).exit_code == 2
    result = runner.invoke(app, [*command, "--to", "keras", "--drop-head", "--overwrite", "--json"])
    assert json.loads(result.stdout)["ranks"]["lora/12"] == 4
