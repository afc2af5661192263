"""`--help` of every command is whole in narrow terminals and in pipes, and wrong words get a suggestion."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from functools import cache
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from albert_hub_bridge.cli import app
from tests.journey.terminal import COMMAND, run_in_terminal, run_without_terminal


GROUP: Any = typer.main.get_command(app)
COMMANDS = {"": GROUP, **GROUP.commands}
MARK = "<<>>"

# One process prints the help of every command.
_PRINT_ALL = f"""
import sys
from albert_hub_bridge.cli import app
for name in sys.argv[1:]:
    print("{MARK}", name)
    try:
        app([*name.split(), "-h"], prog_name="albert-hub-bridge")
    except SystemExit as end:
        assert not end.code, name
"""


@cache
def _shown(width: int, in_terminal: bool) -> dict[str, str]:
    command = [sys.executable, "-c", _PRINT_ALL, *COMMANDS]
    if in_terminal:
        code, output = run_in_terminal(command, width)
    else:
        code, output, errors = run_without_terminal(command, {"COLUMNS": str(width)})
        assert errors == ""
    assert code == 0, output
    texts = re.split(rf"^{MARK} ?(.*)\n", output, flags=re.MULTILINE)[1:]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _joined(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize("in_terminal", [True, False], ids=["terminal", "pipe"])
@pytest.mark.parametrize("width", [80, 60])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_whole(name: str, width: int, in_terminal: bool) -> None:
    text, command = _shown(width, in_terminal)[name], COMMANDS[name]
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    assert _joined(inspect.cleandoc(command.help)) in _joined(text)
    for parameter in command.params:
        for option in parameter.opts:
            assert re.search(rf"^ .*(?<![\w-]){option}(?![\w-])", text, re.MULTILINE), option
        assert _joined(parameter.help) in _joined(text)
        for choice in (parameter.metavar or "").split("|"):
            assert choice in text
    for other in getattr(command, "commands", {}).values():
        assert _joined(other.help.partition("\n\n")[0]) in _joined(text)


def test_every_command_prints_json() -> None:
    options = {name: {option for each in command.params for option in each.opts} for name, command in COMMANDS.items()}
    assert [name for name, found in options.items() if "--json" not in found] == [""]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "a", "b", "--to", "karas"], "not 'karas'. Did you mean keras?"),
        (["convert", "a", "b", "--to", "albert-hb"], "Did you mean albert_hub?"),
        (["convert", "a", "b", "--to", "keras", "--dtype", "bloat16"], "Did you mean bfloat16?"),
        (["convert", "a", "b", "--to", "keras", "--dtype", "fp61"], "Did you mean float16?"),
        (["convert-adapter", "a", "b", "--base", "c", "--to", "transfomers"], "Did you mean transformers?"),
        (["convrt", "a", "b"], "Did you mean 'convert'?"),
        (["inspect", "albert_bas_en_uncased"], "Did you mean albert_base_en_uncased?"),
        (["inspect", "albert-xxlarge-v2"], "Did you mean hf://albert/albert-xxlarge-v2?"),
    ],
)
def test_a_misspelled_word_gets_a_suggestion(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_a_word_that_is_like_no_other_gets_none() -> None:
    result = CliRunner().invoke(app, ["inspect", "qqq"])
    assert result.exit_code == 2
    assert "Did you mean" not in result.stderr


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("convert preset x --to ", ["keras", "albert_hub", "transformers", "universal"]),
        ("convert preset x --to keras --dtype b", ["bfloat16"]),
        ("inspect albert_ba", ["albert_base_en_uncased"]),
        ("conv", ["convert", "convert-adapter"]),
    ],
)
def test_bash_completes_what_can_be_chosen(words: str, found: list[str]) -> None:
    variables = {
        "_ALBERT_HUB_BRIDGE_COMPLETE": "complete_bash",
        "COMP_WORDS": f"albert-hub-bridge {words}",
        "COMP_CWORD": str(len(words.split(" "))),
    }
    code, output, errors = run_without_terminal(COMMAND, variables)
    assert (code, output.split(), errors) == (0, found, "")


def test_the_script_for_the_completion_is_valid_bash() -> None:
    # typer asks for the shell that started the command. The second command keeps bash from becoming the first.
    in_bash = ["bash", "-c", f"{shlex.join([*COMMAND, '--show-completion'])}; exit $?"]
    code, script, _ = run_without_terminal(in_bash, {})
    code = subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode if code == 0 else code
    assert code == 0
    assert "_ALBERT_HUB_BRIDGE_COMPLETE" in script
