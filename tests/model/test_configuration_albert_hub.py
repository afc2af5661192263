from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import AlbertConfig, AutoConfig

from albert_hub_bridge import AlbertHubConfig
from albert_hub_bridge.model.architecture import FIELDS, Architecture


def test_defaults_are_the_base_model_and_those_of_the_architecture() -> None:
    config = AlbertHubConfig()
    sizes = {name: getattr(config, name) for name in ("vocabulary_size", "num_layers", "num_heads", "embedding_dim")}
    sizes |= {"hidden_dim": config.hidden_dim, "intermediate_dim": config.intermediate_dim}
    assert sizes == {
        "vocabulary_size": 30000,
        "num_layers": 12,
        "num_heads": 12,
        "embedding_dim": 128,
        "hidden_dim": 768,
        "intermediate_dim": 3072,
    }
    assert asdict(Architecture(**sizes)) == {name: getattr(config, name) for name in FIELDS}


def test_transformers_names_are_aliases() -> None:
    config = AlbertHubConfig(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_hidden_groups=2,
        inner_group_num=3,
        vocab_size=77,
    )
    assert (config.hidden_dim, config.num_layers, config.num_heads, config.num_groups) == (32, 4, 4, 2)
    assert (config.num_inner_repetitions, config.vocabulary_size) == (3, 77)
    config.max_position_embeddings = 9
    assert config.max_sequence_length == 9
    assert "hidden_size" not in config.to_dict()


def test_every_architecture_key_of_transformers_has_a_twin() -> None:
    theirs = {
        name
        for name in AlbertConfig.__dataclass_fields__
        if name in AlbertConfig.__annotations__ and not name.endswith("_token_id")
    }
    assert theirs - {"initializer_range", "tie_word_embeddings"} == set(AlbertHubConfig.attribute_map)
    assert set(AlbertHubConfig.attribute_map.values()) == {*FIELDS, "classifier_dropout"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": 12, "num_groups": 5}, "num_layers=12 must be divisible by num_groups=5"),
        ({"hidden_dim": 768, "num_heads": 7}, "hidden_dim=768 must be divisible by num_heads=7"),
        ({"hidden_size": 770}, "hidden_dim=770 must be divisible by num_heads=12"),
        ({"intermediate_dim": 0}, "intermediate_dim must be a positive integer, not 0"),
        ({"dropout": 1.5}, r"dropout must be a number in \[0, 1\), not 1.5"),
        ({"vocabulary_size": "many"}, "expected int, got str"),
        ({"activation": "maxout"}, "activation must be one of gelu_pytorch_tanh, .*, not 'maxout'"),
        ({"layer_norm_eps": 0.0}, "layer_norm_epsilon must be a positive number up to 1, not 0.0"),
        ({"attention_dropout": 1.0}, r"attention_dropout must be a number in \[0, 1\) or None, not 1.0"),
        ({"classifier_dropout": -0.1}, r"classifier_dropout must be a number in \[0, 1\) or None, not -0.1"),
        ({"classifier_activation": "relu"}, "classifier_activation must be None, 'softmax' or 'sigmoid', not 'relu'"),
        ({"masked_lm_layer_norm_epsilon": 2}, "masked_lm_layer_norm_epsilon must be a positive number up to 1, not 2"),
    ],
)
def test_impossible_architectures_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(StrictDataclassError, match=message):
        AlbertHubConfig(**arguments)


def test_a_name_and_its_alias_that_differ_are_refused_rather_than_one_picked() -> None:
    with pytest.raises(ValueError, match="one dropout") as error:
        AlbertHubConfig(dropout=0.1, hidden_dropout_prob=0.2)
    assert "0.1" in str(error.value)
    assert "0.2" in str(error.value)
    for arguments in (
        {"hidden_dim": 24, "hidden_size": 36},
        {"num_layers": 6, "num_hidden_layers": 12},
        {"activation": "relu", "hidden_act": "gelu"},
    ):
        with pytest.raises(ValueError, match="but these were given"):
            AlbertHubConfig(**arguments)  # type: ignore[arg-type]
    with pytest.raises(StrictDataclassError, match="vocabulary_size must be a positive integer, not 'x'"):
        AlbertHubConfig(vocab_size="x")
    assert AlbertHubConfig(hidden_dim=24, hidden_size=24).hidden_dim == 24
    assert AlbertHubConfig(hidden_dropout_prob=0.1).attention_dropout is None
    assert AlbertHubConfig(hidden_dropout_prob=0, attention_probs_dropout_prob=0.0).attention_dropout == 0


def test_it_is_saved_and_loaded_by_the_auto_class(tmp_path: Path) -> None:
    config = AlbertHubConfig(num_layers=4, num_groups=2, dropout=0.25)
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is AlbertHubConfig
    assert {name: getattr(loaded, name) for name in FIELDS} == {name: getattr(config, name) for name in FIELDS}
