"""Files of weights: in shards, in another dtype, in older formats; all problems are listed in one message."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest
import safetensors.torch
import torch
from transformers import AlbertForMaskedLM, AutoModel

from albert_hub_bridge import convert, inspect
from albert_hub_bridge.commands.options import parse_size
from albert_hub_bridge.errors import CheckpointError, ConfigurationError, SourceError, TargetError, WeightsError
from albert_hub_bridge.formats.lazy_tensors import DTYPES
from albert_hub_bridge.layouts.hub.repository import write_repository
from albert_hub_bridge.layouts.keras.preset import write_preset
from albert_hub_bridge.layouts.layout import ReadOptions
from albert_hub_bridge.layouts.registry import read_checkpoint
from albert_hub_bridge.mapping.heads import Head
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint
from tests.conftest import quantize


@pytest.fixture
def albert_folder(tmp_path: Path) -> Path:
    (tmp_path / "transformers").mkdir()
    write_repository(random_checkpoint(SAMPLE_ARCHITECTURE), tmp_path / "transformers", "transformers")
    return tmp_path / "transformers"


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    (tmp_path / "preset").mkdir()
    write_preset(random_checkpoint(SAMPLE_ARCHITECTURE), tmp_path / "preset")
    return tmp_path / "preset"


def _edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


# Shards.


def test_transformers_loads_written_shards(albert_folder: Path, tmp_path: Path) -> None:
    convert(albert_folder, tmp_path / "shards", to="transformers", max_shard_size="30KB")
    names = sorted(path.name for path in (tmp_path / "shards").glob("*.safetensors"))
    assert names == [f"model-{number:05}-of-{len(names):05}.safetensors" for number in range(1, len(names) + 1)]
    assert len(names) > 3
    assert all(path.stat().st_size < 40_000 for path in (tmp_path / "shards").glob("*.safetensors"))
    whole, parts = (AutoModel.from_pretrained(folder).state_dict() for folder in (albert_folder, tmp_path / "shards"))
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, atol=0, rtol=0)


def test_keras_hub_loads_written_shards(preset: Path, tmp_path: Path) -> None:
    import keras_hub

    convert(preset, tmp_path / "shards", to="keras", max_shard_size=25_600)
    assert len(list((tmp_path / "shards").glob("model_*.weights.h5"))) > 3
    index = json.loads((tmp_path / "shards" / "model.weights.json").read_text())
    assert any(isinstance(names, list) for names in index["weight_map"].values())  # a layer in two files
    whole, parts = (keras_hub.models.Backbone.from_preset(str(folder)) for folder in (preset, tmp_path / "shards"))
    for one, other in zip(whole.weights, parts.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.path)


def test_a_weight_that_is_larger_than_a_shard_is_refused(albert_folder: Path, tmp_path: Path) -> None:
    for to in ("transformers", "keras"):
        with pytest.raises(TargetError, match=r"may have 1,000 bytes, and token_embedding.weight alone has 25,600"):
            convert(albert_folder, tmp_path / "shards", to=to, max_shard_size=1000)  # type: ignore[arg-type]
        assert not (tmp_path / "shards").exists()


def test_sizes_are_bytes_or_powers_of_a_thousand() -> None:
    assert [parse_size(size) for size in (7, "7", "2KB", "1.5 mb", "3GB")] == [7, 7, 2000, 1_500_000, 3_000_000_000]
    for size in (0, -1, "0", "1TB", "many", "1e3", ""):
        with pytest.raises(ValueError, match="number of bytes, or a text such as 200MB, not"):
            parse_size(size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.clear(), r"missing key +weight_map"),
        (lambda c: c["weight_map"].update(x=7), r"weight_map +expected an object of file names"),
        (lambda c: c["weight_map"].update(x="../model-00001-of-00002.safetensors"), r"wrong name +\.\./model-00001"),
        (lambda c: c["weight_map"].update(x="model-00009-of-00009.safetensors"), r"missing +model-00009-of-00009"),
        (lambda c: c["weight_map"].pop("albert.pooler.bias"), r"unexpected +albert.pooler.bias .*nothing of it"),
        (lambda c: c["weight_map"].update(extra=next(iter(c["weight_map"].values()))), r"missing +extra +expected in"),
    ],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(
    change: Callable[[dict[str, Any]], object], message: str, albert_folder: Path, tmp_path: Path
) -> None:
    convert(albert_folder, tmp_path / "shards", to="transformers", max_shard_size="40KB")
    _edit(tmp_path / "shards" / "model.safetensors.index.json", change)
    with pytest.raises(WeightsError, match=message):
        inspect(tmp_path / "shards")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.clear(), r"missing key +weight_map"),
        (lambda c: c["weight_map"].clear(), r"weight_map +expected names of files"),
        (lambda c: c["weight_map"].update(x=[7]), r"weight_map +expected names of files"),
        (lambda c: c["weight_map"].update(x="/model_00000.weights.h5"), r"wrong name +/model_00000.weights.h5"),
        (lambda c: c["weight_map"].update(x="model_00077.weights.h5"), r"missing +model_00077.weights.h5"),
    ],
)
def test_an_index_of_a_preset_that_does_not_fit_is_refused(
    change: Callable[[dict[str, Any]], object], message: str, preset: Path, tmp_path: Path
) -> None:
    convert(preset, tmp_path / "shards", to="keras", max_shard_size="40KB")
    _edit(tmp_path / "shards" / "model.weights.json", change)
    with pytest.raises(WeightsError, match=message):
        inspect(tmp_path / "shards")


def test_two_saves_in_one_folder_are_refused(albert_folder: Path, preset: Path, tmp_path: Path) -> None:
    for folder, to, name in (
        (albert_folder, "transformers", "model.safetensors"),
        (preset, "keras", "model.weights.h5"),
    ):
        shards = tmp_path / f"{to}-shards"
        convert(folder, shards, to=to, max_shard_size="40KB")  # type: ignore[arg-type]
        (shards / name).write_bytes((folder / name).read_bytes())
        with pytest.raises(WeightsError, match=r"ambiguous .*left over from another save"):
            inspect(shards)


def test_a_dataset_in_two_shards_is_refused(preset: Path, tmp_path: Path) -> None:
    convert(preset, tmp_path / "shards", to="keras", max_shard_size="40KB")
    with h5py.File(tmp_path / "shards" / "model_00001.weights.h5", "a") as shard:
        shard["layers/reversible_embedding/vars/0"] = np.zeros((400, 16), np.float32)
    with pytest.raises(WeightsError, match=r"twice +layers/reversible_embedding/vars/0 .*found again in model_0000"):
        inspect(tmp_path / "shards")


# Dtypes.


@pytest.mark.parametrize("to", ["keras", "albert_hub", "transformers"])
def test_weights_are_rounded_to_the_nearest(to: Any, albert_folder: Path, tmp_path: Path) -> None:
    before = safetensors.torch.load_file(albert_folder / "model.safetensors")
    for dtype in DTYPES:
        report = convert(albert_folder, tmp_path / dtype, to=to, dtype=dtype, max_shard_size="40KB")
        assert (report.source.dtype, report.dtype) == ("float32", dtype)
        assert bool([note for note in report.notes if note.endswith("rounded.")]) == (dtype != "float32")
        with read_checkpoint(tmp_path / dtype) as checkpoint:
            assert checkpoint.dtype == dtype
            for rule in checkpoint.encoder_rules:
                expected = before[f"albert.{rule.albert}"].to(getattr(torch, dtype)).float().numpy()
                np.testing.assert_array_equal(checkpoint.read(rule, "albert").astype(np.float32), expected)
    report = convert(tmp_path / "bfloat16", tmp_path / "wide", to=to, dtype="float32")
    assert [note for note in report.notes if note == "The weights were converted from bfloat16 to float32."]


def test_a_value_that_does_not_fit_the_dtype_is_refused(albert_folder: Path, tmp_path: Path) -> None:
    tensors = safetensors.torch.load_file(albert_folder / "model.safetensors")
    tensors["albert.pooler.bias"][3] = 1e5
    safetensors.torch.save_file(tensors, albert_folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"overflow +pooled_dense.bias +1 values, such as 100000, are too large"):
        convert(albert_folder, tmp_path / "half", to="transformers", dtype="float16")
    assert not (tmp_path / "half").exists()
    convert(albert_folder, tmp_path / "half", to="transformers", dtype="bfloat16")


def test_an_unknown_dtype_is_refused(albert_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dtype must be one of None, float32, bfloat16, float16, int8, not 'int4'"):
        convert(albert_folder, tmp_path / "target", to="transformers", dtype="int4")


# Quantized presets.


def _quantize(preset: Path, change: Callable[[h5py.File], object]) -> None:
    with h5py.File(preset / "model.weights.h5", "a") as file:
        kernel = file["layers/dense/vars/0"][()]
        del file["layers/dense/vars/0"]
        file["layers/dense/vars/0"] = np.round(kernel * 100).astype(np.int8)
        file["layers/dense/vars/2"] = np.full(32, 100, np.float32)
        change(file)


def test_a_scale_that_is_missing_or_does_not_fit_is_refused(preset: Path) -> None:
    _quantize(preset, lambda file: None)
    with read_checkpoint(preset) as checkpoint:
        assert set(checkpoint.int8) == {"embeddings_projection.weight"}
        values = checkpoint.weights["embeddings_projection.weight"].read()
        np.testing.assert_array_equal(values, np.round(values * 100).astype(np.float32) / np.float32(100))
    with h5py.File(preset / "model.weights.h5", "a") as file:
        del file["layers/dense/vars/2"]
        file["layers/dense/vars/2"] = np.ones(31, np.float32)
    with pytest.raises(WeightsError, match=r"wrong scale +layers/dense/vars/0 .*found float32 \(31,\)"):
        inspect(preset)
    with h5py.File(preset / "model.weights.h5", "a") as file:
        del file["layers/dense/vars/2"]
    with pytest.raises(WeightsError, match=r"wrong scale +layers/dense/vars/0 .*found none"):
        inspect(preset)


@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_an_int8_preset_with_half_precision_becomes_float32(tmp_path: Path) -> None:
    import keras_hub

    backbone = keras_hub.models.AlbertBackbone(**SAMPLE_ARCHITECTURE.keras_arguments, dtype="bfloat16")
    quantize(backbone)
    backbone.save_to_preset(str(tmp_path / "preset"))
    report = convert(tmp_path / "preset", tmp_path / "albert_hub", to="albert_hub")
    assert report.dtype == "float32"
    assert any("quantized to int8" in note for note in report.notes)


@pytest.mark.parametrize(
    ("policy", "found"),
    [
        (
            {"class_name": "QuantizedFloat8DTypePolicy", "config": {"mode": "float8"}},
            "found 'QuantizedFloat8DTypePolicy' 'float8'",
        ),
        ({"class_name": "Int4DTypePolicy", "config": {"mode": "int4/128"}}, "found 'Int4DTypePolicy' 'int4/128'"),
        ({"class_name": "DTypePolicyMap", "config": {"policy_map": {"a": {"class_name": "Evil"}}}}, "found 'Evil'"),
        (7, "found 7"),
    ],
)
def test_other_quantizations_are_refused_by_name(policy: Any, found: str, preset: Path) -> None:
    _edit(preset / "config.json", lambda c: c["config"].update(dtype=policy))
    with pytest.raises(ConfigurationError, match=rf"unsupported value +dtype .*{found}"):
        inspect(preset)


# Pickles, msgpack and HDF5 of before.


def _as_bin(albert_folder: Path) -> dict[str, torch.Tensor]:
    tensors = safetensors.torch.load_file(albert_folder / "model.safetensors")
    (albert_folder / "model.safetensors").unlink()
    return tensors


class Evil:
    """What a pickle can do where it is trusted."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("touched-by-a-pickle"),))


@pytest.mark.parametrize("written_by", [torch.save, lambda content, file: file.write_bytes(pickle.dumps(content))])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"evil": Evil()}, "a pickle that needs"),
        (Evil(), "a pickle that needs"),
        ({"a": 1}, "found: (something other than a dictionary|a pickle that needs)"),
    ],
)
def test_only_tensors_are_unpickled(
    content: Any, found: str, written_by: Callable[..., Any], albert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(albert_folder)
    _as_bin(albert_folder)
    written_by(content, albert_folder / "pytorch_model.bin")
    with pytest.raises(
        WeightsError, match=rf"not tensors +pytorch_model.bin +expected a state dict, which has only tensors.*{found}"
    ):
        inspect(albert_folder, allow_pickle=True)
    with pytest.raises(WeightsError, match=r"a pickle +pytorch_model.bin .*\n.*--allow-pickle"):
        inspect(albert_folder)
    assert not (albert_folder / "touched-by-a-pickle").exists()


def test_tensors_that_share_memory_are_unpickled(albert_folder: Path) -> None:
    tensors = _as_bin(albert_folder)
    torch.save(tensors, albert_folder / "pytorch_model.bin")
    with read_checkpoint(albert_folder, ReadOptions(allow_pickle=True)) as checkpoint:
        for rule in checkpoint.encoder_rules:
            np.testing.assert_array_equal(checkpoint.read(rule, "albert"), tensors[f"albert.{rule.albert}"].numpy())


@pytest.mark.parametrize("content", [b"", b"short", b"PK\x03\x04 not a zip", b"\x80\x02}q\x00."])
def test_damaged_files_of_every_format_are_named(content: bytes, albert_folder: Path) -> None:
    (albert_folder / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"):
        (albert_folder / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=name):
            inspect(albert_folder, allow_pickle=True)
        (albert_folder / name).unlink()


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"a": {"b": "text"}}, "where a map or an array should be, at 'a/b'"),
        ({"a": msgpack.ExtType(2, b"")}, "an extension of type 2 at 'a', which is not an array"),
        ({"a": msgpack.ExtType(1, msgpack.packb(([2, 2], "float32", b"1234")))}, r"in 4 bytes"),
    ],
)
def test_msgpack_that_is_not_a_tree_of_arrays_is_refused(tree: Any, message: str, albert_folder: Path) -> None:
    (albert_folder / "model.safetensors").unlink()
    (albert_folder / "flax_model.msgpack").write_bytes(msgpack.packb(tree))
    with pytest.raises(WeightsError, match=message):
        inspect(albert_folder)


def test_names_of_old_layer_norms_are_read(albert_folder: Path) -> None:
    tensors = _as_bin(albert_folder)
    old = {
        k.replace("norm.weight", "norm.gamma")
        .replace("LayerNorm.weight", "LayerNorm.gamma")
        .replace("LayerNorm.bias", "LayerNorm.beta"): v
        for k, v in tensors.items()
    }
    assert sum(name.endswith(("gamma", "beta")) for name in old) > 8
    torch.save(old, albert_folder / "pytorch_model.bin")
    with read_checkpoint(albert_folder, ReadOptions(allow_pickle=True)) as checkpoint:
        for rule in checkpoint.encoder_rules:
            np.testing.assert_array_equal(checkpoint.read(rule, "albert"), tensors[f"albert.{rule.albert}"].numpy())


def test_a_masked_lm_with_only_the_decoders_bias_is_read(tmp_path: Path) -> None:
    write_repository(random_checkpoint(SAMPLE_ARCHITECTURE, head=Head(kind="masked_lm")), tmp_path, "transformers")
    tensors = _as_bin(tmp_path)
    del tensors["predictions.bias"]
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with read_checkpoint(tmp_path, ReadOptions(allow_pickle=True)) as checkpoint:
        bias = checkpoint.weights["masked_lm_head.decoder.bias"].read()
    np.testing.assert_array_equal(bias, tensors["predictions.decoder.bias"].numpy())


def test_the_first_of_several_formats_is_read(albert_folder: Path) -> None:
    torch.save({}, albert_folder / "pytorch_model.bin")
    (albert_folder / "tf_model.h5").write_bytes(b"")
    (albert_folder / "model.onnx").write_bytes(b"")
    (albert_folder / "model-00001-of-00002.safetensors").write_bytes(b"")
    names = "model-00001-of-00002.safetensors, model.onnx, pytorch_model.bin, tf_model.h5"
    assert f"Files that were not converted: {names}." in inspect(albert_folder).notes


def test_keras_hub_gets_a_pooler_of_zeros(tmp_path: Path) -> None:
    write_repository(random_checkpoint(SAMPLE_ARCHITECTURE, head=Head(kind="masked_lm")), tmp_path, "transformers")
    model = AlbertForMaskedLM.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path / "saved")
    assert "The source has no pooler." in inspect(tmp_path / "saved").notes
    report = convert(tmp_path / "saved", tmp_path / "keras", to="keras")
    assert any("pooled_output will be zeros" in note for note in report.notes)
    with read_checkpoint(tmp_path / "keras") as checkpoint:
        assert not checkpoint.weights["pooled_dense.weight"].read().any()


# Google's release.


def test_a_google_release_needs_one_checkpoint(tmp_path: Path) -> None:
    config = {"vocab_size": 9, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "embedding_size": 4}
    (tmp_path / "albert_config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match=r"expected model.ckpt-best.index or another .index, found none"):
        inspect(tmp_path)
    for name in ("a.index", "b.index"):
        (tmp_path / name).write_bytes(b"no table")
    with pytest.raises(SourceError, match=r"several checkpoints: a\.index, b.index"):
        inspect(tmp_path)
    (tmp_path / "b.index").unlink()
    with pytest.raises(WeightsError, match=r"not a checkpoint +a.index"):
        inspect(tmp_path)
