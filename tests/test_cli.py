from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import pytest
from typer.testing import CliRunner

from albert_hub_bridge import __version__
from albert_hub_bridge.cli import app
from conversion.sample import write_sample_preset


runner = CliRunner()


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    write_sample_preset(tmp_path / "sample")
    return tmp_path / "sample"


def test_convert_inspect_and_verify_print_reports(sample: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    result = runner.invoke(app, ["convert", str(sample), str(target), "--to", "albert_hub"])
    assert result.exit_code == 0, result.output
    assert "43,264 parameters, float32" in result.stdout
    result = runner.invoke(app, ["inspect", str(target)])
    assert result.exit_code == 0
    assert "43,264 in 73 tensors" in result.stdout
    assert "a Hub repository in the albert_hub layout" in result.stdout
    assert "none (tokenizer_config.json)" in result.stdout
    result = runner.invoke(app, ["verify", str(sample), str(target)])
    assert result.exit_code == 0
    assert "PASSED: source and target match." in result.stdout


def test_json_reports(sample: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    for arguments in (
        ["convert", str(sample), str(target), "--to", "transformers", "--json"],
        ["inspect", str(target), "--json"],
        ["verify", str(sample), str(target), "--json"],
    ):
        result = runner.invoke(app, arguments)
        assert result.exit_code == 0
        report = json.loads(result.stdout)
        assert report.get("passed", True) is True
    assert report["texts"] == 8
    result = runner.invoke(app, ["inspect", str(tmp_path / "nowhere"), "--json"])
    assert result.exit_code == 2
    assert "does not exist" in json.loads(result.stdout)["error"]


def test_difference_exits_with_1(sample: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    runner.invoke(app, ["convert", str(sample), str(target), "--to", "keras"])
    with h5py.File(target / "model.weights.h5", "r+") as file:
        file["layers/dense/vars/1"][0] += 1
    texts = tmp_path / "texts.txt"
    texts.write_text("one\ntwo\n")
    result = runner.invoke(app, ["verify", str(sample), str(target), "--texts", str(texts)])
    assert result.exit_code == 1
    assert "FAILED: source and target differ. Failed checks: tensors, reference, engines, texts." in " ".join(
        result.stdout.split()
    )
    assert "embeddings_projection.bias" in result.stdout


def test_wrong_source_exits_with_2_and_one_message(sample: Path, tmp_path: Path) -> None:
    with h5py.File(sample / "model.weights.h5", "r+") as file:
        del file["layers/dense/vars/1"], file["layers/dense/vars/0"]
    target = tmp_path / "target"
    command = [sys.executable, "-m", "albert_hub_bridge", "convert", str(sample), str(target), "--to", "albert_hub"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"Error: 2 problems in the weights of {sample / 'model.weights.h5'}",
        "  missing  layers/dense/vars/0  expected (16, 32), found none",
        "  missing  layers/dense/vars/1  expected (32,), found none",
        "Download the source again, or re-export it.",
    ]
    assert not target.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", "SAMPLE", "SAMPLE", "--to", "albert_hub"],
        ["convert", "SAMPLE", "TARGET", "--to", "onnx"],
        ["convert", "SAMPLE", "TARGET"],
        ["convert", "SAMPLE/config.json", "TARGET", "--to", "albert_hub"],
        ["inspect", "kaggle://a/b/keras/c"],
        ["verify", "SAMPLE", "TARGET"],
        ["verify", "SAMPLE", "SAMPLE", "--texts", "TARGET"],
        ["verify", "SAMPLE", "SAMPLE", "--tolerance", "-1"],
    ],
)
def test_wrong_arguments_exit_with_2(arguments: list[str], sample: Path, tmp_path: Path) -> None:
    names = {"SAMPLE": str(sample), "TARGET": str(tmp_path / "target")}
    for name, path in names.items():
        arguments = [argument.replace(name, path) for argument in arguments]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert result.stderr
    assert not (tmp_path / "target").exists()


def test_names_with_markup_are_printed_verbatim(sample: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a[red]b [_] :smile: back\\[bold]x"
    sample.rename(odd)
    texts = tmp_path / "texts.txt"
    texts.write_text("a [/b] :smile:\n")
    (odd / "[b]").write_text("")
    for arguments in (["inspect", str(odd)], ["convert", str(odd), str(tmp_path / "[t]"), "--to", "transformers"]):
        result = runner.invoke(app, arguments)
        assert result.exit_code == 0, result.output
        assert str(odd) in result.stdout
        assert "[b]" in result.stdout
    (tmp_path / "[t]" / "tokenizer.json").unlink()
    (tmp_path / "[t]" / "tokenizer_config.json").unlink()
    runner.invoke(app, ["convert", str(tmp_path / "[t]"), str(tmp_path / "[u]"), "--to", "albert_hub"])
    texts.write_text("The [/b] :smile:\n")
    result = runner.invoke(app, ["verify", str(odd), str(tmp_path / "[u]"), "--texts", str(texts)])
    assert result.exit_code == 1
    assert "'The [/b] :smile:'" in result.stdout
    result = runner.invoke(app, ["inspect", str(tmp_path / "[nowhere] :smile:")])
    assert "[nowhere] :smile:" in result.stderr


def test_ascii_terminal(sample: Path, tmp_path: Path) -> None:
    target = tmp_path / "zürich"
    command = [sys.executable, "-m", "albert_hub_bridge", "convert", str(sample), str(target), "--to", "albert_hub"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    assert "z\\xfcrich" in result.stdout


def test_texts_that_are_not_utf8_are_refused(sample: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_bytes("Zürich".encode("latin-1"))
    result = runner.invoke(app, ["verify", str(sample), str(sample), "--texts", str(tmp_path / "texts.txt")])
    assert result.exit_code == 2
    assert "is not UTF-8" in result.stderr


def test_quiet_commands_print_only_what_needs_attention(sample: Path, tmp_path: Path) -> None:
    target, upper = tmp_path / "target", tmp_path / "upper"
    for arguments in (
        ["convert", str(sample), str(target), "--to", "albert_hub", "--quiet"],
        ["verify", str(sample), str(target), "-q"],
        ["verify", str(target), "-q"],
    ):
        result = runner.invoke(app, arguments)
        assert (result.exit_code, result.output) == (0, "")
    result = runner.invoke(
        app, ["convert", str(sample), str(upper), "--to", "albert_hub", "-q", "--normalize", "uncased"]
    )
    assert "sample texts have other ids than in the source" in result.stdout
    assert "Next:" not in result.stdout
    (target / "config.json").write_text((target / "config.json").read_text() + "\n")
    result = runner.invoke(app, ["verify", str(target), "-q"])
    assert result.exit_code == 1
    assert "FAILED: 1 files" in result.stdout
    result = runner.invoke(app, ["convert", str(sample), str(target), "--to", "keras", "-q"])
    assert result.exit_code == 2
    assert "Error:" in result.stderr
    result = runner.invoke(app, ["inspect", str(sample)])
    assert "43,264 in 73 tensors" in result.stdout, "-q is forgotten after its command"


def test_version() -> None:
    result = runner.invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"{__version__}\n")
