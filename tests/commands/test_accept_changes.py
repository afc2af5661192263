"""What happens to a converted folder that a user edits: settings, text of the card, weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.numpy

from albert_hub_bridge import card, convert, push, verify
from albert_hub_bridge.commands.publish import check_before_push
from albert_hub_bridge.commands.recording import record_verification
from albert_hub_bridge.commands.verify import check
from albert_hub_bridge.errors import TargetError
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


def test_an_edited_card_gets_new_results_and_keeps_the_edits(classifier: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    convert(classifier, target, to="transformers")
    file = target / "README.md"
    text = file.read_text()
    edited = text.replace("# target", "# My model").replace("## Is it", "## Training\n\nOn reviews.\n\n## Is it")
    assert "Not measured." in edited
    file.write_text(edited.replace("\n", "\r\n"))  # as an editor of Windows does
    assert record_verification(target, verify(classifier, target), classifier) == "recorded"
    merged = file.read_text()
    assert "\n# My model\n" in merged
    assert "\n## Training\n\nOn reviews.\n\n## Is it the same model?\n\nYes." in merged
    assert "Not measured." not in merged
    check_before_push(target)
    card(target)
    assert file.read_text() == merged
    convert(classifier, target, to="transformers", overwrite=True, labels="no,yes")
    again = file.read_text()
    assert all(part in again for part in ("# My model", "On reviews.", "Not measured.", "`no`, `yes`"))


def test_an_edit_of_a_result_is_never_lost_in_silence(classifier: Path, target: Path) -> None:
    file, record = target / "README.md", (target / "conversion.json").read_text()
    edited = file.read_text().replace("on 9 texts and 8 pairs", "on all texts")
    file.write_text(edited)
    report = verify(classifier, target, texts=["a bridge"])  # other results than before
    assert record_verification(target, report, classifier) == "card left"
    assert file.read_text() == edited
    assert (target / "conversion.json").read_text() != record
    message = r"README.md was edited in lines that the new card changes too:\n  line \d+\n    has     .* on all texts"
    for run in (
        lambda: card(target),
        lambda: push(target, "hf://user/target"),
        lambda: convert(classifier, target, to="transformers", overwrite=True),
    ):
        with pytest.raises(TargetError, match=message):
            run()
    assert file.read_text() == edited
    file.unlink()
    card(target)
    assert "on 1 texts and 0 pairs" in file.read_text()


def test_a_card_whose_record_is_unknown_is_not_overwritten(classifier: Path, target: Path) -> None:
    file = target / "conversion.json"
    file.write_text(json.dumps({key: value for key, value in json.loads(file.read_text()).items() if key != "card"}))
    with pytest.raises(TargetError, match=r"README\.md was edited in lines"):
        convert(classifier, target, to="transformers", overwrite=True)
    (target / "README.md").write_bytes(b"\xff")
    with pytest.raises(TargetError, match=r"README\.md is not UTF-8"):
        convert(classifier, target, to="transformers", overwrite=True)
    (target / "README.md").unlink()
    convert(classifier, target, to="transformers", overwrite=True)
    assert "Not measured." in (target / "README.md").read_text()


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
