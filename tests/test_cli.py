from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import sysconfig
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import pytest
from typer.testing import CliRunner

import albert_hub_bridge
from albert_hub_bridge import __version__
from albert_hub_bridge.cli import app
from albert_hub_bridge.formats import sandbox
from albert_hub_bridge.verification.sample_texts import SAMPLE_TEXTS
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
    assert report["texts"] == len(SAMPLE_TEXTS)
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


def test_commands_in_messages_and_records_are_quoted(sample: Path, tmp_path: Path) -> None:
    odd, target = tmp_path / "it's a preset", tmp_path / "my albert"
    sample.rename(odd)
    result = runner.invoke(app, ["convert", str(odd), str(target), "--to", "transformers"])
    command = result.stdout.splitlines()[-1].removeprefix("Next: ")
    assert shlex.split(command) == ["albert-hub-bridge", "verify", str(odd), str(target)]
    card = (target / "README.md").read_text()
    line = next(line for line in card.splitlines() if line.startswith("$ "))
    assert shlex.split(line[2:]) == ["albert-hub-bridge", "convert", odd.name, target.name, "--to", "transformers"]
    result = runner.invoke(app, ["push", str(target), "hf://user/albert"])
    compare = f"albert-hub-bridge verify {shlex.quote(odd.name)} {shlex.quote(str(target))}"
    assert f"{compare}, or in Python" in result.stderr


@pytest.mark.parametrize("command", ["inspect", "convert"])
def test_the_process_that_reads_a_preset_starts_before_it_is_needed(
    command: str, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, functions = [], {name: getattr(sandbox, name) for name in ("_start", "_take")}

    def call(name: str, task: Any) -> Any:
        calls.append((name, task))
        return functions[name](task)

    for name in functions:
        monkeypatch.setattr(sandbox, name, partial(call, name))
    options = [str(tmp_path / "target"), "--to", "transformers"] if command == "convert" else []
    result = runner.invoke(app, [command, str(sample), *options])
    assert result.exit_code == 0, result.output
    assert calls == [("_start", "hdf5"), ("_take", "hdf5")]


def test_inspect_lists_changes_in_words(sample: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    runner.invoke(app, ["convert", str(sample), str(target), "--to", "transformers"])
    config = target / "config.json"
    config.write_text(config.read_text() + "\n")
    result = runner.invoke(app, ["inspect", str(target)])
    assert "; since then: config.json (changed)" in " ".join(result.stdout.split())
    assert "{" not in result.stdout


@pytest.mark.parametrize("arguments", [["verify", "SAMPLE"], ["card", "SAMPLE"], ["push", "SAMPLE", "hf://user/a"]])
def test_a_folder_that_was_never_converted_is_to_be_converted_first(arguments: list[str], sample: Path) -> None:
    result = runner.invoke(app, [argument.replace("SAMPLE", str(sample)) for argument in arguments])
    assert result.exit_code == 2
    assert f"Convert it first: albert-hub-bridge convert {sample} TARGET --to LAYOUT" in result.stderr


def test_a_target_inside_the_source_is_refused(sample: Path) -> None:
    before = sorted(sample.rglob("*"))
    for target in (sample / "target", sample / "assets" / "target"):
        result = runner.invoke(app, ["convert", str(sample), str(target), "--to", "keras"])
        assert result.exit_code == 2
        assert "is inside the source" in result.stderr
    assert sorted(sample.rglob("*")) == before


def test_ctrl_c_in_a_conversion_changes_nothing(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("albert_hub_bridge.progress.progress_bar", lambda hidden: nullcontext(interrupt))
    before = sorted(tmp_path.rglob("*"))
    result = runner.invoke(app, ["convert", str(sample), str(tmp_path / "target"), "--to", "keras"])
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "Interrupted; nothing was changed.\n"
    assert sorted(tmp_path.rglob("*")) == before


def test_ctrl_c_in_a_push_does_not_say_what_it_cannot_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("albert_hub_bridge.commands.publish.push_with", interrupt)
    result = runner.invoke(app, ["push", str(tmp_path), "hf://user/albert", "--json"])
    assert result.exit_code == 130
    assert result.stderr == "Interrupted. Look at hf://user/albert: it has all of the new version, or nothing of it.\n"
    assert json.loads(result.stdout) == {"error": result.stderr.strip()}


def test_ctrl_c_during_the_imports_shows_no_traceback() -> None:
    code = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where it is ignored
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
from albert_hub_bridge.__main__ import main
main()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (-signal.SIGINT, "", "")


def test_ctrl_c_during_the_first_import_of_the_package_shows_no_traceback(tmp_path: Path) -> None:
    """The package's own imports come before the entry point. Python runs sitecustomize.py before both."""
    (tmp_path / "sitecustomize.py").write_text(
        """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "albert_hub_bridge._on_import":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupt())
"""
    )
    path = os.pathsep.join([str(tmp_path), str(Path(albert_hub_bridge.__file__).parent.parent)])
    script = Path(sysconfig.get_path("scripts"), "albert-hub-bridge")
    for command in ([str(script), "--version"], [sys.executable, "-m", "albert_hub_bridge", "--version"]):
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
        )
        assert (result.returncode, result.stdout, result.stderr) == (-signal.SIGINT, "", "")
    library = [sys.executable, "-c", "import albert_hub_bridge"]
    result = subprocess.run(
        library, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}
    )
    assert "KeyboardInterrupt" in result.stderr  # another program decides itself
