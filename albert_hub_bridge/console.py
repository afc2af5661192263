"""Print reports to the terminal."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich import markup
from rich.console import Console
from rich.table import Table

from albert_hub_bridge.commands.reports import Conversion, Inspection
from albert_hub_bridge.lora import convert as adapters
from albert_hub_bridge.mapping.configs import STORED_ELSEWHERE
from albert_hub_bridge.text import one_line, printable
from albert_hub_bridge.verification.report import Verification


out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


LAYOUT_NAMES = {
    "keras": "a KerasHub preset",
    "albert_hub": "a Hub repository in the albert_hub layout",
    "transformers": "a Hub repository in the transformers layout",
    "google": "Google's original release",
}


def escape(text: str) -> str:
    """Keep rich from reading marks in what files say, and files from steering the terminal."""
    return markup.escape(printable(text))


def print_json(content: dict[str, Any]) -> None:
    json.dump(content, sys.stdout, indent=2, default=str)  # in ASCII: files must not steer a terminal
    sys.stdout.write("\n")


def print_inspection(report: Inspection) -> None:
    settings = report.architecture.keras_arguments | report.architecture.differences_from_keras
    facts = {name: str(value) for name, value in settings.items()}
    facts["parameters"] = f"{report.parameters:,} in {report.tensors} tensors"
    facts["size"] = f"{report.bytes / 1e6:,.1f} MB, {report.dtype}"
    if report.made_by is not None:
        facts["made by"] = escape(report.made_by)
    facts["head"] = escape(report.head or "none")
    if report.vocabulary is None:
        facts["vocabulary"] = "none"
    else:
        vocabulary = report.vocabulary
        inside = " (in the vocabulary)" if vocabulary.normalization_in_vocabulary else ""
        facts["text normalization"] = escape(
            f"{vocabulary.text_normalization}{inside} ({vocabulary.text_normalization_from})"
        )
        facts["vocabulary"] = escape(f"{vocabulary.pieces:,} pieces, normalization {vocabulary.normalization}")
        length = vocabulary.sequence_length or "not said"
        facts["packing"] = f"sequence length {length}, pairs truncated {vocabulary.truncate}"
    out.print(two_columns(facts))
    print_losses(report)


def print_losses(report: Inspection | Conversion | adapters.AdapterConversion) -> None:
    if report.dropped:
        out.print(f"[yellow]{len(report.dropped)} tensors are not carried over:[/]")
        for tensor in report.dropped:
            out.print(f"  {escape(one_line(tensor.name, 160))} {tensor.shape}: {escape(tensor.reason)}")
    inspected = report.source if isinstance(report, Conversion) else report
    if ignored := [key.key for key in inspected.ignored if key.reason not in STORED_ELSEWHERE]:
        names = ", ".join(dict.fromkeys(ignored))
        out.print(f"[dim]Settings that are not carried over (--json says why): {escape(names)}.[/]")
    for note in report.notes:
        out.print(f"[yellow]Note:[/] {escape(note)}")


_COLOURS = {"passed": "green", "failed": "red", "not measured": "yellow"}
_MOST_FAILURES = 10  # of one check, on a screen; --json has all


def print_verification(report: Verification) -> None:
    facts = {
        "source": escape(f"{report.source}, computed by {report.source_engine}"),
        "target": escape(f"{report.target}, computed by {report.target_engine}"),
    }
    for name, check in report.checks.items():
        summary = f": {escape(check.describe())}" if check.summary else ""
        lines = [f"[{_COLOURS[check.outcome]}]{check.outcome}[/]{summary}"]
        lines += [f"[red]{escape(failure)}[/]" for failure in check.failures[:_MOST_FAILURES]]
        if more := len(check.failures[_MOST_FAILURES:]):
            lines.append(f"[red]and {more} more[/]")
        lines += [f"[yellow]not measured: {escape(what)}[/]" for what in check.not_measured]
        facts[name] = "\n".join(lines)
    out.print(two_columns(facts))
    for note in report.notes:
        out.print(f"[yellow]Note:[/] {escape(note)}")
    if report.first_difference is not None:
        out.print(
            two_columns({f"first text that differs, {k}": escape(repr(v)) for k, v in report.first_difference.items()})
        )
    if report.passed:
        out.print("[bold green]PASSED: source and target match.[/]")
    else:
        failed = ", ".join(report.failed_checks)
        out.print(f"[bold red]FAILED: source and target differ. Failed checks: {failed}.[/]")


def two_columns(facts: dict[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(f"[dim]{name}[/]", value)
    return table
