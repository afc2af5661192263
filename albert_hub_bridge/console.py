"""Print reports and errors to the terminal."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from albert_hub_bridge.document import Document, as_renderable, escape
from albert_hub_bridge.errors import AlbertHubBridgeError
from albert_hub_bridge.hubs.published import PublishedPreset


if TYPE_CHECKING:
    from rich.console import Console

    from albert_hub_bridge.commands.recording import Recorded

INTERRUPTED = "Interrupted; nothing was changed."


@cache
def out() -> Console:
    """Return the console of the standard output. `--help` needs none, and rich takes a while to import."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, emoji=False)


@cache
def err() -> Console:
    """Return the console of the standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


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
        err().print(escape(interrupted))
        raise typer.Exit(130) from error
    except (AlbertHubBridgeError, OSError) as error:
        if as_json:
            print_json({"error": str(error)})
        err().print(f"[bold red]Error:[/] {escape(str(error))}")
        raise typer.Exit(2) from error


def print_json(content: dict[str, Any]) -> None:
    """Print JSON to the standard output."""
    json.dump(content, sys.stdout, indent=2, default=str)  # in ASCII, so that it cannot control the terminal
    sys.stdout.write("\n")


def print_report(report: Document, as_json: bool) -> None:
    """Print a report of any command, for people or as JSON. If `out` is quiet, print it only if it needs attention."""
    if as_json:
        print_json(report.as_dict())
        return
    console = out()
    quiet, console.quiet = console.quiet, console.quiet and not report.needs_attention
    for block in report.blocks():
        console.print(as_renderable(block))
    console.quiet = quiet


def print_recorded(recorded: Recorded, source: str, target: str) -> None:
    """Print whether the target's record has the result, or why not. Without a record there is nothing to print."""
    from albert_hub_bridge.commands.recording import why_not_recorded

    if recorded == "recorded":
        out().print(f"[dim]Written into {escape(target)}/conversion.json and README.md.[/]")
    elif recorded != "no record":
        out().print(f"[yellow]{escape(why_not_recorded(recorded, source, target))}[/]")


def print_next_command(*words: str) -> None:
    """Print a command that the user can type next."""
    out().print(f"[dim]Next:[/] {escape(shlex.join(('albert-hub-bridge', *words)))}")


def print_url(url: str, as_json: bool) -> None:
    """Print the address of a pushed repository."""
    if as_json:
        print_json({"url": url})
    else:
        out().print(escape(url))


def print_card(file: Path, as_json: bool) -> None:
    """Print the path of a card."""
    if as_json:
        print_json({"card": str(file)})
    else:
        out().print(escape(str(file)))


def print_published(presets: Mapping[str, PublishedPreset]) -> None:
    """Print the published checkpoints."""
    for name, preset in presets.items():
        size = f"{preset.parameters:,} parameters, {4 * preset.parameters / 1e6:,.0f} MB in float32"
        out().print(f"[bold]{name}[/]  {preset.num_layers} layers of width {preset.hidden_dim}, {size}")
        out().print(f"  kaggle://{preset.kaggle}  (KerasHub preset; its tokenizer does not lower-case)")
        out().print(f"  hf://{preset.hugging_face}  (official transformers repository; its tokenizer lower-cases)")
