from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from albert_hub_bridge import inspect
from albert_hub_bridge.errors import SourceError
from conversion.sample import write_sample_preset
from tests.conftest import KerasPreset


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    write_sample_preset(tmp_path / "sample")
    return tmp_path / "sample"


def test_inspect_describes_a_preset(keras_preset: KerasPreset, vocabulary: bytes) -> None:
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


def test_unconverted_files_are_named(sample: Path, tmp_path: Path) -> None:
    (sample / "README.md").write_text("mine")
    assert inspect(sample).notes == ("Files that were not converted: README.md.",)


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
def test_folder_of_no_layout_is_refused(config: object, message: str, tmp_path: Path) -> None:
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
def test_wrong_source_is_refused(source: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        inspect(source)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adapter.lora.h5", "run: albert-hub-bridge convert-adapter ADAPTER TARGET --base MODEL --to LAYOUT"),
        ("adapter_model.safetensors", "An adapter of PEFT is a folder."),
        ("model.keras", "write a preset with the model's save_to_preset"),
        ("adapter_config.json", "An adapter of PEFT is a folder."),
    ],
)
def test_a_file_that_belongs_elsewhere_names_the_way(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(SourceError, match=message):
        inspect(tmp_path / name)


def test_the_folder_of_an_adapter_names_convert_adapter(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(SourceError, match=r"is a LoRA adapter of PEFT\. Run: albert-hub-bridge convert-adapter"):
        inspect(tmp_path)


@pytest.mark.parametrize(
    ("source", "package"), [("modelscope://user/repo", "modelscope"), ("kaggle://org/model/keras/name", "kagglehub")]
)
def test_missing_client_is_named(source: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (package, "modelscope.hub.api"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SourceError, match=f"downloaded with {package}, which is not installed: pip install {package}"):
        inspect(source)
