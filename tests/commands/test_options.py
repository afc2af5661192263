"""The options of `convert`: one dataclass for the function, the command line and the recorded command."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any, get_args

import pytest

from albert_hub_bridge import cli, convert
from albert_hub_bridge.choices import Dtype
from albert_hub_bridge.commands.options import ConvertOptions
from albert_hub_bridge.errors import TargetError
from albert_hub_bridge.formats.lazy_tensors import DTYPES


DEFAULTS = {field.name: field.default for field in fields(ConvertOptions)}


@pytest.mark.parametrize("function", [convert, cli.convert])
def test_function_and_command_line_have_every_field_and_its_default(function: Any) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    options = [each for each in parameters if each.name in DEFAULTS]
    assert [each.name for each in options] == list(DEFAULTS)
    assert [each.default for each in options[1:]] == [*DEFAULTS.values()][1:]
    assert options[0].default is inspect.Parameter.empty
    others = [each.name for each in parameters if each.name not in DEFAULTS]
    assert others[:3] == ["source", "target", "overwrite"]


def test_dtypes_are_those_of_the_weights() -> None:
    assert get_args(Dtype) == (*DTYPES, "int8")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to": "keras"}, "--to keras"),
        (
            {"to": "transformers", "sentence_transformers": "mean", "hidden_act": "GELU-new"},
            "--to transformers --sentence-transformers mean --hidden-act gelu_new",
        ),
        ({"to": "keras", "normalize": "keep", "dtype": None, "drop_head": False}, "--to keras"),
        (
            {
                "to": "albert_hub",
                "normalize": "uncased",
                "dtype": "float16",
                "max_shard_size": "2KB",
                "include_code": True,
                "drop_head": True,
                "drop_unknown": ["crf.weight", "crf.bias"],
                "head": "Token-Classification",
                "sentence_transformers": "cls",
                "allow_pickle": True,
            },
            "--to albert_hub --normalize uncased --dtype float16 --max-shard-size 2KB --include-code --drop-head "
            "--drop-unknown crf.weight --drop-unknown crf.bias --head token_classification "
            "--sentence-transformers cls --allow-pickle",
        ),
    ],
)
def test_command_gives_what_is_not_the_default(options: dict[str, Any], words: str) -> None:
    assert ConvertOptions(**options).command("a", "b") == f"albert-hub-bridge convert a b {words}"


def test_choices_have_any_case_and_dtypes_have_short_names() -> None:
    options: Any = {"to": "Albert-Hub", "dtype": "BF16", "normalize": "Uncased"}
    assert ConvertOptions(**options) == ConvertOptions("albert_hub", "uncased", "bfloat16")


def test_wrong_values_are_all_listed() -> None:
    wrong: Any = {
        "to": "onnx",
        "normalize": "x",
        "dtype": "int4",
        "max_shard_size": "0",
        "sentence_transformers": "max",
        "hidden_act": "gelu_old",
    }
    with pytest.raises(ValueError, match="to must be one of") as error:
        ConvertOptions(**wrong)
    assert str(error.value).splitlines() == [
        "to must be one of keras, albert_hub, transformers, universal, not 'onnx'.",
        "normalize must be one of keep, none, uncased, not 'x'.",
        "dtype must be one of None, float32, bfloat16, float16, int8, not 'int4'. Did you mean int8?",
        "sentence_transformers must be one of None, mean, cls, not 'max'.",
        "hidden_act must be one of None, gelu_pytorch_tanh, gelu_new, not 'gelu_old'. Did you mean gelu_new?",
        "A size is a number of bytes, or a text such as 200MB, not '0'.",
    ]


def test_unsupported_options_are_all_listed() -> None:
    with pytest.raises(TargetError) as error:
        ConvertOptions("keras", include_code=True, sentence_transformers="mean", hidden_act="gelu_new")
    first, second, third = str(error.value).splitlines()
    assert first.startswith("Only the albert_hub layout can include code, and the target's layout is keras: KerasHub")
    assert second.startswith("sentence-transformers loads no KerasHub presets.")
    assert third.startswith("Only the layouts transformers and universal have hidden_act, and the target's layout is")
