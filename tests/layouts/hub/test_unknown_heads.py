"""Repositories that do not say which head they have, or that have tensors of no ALBERT."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from transformers import AlbertConfig
from typer.testing import CliRunner

from albert_hub_bridge import AlbertHubForMultipleChoice, convert, inspect, verify
from albert_hub_bridge.cli import app
from albert_hub_bridge.errors import AlbertHubBridgeError, ConfigurationError, SourceError, WeightsError
from albert_hub_bridge.mapping.heads import HEADS, HeadKind
from conversion.sample import SAMPLE_ARCHITECTURE
from tests.conftest import albert_arguments


Save = Callable[..., Path]
TAGS = {"id2label": {"0": "O", "1": "B-PER", "2": "I-PER"}}


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Return what saves a model of transformers, and leaves the class out of its `config.json`."""

    def run(kind: HeadKind, keys: dict[str, Any] | None = None, labels: int = 3, pooler: bool = False) -> Path:
        torch.manual_seed(0)
        config = AlbertConfig(**albert_arguments(SAMPLE_ARCHITECTURE), num_labels=labels)
        model = getattr(transformers, HEADS[kind].albert)(config)
        model.save_pretrained(tmp_path / "source")
        file = tmp_path / "source" / "config.json"
        content = json.loads(file.read_text()) | (keys or {})
        content.pop("architectures")
        file.write_text(json.dumps(content))
        if pooler:  # versions before 4 saved it with every head
            change(tmp_path / "source", albert_pooler_weight=torch.randn(32, 32), albert_pooler_bias=torch.randn(32))
        return tmp_path / "source"

    return run


def change(folder: Path, **more: torch.Tensor) -> None:
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file) | {name.replace("_", "."): value for name, value in more.items()}
    safetensors.torch.save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("masked_lm", {}),
        ("pretraining", {}),
        ("question_answering", {"labels": 2}),
        ("token_classification", {}),  # without a pooler
        ("token_classification", {"pooler": True, "keys": TAGS}),
        ("sequence_classification", {"keys": {"problem_type": "multi_label_classification"}}),
        ("sequence_classification", {"keys": {"problem_type": "regression"}, "labels": 1}),
    ],
)
def test_tensors_and_settings_tell_the_head(kind: HeadKind, options: Any, save: Save, tmp_path: Path) -> None:
    source = save(kind, **options)
    convert(source, tmp_path / "target", to="transformers")
    assert json.loads((tmp_path / "target" / "config.json").read_text())["architectures"] == [HEADS[kind].albert]
    inputs = {"input_ids": torch.tensor([[2, 17, 33, 8, 250, 3]])}
    auto = getattr(transformers, HEADS[kind].auto)
    theirs, ours = (auto.from_pretrained(folder).eval()(**inputs) for folder in (source, tmp_path / "target"))
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-6, rtol=0)
    assert verify(source, tmp_path / "target")


@pytest.mark.parametrize(
    ("kind", "options", "possible"),
    [
        ("sequence_classification", {}, ["sequence_classification", "token_classification"]),
        ("token_classification", {"pooler": True}, ["sequence_classification", "token_classification"]),
        ("multiple_choice", {}, ["sequence_classification", "multiple_choice"]),
    ],
)
def test_a_classifier_that_could_be_two_kinds_needs_the_option(
    kind: HeadKind, options: Any, possible: list[str], save: Save, tmp_path: Path
) -> None:
    source = save(kind, **options)
    asked = " or ".join(f"--head {each}" for each in possible)
    with pytest.raises(ConfigurationError, match=rf"unknown head +architectures .*\n.*{asked}"):
        convert(source, tmp_path / "target", to="transformers")
    with pytest.raises(ConfigurationError, match="--head"):
        inspect(source)
    command = ["convert", str(source), str(tmp_path / "target"), "--to", "transformers", "--head", kind.upper()]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "target" / "config.json").read_text())["architectures"] == [HEADS[kind].albert]
    assert f"--head {kind}" in json.loads((tmp_path / "target" / "conversion.json").read_text())["command"]
    assert inspect(source, head=kind).head == inspect(tmp_path / "target").head
    assert verify(source, tmp_path / "target")
    assert convert(source, tmp_path / "alone", to="transformers", drop_head=True).head is None
    assert verify(source, tmp_path / "alone")


def test_the_class_that_loads_a_model_tells_the_head(save: Save) -> None:
    source = save("multiple_choice")
    model = AlbertHubForMultipleChoice.from_preset(source)
    scores = safetensors.torch.load_file(source / "model.safetensors")["classifier.weight"]
    torch.testing.assert_close(model.classifier.weight.detach(), scores, atol=0, rtol=0)


def test_the_option_does_not_overrule_the_source(save: Save, tmp_path: Path) -> None:
    source = save("token_classification")
    with pytest.raises(ConfigurationError, match="expected token_classification, found a classifier without a pooler"):
        convert(source, tmp_path / "target", to="albert_hub", head="sequence_classification")
    (tmp_path / "source" / "config.json").write_text(
        json.dumps(
            json.loads((source / "config.json").read_text()) | {"architectures": ["AlbertForTokenClassification"]}
        )
    )
    with pytest.raises(SourceError, match="says which head it has: token_classification, not masked_lm"):
        convert(source, tmp_path / "target", to="albert_hub", head="masked_lm")
    with pytest.raises(ValueError, match="head must be one of None, masked_lm"):
        convert(source, tmp_path / "target", to="albert_hub", head="crf")  # type: ignore[arg-type]


def test_a_sequence_classifier_needs_its_pooler(save: Save) -> None:
    """Without one, transformers would make a random pooler."""
    source = save("token_classification")
    keys = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(keys | {"architectures": ["AlbertForSequenceClassification"]}))
    with pytest.raises(WeightsError, match=r"missing +albert.pooler.weight"):
        inspect(source)


def test_another_model_is_no_head(save: Save, tmp_path: Path) -> None:
    """`--drop-head` leaves out the tensors of known heads alone."""
    source = save("token_classification")
    change(source, bert_embeddings=torch.zeros(3, 4), crf_transitions=torch.zeros(3, 3))
    with pytest.raises(WeightsError, match=r"unexpected +bert.embeddings .*\n.*crf.transitions .*\n.*--drop-unknown"):
        convert(source, tmp_path / "target", to="albert_hub", drop_head=True)
    with pytest.raises(WeightsError, match=r"1 problem .*\n.*unexpected +bert.embeddings"):
        convert(source, tmp_path / "target", to="albert_hub", drop_unknown=["crf.transitions"])
    assert not (tmp_path / "target").exists()
    report = convert(source, tmp_path / "target", to="albert_hub", drop_unknown=["crf.transitions", "bert.embeddings"])
    assert report.head == "token classifier of 3 classes"
    assert {(each.name, each.shape) for each in report.dropped} == {
        ("crf.transitions", (3, 3)),
        ("bert.embeddings", (3, 4)),
    }
    checked = verify(source, tmp_path / "target")
    assert checked.passed
    assert any("Left out of the target" in note and "crf.transitions" in note for note in checked.notes)
    recorded = json.loads((tmp_path / "target" / "conversion.json").read_text())
    assert "--drop-unknown crf.transitions --drop-unknown bert.embeddings" in recorded["command"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["albert.pooler.bias", "x"], r"missing +x .*\n +needed +albert.pooler.bias"),
        (["classifier.weight"], r"needed +classifier.weight +expected a tensor that no ALBERT has"),
    ],
)
def test_drop_unknown_leaves_out_nothing_of_albert(names: list[str], message: str, save: Save, tmp_path: Path) -> None:
    source = save("sequence_classification", {"problem_type": "regression"})
    with pytest.raises(AlbertHubBridgeError, match=message):
        convert(source, tmp_path / "target", to="albert_hub", drop_unknown=names)
    with pytest.raises(ValueError, match="drop_unknown is a list of names"):
        convert(source, tmp_path / "target", to="albert_hub", drop_unknown="x")
