from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch

from albert_hub_bridge import AlbertHubModel, convert, inspect, verify
from albert_hub_bridge.disk import staging as staging_directories
from albert_hub_bridge.errors import AlbertHubBridgeError, EngineError, SourceError, TargetError, WeightsError
from albert_hub_bridge.layouts.hub import repository as hf_repository
from albert_hub_bridge.layouts.registry import detect_layout
from albert_hub_bridge.verification import outputs, texts
from albert_hub_bridge.verification.engines.common import pack
from conversion.sample import write_sample_preset
from tests.conftest import TEXTS, KerasPreset


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    write_sample_preset(tmp_path / "sample")
    return tmp_path / "sample"


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_inspect_says_what_a_preset_is(keras_preset: KerasPreset, vocabulary: bytes) -> None:
    report = inspect(keras_preset.folder)
    assert (report.layout, report.dtype, report.head) == ("keras", "float32", None)
    assert report.architecture == keras_preset.architecture
    assert report.parameters == keras_preset.backbone.count_params()
    assert report.bytes == 4 * report.parameters
    assert report.tensors == 73
    assert report.vocabulary is not None
    assert report.vocabulary.text_normalization == "none"
    assert {key.key for key in report.ignored} == {"name", "trainable", "dtype"}
    assert json.loads(json.dumps(report.as_dict()))["architecture"]["num_groups"] == 2


@pytest.mark.parametrize("to", ["keras", "albert_hub", "transformers"])
def test_convert_writes_every_layout_and_verify_agrees(to: Any, keras_preset: KerasPreset, tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    report = convert(keras_preset.folder, tmp_path / "target", to=to, progress=lambda *step: progress.append(step))
    assert (report.layout, report.source.layout) == (to, "keras")
    assert detect_layout(tmp_path / "target") == to
    assert progress == sorted(progress)
    assert len(progress) == 73
    assert progress[-1] == (report.source.bytes, report.source.bytes)
    verification = verify(keras_preset.folder, tmp_path / "target")
    assert verification.passed
    assert verification.max_abs_difference["sequence_output"] <= 1e-5
    assert verification.source_engine.startswith("keras_hub 0.")
    expected = {"keras": "keras_hub", "albert_hub": "AlbertHubModel", "transformers": " AlbertModel"}[to]
    assert expected in verification.target_engine


def test_transformers_to_keras_is_computed_by_keras_hub(keras_preset: KerasPreset, tmp_path: Path) -> None:
    import keras_hub

    convert(keras_preset.folder, tmp_path / "transformers", to="transformers")
    convert(tmp_path / "transformers", tmp_path / "keras", to="keras")
    backbone = keras_hub.models.AlbertBackbone.from_preset(str(tmp_path / "keras"))
    for name, found in backbone.predict(keras_preset.inputs, verbose=0).items():
        np.testing.assert_allclose(np.asarray(found), keras_preset.outputs[name], atol=1e-5, rtol=0)
    assert verify(tmp_path / "transformers", tmp_path / "keras").passed


def test_an_existing_target_is_refused_and_left_alone(sample: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "precious.txt").write_text("mine")
    with pytest.raises(TargetError, match=r"exists\. Pass --overwrite"):
        convert(sample, target, to="albert_hub")
    assert _tree(target) == {"precious.txt": b"mine"}
    with pytest.raises(TargetError, match="neither a preset nor a repository, and nothing else is replaced"):
        convert(sample, target, to="albert_hub", overwrite=True)
    assert _tree(target) == {"precious.txt": b"mine"}


def test_an_existing_repository_is_replaced_as_a_whole(sample: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    convert(sample, target, to="transformers")
    (target / "old.txt").write_text("old")
    (target / "added_tokens.json").write_text("{}")  # repositories have it, but nothing here writes it
    (target / ".git").mkdir()
    (target / ".git" / "HEAD").write_text("main")
    before = _tree(target)
    with pytest.raises(TargetError, match=r"has \.git/HEAD, added_tokens\.json, old\.txt, which nothing here writes"):
        convert(sample, target, to="keras", overwrite=True)
    assert _tree(target) == before
    (target / "old.txt").unlink()
    (target / "added_tokens.json").unlink()
    shutil.rmtree(target / ".git")
    convert(sample, target, to="keras", overwrite=True)
    assert _tree(target).keys() == _tree(sample).keys() | {"conversion.json", "README.md"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sample", "target"]


def test_a_target_that_holds_the_source_is_refused(sample: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = _tree(tmp_path)
    with pytest.raises(TargetError, match=r"has sample/assets/tokenizer/vocabulary\.spm"):
        convert(sample, tmp_path, to="albert_hub", overwrite=True)
    assert _tree(tmp_path) == before


def test_the_current_folder_is_not_replaced(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(TargetError, match="the current folder"):
        convert(sample, ".", to="albert_hub")


def test_the_target_is_looked_at_before_the_source(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    with pytest.raises(TargetError):
        convert(tmp_path / "nowhere", tmp_path / "target", to="albert_hub")


@pytest.mark.parametrize("failing", [1, 2, 3])
@pytest.mark.parametrize("error", [OSError(5, "Input/output error", "target"), KeyboardInterrupt()])
def test_where_names_cannot_be_exchanged_a_failed_move_brings_the_old_target_back(
    error: BaseException, failing: int, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(staging_directories, "_exchange", cannot)
    convert(sample, tmp_path / "target", to="albert_hub")
    before = _tree(tmp_path)
    rename, calls = os.rename, []

    def fail(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == failing:
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(type(error)):
        convert(sample, tmp_path / "target", to="transformers", overwrite=True)
    assert _tree(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sample", "target"]
    assert len(calls) == 2 * failing - 1
    convert(sample, tmp_path / "target", to="transformers", overwrite=True)
    assert detect_layout(tmp_path / "target") == "transformers"


def test_files_that_are_not_carried_over_are_named(sample: Path, tmp_path: Path) -> None:
    (sample / "README.md").write_text("mine")
    assert inspect(sample).notes == ("Files that were not converted: README.md.",)


def test_a_card_that_nothing_here_wrote_is_not_replaced(sample: Path, tmp_path: Path) -> None:
    convert(sample, tmp_path / "target", to="transformers")
    (tmp_path / "target" / "conversion.json").unlink()
    with pytest.raises(TargetError, match=r"has README\.md, which nothing here writes"):
        convert(sample, tmp_path / "target", to="transformers", overwrite=True)


def test_a_layout_that_is_none_is_refused(sample: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="to must be one of keras, albert_hub, transformers, not 'Keras'"):
        convert(sample, tmp_path / "target", to="Keras")  # type: ignore[arg-type]


def test_an_empty_target_is_filled(sample: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    convert(sample, tmp_path / "target", to="transformers")
    assert detect_layout(tmp_path / "target") == "transformers"


@pytest.mark.parametrize("kind", ["file", "link", "no parent"])
def test_a_target_that_cannot_be_a_folder_is_refused(kind: str, sample: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("mine")
    elif kind == "link":
        target.symlink_to(sample)
    else:
        target = tmp_path / "nowhere" / "target"
    before = _tree(tmp_path)
    with pytest.raises(TargetError):
        convert(sample, target, to="albert_hub", overwrite=True)
    assert _tree(tmp_path) == before


def test_a_folder_is_not_converted_in_place(sample: Path) -> None:
    before = _tree(sample)
    with pytest.raises(TargetError, match="is the source itself"):
        convert(sample, sample, to="albert_hub", overwrite=True)
    assert _tree(sample) == before


def test_a_failure_halfway_leaves_nothing_behind(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(sample, tmp_path / "target", to="albert_hub")
    before = _tree(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hf_repository, "write_weights", full)
    for overwrite, target in ((True, tmp_path / "target"), (False, tmp_path / "other")):
        with pytest.raises(OSError, match="No space left"):
            convert(sample, target, to="transformers", overwrite=overwrite)
    assert _tree(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sample", "target"]


def test_a_wrong_source_writes_nothing(sample: Path, tmp_path: Path) -> None:
    with h5py.File(sample / "model.weights.h5", "r+") as file:
        del file["layers/dense/vars/0"]
    with pytest.raises(WeightsError, match=r"missing +layers/dense/vars/0"):
        convert(sample, tmp_path / "target", to="albert_hub")
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "has no config.json: it is neither a KerasHub preset nor a Hub repository"),
        ({}, "found neither class_name nor model_type"),
        (
            {"model_type": "bert"},
            "expected the class_name of a KerasHub preset, or .*found model_type 'bert'",
        ),
        ({"model_type": ["albert"]}, "found model_type"),
    ],
)
def test_a_folder_that_is_neither_kind_is_refused(config: object, message: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    if config is not None:
        (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match=message):
        inspect(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("kaggle://keras/albert", "should be kaggle://org/model/keras/name"),
        ("gs://bucket/preset", "begins with gs://. Use hf://, kaggle:// or modelscope://."),
        ("albert_base", "neither a preset that KerasHub publishes nor a model on a hub"),
        ("no/such/folder", "The folder no/such/folder does not exist"),
        (__file__, "is a file. Pass the folder"),
    ],
)
def test_a_source_that_is_not_a_folder_says_why(source: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        inspect(source)


@pytest.mark.parametrize(
    ("source", "package"), [("modelscope://user/repo", "modelscope"), ("kaggle://org/model/keras/name", "kagglehub")]
)
def test_a_client_that_is_not_installed_is_named(source: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (package, "modelscope.hub.api"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SourceError, match=f"downloaded with {package}, which is not installed: pip install {package}"):
        inspect(source)


def test_every_error_is_one_of_ours() -> None:
    from albert_hub_bridge import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) == 9
    assert all(issubclass(kind, AlbertHubBridgeError) for kind in kinds)
    assert all(kind.__name__ in str(errors.__doc__) for kind in kinds)


def test_a_new_folder_follows_the_umask(sample: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        convert(sample, tmp_path / "target", to="albert_hub")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "target" / "model.safetensors").stat().st_mode) == 0o640


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
def test_verify_sees_one_changed_tensor(name: str, change: Any, sample: Path, tmp_path: Path) -> None:
    convert(sample, tmp_path / "target", to="albert_hub")
    _change(tmp_path / "target", name, change)
    report = verify(sample, tmp_path / "target")
    assert not report.passed
    assert report.different_tensors == [name]


def test_verify_sees_other_numbers_where_the_tensors_agree(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from albert_hub_bridge.model import modeling_albert_hub

    convert(sample, tmp_path / "target", to="albert_hub")
    monkeypatch.setitem(modeling_albert_hub.ACT2FN, "gelu_pytorch_tanh", torch.nn.GELU)  # the exact one
    report = verify(sample, tmp_path / "target")
    assert not report.passed
    assert report.different_tensors == []
    assert report.max_abs_difference["sequence_output"] > 1e-5


def test_verify_counts_texts_that_become_other_ids(sample: Path, tmp_path: Path) -> None:
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


def test_verify_compares_what_can_be_compared(sample: Path, keras_preset: KerasPreset, tmp_path: Path) -> None:
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


def test_packed_inputs_have_two_segments_and_what_both_sides_can_take() -> None:
    packed = pack([[7, 8, 9], [10, 11, 12, 13, 14]], {"pad": 0, "cls": 2, "sep": 3}, num_segments=2, max_length=6)
    assert packed["token_ids"].tolist() == [[2, 7, 8, 9, 3, 0], [2, 10, 11, 12, 13, 3]]
    assert packed["segment_ids"].tolist() == [[0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1]]
    assert packed["padding_mask"].tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1]]
    assert pack([[7], [8]], {"pad": 0, "cls": 2, "sep": 3}, num_segments=1, max_length=1)["token_ids"].tolist() == [
        [2],
        [2],
    ]


def test_the_shorter_sequence_length_counts(
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
    assert lengths == [11]


@pytest.mark.parametrize(
    ("name", "change"),
    [("tokenizer.json", {"pre_tokenizer": {"type": "X"}}), ("tokenizer_config.json", {"tokenizer_class": 1})],
)
def test_what_an_engine_raises_names_the_folder(
    name: str, change: dict[str, Any], sample: Path, tmp_path: Path
) -> None:
    convert(sample, tmp_path / "target", to="transformers")
    file = tmp_path / "target" / name
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(EngineError, match="target fails in its own library"):
        verify(sample, tmp_path / "target")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_and_all_listed(
    value: float, dtype: str, sample: Path, tmp_path: Path
) -> None:
    convert(sample, tmp_path / "transformers", to="transformers", dtype=dtype)
    tensors = safetensors.torch.load_file(tmp_path / "transformers" / "model.safetensors")
    tensors["albert.embeddings.LayerNorm.bias"][-1] = value
    tensors["albert.encoder.embedding_hidden_mapping_in.weight"][3, 4:6] = value
    safetensors.torch.save_file(tensors, tmp_path / "transformers" / "model.safetensors")
    for refused in (
        lambda: convert(tmp_path / "transformers", tmp_path / "target", to="keras"),
        lambda: convert(tmp_path / "transformers", tmp_path / "target", to="albert_hub", dtype="float32"),
        lambda: verify(tmp_path / "transformers", sample),
        lambda: AlbertHubModel.from_preset(tmp_path / "transformers"),
    ):
        with pytest.raises(WeightsError, match=r"not finite +albert\.\S+ +expected finite values, found") as error:
            refused()
        assert not (tmp_path / "target").exists()
    with pytest.raises(WeightsError) as error:
        convert(tmp_path / "transformers", tmp_path / "target", to="transformers")
    assert f"found 1 that are not, the first {value} at (15,)" in str(error.value)
    assert f"found 2 that are not, the first {value} at (3, 4)" in str(error.value)
    assert error.value.where == tmp_path / "transformers" / "model.safetensors"


def test_numbers_that_are_nan_are_no_agreement_and_json_all_the_same(
    sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gaps = outputs.row_differences

    def broken(*sides: Any) -> dict[str, Any]:
        return {name: gap * np.nan for name, gap in gaps(*sides).items()}

    for module in (texts, outputs):
        monkeypatch.setattr(module, "row_differences", broken)
    report = verify(sample, sample)
    assert not report.passed
    assert report.checks["engines"].outcome == report.checks["texts"].outcome == "failed"
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["max_abs_difference"]["sequence_output"] is None


def test_verify_needs_texts(sample: Path) -> None:
    with pytest.raises(ValueError, match="at least one text"):
        verify(sample, sample, texts=[])


def test_long_texts_are_cut_to_what_both_can_take(sample: Path, tmp_path: Path) -> None:
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


def test_report_names_the_origin_of_the_text_normalization(sample: Path, tmp_path: Path) -> None:
    assert (
        convert(sample, tmp_path / "transformers", to="transformers").text_normalization_from
        == "KerasHub has no others"
    )
    assert (
        convert(sample, tmp_path / "repaired", to="transformers", normalize="uncased").text_normalization_from
        == "the option normalize"
    )

    def origin(folder: Path) -> str:
        vocabulary = inspect(folder).vocabulary
        assert vocabulary is not None
        return vocabulary.text_normalization_from

    assert origin(tmp_path / "repaired") == "tokenizer_config.json"
    convert(tmp_path / "repaired", tmp_path / "keras", to="keras")
    assert origin(tmp_path / "keras") == "the vocabulary itself"
    (tmp_path / "repaired" / "tokenizer_config.json").unlink()
    assert origin(tmp_path / "repaired") == "what AlbertTokenizer does by default; tokenizer_config.json does not say"
    (tmp_path / "repaired" / "spiece.model").unlink()
    assert origin(tmp_path / "repaired") == "tokenizer.json"
