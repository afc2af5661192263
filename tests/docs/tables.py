"""The generated parts of docs/: each stands between two comments of its page, and is made from the code.

`python -m tests.docs.rewrite` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer

from albert_hub_bridge.cli import app
from albert_hub_bridge.mapping import configs
from albert_hub_bridge.mapping.configs import Constant, Ignored, Renamed, Rule
from albert_hub_bridge.mapping.weights import weights_as_markdown
from conversion.coverage import coverage_as_markdown
from tests.docs.blocks import DOCS


REFERENCE = DOCS / "reference"

_TABLES = {
    "`config.json` of a KerasHub preset (the `config` object)": configs.KERAS,
    "`task.json` of a preset: `AlbertTextClassifier`": configs.KERAS_TASKS["AlbertTextClassifier"],
    "`task.json` of a preset: `AlbertMaskedLM`": configs.KERAS_TASKS["AlbertMaskedLM"],
    "`preprocessor.json` of a preset": configs.PREPROCESSOR,
    "`tokenizer.json` of a preset": configs.KERAS_TOKENIZER,
    "`config.json` of a `transformers` repository": configs.ALBERT,
    "`config.json` of an `albert_hub` repository": configs.ALBERT_HUB,
    "`tokenizer_config.json` of a repository": configs.TOKENIZER_CONFIG,
}


def configuration_as_markdown() -> str:
    """Render the tables of configuration keys."""
    return "\n\n".join(
        "\n".join([f"## {title}", "", "| key | what happens | if absent |", "|---|---|---|", *_rows(table)])
        for title, table in _TABLES.items()
    )


def _rows(table: Mapping[str, Rule]) -> list[str]:
    return [f"| `{key}` | {' | '.join(_describe(rule))} |" for key, rule in table.items()]


def _describe(rule: Rule) -> tuple[str, str]:
    match rule:
        case Renamed(field, default, kind):
            accepted = f", {kind.description}" if kind is not configs.ANYTHING else ""
            return f"becomes `{field}`{accepted}", _default(default)
        case Constant(allowed, why, default):
            values = " or ".join(f"`{value!r}`" for value in allowed)
            return f"must be {values}: {why}", _default(default) if default is not configs.REQUIRED else ""
        case Ignored(reason):
            return f"ignored: {reason}", ""


def _default(value: Any) -> str:
    if value is configs.REQUIRED:
        return "refused"
    return "" if value is None else f"`{value!r}`"


def command_line_as_markdown() -> str:
    """Render the arguments and options of every command."""
    group: Any = typer.main.get_command(app)
    return "\n\n".join(
        "\n".join([f"## {name}", "", _one_line(command.help), "", *_usage(name, command), "", *_parameters(command)])
        for name, command in group.commands.items()
    )


def _usage(name: str, command: Any) -> list[str]:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    words = [parameter.name.upper() if parameter.required else f"[{parameter.name.upper()}]" for parameter in arguments]
    return ["```text", " ".join(["albert-hub-bridge", name, *words, "[OPTIONS]"]), "```"]


def _parameters(command: Any) -> list[str]:
    lines = ["| parameter | what it is | default |", "|---|---|---|"]
    for parameter in command.params:
        if parameter.name == "help":
            continue
        argument = parameter.param_type_name == "argument"
        name = parameter.name.upper() if argument else parameter.opts[0]
        flag = getattr(parameter, "is_flag", False)
        choices = [f"`{getattr(choice, 'value', choice)}`" for choice in getattr(parameter.type, "choices", ())]
        values = "" if argument or flag else f" {parameter.metavar or ''}".rstrip()
        allowed = f" One of {', '.join(choices)}." if choices else ""
        default = getattr(parameter.default, "value", parameter.default)
        shown = "required" if parameter.required else "" if flag or default is None else f"`{default}`"
        lines.append(f"| `{name}{values}` | {_one_line(parameter.help)}{allowed} | {shown} |")
    return lines


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


# Name of a generated part, its page, and what makes it.
GENERATED: dict[str, tuple[Path, Callable[[], str]]] = {
    "weights": (REFERENCE / "weights.md", weights_as_markdown),
    "configuration": (REFERENCE / "configuration.md", configuration_as_markdown),
    "command line": (REFERENCE / "command-line.md", command_line_as_markdown),
    "coverage": (REFERENCE / "coverage.md", coverage_as_markdown),
}


def generated_part(name: str) -> str:
    """Return a generated part as its page has it."""
    page, _ = GENERATED[name]
    match = _pattern(name).search(page.read_text(encoding="utf-8"))
    assert match is not None, f"{page} has no generated part called {name}"
    return match["text"]


def write_part(name: str) -> None:
    """Make a generated part again, and write it into its page."""
    page, render = GENERATED[name]
    text = page.read_text(encoding="utf-8")
    match = _pattern(name).search(text)
    assert match is not None, f"{page} has no generated part called {name}"
    page.write_text(text[: match.start("text")] + render() + text[match.end("text") :], encoding="utf-8")


def _pattern(name: str) -> re.Pattern[str]:
    begin, end = f"<!-- generated: {name} -->\n\n", f"\n\n<!-- end: {name} -->"
    return re.compile(f"{re.escape(begin)}(?P<text>.*?){re.escape(end)}", re.DOTALL)
