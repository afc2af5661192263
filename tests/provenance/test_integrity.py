from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from albert_hub_bridge import check, convert
from albert_hub_bridge.cli import app
from albert_hub_bridge.errors import ConfigurationError, FileError
from albert_hub_bridge.provenance import integrity
from tests.conftest import converted


runner = CliRunner()


@pytest.mark.parametrize("layout", ["keras", "transformers", "albert_hub"])
def test_forged_record_is_noticed(layout: str, preset: Path, tmp_path: Path) -> None:
    """Whoever writes the checksum of a changed file into the record as well has still changed a tensor."""
    convert(preset, tmp_path / "target", to=layout)  # type: ignore[arg-type]
    assert check(tmp_path / "target").passed
    file = tmp_path / "target" / "conversion.json"
    record = json.loads(file.read_text())
    name = "embeddings_projection.bias"
    record["target"]["tensors"][name] = record["target"]["tensors"]["pooled_dense.bias"]
    file.write_text(json.dumps(record))
    report = check(tmp_path / "target")
    assert (report.passed, report.changes, report.different_tensors) == (False, {}, [name])
    result = runner.invoke(app, ["verify", str(tmp_path / "target")])
    assert (result.exit_code, f"Changed tensors: {name}" in result.output) == (1, True)
    record["target"]["tensors"] = [1]
    file.write_text(json.dumps(record))
    with pytest.raises(ConfigurationError, match=r"wrong type +target.tensors +expected dict\[str, str\], found \[1\]"):
        check(tmp_path / "target")


def test_file_that_becomes_a_link_after_hashing_is_refused(
    preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, outside = tmp_path / "target", tmp_path / "outside"
    convert(preset, target, to="transformers")
    hashed = integrity.changed_files

    def hash_and_replace(*arguments: Any) -> dict[str, str]:
        changes = hashed(*arguments)
        (target / "model.safetensors").rename(outside)
        (target / "model.safetensors").symlink_to(outside)
        return changes

    monkeypatch.setattr(integrity, "changed_files", hash_and_replace)
    with pytest.raises(FileError, match=r"a link to .*outside, outside of it"):
        check(target)


def test_changed_files_are_listed(preset: Path, tmp_path: Path) -> None:
    def run(*options: str) -> tuple[int, str]:
        result = runner.invoke(app, ["verify", str(folder), *options])
        return result.exit_code, result.output

    folder = converted(preset, tmp_path / "transformers")
    code, said = run()
    tensors = check(folder).tensors
    assert tensors == len(load_file(folder / "model.safetensors"))
    assert (code, f"PASSED: all 6 files and {tensors} tensors are unchanged." in said) == (0, True)
    (folder / "notes.txt").write_text("mine")
    (folder / ".gitattributes").write_text("the hub's")
    code, said = run()
    assert (code, "not part of a preset or repository: notes.txt" in said) == (0, True)
    (folder / "config.json").write_text("{}")
    (folder / "spiece.model").unlink()
    (folder / "task.json").write_text("{}")
    (folder / "parity.png").write_bytes(b"not ours")
    code, said = run("--json")
    report = json.loads(said)
    assert (code, report["passed"], report["files"]) == (1, False, 6)
    names = {"config.json": "changed", "parity.png": "changed", "spiece.model": "missing"}
    assert report["changes"] == {**names, "task.json": "new"}
    assert report["others"] == ["notes.txt"]
    code, said = run()
    assert (code, "FAILED: 4 files and 0 tensors were changed since the conversion." in said) == (1, True)
    assert check(folder).changes == report["changes"]
    assert report["different_tensors"] == []  # nothing can be read any more
    (folder / "conversion.json").unlink()
    code, said = run()
    assert (code, "has no conversion.json. Convert it first" in said) == (2, True)
