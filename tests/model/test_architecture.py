from __future__ import annotations

import inspect
from dataclasses import MISSING, asdict, fields

import pytest

from albert_hub_bridge.model.architecture import FIELDS, OTHER_FIELDS, Architecture, architecture_problems
from conversion.sample import SAMPLE_ARCHITECTURE


VALID = asdict(SAMPLE_ARCHITECTURE)


def test_names_and_defaults_are_those_of_keras_hub() -> None:
    import keras_hub

    theirs = {
        name: parameter.default
        for name, parameter in inspect.signature(keras_hub.models.AlbertBackbone.__init__).parameters.items()
        if name not in ("self", "dtype", "kwargs")
    }
    ours = {
        field.name: inspect.Parameter.empty if field.default is MISSING else field.default
        for field in fields(Architecture)
        if field.name not in OTHER_FIELDS
    }
    assert ours == theirs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_groups": 3}, "num_layers=4 must be divisible by num_groups=3"),
        ({"num_heads": 5}, "hidden_dim=32 must be divisible by num_heads=5"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\), not 1.0"),
        ({"dropout": -0.1}, "not -0.1"),
        ({"dropout": float("nan")}, "not nan"),
        ({"num_layers": 0}, "num_layers must be a positive integer, not 0"),
        ({"hidden_dim": -32}, "hidden_dim must be a positive integer, not -32"),
        ({"vocabulary_size": 4.0}, "vocabulary_size must be a positive integer, not 4.0"),
        ({"num_segments": True}, "num_segments must be a positive integer, not True"),
        ({"embedding_dim": "16"}, "embedding_dim must be a positive integer, not '16'"),
    ],
)
def test_impossible_architectures_are_refused_with_their_values(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture(**{**VALID, **change})  # type: ignore[arg-type]


def test_every_problem_is_listed_at_once() -> None:
    problems = architecture_problems({**VALID, "num_groups": 3, "num_heads": 5})
    assert problems == [
        "num_layers=4 must be divisible by num_groups=3",
        "hidden_dim=32 must be divisible by num_heads=5",
    ]
    assert len(architecture_problems(dict.fromkeys(FIELDS, -1))) == len(FIELDS)
