"""Print reports and errors to the terminal."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from albert_hub_bridge.commands.complete import Completion
from albert_hub_bridge.commands.embedding_report import Embedding
from albert_hub_bridge.commands.onnx_files import OnnxExport
from albert_hub_bridge.commands.recording import Recorded, why_not_recorded
from albert_hub_bridge.commands.reports import Conversion, Inspection
from albert_hub_bridge.document import as_renderable, escape
from albert_hub_bridge.errors import AlbertHubBridgeError
from albert_hub_bridge.hubs.published import PublishedPreset
from albert_hub_bridge.layouts.losses import lost_settings, lost_tensors
from albert_hub_bridge.lora.report import AdapterConversion
from albert_hub_bridge.provenance.integrity import FilesCheck
from albert_hub_bridge.verification.report import Verification


Report = Completion | Conversion | Embedding | OnnxExport | AdapterConversion | Inspection | Verification | FilesCheck

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

INTERRUPTED = "Interrupted; nothing was changed."


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
    for block in report.blocks():
        out.print(as_renderable(block))
    out.quiet = quiet


def _needs_attention(report: Report) -> bool:
    """Return whether something was not converted, or differs."""
    if isinstance(report, FilesCheck | Verification):
        return not report.passed
    if isinstance(report, Embedding):
        return bool(report.invalid)
    if isinstance(report, Completion | OnnxExport):
        return False
    changed_texts = report.changed_texts if isinstance(report, Conversion) else None
    lost = lost_tensors(report.dropped) or lost_settings(report.ignored)
    return bool(changed_texts or lost or report.notes)


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
