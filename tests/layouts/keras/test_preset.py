from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from albert_hub_bridge.errors import (
    CheckpointError,
    ConfigurationError,
    FileError,
    SourceError,
    VocabularyError,
    WeightsError,
)
from albert_hub_bridge.formats.lazy_tensors import DTYPES
from albert_hub_bridge.layouts.keras.objects import serialized
from albert_hub_bridge.layouts.keras.preset import write_preset
from albert_hub_bridge.layouts.registry import read_checkpoint
from albert_hub_bridge.mapping.heads import Head
from albert_hub_bridge.mapping.weights import weight_rules
from albert_hub_bridge.model.architecture import KERAS_FIELDS, Architecture
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, train_vocabulary
from tests.conftest import TEXTS, KerasPreset


@pytest.fixture
def preset(keras_preset: KerasPreset, tmp_path: Path) -> Path:
    """Return a copy that a test may break."""
    return Path(shutil.copytree(keras_preset.folder, tmp_path / "preset"))


def test_a_preset_of_keras_hub_is_read(keras_preset: KerasPreset) -> None:
    with read_checkpoint(keras_preset.folder) as checkpoint:
        assert checkpoint.architecture == keras_preset.architecture
        assert checkpoint.dtype == "float32"
        assert checkpoint.head is None
        assert not checkpoint.dropped
        layer = keras_preset.backbone.get_layer("group_1_inner_layer_0")
        found = checkpoint.weights["transformer_layers.1.0.self_attention_layer.key_dense.weight"].read()
        kernel = np.asarray(layer._self_attention_layer.key_dense.kernel.value.detach())
        np.testing.assert_array_equal(found, kernel.reshape(32, 32).T)


@pytest.mark.parametrize("dtype", DTYPES)
def test_keras_hub_loads_a_written_preset_without_a_warning(
    dtype: str, vocabulary: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import keras_hub

    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary, dtype)
    write_preset(checkpoint, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="__array__ implementation doesn't accept a copy keyword")
        backbone = keras_hub.models.Backbone.from_preset(str(tmp_path), dtype=dtype)
        tokenizer = keras_hub.models.AlbertTokenizer.from_preset(str(tmp_path))
    assert capfd.readouterr().err == ""
    assert type(backbone) is keras_hub.models.AlbertBackbone
    assert backbone.count_params() == sum(weight.read().size for weight in checkpoint.weights.values())
    config = backbone.get_config()
    assert {name: config[name] for name in KERAS_FIELDS} == SAMPLE_ARCHITECTURE.keras_arguments
    found = [np.asarray(weight.value.detach().float()) for weight in backbone.weights]
    expected = [np.asarray(checkpoint.read(rule, "keras"), dtype=np.float32) for rule in checkpoint.encoder_rules]
    # Keras lists its weights in another order: match each of ours with the one that is bit for bit the same.
    assert sorted(array.tobytes() for array in found) == sorted(np.ascontiguousarray(a).tobytes() for a in expected)
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=vocabulary)
    assert [[int(index) for index in tokenizer(text)] for text in TEXTS] == processor.encode(TEXTS)


def test_keras_hub_builds_a_task_on_a_written_preset(vocabulary: bytes, tmp_path: Path) -> None:
    import keras_hub

    write_preset(random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary), tmp_path)
    classifier = keras_hub.models.TextClassifier.from_preset(str(tmp_path), num_classes=3)
    assert classifier.preprocessor.sequence_length == SAMPLE_ARCHITECTURE.max_sequence_length
    classifier.preprocessor.sequence_length = 32
    assert classifier.predict(TEXTS, verbose=0).shape == (len(TEXTS), 3)


def test_packing_survives_the_round_trip(keras_preset: KerasPreset, vocabulary: bytes, tmp_path: Path) -> None:
    import keras_hub

    tokenizer = keras_hub.models.AlbertTokenizer(vocabulary)
    preprocessor = keras_hub.models.AlbertTextClassifierPreprocessor(
        tokenizer, sequence_length=24, truncate="waterfall"
    )
    keras_hub.models.AlbertTextClassifier(
        keras_preset.backbone, num_classes=2, preprocessor=preprocessor
    ).save_to_preset(str(tmp_path / "theirs"))
    (tmp_path / "ours").mkdir()
    with read_checkpoint(tmp_path / "theirs") as checkpoint:
        assert checkpoint.tokenizer is not None
        assert (checkpoint.tokenizer.sequence_length, checkpoint.tokenizer.truncate) == (24, "waterfall")
        assert checkpoint.head == Head(kind="sequence_classification", num_labels=2)
        assert {tensor.name.removeprefix("task.weights.h5:"): tensor.shape for tensor in checkpoint.dropped} == {
            "optimizer/vars/0": (),
            "optimizer/vars/1": (),
        }
        write_preset(checkpoint, tmp_path / "ours")
    again = keras_hub.models.TextClassifierPreprocessor.from_preset(str(tmp_path / "ours"))
    assert (again.sequence_length, again.truncate) == (24, "waterfall")
    for name, expected in preprocessor(TEXTS).items():
        np.testing.assert_array_equal(np.asarray(again(TEXTS)[name]), np.asarray(expected), err_msg=name)


@pytest.mark.parametrize(
    "dtype",
    [None, "float32", "absent", {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "mixed_bfloat16"}}],
)
def test_every_spelling_of_a_float_policy_is_read(dtype: Any, preset: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["config"]["dtype"] = dtype
        if dtype == "absent":
            del config["config"]["dtype"]

    _edit(preset / "config.json", change)
    with read_checkpoint(preset) as checkpoint:
        assert checkpoint.dtype == "float32"


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        ("float7", "expected float32, .*mixed_bfloat16, or a QuantizedDTypePolicy of mode int8, found .*'float7'"),
        ("int8", "expected float32, .*found 'DTypePolicy' 'int8'"),
        ({"class_name": "DTypePolicy", "config": {"name": "float7"}}, "found 'DTypePolicy' 'float7'"),
        ({"class_name": "DTypePolicy", "config": {"name": {"a": 1}}}, "found 'DTypePolicy' None"),
        ({"class_name": "DTypePolicyMap", "config": {"policy_map": {"a": "float7"}}}, "'float7'"),
        ({"class_name": "DTypePolicyMap", "config": {}}, "found False"),
        (
            {
                "module": "keras.dtype_policies",
                "class_name": "QuantizedDTypePolicy",
                "config": {"mode": "int8", "source_name": "float32"},
                "registered_name": None,
            },
            "contradiction +dtype +expected float32, .*because no weight is int8",
        ),
    ],
)
def test_a_policy_that_keras_does_not_have_is_refused(dtype: Any, message: str, preset: Path) -> None:
    _edit(preset / "config.json", lambda config: config["config"].update(dtype=dtype))
    with pytest.raises(ConfigurationError, match=message):
        read_checkpoint(preset)


def test_all_problems_of_the_weights_are_listed_at_once(preset: Path) -> None:
    with h5py.File(preset / "model.weights.h5", "r+") as file:
        del file["layers/dense_1/vars/1"]
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = np.zeros((16, 31), np.float32)
        file["layers/extra/vars/0"] = np.zeros(3, np.float32)
        del file["layers/dense/vars/1"]
        file["layers/dense/vars/1"] = np.zeros(32, np.int8)
        del file["layers/dense_1/vars/0"]
        file["layers/dense_1/vars/0"] = np.zeros((32, 32), np.float16)
    with pytest.raises(WeightsError) as error:
        read_checkpoint(preset)
    assert str(error.value).splitlines() == [
        f"5 problems in the weights of {preset / 'model.weights.h5'}",
        "  wrong shape   layers/dense/vars/0    expected (16, 32), found (16, 31)",
        "  wrong dtype   layers/dense/vars/1    expected float32, bfloat16, float16, found int8",
        "  missing       layers/dense_1/vars/1  expected (32,), found none",
        "  unexpected    layers/extra/vars/0    expected no such tensor, found (3,)",
        "  mixed dtypes  layers/dense_1/vars/0  expected float32 as most have, found float16",
        "Download the source again, or re-export it.",
    ]


def _edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (
            lambda c: c.update(class_name="BertBackbone"),
            SourceError,
            "expected an AlbertBackbone, found 'BertBackbone'",
        ),
        (lambda c: c.pop("config"), ConfigurationError, r"missing key +config"),
        (lambda c: c["config"].update(rotary=1), ConfigurationError, r"unknown key +rotary +expected .*found 1"),
        (lambda c: c["config"].pop("num_heads"), ConfigurationError, r"missing key +num_heads"),
        (
            lambda c: c["config"].update(num_groups=3),
            ConfigurationError,
            "num_layers=4 must be divisible by num_groups=3",
        ),
        (
            lambda c: c["config"].update(num_layers="4"),
            ConfigurationError,
            "num_layers must be a positive integer, not '4'",
        ),
        (
            lambda c: c["config"]["dtype"].update(class_name="DTypePolicyMap"),
            ConfigurationError,
            "or a QuantizedDTypePolicy of mode int8, found",
        ),
        (lambda c: c["config"].update(hidden_dim=64), WeightsError, r"expected \(16, 64\), found \(16, 32\)"),
        (lambda c: c["config"].update(vocabulary_size=300), WeightsError, r"expected \(300, 16\), found \(400, 16\)"),
    ],
)
def test_a_wrong_configuration_is_refused(
    change: Callable[[dict[str, Any]], object], kind: type[Exception], message: str, preset: Path
) -> None:
    _edit(preset / "config.json", change)
    with pytest.raises(kind, match=message) as error:
        read_checkpoint(preset)
    assert str(preset) in str(error.value)


PREPROCESSOR, TOKENIZER = "AlbertTextClassifierPreprocessor", "AlbertTokenizer"


def _object(name: str, config: dict[str, Any] | None) -> bytes:
    return json.dumps({**serialized(name, {}), "config": config}).encode()


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("config.json", b"{", ConfigurationError, "not JSON"),
        ("config.json", b"\xff\xfe", ConfigurationError, "not JSON"),
        ("config.json", b"[]", ConfigurationError, "expected an object, found list"),
        ("preprocessor.json", b"{}", ConfigurationError, r"unsupported object +class_name +expected the preprocessor"),
        ("preprocessor.json", _object(PREPROCESSOR, None), ConfigurationError, r"missing key +config"),
        ("preprocessor.json", _object(PREPROCESSOR, {"colour": 1}), ConfigurationError, r"unknown key +colour"),
        (
            "preprocessor.json",
            _object(PREPROCESSOR, {"sequence_length": "x"}),
            ConfigurationError,
            "a positive integer, found 'x'",
        ),
        (
            "preprocessor.json",
            _object(PREPROCESSOR, {"sequence_length": -5}),
            ConfigurationError,
            "a positive integer, found -5",
        ),
        (
            "preprocessor.json",
            b'{"config": {"sequence_length": NaN}}',
            ConfigurationError,
            "found NaN, which is not JSON",
        ),
        (
            "preprocessor.json",
            _object(PREPROCESSOR, {"truncate": ["x"]}),
            ConfigurationError,
            "'round_robin' or 'waterfall'",
        ),
        (
            "tokenizer.json",
            _object(TOKENIZER, {"add_bos": True}),
            ConfigurationError,
            r"add_bos +expected False, found True",
        ),
        ("tokenizer.json", _object(TOKENIZER, {"mystery": 2}), ConfigurationError, r"unknown key +mystery"),
        ("task.json", b"{", ConfigurationError, "not JSON"),
        ("model.weights.h5", b"not HDF5", WeightsError, "not HDF5"),
        ("assets/tokenizer/vocabulary.spm", b"", FileError, "found 0 bytes"),
        ("assets/tokenizer/vocabulary.spm", b"\x18\x00", VocabularyError, "no pieces"),
        ("assets/tokenizer/vocabulary.spm", train_vocabulary(model_type="bpe", size=120), VocabularyError, "found BPE"),
    ],
)
def test_a_broken_file_is_named(
    name: str, content: bytes, kind: type[CheckpointError], message: str, preset: Path
) -> None:
    (preset / name).write_bytes(content)
    with pytest.raises(kind, match=message) as error:
        read_checkpoint(preset)
    assert str(preset / name) in str(error.value)


def test_missing_weights_list_the_files_that_exist(preset: Path) -> None:
    (preset / "model.weights.h5").rename(preset / "model_00000.weights.h5")
    with pytest.raises(
        WeightsError, match=r"missing +model.weights.h5 +expected the weights, found model_00000.weights.h5"
    ):
        read_checkpoint(preset)


def test_a_vocabulary_that_is_larger_than_the_embedding_is_refused(vocabulary: bytes, tmp_path: Path) -> None:
    small = Architecture(**{**asdict(SAMPLE_ARCHITECTURE), "vocabulary_size": 50})
    write_preset(random_checkpoint(small, vocabulary), tmp_path)
    with pytest.raises(VocabularyError, match="expected at most 50 pieces, the rows of the token embedding, found"):
        read_checkpoint(tmp_path)


def test_a_preset_without_a_vocabulary_has_a_note(tmp_path: Path) -> None:
    write_preset(random_checkpoint(SAMPLE_ARCHITECTURE), tmp_path)
    with read_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.tokenizer is None
        assert "no tokenizer" in checkpoint.notes[0]


def test_the_same_checkpoint_gives_the_same_bytes(vocabulary: bytes, tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_preset(random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary), tmp_path / name)
        files = sorted(file for file in (tmp_path / name).rglob("*") if file.is_file())
        contents.append({str(file.relative_to(tmp_path / name)): file.read_bytes() for file in files})
    assert contents[0] == contents[1]
    assert len(weight_rules(SAMPLE_ARCHITECTURE)) == 73


def test_a_million_layers_are_refused_at_once(preset: Path) -> None:
    _edit(preset / "config.json", lambda c: c["config"].update(num_groups=4000, num_layers=4000))
    with pytest.raises(WeightsError, match="expected 8000 encoder layers, found 73 tensors"):
        read_checkpoint(preset)
    _edit(preset / "config.json", lambda c: c["config"].update(num_groups=10**9, num_layers=10**9))
    with pytest.raises(ConfigurationError, match=r"num_groups +expected at most 4096, found 1000000000"):
        read_checkpoint(preset)


def test_values_in_another_file_are_refused(preset: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x" * 4096)
    with h5py.File(preset / "model.weights.h5", "r+") as file:
        shape = file["layers/dense/vars/0"].shape
        del file["layers/dense/vars/0"], file["layers/dense/vars/1"]
        external = [(str(tmp_path / "secret"), 0, 2048)]
        file.create_dataset("layers/dense/vars/0", shape, "float32", external=external)
        layout = h5py.VirtualLayout((32,), "float32")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", (32,))
        file.create_virtual_dataset("layers/dense/vars/1", layout)
    with pytest.raises(WeightsError) as error:
        read_checkpoint(preset)
    assert [(problem.kind, problem.where) for problem in error.value.problems] == [
        ("wrong storage", "layers/dense/vars/0"),
        ("wrong storage", "layers/dense/vars/1"),
    ]
    assert "they are in another file" in str(error.value)


def test_chunked_bfloat16_is_read(vocabulary: bytes, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary, "bfloat16")
    write_preset(checkpoint, tmp_path)
    name = "layers/dense/vars/0"
    with h5py.File(tmp_path / "model.weights.h5", "r+") as file:
        values = file[name][()]
        del file[name]
        file.create_dataset(name, data=values, chunks=True).attrs["dtype"] = "bfloat16"
    with read_checkpoint(tmp_path) as found:
        expected = checkpoint.weights["embeddings_projection.weight"].read()
        assert found.weights["embeddings_projection.weight"].read().tobytes() == expected.tobytes()


@pytest.mark.parametrize("options", [{"chunks": True}, {"compression": "gzip"}, {"dtype": ">f4"}])
def test_chunked_values_are_read(options: dict[str, Any], preset: Path) -> None:
    name = "layers/dense/vars/0"
    with h5py.File(preset / "model.weights.h5", "r+") as file:
        values = file[name][()]
        del file[name]
        file.create_dataset(name, data=values, **options)
    with read_checkpoint(preset) as checkpoint:
        found = checkpoint.weights["embeddings_projection.weight"].read()
        np.testing.assert_array_equal(found, values.T)
        assert found.dtype == np.dtype("float32")
        assert found.dtype.isnative
