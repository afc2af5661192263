"""The generated parts of docs/: each stands between two comments of its page, and is made from the code.

`python -m tests.docs.rewrite` writes them.
"""

from __future__ import annotations

import ast
import inspect
import re
import tomllib
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo

from albert_hub_bridge.cli import app
from albert_hub_bridge.mapping import configs
from albert_hub_bridge.mapping.configs import Constant, Ignored, Renamed, Rule
from albert_hub_bridge.mapping.weights import weights_as_markdown
from conversion.coverage import coverage_as_markdown
from tests.docs.blocks import DOCS, ROOT


PACKAGE, REFERENCE = ROOT / "albert_hub_bridge", DOCS / "reference"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

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
    """Render the arguments and options of every command, from the signatures of `cli.py`."""
    sections = []
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        parameters = _parameters(command.callback)
        arguments = [f"`{shown}`" for shown, *_ in parameters if not shown.startswith("-")]
        usage = f"`albert-hub-bridge {name}` {' '.join(arguments)}".strip()
        rows = [f"| `{shown}` | {meaning} | {default} |" for shown, meaning, default in parameters]
        head = ["| parameter | what it is | default |", "|---|---|---|"] if rows else []
        sections.append("\n".join([f"## {name}", "", _one_line(command.callback.__doc__), "", usage, "", *head, *rows]))
    return "\n\n".join(sections)


def _parameters(callback: Callable[..., Any]) -> list[tuple[str, str, str]]:
    """Return the name, the meaning and the default of every parameter of a command."""
    hints = get_type_hints(callback, include_extras=True)
    rows = []
    for parameter in inspect.signature(callback).parameters.values():
        kind, info = get_args(hints[parameter.name])[:2]
        choices = [f"`{choice}`" for choice in _choices(kind)]
        if isinstance(info, ArgumentInfo):
            shown = parameter.name.upper()
        else:
            declared = (info.default, *(info.param_decls or ()))  # typer takes the first flag for a default
            flags = [flag for flag in declared if isinstance(flag, str) and flag.startswith("-")]
            shown = ", ".join(flags) or f"--{parameter.name.replace('_', '-')}"
            shown += f" {info.metavar}" if info.metavar and not choices else ""
        help_text = re.sub(r" One of [^.]+\.$", "", _one_line(info.help)) if choices else _one_line(info.help)
        allowed = f" One of {', '.join(choices)}." if choices else ""
        required = parameter.default is inspect.Parameter.empty
        default = getattr(parameter.default, "value", parameter.default)
        said = "required" if required else "" if default in (None, False) else f"`{default}`"
        rows.append((shown, help_text + allowed, said))
    return rows


def _choices(kind: Any) -> list[str]:
    """Return the values of an enumeration or a `Literal`, also one that may be None."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [member.value for member in kind]
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [choice for part in get_args(kind) for choice in _choices(part)]


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def rooms_as_markdown() -> str:
    """Render the rooms, in the order of the import contract, each with the first line of its docstring."""
    rows = [f"| `{_as_path(part)}` | {_summary(_module_file(part))} |" for part in _layers()]
    return "\n".join(["| room | what it is for |", "|---|---|", *rows])


def modules_as_markdown() -> str:
    """Render every module with the first line of its docstring, in the order of the import contract."""
    sections = []
    for part in _layers():
        files = sorted((PACKAGE / part).rglob("*.py"))
        rows = [
            f"| `{file.relative_to(PACKAGE).as_posix()}` | {_summary(file)} |"
            for file in files
            if file.name != "__init__.py"
        ]
        if rows:
            sections.append("\n".join([f"### {part}", "", "| module | what it is for |", "|---|---|", *rows]))
    return "\n\n".join(sections)


def _layers() -> list[str]:
    return list(PROJECT["tool"]["importlinter"]["contracts"][0]["layers"])


def _module_file(part: str) -> Path:
    folder = PACKAGE / part
    return folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")


def _as_path(part: str) -> str:
    return f"{part}/" if (PACKAGE / part).is_dir() else f"{part}.py"


def _summary(file: Path) -> str:
    """Return the first paragraph of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return _one_line(docstring.split("\n\n")[0])


# Name of a generated part, its page, and what makes it.
GENERATED: dict[str, tuple[Path, Callable[[], str]]] = {
    "weights": (REFERENCE / "weights.md", weights_as_markdown),
    "configuration": (REFERENCE / "configuration.md", configuration_as_markdown),
    "command line": (REFERENCE / "command-line.md", command_line_as_markdown),
    "rooms": (DOCS / "architecture.md", rooms_as_markdown),
    "modules": (DOCS / "architecture.md", modules_as_markdown),
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
