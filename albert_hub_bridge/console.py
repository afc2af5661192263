"""Print reports and errors to the terminal."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import singledispatch
from pathlib import Path
from typing import Any

import typer
from rich import markup
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from albert_hub_bridge.commands.recording import Recorded, why_not_recorded
from albert_hub_bridge.commands.reports import Conversion, Inspection
from albert_hub_bridge.errors import AlbertHubBridgeError
from albert_hub_bridge.hubs.published import PublishedPreset
from albert_hub_bridge.lora.report import AdapterConversion
from albert_hub_bridge.mapping.configs import NO_LOSS
from albert_hub_bridge.provenance.integrity import FilesCheck
from albert_hub_bridge.provenance.record import VocabularySummary
from albert_hub_bridge.text import first_few, one_line, printable
from albert_hub_bridge.verification.progress import STAGES, Stage, StageProgress, ignore_progress
from albert_hub_bridge.verification.report import Verification


Report = Conversion | AdapterConversion | Inspection | Verification | FilesCheck

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

_LAYOUTS = {
    "keras": "a KerasHub preset",
    "albert_hub": "a Hub repository in the albert_hub layout",
    "transformers": "a Hub repository in the transformers layout",
    "google": "Google's original release",
}
_STAGES: Mapping[Stage, str] = {
    "reading": "reading both sides",
    "tensors": "comparing tensors",
    "reference": "computing in float64",
    "loading": "loading both libraries",
    "engines": "computing generated inputs",
    "texts": "computing texts",
}
INTERRUPTED = "Interrupted; nothing was changed."
_COLORS = {"passed": "green", "failed": "red", "not measured": "yellow"}
_MAX_FAILURES = 10  # of one check, on the terminal; --json has all


def escape(text: str) -> str:
    """Escape a text of a file or user, so that rich reads no markup in it and it cannot control the terminal."""
    return markup.escape(printable(text))


@contextmanager
def errors_as_messages(as_json: bool = False, interrupted: str = INTERRUPTED) -> Iterator[None]:
    """Turn an error of this package or the operating system into one message and exit code 2.

    Args:
        as_json: Whether to print the error as JSON, too.
        interrupted: What to print after Ctrl-C. The exit code is 130, as in a shell.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        if as_json:
            print_json({"error": interrupted})
        err.print(escape(interrupted))
        raise typer.Exit(130) from error
    except (AlbertHubBridgeError, OSError) as error:
        if as_json:
            print_json({"error": str(error)})
        err.print(f"[bold red]Error:[/] {escape(str(error))}")
        raise typer.Exit(2) from error


@contextmanager
def progress_bar(hidden: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar, and yield a function that takes the bytes done and the bytes in all."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    disable = hidden or out.quiet or not err.is_terminal
    with Progress(*columns, console=err, transient=True, disable=disable) as bar:
        task = bar.add_task("Converting", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def stages_of_verification() -> Iterator[StageProgress]:
    """Show the stages of a verification, and yield a function that takes them.

    A terminal shows a bar with the time left for the stage. Elsewhere each stage is a line on the standard error. What
    other libraries log or warn of meanwhile is not shown: the report has what matters of it.
    """
    with _without_notices_of_libraries():
        if out.quiet:
            yield ignore_progress
        elif err.is_terminal:
            with _bar_of_stages() as progress:
                yield progress
        else:
            yield _print_stage


@contextmanager
def _bar_of_stages() -> Iterator[StageProgress]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(15), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        shown: dict[Stage, TaskID] = {}

        def show(stage: Stage, done: int, total: int) -> None:
            if stage not in shown:
                for task in shown.values():
                    bar.remove_task(task)
                shown.clear()
                shown[stage] = bar.add_task(_stage_in_words(stage), total=total if total > 1 else None)
            bar.update(shown[stage], completed=done)

        yield show


def _print_stage(stage: Stage, done: int, _total: int) -> None:
    if not done:
        err.print(_stage_in_words(stage))


def _stage_in_words(stage: Stage) -> str:
    return f"{STAGES.index(stage) + 1}/{len(STAGES)} {_STAGES[stage]}"


@contextmanager
def _without_notices_of_libraries() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def print_json(content: dict[str, Any]) -> None:
    """Print JSON to the standard output."""
    json.dump(content, sys.stdout, indent=2, default=str)  # in ASCII, so that it cannot control the terminal
    sys.stdout.write("\n")


def print_report(report: Report, as_json: bool) -> None:
    """Print a report of any command, for people or as JSON. If `out` is quiet, print it only if it needs attention."""
    if as_json:
        print_json(report.as_dict())
        return
    quiet, out.quiet = out.quiet, out.quiet and not _needs_attention(report)
    _print(report)
    out.quiet = quiet


def _needs_attention(report: Report) -> bool:
    """Return whether something was not converted, differs or has a note."""
    if isinstance(report, FilesCheck):
        return not report.passed
    if isinstance(report, Verification):
        return bool(report.notes) or not report.passed
    changed_texts = report.changed_texts if isinstance(report, Conversion) else None
    return bool(changed_texts or report.dropped or report.notes or _lost_settings(report))


@singledispatch
def _print(report: Report) -> None:
    raise NotImplementedError(type(report))


@_print.register
def _(report: Conversion) -> None:
    source, target = escape(report.source.source), escape(report.target)
    size = f"{report.source.parameters:,} parameters, {report.dtype}" + (f", {report.head}" if report.head else "")
    out.print(f"[bold]{source}[/] ({report.source.layout}) to [bold]{target}[/] ({report.layout}): {size}")
    lines = []
    if report.tokenizer is not None:
        lines.append(f"The tokenizer is the source's own, a {escape(report.tokenizer)}.")
    elif report.text_normalization is not None:
        origin = escape(str(report.text_normalization_from))
        lines.append(f"Text normalization of the target: {escape(report.text_normalization)} ({origin}).")
    if report.changed_texts is not None:
        lines.append(f"{report.changed_texts} of {report.sample_size} sample texts have other ids than in the source.")
    if lines:
        out.print(" ".join(lines))
    _print_losses(report)


@_print.register
def _(report: AdapterConversion) -> None:
    ranks = sorted(set(report.ranks.values()))
    out.print(f"[bold]{escape(report.target)}[/]: a LoRA adapter for {_LAYOUTS[report.layout]}")
    out.print(f"{len(report.ranks)} layers, rank {' to '.join(map(str, dict.fromkeys((ranks[0], ranks[-1]))))}")
    _print_losses(report)


@_print.register
def _(report: Inspection) -> None:
    settings = report.architecture.keras_arguments | report.architecture.differences_from_keras
    facts = {name: str(value) for name, value in settings.items()}
    facts["parameters"] = f"{report.parameters:,} in {report.tensors} tensors"
    facts["size"] = f"{report.bytes / 1e6:,.1f} MB, {report.dtype}"
    if report.made_by is not None:
        facts["made by"] = escape(report.made_by)
    facts["head"] = escape(report.head or "none")
    facts |= _vocabulary_facts(report.vocabulary) if report.vocabulary is not None else {"vocabulary": "none"}
    out.print(f"[bold]{escape(report.source)}[/]: {_LAYOUTS[report.layout]}")
    out.print(_two_columns(facts))
    _print_losses(report)


@_print.register
def _(report: Verification) -> None:
    facts = {
        "source": escape(f"{report.source}, computed by {report.source_engine}"),
        "target": escape(f"{report.target}, computed by {report.target_engine}"),
    }
    for name, check in report.checks.items():
        summary = f": {escape(check.describe())}" if check.summary else ""
        lines = [f"[{_COLORS[check.outcome]}]{check.outcome}[/]{summary}"]
        lines += [f"[red]{escape(failure)}[/]" for failure in check.failures[:_MAX_FAILURES]]
        if more := len(check.failures[_MAX_FAILURES:]):
            lines.append(f"[red]and {more} more[/]")
        lines += [f"[yellow]not measured: {escape(what)}[/]" for what in check.not_measured]
        facts[name] = "\n".join(lines)
    out.print(_two_columns(facts))
    _print_notes(report.notes)
    if report.first_difference is not None:
        first = {f"first text with other ids, {k}": escape(repr(v)) for k, v in report.first_difference.items()}
        out.print(_two_columns(first))
    if report.passed:
        out.print("[bold green]PASSED: source and target match.[/]")
    else:
        failed = ", ".join(report.failed_checks)
        out.print(f"[bold red]FAILED: source and target differ. Failed checks: {failed}.[/]")


@_print.register
def _(report: FilesCheck) -> None:
    out.print(f"[bold]{escape(report.folder)}[/]: {escape(report.made_by)}")
    out.print(_two_columns({change: f"[red]{escape(name)}[/]" for name, change in report.changes.items()}))
    if report.different_tensors:
        out.print(f"[red]Changed tensors:[/] {escape(first_few(report.different_tensors, 10))}")
    if report.others:
        others = escape(", ".join(report.others))
        out.print(f"[yellow]Not in conversion.json, and not part of a preset or repository:[/] {others}")
    if report.passed:
        out.print(f"[bold green]PASSED: all {report.files} files and {report.tensors} tensors are unchanged.[/]")
    else:
        changed = f"{len(report.changes)} files and {len(report.different_tensors)} tensors"
        out.print(f"[bold red]FAILED: {changed} were changed since the conversion.[/]")


def _vocabulary_facts(vocabulary: VocabularySummary) -> dict[str, str]:
    inside = " (in the vocabulary)" if vocabulary.normalization_in_vocabulary else ""
    normalization = f"{vocabulary.text_normalization}{inside} ({vocabulary.text_normalization_from})"
    length = vocabulary.sequence_length or "not defined"
    facts = {
        "text normalization": escape(normalization),
        "vocabulary": escape(f"{vocabulary.pieces:,} pieces, normalization {vocabulary.normalization}"),
    }
    if vocabulary.splits_numbers is not None:
        facts["1984,"] = "a number and a comma" if vocabulary.splits_numbers else "a number with a comma: one piece"
    return facts | {"packing": f"sequence length {length}, pairs truncated {vocabulary.truncate}"}


def print_recorded(recorded: Recorded, source: str, target: str) -> None:
    """Print whether the target's record has the result, or why not. Without a record there is nothing to print."""
    if recorded == "recorded":
        out.print(f"[dim]Written into {escape(target)}/conversion.json and README.md.[/]")
    elif recorded != "no record":
        out.print(f"[yellow]{escape(why_not_recorded(recorded, source, target))}[/]")


def print_next_command(*words: str) -> None:
    """Print a command that the user can type next."""
    out.print(f"[dim]Next:[/] {escape(shlex.join(('albert-hub-bridge', *words)))}")


def print_url(url: str, as_json: bool) -> None:
    """Print the address of a pushed repository."""
    if as_json:
        print_json({"url": url})
    else:
        out.print(escape(url))


def print_card(file: Path, as_json: bool) -> None:
    """Print the path of a card."""
    if as_json:
        print_json({"card": str(file)})
    else:
        out.print(escape(str(file)))


def print_published(presets: Mapping[str, PublishedPreset]) -> None:
    """Print the published checkpoints."""
    for name, preset in presets.items():
        size = f"{preset.parameters:,} parameters, {4 * preset.parameters / 1e6:,.0f} MB in float32"
        out.print(f"[bold]{name}[/]  {preset.num_layers} layers of width {preset.hidden_dim}, {size}")
        out.print(f"  kaggle://{preset.kaggle}  (KerasHub preset; its tokenizer does not lower-case)")
        out.print(f"  hf://{preset.hugging_face}  (official transformers repository; its tokenizer lower-cases)")


def _print_losses(report: Inspection | Conversion | AdapterConversion) -> None:
    if report.dropped:
        out.print(f"[yellow]{len(report.dropped)} tensors were not converted:[/]")
        for tensor in report.dropped:
            out.print(f"  {escape(one_line(tensor.name, 160))} {tensor.shape}: {escape(tensor.reason)}")
    if settings := _lost_settings(report):
        names = ", ".join(settings)
        out.print(f"[dim]Settings that were not converted (--json shows the reasons): {escape(names)}.[/]")
    _print_notes(report.notes)


def _lost_settings(report: Inspection | Conversion | AdapterConversion) -> list[str]:
    return list(dict.fromkeys(key.key for key in report.ignored if key.reason not in NO_LOSS))


def _print_notes(notes: Any) -> None:
    for note in notes:
        out.print(f"[yellow]Note:[/] {escape(note)}")


def _two_columns(facts: Mapping[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(f"[dim]{name}[/]", value)
    return table
