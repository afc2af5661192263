"""The option `labels` of `convert`, from a KerasHub classifier to transformers' pipeline and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from albert_hub_bridge import convert, verify
from albert_hub_bridge.commands.labels import parse_labels
from albert_hub_bridge.errors import SourceError


def test_transformers_answers_by_name(classifier: Path, tmp_path: Path) -> None:
    from transformers import pipeline

    convert(classifier, tmp_path / "named", to="transformers", labels="negative,positive")
    answers = pipeline("text-classification", str(tmp_path / "named"), top_k=None)(["a bridge"])[0]
    assert {answer["label"] for answer in answers} == {"negative", "positive"}


@pytest.mark.parametrize("to", ["keras", "albert_hub", "transformers"])
def test_names_are_no_difference_from_a_source_without_names(to: Any, classifier: Path, tmp_path: Path) -> None:
    convert(classifier, tmp_path / "named", to=to, labels=["negative", "positive"])
    assert verify(classifier, tmp_path / "named").passed
    assert verify(tmp_path / "named", classifier).passed
    convert(classifier, tmp_path / "swapped", to=to, labels=["positive", "negative"])
    report = verify(tmp_path / "named", tmp_path / "swapped")
    assert dict(report.different_fields) == {"labels": (("negative", "positive"), ("positive", "negative"))}


def test_names_survive_keras(classifier: Path, tmp_path: Path) -> None:
    convert(classifier, tmp_path / "named", to="transformers", labels="negative,positive")
    convert(tmp_path / "named", tmp_path / "preset", to="keras")
    report = convert(tmp_path / "preset", tmp_path / "again", to="transformers")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["id2label"] == {
        "0": "negative",
        "1": "positive",
    }
    assert not any("--labels" in note for note in report.notes)


def test_missing_names_are_said(classifier: Path, tmp_path: Path) -> None:
    report = convert(classifier, tmp_path / "unnamed", to="transformers")
    assert [note for note in report.notes if "--labels" in note]
    recorded = json.loads((tmp_path / "unnamed" / "conversion.json").read_text())
    assert "--labels" not in recorded["command"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("negative,positive", ("negative", "positive")),
        (" negative , positive ", ("negative", "positive")),
        (r"yes\, indeed,no", ("yes, indeed", "no")),
        (["yes, indeed", "no"], ("yes, indeed", "no")),
        ("one", ("one",)),
    ],
)
def test_names_are_parsed(labels: Any, expected: tuple[str, ...]) -> None:
    assert parse_labels(labels) == expected


def test_recorded_command_gives_the_same_names(classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("﻿yes, indeed\nno\n", encoding="utf-8")
    for name, labels in (("text", str(tmp_path / "labels.txt")), ("path", tmp_path / "labels.txt")):
        convert(classifier, tmp_path / name, to="transformers", labels=labels)
        recorded = json.loads((tmp_path / name / "conversion.json").read_text())
        assert r"yes\, indeed,no" in recorded["command"]
        assert str(tmp_path) not in recorded["command"]
        assert json.loads((tmp_path / name / "config.json").read_text())["id2label"]["0"] == "yes, indeed"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("", "labels should be names"),
        ("a,,b", "labels should be names"),
        ("a,a", "a occurs twice"),
        ([], "labels should be names"),
        ([1, 2], "labels should be names"),
        (Path("nowhere.txt"), "nowhere.txt cannot be read: No such file"),
    ],
)
def test_wrong_names_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_labels(labels)


def test_names_must_fit_the_head(classifier: Path, preset: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"text classifier of 2 classes, and --labels \(labels=...\) has 3 names"):
        convert(classifier, tmp_path / "target", to="transformers", labels="a,b,c")
    with pytest.raises(SourceError, match=r"has 1 name, and is no file: labels\.txt\."):  # a misspelled file
        convert(classifier, tmp_path / "target", to="transformers", labels="labels.txt")
    with pytest.raises(SourceError, match="has no head, so its labels cannot be named"):
        convert(preset, tmp_path / "target", to="transformers", labels="a,b")
    assert not list(tmp_path.iterdir())
