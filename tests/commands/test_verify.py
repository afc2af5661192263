"""`verify` as a function: two folders, or one; and what it records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from albert_hub_bridge import check, convert, verify
from albert_hub_bridge.cli import app
from albert_hub_bridge.commands.publish import check_before_push
from albert_hub_bridge.errors import TargetError


def test_one_folder_is_checked_as_the_command_does(preset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "transformers"
    convert(preset, folder, to="transformers")
    report = verify(folder)
    assert report == check(folder)
    assert report.passed
    printed = json.loads(CliRunner().invoke(app, ["verify", str(folder), "--json"]).stdout)
    assert printed == json.loads(json.dumps(report.as_dict()))
    (folder / "config.json").write_text("{}")
    assert not verify(folder).passed


def test_a_recorded_verification_allows_a_push(preset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "albert_hub"
    convert(preset, folder, to="albert_hub")
    before = (folder / "conversion.json").read_bytes()
    assert verify(preset, folder).passed
    assert (folder / "conversion.json").read_bytes() == before  # unless it is asked for
    with pytest.raises(TargetError, match=r"verify\(source, target, record=True\)"):
        check_before_push(folder)
    assert verify(preset, folder, record=True).passed
    record = check_before_push(folder)
    assert record.verification is not None
    assert record.verification["passed"] is True


def test_what_cannot_be_recorded_gives_a_warning(preset: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"Not recorded: .* has no conversion\.json"):
        assert verify(preset, preset, record=True).passed
