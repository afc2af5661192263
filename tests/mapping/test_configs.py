from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
from transformers import AlbertConfig, AlbertForSequenceClassification

from albert_hub_bridge import AlbertHubConfig
from albert_hub_bridge.mapping.configs import (
    ALBERT,
    ALBERT_HUB,
    KERAS,
    PREPROCESSOR,
    Constant,
    Renamed,
    Table,
    read_keys,
    write_keys,
)
from albert_hub_bridge.model.architecture import FIELDS, KERAS_FIELDS
from conversion.sample import SAMPLE_ARCHITECTURE
from tests.conftest import KerasPreset


HEAD_FIELDS = {
    "num_labels": 3,
    "id2label": {"0": "a", "1": "b", "2": "c"},
    "problem_type": "regression",
    "classifier_activation": "softmax",
    "classifier_dropout": None,
    "masked_lm_layer_norm_epsilon": 1e-6,
}
TABLES = {"keras": KERAS, "albert": ALBERT, "albert_hub": ALBERT_HUB}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_written_keys_are_read_back(table: Table) -> None:
    values = asdict(replace(SAMPLE_ARCHITECTURE, activation="relu", attention_dropout=0.25)) | HEAD_FIELDS
    values = {rule.field: values[rule.field] for rule in table.values() if isinstance(rule, Renamed)}
    fields, _, problems = read_keys(table, write_keys(table, values))
    assert problems == []
    assert fields == values


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_table_has_every_field_of_the_architecture(table: Table) -> None:
    fields = {rule.field for rule in table.values() if isinstance(rule, Renamed)}
    expected = set(KERAS_FIELDS) if table is KERAS else {*FIELDS, *HEAD_FIELDS}
    if table is ALBERT:
        expected -= {"masked_lm_layer_norm_epsilon"}  # one epsilon for all layer norms
    assert fields == expected


def test_table_has_every_key_of_keras_hub(keras_preset: KerasPreset) -> None:
    assert set(keras_preset.backbone.get_config()) == set(KERAS)


def test_table_has_every_key_of_transformers() -> None:
    config = AlbertConfig(hidden_size=8, num_attention_heads=2, intermediate_size=8, num_labels=3)
    config = AlbertForSequenceClassification(config).config
    assert set(config.to_dict()) <= set(ALBERT)
    assert set(AlbertHubConfig(num_labels=3).to_dict()) <= set(ALBERT_HUB)


# config.json of albert/albert-base-v2 on the Hub, written in 2019 and 2020.
PUBLISHED_CONFIG: dict[str, Any] = {
    "architectures": ["AlbertForMaskedLM"],
    "attention_probs_dropout_prob": 0,
    "bos_token_id": 2,
    "classifier_dropout_prob": 0.1,
    "down_scale_factor": 1,
    "embedding_size": 128,
    "eos_token_id": 3,
    "gap_size": 0,
    "hidden_act": "gelu_new",
    "hidden_dropout_prob": 0,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "inner_group_num": 1,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "model_type": "albert",
    "net_structure_type": 0,
    "num_attention_heads": 12,
    "num_hidden_groups": 1,
    "num_hidden_layers": 12,
    "num_memory_blocks": 0,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "vocab_size": 30000,
}


def test_a_published_config_is_read() -> None:
    fields, ignored, problems = read_keys(ALBERT, PUBLISHED_CONFIG)
    assert problems == []
    assert fields["hidden_dim"] == 768
    assert fields["classifier_dropout"] == 0.1
    assert {key.key for key in ignored} >= {"architectures", "initializer_range"}
    assert all(key.reason for key in ignored)


def test_absent_keys_have_the_defaults_of_transformers() -> None:
    fields, _, problems = read_keys(ALBERT, {"model_type": "albert"})
    assert problems == []
    default = AlbertConfig()
    for alias, name in AlbertHubConfig.attribute_map.items():
        assert fields[name] == getattr(default, alias), alias
    constants = {key: rule.allowed for key, rule in ALBERT.items() if isinstance(rule, Constant)}
    checked = {key: value for key, value in default.to_dict().items() if key in constants}
    assert {"is_decoder", "is_encoder_decoder"} <= set(constants)
    for key, value in checked.items():
        assert value in constants[key], key


@pytest.mark.parametrize(
    ("change", "kind", "where", "detail"),
    [
        ({"hidden_act": "maxout"}, "unsupported value", "hidden_act", "found 'maxout'"),
        ({"hidden_act": None}, "unsupported value", "hidden_act", "found None"),
        (
            {"layer_norm_eps": 0.0},
            "unsupported value",
            "layer_norm_eps",
            "expected a positive number below 1, found 0.0",
        ),
        ({"classifier_dropout_prob": 1}, "unsupported value", "classifier_dropout_prob", "found 1"),
        (
            {"problem_type": "ranking"},
            "unsupported value",
            "problem_type",
            "'multi_label_classification', found 'ranking'",
        ),
        ({"id2label": ["a", "b"]}, "unsupported value", "id2label", "expected an object"),
        ({"num_labels": -1}, "unsupported value", "num_labels", "expected an integer from 0 to 100,000, found -1"),
        ({"position_embedding_type": "relative_key"}, "unsupported value", "position_embedding_type", "absolute"),
        ({"net_structure_type": 1}, "unsupported value", "net_structure_type", "expected 0, found 1"),
        ({"is_decoder": True}, "unsupported value", "is_decoder", "found True"),
        ({"is_decoder": 0}, "unsupported value", "is_decoder", "expected False, found 0"),
        ({"pruned_heads": {"0": [1]}}, "unsupported value", "pruned_heads", "pruned heads change"),
        ({"quantization_config": {"bits": 4}}, "unsupported value", "quantization_config", "quantized"),
        ({"rotary": True}, "unknown key", "rotary", "found True"),
    ],
)
def test_unsupported_and_unknown_keys_are_problems(change: dict[str, Any], kind: str, where: str, detail: str) -> None:
    _, _, problems = read_keys(ALBERT, {**PUBLISHED_CONFIG, **change})
    assert [(problem.kind, problem.where) for problem in problems] == [(kind, where)]
    assert detail in problems[0].detail


def test_missing_keys_are_listed() -> None:
    _, _, problems = read_keys(KERAS, {"num_layers": 2})
    assert {problem.where for problem in problems} == {
        "vocabulary_size",
        "num_heads",
        "embedding_dim",
        "hidden_dim",
        "intermediate_dim",
    }


def test_read_keys_does_not_change_its_input() -> None:
    keys = {**PUBLISHED_CONFIG, "unknown": 1}
    before = dict(keys)
    read_keys(ALBERT, keys)
    assert keys == before


def test_table_has_every_key_of_the_preprocessors(vocabulary: bytes) -> None:
    import keras_hub

    tokenizer = keras_hub.models.AlbertTokenizer(vocabulary)
    for preprocessor in (
        keras_hub.models.AlbertTextClassifierPreprocessor(tokenizer),
        keras_hub.models.AlbertMaskedLMPreprocessor(tokenizer),
    ):
        assert set(preprocessor.get_config()) <= set(PREPROCESSOR)
