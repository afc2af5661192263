"""`verify` on whole folders: what differs, what cannot be compared, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from albert_hub_bridge import convert, inspect, push, verify
from albert_hub_bridge.cli import app
from albert_hub_bridge.commands.verify import verify_and_record
from albert_hub_bridge.errors import EngineError, SourceError, TargetError
from albert_hub_bridge.hubs.published import PUBLISHED_PRESETS
from albert_hub_bridge.layouts.hub.repository import write_repository
from albert_hub_bridge.layouts.keras.preset import write_preset
from albert_hub_bridge.mapping.heads import Head
from albert_hub_bridge.verification import texts
from albert_hub_bridge.verification.engines.common import pack
from albert_hub_bridge.verification.engines.keras_hub import KerasHubEngine
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, train_vocabulary, write_sample_preset
from tests.conftest import TEXTS, KerasPreset


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    write_sample_preset(tmp_path / "sample")
    return tmp_path / "sample"


def _change(folder: Path, name: str, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


LAYER = "transformer_layers.1.0.self_attention_layer"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (f"{LAYER}.query_dense.weight", lambda tensor: tensor.T),
        (f"{LAYER}.key_dense.bias", torch.zeros_like),  # moves the outputs by nothing at all
        ("segment_embedding.weight", lambda tensor: tensor.flip(0)),
        ("pooled_dense.bias", lambda tensor: tensor * (1 + 2**-23)),
    ],
)
def test_changed_tensor_fails(name: str, change: Any, sample: Path, tmp_path: Path) -> None:
    convert(sample, tmp_path / "target", to="albert_hub")
    _change(tmp_path / "target", name, change)
    report = verify(sample, tmp_path / "target")
    assert not report.passed
    assert report.different_tensors == [name]


def test_changed_activation_fails(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from albert_hub_bridge.model import modeling_albert_hub

    convert(sample, tmp_path / "target", to="albert_hub")
    monkeypatch.setitem(modeling_albert_hub.ACT2FN, "gelu_pytorch_tanh", torch.nn.GELU)  # the exact one
    report = verify(sample, tmp_path / "target")
    assert not report.passed
    assert report.different_tensors == []
    assert report.max_abs_difference["sequence_output"] > 1e-5


def test_texts_with_other_ids_are_counted(sample: Path, tmp_path: Path) -> None:
    convert(sample, tmp_path / "transformers", to="transformers")
    (tmp_path / "transformers" / "tokenizer.json").unlink()
    (
        tmp_path / "transformers" / "tokenizer_config.json"
    ).unlink()  # what is left is read as transformers' uncased tokenizer
    convert(tmp_path / "transformers", tmp_path / "albert_hub", to="albert_hub")
    report = verify(sample, tmp_path / "albert_hub", texts=TEXTS)
    assert not report.passed
    assert report.different_ids == 2
    assert report.first_difference is not None
    assert report.first_difference["text"] == TEXTS[1]
    assert report.first_difference["source"][:3] == ["▁", "<unk>", "o"]  # KerasHub does not know the capital N
    assert report.first_difference["target"][0].startswith("▁no")
    assert report.max_abs_difference["sequence_output"] <= 1e-5


def test_different_models_are_compared_as_far_as_possible(
    sample: Path, keras_preset: KerasPreset, tmp_path: Path
) -> None:
    report = verify(sample, keras_preset.folder)
    assert report.different_fields == {"dropout": (0.0, 0.1)}
    assert len(report.different_tensors) == 73
    assert report.max_abs_difference["sequence_output"] > 0.1

    bare = Path(shutil.copytree(sample, tmp_path / "bare"))
    shutil.rmtree(bare / "assets")
    report = verify(sample, bare)
    assert report.vocabularies == (True, False)
    assert not report.passed
    report = verify(bare, bare)
    assert report.vocabularies == (False, False)
    assert report.passed

    other = json.loads((bare / "config.json").read_text())
    other["config"]["num_layers"] = 8
    (bare / "config.json").write_text(json.dumps(other))
    report = verify(sample, bare)
    assert report.different_fields == {"num_layers": (4, 8)}
    assert report.max_abs_difference == {}
    assert not report.passed


def test_packed_inputs_have_two_segments_and_fit() -> None:
    packed = pack([[7, 8, 9], [10, 11, 12, 13, 14]], {"pad": 0, "cls": 2, "sep": 3}, num_segments=2, max_length=6)
    assert packed["token_ids"].tolist() == [[2, 7, 8, 9, 3, 0], [2, 10, 11, 12, 13, 3]]
    assert packed["segment_ids"].tolist() == [[0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1]]
    assert packed["padding_mask"].tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]
    assert pack([[7], [8]], {"pad": 0, "cls": 2, "sep": 3}, num_segments=1, max_length=1)["token_ids"].tolist() == [
        [2],
        [2],
    ]


def test_shorter_sequence_length_is_used(
    keras_preset: KerasPreset, sample: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    convert(sample, tmp_path / "transformers", to="transformers")
    config = json.loads((tmp_path / "transformers" / "tokenizer_config.json").read_text())
    (tmp_path / "transformers" / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 11}))
    lengths = []
    monkeypatch.setattr(texts, "pack", lambda *arguments: lengths.append(arguments[-1]) or pack(*arguments))
    report = verify(sample, tmp_path / "transformers")
    assert report.different_fields == {"sequence_length": (64, 11)}
    assert [name for name, check in report.checks.items() if check.outcome != "passed"] == ["configuration"]
    assert set(lengths) == {11}


@pytest.mark.parametrize(("name", "change"), [("tokenizer.json", {"pre_tokenizer": {"type": "X"}})])
def test_error_of_an_engine_names_the_folder(name: str, change: dict[str, Any], sample: Path, tmp_path: Path) -> None:
    convert(sample, tmp_path / "target", to="transformers")
    file = tmp_path / "target" / name
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(EngineError, match="target fails in its own library"):
        verify(sample, tmp_path / "target")


def test_nan_fails_and_is_null_in_json(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = KerasHubEngine.compute

    def broken(self: Any, inputs: Any, with_head: bool = True) -> dict[str, Any]:
        return {name: output * np.nan for name, output in real(self, inputs, with_head).items()}

    monkeypatch.setattr(KerasHubEngine, "compute", broken)
    report = verify(sample, sample)
    assert not report.passed
    assert report.checks["engines"].outcome == report.checks["texts"].outcome == "failed"
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["max_abs_difference"]["sequence_output"] is None


def test_no_texts_are_refused(sample: Path) -> None:
    with pytest.raises(ValueError, match="at least one text"):
        verify(sample, sample, texts=[])


def test_long_texts_are_truncated_to_fit_both_sides(sample: Path, tmp_path: Path) -> None:
    convert(sample, tmp_path / "target", to="transformers")
    assert verify(sample, tmp_path / "target", texts=["a bridge " * 200, "a"]).passed


def test_without_keras_hub_our_model_computes_the_preset(
    keras_preset: KerasPreset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    convert(keras_preset.folder, tmp_path / "target", to="albert_hub")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    report = verify(keras_preset.folder, tmp_path / "target")
    assert report.passed
    assert "(keras_hub is not installed)" in report.source_engine


def test_dropped_head_is_no_difference(tmp_path: Path) -> None:
    (tmp_path / "transformers").mkdir()
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, train_vocabulary(), head=Head(kind="pretraining"))
    write_repository(checkpoint, tmp_path / "transformers", "transformers")
    convert(tmp_path / "transformers", tmp_path / "keras", to="keras", drop_head=True)
    report = verify(tmp_path / "transformers", tmp_path / "keras")
    assert report.passed
    assert "head_output" in report.max_abs_difference
    assert "Left out of the target, as its conversion.json says: sentence_order_classifier.bias" in report.notes[0]
    (tmp_path / "keras" / "conversion.json").unlink()  # then nobody says that it was on purpose
    assert verify(tmp_path / "transformers", tmp_path / "keras").different_tensors == [
        "sentence_order_classifier.bias",
        "sentence_order_classifier.weight",
    ]


def test_wrong_layer_is_located(preset: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, train_vocabulary())
    name = "transformer_layers.1.0.feedforward_output_dense.bias"
    weight = checkpoint.weights[name]
    changed = replace(weight, load=lambda: 2 * weight.read())
    write_preset(replace(checkpoint, weights={**checkpoint.weights, name: changed}), other)
    layers = verify(preset, other).layer_differences
    # Group 0 is right: the embeddings, and its 2 layers run twice.
    assert max(layers[:5]) <= 1e-5
    assert min(layers[5:]) > 1e-2


def test_only_a_comparison_with_the_recorded_source_is_recorded(preset: Path, tmp_path: Path) -> None:
    target, other = tmp_path / "target", tmp_path / "other"
    convert(preset, target, to="transformers")
    convert(preset, other, to="albert_hub")
    before = (target / "conversion.json").read_bytes()
    for source in (target, other):  # both equal the target in every number
        report, recorded = verify_and_record(source, target)
        assert (report.passed, recorded) == (True, "another source")
    assert (target / "conversion.json").read_bytes() == before
    with pytest.raises(TargetError, match="was not compared with its source"):
        push(target, "hf://user/albert")
    result = CliRunner().invoke(app, ["verify", str(other), str(target)])
    assert f"Not recorded: {other} is not the source of {target}." in result.stdout.replace("\n", "")
    shutil.copytree(preset, tmp_path / "moved")
    assert verify_and_record(tmp_path / "moved", target)[1] == "recorded"


@pytest.mark.parametrize("name", [*PUBLISHED_PRESETS, "albert/albert-base-v2", "user/repo"])
def test_folder_named_like_a_published_model_is_never_looked_up_on_a_hub(
    name: str, preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(preset, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    convert(name, "target", to="transformers")
    report = verify(name, "target")
    assert report
    assert "keras_hub" in report.source_engine
    shutil.rmtree(name)
    for missing in (Path(name), f"./{name}", f"~/{name}", f"{name}/", f"..\\{name}"):
        with pytest.raises(SourceError, match="does not exist"):
            inspect(missing)
