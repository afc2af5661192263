"""What happens to a converted folder that a user edits: settings, text of the card, weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.numpy

from albert_hub_bridge import card, convert, verify
from albert_hub_bridge.commands.publish import check_before_push
from albert_hub_bridge.commands.recording import record_verification
from albert_hub_bridge.commands.verify import check
from albert_hub_bridge.errors import TargetError
from albert_hub_bridge.provenance.model_card import BEGIN
from albert_hub_bridge.provenance.record import read_record
from tests.conftest import converted


@pytest.fixture(scope="module")
def verified(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return converted(classifier, tmp_path_factory.mktemp("verified") / "target")


@pytest.fixture
def target(verified: Path, tmp_path: Path) -> Path:
    """A verified folder, which may be edited."""
    return Path(shutil.copytree(verified, tmp_path / "target"))


def _edit_labels(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {"0": "negative", "1": "positive"}
    (folder / "config.json").write_text(json.dumps(config))


def test_edited_labels_are_accepted_if_the_folder_still_passes(classifier: Path, target: Path) -> None:
    _edit_labels(target)
    found = check(target)
    assert found.changes == {"config.json": "changed"}
    assert not found.different_tensors
    with pytest.raises(TargetError, match=r"changed since its conversion: config.json .* --accept-changes"):
        check_before_push(target)
    report = verify(classifier, target)
    assert record_verification(target, report, classifier) == "changed"
    assert not check(target).passed
    assert record_verification(target, report, classifier, accept_changes=True) == "recorded"
    assert check(target).passed
    record = check_before_push(target)
    assert (record.accepted, record.labels) == (["config.json"], ["negative", "positive"])
    text = (target / "README.md").read_text()
    assert "Changed after the conversion, and verified since then: `config.json`." in text
    assert "negative" in text
    assert record_verification(target, report, classifier) == "recorded"
    assert check_before_push(target).accepted == ["config.json"]


def test_a_changed_weight_is_never_accepted(classifier: Path, target: Path) -> None:
    tensors = safetensors.numpy.load_file(target / "model.safetensors")
    name = next(iter(tensors))
    tensors[name] = tensors[name] + 1e-6
    safetensors.numpy.save_file(tensors, target / "model.safetensors", {"format": "pt"})
    before = (target / "conversion.json").read_bytes()
    found = check(target)
    assert len(found.different_tensors) == 1
    report = verify(classifier, target)
    assert not report.passed
    assert record_verification(target, report, classifier, accept_changes=True) == "changed"
    assert (target / "conversion.json").read_bytes() == before


def test_an_edited_card_is_kept_and_pushed_only_when_accepted(classifier: Path, target: Path) -> None:
    file = target / "README.md"
    edited = file.read_text().replace("# target", "# My model")
    assert edited != file.read_text()
    file.write_text(edited)
    with pytest.raises(TargetError, match=r"README\.md \(edited outside of its two marks\).* --accept-changes"):
        check_before_push(target)
    report = verify(classifier, target)
    assert record_verification(target, report, classifier) == "card left"
    assert file.read_text() == edited
    assert record_verification(target, report, classifier, accept_changes=True) == "card left"
    assert file.read_text() == edited
    assert check_before_push(target).accepted == ["README.md"]
    file.write_text(edited.replace("# My model", "# Another model"))
    with pytest.raises(TargetError, match=r"README\.md \(edited outside"):
        check_before_push(target)
    card(target)
    assert "# My model" not in file.read_text()
    assert check_before_push(target).accepted == []


def test_text_between_the_marks_is_no_edit(target: Path) -> None:
    file = target / "README.md"
    file.write_text(file.read_text().replace(BEGIN, f"{BEGIN}\n\nMy own words."))
    check_before_push(target)
    card(target)
    assert "My own words." in file.read_text()


def test_labels_that_the_option_renamed_are_no_difference(verified: Path, tmp_path: Path) -> None:
    convert(verified, tmp_path / "named", to="transformers", labels="no,yes")
    convert(tmp_path / "named", tmp_path / "renamed", to="albert_hub", labels="bad,good")
    report = verify(tmp_path / "named", tmp_path / "renamed")
    assert report.passed
    assert any("named the labels bad, good. In the source they are no, yes" in note for note in report.notes)
    record = read_record(tmp_path / "renamed")
    assert record is not None
    assert record.labels_from_option
    config = json.loads((tmp_path / "renamed" / "config.json").read_text())
    config["id2label"] = {"0": "good", "1": "bad"}
    (tmp_path / "renamed" / "config.json").write_text(json.dumps(config))
    assert "labels" in verify(tmp_path / "named", tmp_path / "renamed").different_fields
