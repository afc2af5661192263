"""The pipelines of both sides, by the real transformers: their answers are compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from albert_hub_bridge import convert
from albert_hub_bridge.layouts.registry import read_checkpoint
from albert_hub_bridge.verification.answers import compare_answers
from albert_hub_bridge.verification.engines.registry import open_engine
from albert_hub_bridge.verification.side import Side


TEXTS = ["a bridge joins", "she counted the two and", "Nothing (is) lost"]


def _side(folder: Path) -> Side:
    with read_checkpoint(folder) as checkpoint:
        return Side(checkpoint, open_engine(checkpoint))


@pytest.mark.parametrize(
    ("name", "bias", "task"),
    [
        ("transformers_sequence_classification", "classifier.bias", "text-classification"),
        ("transformers_token_classification", "classifier.bias", "token-classification"),
        ("transformers_masked_lm", "masked_lm_head.decoder.bias", "fill-mask"),
        ("transformers_question_answering", "qa_outputs.bias", None),  # transformers 5 has no pipeline for it
    ],
)
def test_answers_are_compared(
    name: str, bias: str, task: str | None, unpacked: Callable[[str], Path], tmp_path: Path
) -> None:
    convert(unpacked(name), tmp_path / "target", to="albert_hub")
    source = _side(unpacked(name))
    assert compare_answers(source, _side(tmp_path / "target"), TEXTS, 16) == []
    weights = load_file(tmp_path / "target" / "model.safetensors")
    (found,) = [key for key in weights if key.endswith(bias)]
    weights[found] = weights[found].copy()
    weights[found][1] += 3.0
    save_file(weights, tmp_path / "target" / "model.safetensors", metadata={"format": "pt"})
    failures = compare_answers(source, _side(tmp_path / "target"), TEXTS, 16)
    if task is None:
        assert failures == []
        return
    (failure,) = failures
    assert failure.startswith(f"3 of 3 texts get another answer from the pipeline for {task}, the first is 'a bridge")


def test_texts_that_do_not_fit_or_have_special_tokens_are_left_out(
    unpacked: Callable[[str], Path], tmp_path: Path
) -> None:
    convert(unpacked("transformers_masked_lm"), tmp_path / "target", to="albert_hub")
    sides = _side(unpacked("transformers_masked_lm")), _side(tmp_path / "target")
    assert compare_answers(*sides, ["a bridge [MASK] joins", "a bridge " * 20, ""], 16) == []
