"""Conversions between live models. `in_memory_checks` has what every backend of Keras has to pass."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from albert_hub_bridge import (
    AlbertBackbone,
    AlbertHubForMaskedLM,
    AlbertHubModel,
    convert,
    to_keras,
    to_keras_preprocessor,
    to_transformers,
)
from albert_hub_bridge._registration import _add_exporters
from albert_hub_bridge.errors import ConfigurationError, SourceError, TargetError, VocabularyError, WeightsError
from tests.forked import CLIENTS, run_forked


keras_hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed")

from tests.commands import in_memory_checks as checks  # noqa: E402 (it imports Keras)


_RUN = """
import runpy, {}, {}
assert keras_hub.models.AlbertMaskedLM.export_to_transformers.__module__ == "albert_hub_bridge._registration"
runpy.run_module("tests.commands.in_memory_checks", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("backend", "order"),
    [
        ("torch", ("albert_hub_bridge", "keras_hub")),
        ("tensorflow", ("keras_hub", "albert_hub_bridge")),
        ("jax", ("keras_hub", "albert_hub_bridge")),
    ],
)
def test_every_check(backend: str, order: tuple[str, str]) -> None:
    """In a process of its own: the backend is chosen before Keras is imported, and memory is measured."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = os.environ | {"KERAS_BACKEND": backend, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = run_forked(_RUN.format(*order), environment=environment, libraries=CLIENTS)
    assert done.code == 0, done.stdout + done.stderr[-4000:]
    passed = [line.split()[-1] for line in done.stdout.splitlines() if "passed" in line]
    assert passed == [each.__name__ for each in checks.CHECKS]


@pytest.mark.filterwarnings("ignore:The layer norm of the masked-LM head:UserWarning")
@pytest.mark.parametrize("layout", ["transformers", "albert_hub"])
def test_both_models_have_the_same_memory_on_torch(layout: Any) -> None:
    for kind in ("encoder", "classifier", "masked_lm"):
        model = checks.keras_model(kind)
        there = to_transformers(model, layout)[0]
        addresses = {each.value.data_ptr() for each in model.weights}
        assert {each.data_ptr() for each in there.parameters()} == addresses
        back = to_keras(there)
        assert {each.value.data_ptr() for each in back.weights} == addresses
    with torch.no_grad():
        there.get_input_embeddings().weight.fill_(7)
    assert (checks.values(model.backbone)["token_embedding/embeddings"] == 7).all()


def test_a_saved_model_is_what_convert_writes(tmp_path: Path) -> None:
    model = checks.keras_model("classifier", activation="sigmoid")
    there, encode = to_transformers(model, labels=["a", "b", "c"])
    there.save_pretrained(tmp_path / "saved")
    encode.save_pretrained(tmp_path / "saved")
    model.save_to_preset(str(tmp_path / "preset"))
    convert(tmp_path / "preset", tmp_path / "converted", to="transformers", labels=["a", "b", "c"])
    saved, converted = (load_file(tmp_path / name / "model.safetensors") for name in ("saved", "converted"))
    assert set(saved) == set(converted)
    assert all(torch.equal(saved[name], converted[name]) for name in saved)
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "converted")
    ours, theirs = ({**each.config.to_dict(), "_name_or_path": ""} for each in (there, loaded))
    assert ours == theirs
    assert torch.equal(there.albert.embeddings.position_ids, loaded.albert.embeddings.position_ids)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert again(checks.TEXTS)["input_ids"] == encode(checks.TEXTS)["input_ids"]


@pytest.mark.parametrize("layout", ["transformers", "albert_hub"])
def test_tokenizers_live_on_without_their_temporary_files(layout: Any, tmp_path: Path) -> None:
    _, encode = to_transformers(checks.keras_model("classifier"), layout)
    expected = encode(checks.TEXTS)["input_ids"]
    for other in (copy.deepcopy(encode), pickle.loads(pickle.dumps(encode))):
        assert other(checks.TEXTS)["input_ids"] == expected
    encode.save_pretrained(tmp_path)
    assert type(encode).from_pretrained(tmp_path)(checks.TEXTS)["input_ids"] == expected


def test_a_masked_lm_keeps_its_pooler_and_says_that_its_scores_differ() -> None:
    model = checks.keras_model("masked_lm")
    with pytest.warns(UserWarning, match="epsilon 1e-05, and in transformers it is 1e-12"):
        there, _ = to_transformers(model)
    assert not any(parameter.requires_grad for parameter in there.albert.pooler.parameters())
    assert all(parameter.requires_grad for name, parameter in there.named_parameters() if "albert.pooler" not in name)
    exact, _ = to_transformers(model, "albert_hub")
    assert type(exact) is AlbertHubForMaskedLM


@pytest.mark.parametrize(
    ("policy", "message"), [("mixed_bfloat16", "computes in bfloat16; the target computes in float32"), ("float16", "")]
)
def test_policies_are_converted_as_by_convert(policy: str, message: str) -> None:
    model = checks.keras_model("encoder", policy)
    if not message:
        assert to_transformers(model)[0].dtype == torch.float16
        return
    with pytest.warns(UserWarning, match=message):
        assert to_transformers(model)[0].dtype == torch.float32


def test_options_are_those_of_convert() -> None:
    model = checks.keras_model("classifier")
    there, encode = to_transformers(model, normalize="uncased", dtype=torch.bfloat16)
    assert there.dtype == torch.bfloat16
    assert encode("A Bridge")["input_ids"] == encode("a bridge")["input_ids"]
    with pytest.raises(ValueError, match="layout must be one of albert_hub, transformers, not 'keras'"):
        to_transformers(model, "keras")
    with pytest.raises(SourceError, match=r"<AlbertTextClassifier> has a text classifier of 3 classes, and --labels"):
        to_transformers(model, labels="a,b")


class _OtherTask(keras_hub.models.AlbertTextClassifier):  # type: ignore[misc, name-defined]
    """A task of a user."""


def test_other_models_of_keras_are_refused() -> None:
    import keras

    with pytest.raises(
        SourceError, match="expected an AlbertBackbone of keras_hub, or a task with one, found an object"
    ):
        to_transformers([1])
    with pytest.raises(SourceError, match="expected an AlbertBackbone, found 'Sequential'"):
        to_transformers(keras.Sequential([keras.layers.Dense(1)]))
    other = keras_hub.models.BertBackbone(100, 1, 1, 4, 4, max_sequence_length=8)
    with pytest.raises(SourceError, match="expected an AlbertBackbone, found 'BertBackbone'"):
        to_transformers(other)
    task = _OtherTask(checks.keras_model("encoder"), 2)
    with pytest.raises(ConfigurationError, match=r"unknown task .* found '_OtherTask'\n.*drop_head=True"):
        to_transformers(task)
    assert type(to_transformers(task, drop_head=True)[0]) is transformers.AlbertModel


def test_wrong_values_of_keras_are_refused() -> None:
    model = checks.keras_model("encoder")
    model.pooled_dense.bias.value.data = model.pooled_dense.bias.value.data.half()
    with pytest.raises(WeightsError, match=r"mixed dtypes +layers/dense_1/vars/1 +expected float32 as most have"):
        to_transformers(model)
    model = checks.keras_model("encoder")
    model.pooled_dense.bias.assign(float("nan") * model.pooled_dense.bias)
    with pytest.raises(WeightsError, match=r"not finite +layers/dense_1/vars/1"):
        to_transformers(model)
    with pytest.raises(WeightsError, match=r"wrong dtype .* found float64"):
        to_transformers(checks.keras_model("encoder", "float64"))
    foreign = keras_hub.models.BertTokenizer({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4})
    with pytest.raises(SourceError, match="found an object of BertTokenizer without a SentencePiece vocabulary"):
        to_transformers(checks.keras_model("encoder"), preprocessor=foreign)


def _albert(name: str = "AlbertModel", **options: Any) -> Any:
    config = transformers.AlbertConfig(
        vocab_size=400, embedding_size=8, hidden_size=16, num_attention_heads=2, intermediate_size=24, **options
    )
    config.num_hidden_layers = 2
    return getattr(transformers, name)(config)


def test_other_models_of_transformers_are_refused() -> None:
    with pytest.raises(SourceError, match="expected an ALBERT of transformers, found an object of Linear"):
        to_keras(torch.nn.Linear(1, 1))
    config = transformers.BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=1, intermediate_size=4)
    config.num_hidden_layers = 1
    with pytest.raises(SourceError, match=r"found BertModel \(model_type 'bert'\)"):
        to_keras(transformers.BertModel(config))
    with pytest.raises(ConfigurationError, match="KerasHub's ALBERT has no token classifier"):
        to_keras(_albert("AlbertForTokenClassification"))
    with pytest.warns(
        UserWarning, match=r"not converted: classifier\.weight, classifier\.bias\.\nKerasHub needs a pooler"
    ):
        encoder = to_keras(_albert("AlbertForTokenClassification"), drop_head=True)
    assert type(encoder) is keras_hub.models.AlbertBackbone
    with pytest.raises(ConfigurationError, match=r"unsupported value +activation"):
        to_keras(_albert(hidden_act="gelu"))
    assert to_keras(_albert(hidden_act="gelu"), allow_approximate_gelu=True)


def test_wrong_values_of_transformers_are_refused() -> None:
    model = _albert()
    model.pooler.half()
    with pytest.raises(
        WeightsError, match=r"mixed dtypes +pooler.weight +expected float32 as most have, found float16"
    ):
        to_keras(model)
    with pytest.raises(WeightsError, match=r"wrong dtype .* found float32 without values, on torch's meta device"):
        to_keras(_albert().to("meta"))
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = _albert()
    quantize_(model, Int8WeightOnlyConfig())
    with pytest.raises(WeightsError, match=r"wrong dtype .* found float32 in a \w+"):
        to_keras(model)


def test_what_keras_hub_cannot_hold_is_in_a_warning() -> None:
    model, encode = to_transformers(checks.keras_model("classifier"), labels="bad,so so,good")
    model.config.problem_type = "regression"
    encode.padding_side = "left"
    with pytest.warns(UserWarning, match="The source pads on the left") as found:
        to_keras(model, encode)
    (text,) = {str(each.message) for each in found}
    assert "KerasHub does not support problem_type regression." in text
    assert "They are bad, so so, good." in text
    encoder, _ = to_transformers(checks.keras_model("encoder"))
    with pytest.warns(UserWarning, match="to_keras_preprocessor"):
        to_keras(encoder, encode)


def test_foreign_tokenizers_are_refused_or_left_out(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))
    encode = transformers.BertTokenizer.from_pretrained(tmp_path)
    model, _ = to_transformers(checks.keras_model("classifier"))
    with pytest.raises(ConfigurationError, match="expected a SentencePiece vocabulary and nothing else"):
        to_keras(model, encode)
    with pytest.warns(UserWarning, match="drop-tokenizer"):
        assert to_keras(model, encode, drop_tokenizer=True).preprocessor is None
    with pytest.raises(SourceError, match="has no SentencePiece vocabulary, which KerasHub needs"):
        to_keras_preprocessor(model, None)


def test_a_vocabulary_that_does_not_fit_is_refused() -> None:
    small = checks.keras_model("encoder", arguments=checks.SAMPLE_ARCHITECTURE.keras_arguments | {"vocabulary_size": 9})
    with pytest.raises(VocabularyError, match="expected at most 9 pieces"):
        to_transformers(small, preprocessor=checks.tokenizer())


def test_the_backbone_of_this_package_converts_too() -> None:
    backbone = AlbertBackbone.from_keras(checks.keras_model("encoder"))
    model, _ = to_transformers(backbone, "albert_hub")
    assert model.pooled_dense.bias.data_ptr() == backbone.model.pooled_dense.bias.data_ptr()
    checks.assert_same_model(to_keras(backbone), checks.keras_model("encoder"))
    with pytest.raises(SourceError, match="weights alone, so it takes no preprocessor"):
        to_transformers(backbone, preprocessor=checks.tokenizer())
    with pytest.raises(SourceError, match="weights alone, so it takes no tokenizer"):
        to_keras(backbone, checks.tokenizer())


def test_from_keras_takes_the_task_with_the_head() -> None:
    model = checks.keras_model("masked_lm")
    loaded = AlbertHubForMaskedLM.from_keras(model)
    assert torch.equal(loaded.backbone.token_embedding.weight, AlbertHubModel.from_keras(model).token_embedding.weight)
    with pytest.raises(ConfigurationError, match=r"other head .* expected that of AlbertHubForMaskedLM"):
        AlbertHubForMaskedLM.from_keras(checks.keras_model("classifier"))


def test_export_replaces_only_when_it_may(tmp_path: Path) -> None:
    model = checks.keras_model("encoder")
    model.export_to_transformers(tmp_path / "target")
    with pytest.raises(TargetError, match="exists"):
        model.export_to_transformers(tmp_path / "target")
    model.export_to_transformers(tmp_path / "target", overwrite=True)
    assert json.loads((tmp_path / "target" / "config.json").read_text())["architectures"] == ["AlbertModel"]
    with pytest.raises(ValueError, match="The tokenizer of an ALBERT is written with its model"):
        checks.tokenizer().export_to_transformers(str(tmp_path / "tokenizer"))
    with pytest.raises(ValueError, match="not implemented for BertBackbone"):
        keras_hub.models.BertBackbone(100, 1, 1, 4, 4, max_sequence_length=8).export_to_transformers(
            str(tmp_path / "b")
        )


def test_another_version_of_keras_hub_is_left_alone() -> None:
    other = ModuleType("keras_hub")
    other.models = ModuleType("models")  # type: ignore[attr-defined]
    other.__version__ = "9.0"  # type: ignore[attr-defined]
    other.models.AlbertBackbone = type("AlbertBackbone", (), {})  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match="KerasHub 9.0 has no AlbertTextClassifier, AlbertMaskedLM, AlbertTokenizer, "):
        _add_exporters(other)
    assert not hasattr(other.models.AlbertBackbone, "export_to_transformers")
    for name in ("AlbertTextClassifier", "AlbertMaskedLM", "AlbertTokenizer"):
        setattr(other.models, name, type(name, (), {"export_to_transformers": "its own"}))
    _add_exporters(other)
    assert other.models.AlbertMaskedLM.export_to_transformers == "its own"
    assert other.models.AlbertBackbone.export_to_transformers != "its own"
