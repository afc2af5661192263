"""Keys of `config.json` that ALBERT never reads, as libraries and users of seven years wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AlbertConfig, AlbertForSequenceClassification, AutoModelForSequenceClassification

from albert_hub_bridge import convert, inspect, verify
from albert_hub_bridge.errors import ConfigurationError
from albert_hub_bridge.mapping.configs import NO_LOSS
from albert_hub_bridge.provenance.record import read_record
from conversion.sample import SAMPLE_ARCHITECTURE
from tests.conftest import albert_arguments


UNUSED: dict[str, Any] = {
    "layers_to_keep_prob": 1.0,
    "language": "en",
    "model_name": "my model",
    "adapters": {"adapters": {}, "config_map": {}, "fusion_config_map": {}, "fusions": {}},
    "attention_type": "full",
    "best_threshold": 0.5,
    "classifier_proj_size": 256,
    "crf": False,
    "directionality": "bidi",
    "embedding_dropout_prob": 0.1,
    "ensemble": None,
    "freeze_encoder": True,
    "hidden_layers_to_use": [1, 2],
    "id2color": {"0": "red"},
    "label_smoothing": 0.1,
    "loss_type": None,
    "max_seq_length": 64,
    "model_max_length": 64,
    "multi_sample_dropout": [0.1, 0.2],
    "n_gpu": 1,
    "num_train_epochs": 3.0,
    "pooler_fc_size": 768,
    "pooler_num_attention_heads": 12,
    "pooler_num_fc_layers": 3,
    "pooler_size_per_head": 128,
    "pooler_type": "first_token_transform",
    "seed": 42,
    "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity",
    "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "5.1.0"},
    "summary_activation": "tanh",
    "summary_type": "first",
    "temperature_scale": 1.3,
    "tokenizer_type": "spm",
    "training_args": {"learning_rate": 5e-5},
    "use_rotary_embeddings": False,  # a structure, switched off
    "vocab_file": "spiece.model",
    "weights_hash": "0" * 64,
}
BOOKKEEPING = {"finetuning_task": "glue:sst2", "task_specific_params": {"x": 1}, "initializer_range": 0.01}
REFUSED: dict[str, Any] = {
    "rotary": True,
    "rope_theta": 10000.0,
    "position_embedding_type": "relative_key",
    "relative_attention": True,
    "use_alibi": True,
    "num_local_experts": 4,
    "layer_types": ["full_attention", "sliding_attention"],
    "sliding_window": 128,
    "layers_to_keep": [0, 2],
    "net_structure_type": 1,
    "pruned_heads": {"0": [1]},
    "compression_config": {"quant_method": "compressed-tensors"},
    "transformers_weights": "other.safetensors",
    "text_config": {"hidden_size": 8},
    "custom_pipelines": {"x": {"impl": "code.Run"}},
}
INPUTS = {"input_ids": torch.tensor([[2, 17, 33, 8, 250, 3]]), "token_type_ids": torch.tensor([[0, 0, 0, 1, 1, 1]])}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = AlbertConfig(**albert_arguments(SAMPLE_ARCHITECTURE), num_labels=3)
    AlbertForSequenceClassification(config).save_pretrained(tmp_path / "source")
    return tmp_path / "source"


def _set(folder: Path, keys: dict[str, Any]) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | keys))


@pytest.mark.parametrize("to", ["transformers", "albert_hub"])
def test_repositories_keep_keys_that_albert_does_not_use(to: Any, folder: Path, tmp_path: Path) -> None:
    _set(folder, UNUSED | BOOKKEEPING)
    report = convert(folder, tmp_path / "target", to=to)
    written = json.loads((tmp_path / "target" / "config.json").read_text())
    assert {key: written[key] for key in UNUSED | BOOKKEEPING} == UNUSED | BOOKKEEPING
    assert [key for key in report.ignored if key.reason not in NO_LOSS] == []
    assert any("ALBERT does not use these settings" in note and "language" in note for note in report.notes)
    assert not any("finetuning_task" in note for note in report.notes)
    theirs, ours = (
        AutoModelForSequenceClassification.from_pretrained(each).eval() for each in (folder, tmp_path / "target")
    )
    assert {key: getattr(ours.config, key) for key in UNUSED} == UNUSED
    torch.testing.assert_close(ours(**INPUTS).logits, theirs(**INPUTS).logits, atol=1e-6, rtol=0)
    assert verify(folder, tmp_path / "target")


def test_a_preset_has_no_place_for_them(folder: Path, tmp_path: Path) -> None:
    _set(folder, UNUSED | BOOKKEEPING)
    report = convert(folder, tmp_path / "keras", to="keras")
    lost = {key.key for key in report.ignored if key.reason not in NO_LOSS}
    assert lost == {*UNUSED, "finetuning_task", "task_specific_params"}
    record = read_record(tmp_path / "keras")
    assert record is not None
    assert {key.key for key in record.ignored} >= lost
    assert verify(folder, tmp_path / "keras")


@pytest.mark.parametrize("key", REFUSED)
def test_a_key_that_names_another_computation_is_refused(key: str, folder: Path, tmp_path: Path) -> None:
    _set(folder, {key: REFUSED[key]})
    with pytest.raises(ConfigurationError, match=f"(unknown key|unsupported value) +{key} +expected"):
        convert(folder, tmp_path / "target", to="albert_hub")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sentence_transformers", {"activation_fn": "some_package.Run"}),
        ("sbert_ce_default_activation_function", "torch.nn.x.os.system"),
        ("sentence_transformers", ["torch.nn.Sigmoid"]),
    ],
)
def test_a_name_of_code_is_not_kept(key: str, value: Any, folder: Path, tmp_path: Path) -> None:
    _set(folder, {key: value})
    report = convert(folder, tmp_path / "target", to="transformers")
    assert key not in json.loads((tmp_path / "target" / "config.json").read_text())
    assert [(each.key, each.reason[:10]) for each in report.ignored if each.reason not in NO_LOSS] == [
        (key, "names code")
    ]


def test_names_of_kerashub_stay_those_of_albert_hub(folder: Path, tmp_path: Path) -> None:
    """In `albert_hub` they would be arguments of the model; transformers' ALBERT does not use them."""
    _set(folder, {"num_layers": 1, "embedding_dim": 3})
    report = convert(folder, tmp_path / "albert_hub", to="albert_hub")
    assert inspect(tmp_path / "albert_hub").architecture == SAMPLE_ARCHITECTURE
    assert {key.key for key in report.ignored if key.reason not in NO_LOSS} == {"num_layers", "embedding_dim"}
    convert(folder, tmp_path / "transformers", to="transformers")
    assert json.loads((tmp_path / "transformers" / "config.json").read_text())["num_layers"] == 1
    _set(tmp_path / "albert_hub", {"hidden_size": 64})
    with pytest.raises(ConfigurationError, match=r"unknown key +hidden_size"):
        inspect(tmp_path / "albert_hub")
