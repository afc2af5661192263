from __future__ import annotations

import pytest

from albert_hub_bridge.choices import DTYPE_NAMES, choose, did_you_mean


DTYPES = (None, "float32", "bfloat16", "float16")


@pytest.mark.parametrize(
    ("value", "choice"),
    [("float32", "float32"), ("FP16", "float16"), ("bf16", "bfloat16"), ("BFloat16", "bfloat16"), (None, None)],
)
def test_names_in_any_case_and_short_names_are_choices(value: object, choice: str | None) -> None:
    assert choose("dtype", value, DTYPES, DTYPE_NAMES) == choice


def test_a_hyphen_is_an_underscore() -> None:
    assert choose("to", "Albert-Hub", ("keras", "albert_hub")) == "albert_hub"


@pytest.mark.parametrize("value", ["None", "none", "int8", 16, ["float32"], True])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="dtype must be one of None, float32, bfloat16, float16, not "):
        choose("dtype", value, DTYPES, DTYPE_NAMES)


def test_only_other_names_of_choices_are_suggested() -> None:
    with pytest.raises(ValueError, match=r"not 'fp61'\.$"):
        choose("to", "fp61", ("keras",), DTYPE_NAMES)
    with pytest.raises(ValueError, match=r"Did you mean float16\?$"):
        choose("dtype", "fp61", DTYPES, DTYPE_NAMES)


def test_what_is_meant_is_suggested() -> None:
    assert did_you_mean("keers", {"keras": "keras"}) == " Did you mean keras?"
    assert did_you_mean("onnx", {"keras": "keras"}) == ""
