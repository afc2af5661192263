from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    AlbertModel,
    AutoModel,
    AutoTokenizer,
)

from albert_hub_bridge import AlbertHubConfig, AlbertHubModel
from albert_hub_bridge.errors import CheckpointError, ConfigurationError, FileError, VocabularyError, WeightsError
from albert_hub_bridge.formats.lazy_tensors import DTYPES
from albert_hub_bridge.layouts.hub.repository import write_repository
from albert_hub_bridge.layouts.registry import read_checkpoint
from albert_hub_bridge.mapping.configs import NO_LOSS
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.model.sentencepiece_unigram import TextNormalization, parse_vocabulary
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint
from tests.conftest import TEXTS, KerasPreset, albert_arguments
from tests.forked import CLIENTS, run_forked


def _albert_config(**changes: Any) -> AlbertConfig:
    return AlbertConfig(**{**albert_arguments(SAMPLE_ARCHITECTURE), **changes})


@pytest.fixture
def albert_folder(vocabulary: bytes, tmp_path: Path) -> Path:
    """Return a transformers repository that a test may break."""
    folder = tmp_path / "transformers"
    folder.mkdir()
    write_repository(random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary), folder, "transformers")
    return folder


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layout", "model_class"), [("albert_hub", AlbertHubModel), ("transformers", AlbertModel)])
def test_transformers_loads_all_weights(
    layout: Any, model_class: type, dtype: str, vocabulary: bytes, tmp_path: Path
) -> None:
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary, dtype)
    write_repository(checkpoint, tmp_path, layout)
    model, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(model) is model_class
    assert model.dtype == getattr(torch, dtype)
    assert not any(report.values()), report
    state = model.state_dict()
    dialect = "albert_hub" if layout == "albert_hub" else "albert"
    for rule in checkpoint.encoder_rules:
        expected = np.asarray(checkpoint.read(rule, dialect), dtype=np.float32)  # type: ignore[arg-type]
        np.testing.assert_array_equal(state[rule.name(dialect)].float().numpy(), expected)  # type: ignore[arg-type]


def test_transformers_alone_loads_the_transformers_layout(keras_preset: KerasPreset, tmp_path: Path) -> None:
    from albert_hub_bridge import convert

    convert(keras_preset.folder, tmp_path / "transformers", to="transformers")
    np.savez(tmp_path / "inputs.npz", **keras_preset.inputs)
    script = """
import sys, numpy, torch
sys.modules["albert_hub_bridge"] = None  # an import of it would fail
from transformers import AutoModel, AutoTokenizer
model, report = AutoModel.from_pretrained("transformers", output_loading_info=True)
assert not any(report.values()), report
tokenizer = AutoTokenizer.from_pretrained("transformers")
inputs = numpy.load("inputs.npz")
with torch.no_grad():
    outputs = model(
        torch.tensor(inputs["token_ids"]).long(),
        attention_mask=torch.tensor(inputs["padding_mask"]).long(),
        token_type_ids=torch.tensor(inputs["segment_ids"]).long(),
    )
packed = tokenizer(eval(sys.argv[1]), padding="max_length", max_length=40, truncation=True)
numpy.savez(
    "outputs.npz",
    kind=type(model).__module__,
    activation=model.config.hidden_act,
    sequence_output=outputs.last_hidden_state,
    pooled_output=outputs.pooler_output,
    token_ids=packed["input_ids"],
    segment_ids=packed["token_type_ids"],
)
"""
    done = run_forked(script, repr(TEXTS), cwd=tmp_path, libraries=CLIENTS)
    assert done.code == 0, done.stderr
    found = np.load(tmp_path / "outputs.npz")
    assert str(found["kind"]) == "transformers.models.albert.modeling_albert"
    assert str(found["activation"]) == "gelu_pytorch_tanh"
    for name in ("sequence_output", "pooled_output"):
        np.testing.assert_allclose(found[name], keras_preset.outputs[name], atol=1e-5, rtol=0)
    for name in ("token_ids", "segment_ids"):
        np.testing.assert_array_equal(found[name], keras_preset.inputs[name])


def test_keras_hub_imports_the_transformers_layout(keras_preset: KerasPreset, tmp_path: Path) -> None:
    import keras_hub

    from albert_hub_bridge import convert

    convert(keras_preset.folder, tmp_path / "transformers", to="transformers")
    theirs = keras_hub.models.AlbertBackbone.from_preset(str(tmp_path / "transformers"))
    assert theirs.get_config()["num_inner_repetitions"] == 2
    for ours, weight in zip(keras_preset.backbone.weights, theirs.weights, strict=True):
        np.testing.assert_array_equal(weight.value.detach().numpy(), ours.value.detach().numpy(), err_msg=weight.path)
    tokenizer = keras_hub.models.AlbertTokenizer.from_preset(str(tmp_path / "transformers"))
    original = keras_hub.models.AlbertTokenizer.from_preset(str(keras_preset.folder))
    for text in TEXTS:
        assert list(tokenizer(text)) == list(original(text))


def test_a_bare_save_of_transformers_is_read(tmp_path: Path) -> None:
    model = AlbertModel(_albert_config())
    model.save_pretrained(tmp_path)
    names = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert not any(name.startswith("albert.") for name in names)
    with read_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.architecture == SAMPLE_ARCHITECTURE
        assert checkpoint.dropped == []
        for rule in checkpoint.encoder_rules:
            np.testing.assert_array_equal(checkpoint.read(rule, "albert"), model.state_dict()[rule.albert].numpy())


def test_old_buffers_are_dropped(albert_folder: Path) -> None:
    tensors = safetensors.torch.load_file(albert_folder / "model.safetensors")
    tensors["albert.embeddings.position_ids"] = torch.arange(64).unsqueeze(0)
    safetensors.torch.save_file(tensors, albert_folder / "model.safetensors")
    with read_checkpoint(albert_folder) as checkpoint:
        assert [(tensor.name, tensor.shape) for tensor in checkpoint.dropped] == [
            ("albert.embeddings.position_ids", (1, 64))
        ]
        assert checkpoint.head is None


def test_all_problems_of_the_weights_are_listed_at_once(albert_folder: Path) -> None:
    tensors = safetensors.torch.load_file(albert_folder / "model.safetensors")
    del tensors["albert.pooler.bias"]
    tensors["albert.pooler.weight"] = torch.zeros(32, 31)
    tensors["albert.extra"] = torch.zeros(3)
    tensors["albert.embeddings.LayerNorm.bias"] = torch.zeros(16, dtype=torch.int64)
    safetensors.torch.save_file(tensors, albert_folder / "model.safetensors")
    with pytest.raises(WeightsError) as error:
        read_checkpoint(albert_folder)
    assert str(error.value).splitlines() == [
        f"4 problems in the weights of {albert_folder / 'model.safetensors'}",
        "  wrong dtype  albert.embeddings.LayerNorm.bias  expected float32, bfloat16, float16, found I64",
        "  wrong shape  albert.pooler.weight              expected (32, 32), found (32, 31)",
        "  missing      albert.pooler.bias                expected (32,), found none",
        "  unexpected   albert.extra                      expected no such tensor, found (3,)",
        "Download the source again, or re-export it.",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(hidden_act="maxout"), r"unsupported value +hidden_act +expected .*found 'maxout'"),
        (lambda c: c.update(layer_norm_eps=0), r"unsupported value +layer_norm_eps +expected .*found 0"),
        (lambda c: c.update(rotary=1), r"unknown key +rotary"),
        (lambda c: c.update(id2label=["a", "b"]), r"unsupported value +id2label"),
        (lambda c: c.update(num_hidden_groups=3), "num_layers=4 must be divisible by num_groups=3"),
    ],
)
def test_a_wrong_configuration_is_refused(
    change: Callable[[dict[str, Any]], object], message: str, albert_folder: Path
) -> None:
    content = json.loads((albert_folder / "config.json").read_text())
    change(content)
    (albert_folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match=message):
        read_checkpoint(albert_folder)


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("config.json", b"", FileError, "found 0 bytes"),
        ("config.json", b"{", ConfigurationError, "not JSON"),
        ("model.safetensors", b"short", WeightsError, "not safetensors"),
        ("spiece.model", b"\x00", VocabularyError, "a number without an end"),
        ("tokenizer_config.json", b"[1]", ConfigurationError, "expected an object, found list"),
    ],
)
def test_a_broken_file_is_named(
    name: str, content: bytes, kind: type[CheckpointError], message: str, albert_folder: Path
) -> None:
    (albert_folder / name).write_bytes(content)
    with pytest.raises(kind, match=message) as error:
        read_checkpoint(albert_folder)
    assert str(albert_folder / name) in str(error.value)


def test_missing_weights_list_the_files_that_exist(albert_folder: Path) -> None:
    (albert_folder / "model.safetensors").rename(albert_folder / "model.bin")
    with pytest.raises(WeightsError, match=r"missing +model.safetensors +expected the weights, found model.bin"):
        read_checkpoint(albert_folder)


@pytest.mark.parametrize(
    ("keys", "rules", "length"),
    [
        (None, "uncased", None),
        ({}, "uncased", None),
        (
            {"do_lower_case": False, "keep_accents": True, "model_max_length": 512},
            "replace_quotes + split_white_space",
            512,
        ),
        ({"model_max_length": 10**30}, "uncased", None),
    ],
)
def test_normalization_of_tokenizer_config(
    keys: dict[str, Any] | None, rules: str, length: int | None, albert_folder: Path
) -> None:
    (albert_folder / "tokenizer.json").unlink()
    (albert_folder / "tokenizer_config.json").unlink()
    if keys is not None:
        (albert_folder / "tokenizer_config.json").write_text(json.dumps(keys))
    with read_checkpoint(albert_folder) as checkpoint:
        assert checkpoint.tokenizer is not None
        assert (checkpoint.tokenizer.normalization.name, checkpoint.tokenizer.sequence_length) == (rules, length)


@pytest.mark.parametrize("layout", ["albert_hub", "transformers"])
def test_written_tokenizers_have_ids_limits_and_names(layout: Any, vocabulary: bytes, tmp_path: Path) -> None:
    write_repository(random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary), tmp_path, layout)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer.model_max_length == SAMPLE_ARCHITECTURE.max_sequence_length
    assert (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id) == (
        0,
        2,
        3,
        4,
    )
    assert list(tokenizer("a bridge", "a river")) == ["input_ids", "token_type_ids", "attention_mask"]
    assert (tmp_path / "spiece.model").read_bytes() == vocabulary


def test_an_albert_hub_repository_without_settings_has_no_normalization(vocabulary: bytes, tmp_path: Path) -> None:
    write_repository(random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary), tmp_path, "albert_hub")
    (tmp_path / "tokenizer_config.json").unlink()
    with read_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.tokenizer is not None
        assert checkpoint.tokenizer.normalization.name == "none"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"unk_token": "[UNK]"}, r"unk_token +expected '<unk>', found '\[UNK\]'"),
        ({"mask_token": {"content": "<mask>", "lstrip": True}}, r"mask_token +expected '\[MASK\]', found '<mask>'"),
        ({"model_max_length": "512"}, "model_max_length +expected a positive number, found '512'"),
        ({"model_max_length": True}, "expected a positive number, found True"),
        ({"do_lower_case": "false"}, "do_lower_case +expected true or false, found 'false'"),
        ({"truncate": [1]}, "expected 'round_robin', 'waterfall' or 'longest_first'"),
    ],
)
def test_wrong_tokenizer_settings_are_refused(keys: dict[str, Any], message: str, albert_folder: Path) -> None:
    (albert_folder / "tokenizer_config.json").write_text(json.dumps(keys))
    with pytest.raises(ConfigurationError, match=message):
        read_checkpoint(albert_folder)


def test_tokenizer_settings_of_old_writers_are_read_and_reported(albert_folder: Path) -> None:
    mask = {"content": "[MASK]", "lstrip": True, "__type": "AddedToken"}
    keys = {"mask_token": mask, "remove_space": True, "sp_model_kwargs": {}, "tokenizer_class": "AlbertTokenizer"}
    (albert_folder / "tokenizer_config.json").write_text(json.dumps(keys))
    with read_checkpoint(albert_folder) as checkpoint:
        assert {"sp_model_kwargs", "tokenizer_class"} <= {key.key for key in checkpoint.ignored}


@pytest.mark.parametrize("has_model", [True, False])
def test_tokenizer_files_without_a_type_are_read(has_model: bool, albert_folder: Path, vocabulary: bytes) -> None:
    """Many models of 2020 have such, and the tokenizers library takes them to this day."""
    content = json.loads((albert_folder / "tokenizer.json").read_text())
    for key in ("type", "byte_fallback"):
        del content["model"][key]
    (albert_folder / "tokenizer.json").write_text(json.dumps(content))
    assert type(Tokenizer.from_file(str(albert_folder / "tokenizer.json")).model) is Unigram
    if not has_model:
        (albert_folder / "spiece.model").unlink()
    with read_checkpoint(albert_folder) as checkpoint:
        assert checkpoint.tokenizer is not None
        assert checkpoint.tokenizer.vocabulary.pieces == parse_vocabulary(vocabulary).pieces


def test_added_tokens_with_ids_that_no_library_gives_are_refused(albert_folder: Path) -> None:
    (albert_folder / "tokenizer.json").unlink()
    for tokens in ({}, {"[MASK]": 4}):  # transformers 2 always wrote the file
        (albert_folder / "added_tokens.json").write_text(json.dumps(tokens))
        read_checkpoint(albert_folder).close()
    (albert_folder / "added_tokens.json").write_text('{"<new>": 80}')
    message = (
        r"tokens beyond its vocabulary, such as '<new>'\n.* '<new>' has 80 instead of 184\n.* without added_tokens"
    )
    with pytest.raises(VocabularyError, match=message):
        read_checkpoint(albert_folder)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("added_tokens.json", {"[MASK]": 5}, r"'\[MASK\]' has 5 instead of 4"),
        ("added_tokens.json", {"[MASK]": "4"}, r"'\[MASK\]' has '4' instead of 4"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"5": {"content": "[MASK]"}}}, r"has 5 instead of 4"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"80": {"content": "<new>"}}}, "as '<new>'\n.* not name"),
        ("tokenizer_config.json", {"added_tokens_decoder": [4]}, "no object of tokens"),
        ("tokenizer_config.json", {"additional_special_tokens": ["<new>"]}, "as '<new>'"),
        ("tokenizer_config.json", {"extra_special_tokens": {"new": {"content": "<new>"}}}, "as '<new>'"),
        ("tokenizer_config.json", {"extra_special_tokens": {"content": "[MASK]", "new": "<new>"}}, "as '<new>'"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"content": {}, "4": "[MASK]"}}, "no object of tokens"),
        ("tokenizer_config.json", {"bos_token": "<s>"}, "as '<s>'"),
        ("special_tokens_map.json", {"additional_special_tokens": ["<new>"]}, "as '<new>'"),
        ("special_tokens_map.json", {"extra_special_tokens": {"content": "[MASK]", "new": "<new>"}}, "as '<new>'"),
        ("special_tokens_map.json", {"eos_token": {"content": "</s>"}}, "as '</s>'"),
    ],
)
def test_tokens_with_other_ids_are_refused(
    name: str, changes: dict[str, Any], message: str, albert_folder: Path
) -> None:
    file = albert_folder / name
    before = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**before, **changes}))
    with pytest.raises(VocabularyError, match=rf"{name} +.*{message}"):
        read_checkpoint(albert_folder)


def test_token_settings_of_transformers_4_are_read(albert_folder: Path) -> None:
    file = albert_folder / "tokenizer_config.json"
    tokens = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    decoder = {str(n): {"content": token, "special": True} for n, token in enumerate(tokens)}
    more = {"added_tokens_decoder": decoder, "bos_token": "[CLS]", "eos_token": "[SEP]", "extra_special_tokens": {}}
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))
    special = {"bos_token": "[CLS]", "mask_token": {"content": "[MASK]", "lstrip": True}}
    (albert_folder / "special_tokens_map.json").write_text(json.dumps(special))
    with read_checkpoint(albert_folder) as checkpoint:
        assert "added_tokens_decoder" in [key.key for key in checkpoint.ignored if key.reason in NO_LOSS]
    (albert_folder / "special_tokens_map.json").write_text('{"mask_token": "[CLS]"}')
    with pytest.raises(ConfigurationError, match=r"special_tokens_map.json\n.*mask_token +expected '\[MASK\]', found"):
        read_checkpoint(albert_folder)


@pytest.mark.parametrize("token", ["[MASK]>", {"content": "[MASK]>"}], ids=["text", "object"])
@pytest.mark.parametrize("name", ["special_tokens_map.json", "tokenizer_config.json"])
def test_a_misspelt_mask_token_is_corrected(name: str, token: Any, albert_folder: Path) -> None:
    file = albert_folder / name  # 2.2 wrote it into the one, and into both where it wrote what it had read
    before = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps({**before, "mask_token": token}))
    with read_checkpoint(albert_folder) as checkpoint:
        note = "The mask token was '[MASK]>', as transformers 2.2 misspelt it: it is '[MASK]' now."
        assert note in checkpoint.notes
    file.write_text(json.dumps({**before, "mask_token": "[MASK]>>"}))
    with pytest.raises(ConfigurationError, match=rf"{name}\n.*mask_token +expected '\[MASK\]', found '\[MASK\]>>'"):
        read_checkpoint(albert_folder)


def test_a_tokenizer_without_a_vocabulary_is_named(albert_folder: Path) -> None:
    (albert_folder / "spiece.model").unlink()
    (albert_folder / "tokenizer.json").unlink()
    (albert_folder / "added_tokens.json").write_text('{"<new>": 80}')
    with read_checkpoint(albert_folder) as checkpoint:
        note = "has no tokenizer, and what added_tokens.json, tokenizer_config.json says is lost."
        assert [each for each in checkpoint.notes if each.endswith(note)]


def test_a_model_without_a_head_may_have_no_labels(tmp_path: Path) -> None:
    AlbertModel(_albert_config(num_labels=0)).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["id2label"] == {}
    with read_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.head is None


@pytest.mark.parametrize("count", [{}, {"num_labels": 0}])
def test_a_head_that_needs_no_labels_may_have_none(count: dict[str, int], tmp_path: Path) -> None:
    AlbertForMaskedLM(_albert_config(num_labels=0)).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    assert config["id2label"] == {}
    file.write_text(json.dumps({**config, **count}))
    with read_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.head is not None
        assert checkpoint.head.kind == "masked_lm"


@pytest.mark.parametrize(
    "keys",
    [
        {"eos_token_ids": 0, "num_labels": 2},  # 2.4
        {"eos_token_ids": None, "num_labels": 0, "id2label": {}, "label2id": {}},  # 2.5
        {"eos_token_ids": None, "_num_labels": 2},  # 2.6
        {"_num_labels": 2, "xla_device": None},  # 2.8
    ],
)
def test_keys_that_transformers_2_wrote_are_read(keys: dict[str, Any], albert_folder: Path) -> None:
    file = albert_folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **keys}))
    read_checkpoint(albert_folder).close()


def test_vocabulary_and_packing_are_written(vocabulary: bytes, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary)
    assert checkpoint.tokenizer is not None
    text = replace(
        checkpoint.tokenizer, sequence_length=24, truncate="waterfall", normalization=TextNormalization(lower_case=True)
    )
    write_repository(replace(checkpoint, tokenizer=text), tmp_path, "transformers")
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["pad_token_id"], config["bos_token_id"], config["eos_token_id"]) == (0, 2, 3)
    with read_checkpoint(tmp_path) as found:
        assert found.tokenizer == replace(text, normalization_from="tokenizer_config.json")


def test_a_repository_without_a_vocabulary_has_a_note(tmp_path: Path) -> None:
    write_repository(random_checkpoint(SAMPLE_ARCHITECTURE), tmp_path, "albert_hub")
    with read_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.tokenizer is None
        assert "no tokenizer" in checkpoint.notes[0]


def test_save_pretrained_of_our_model_is_read(tmp_path: Path) -> None:
    model = AlbertHubModel(AlbertHubConfig(**asdict(SAMPLE_ARCHITECTURE)))
    model.save_pretrained(tmp_path)
    with read_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.architecture == Architecture(**asdict(SAMPLE_ARCHITECTURE))
        for rule in checkpoint.encoder_rules:
            np.testing.assert_array_equal(
                checkpoint.read(rule, "albert_hub"), model.state_dict()[rule.albert_hub].numpy()
            )
