"""What the recipes share: the entries of `checkpoints.toml`, and the steps that every conversion goes through."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import typer
from rich.console import Console

from albert_hub_bridge import bridge
from albert_hub_bridge.errors import AlbertHubBridgeError, ConfigurationError, Problem
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.reports import Inspection
from albert_hub_bridge.stores.checkpoint import Layout
from albert_hub_bridge.verification import verify


if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHECKPOINTS = Path(__file__).with_name("checkpoints.toml")
GOLDEN_TOLERANCE = 1e-4  # KerasHub's own test compares its six digits with this

console = Console(highlight=False, soft_wrap=True, emoji=False, markup=False)
Kind = Literal["keras", "stock"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A published checkpoint: where it lives, and what it has to be."""

    name: str
    kind: Kind
    handle: str
    architecture: Architecture
    parameters: int
    golden: Mapping[str, Any] | None

    def check(self, found: Inspection) -> None:
        """Refuse a source that is not this entry.

        Raises:
            ConfigurationError: The architecture differs; lists every difference.
        """
        problems = [
            Problem("differs", name, f"expected {expected}, found {getattr(found.architecture, name)}")
            for name, expected in asdict(self.architecture).items()
            if name != "dropout" and getattr(found.architecture, name) != expected
        ]
        if problems:
            raise ConfigurationError(found.source, f"source for {self.name}", problems, "Is this the right folder?")


def read_entries(kind: Kind) -> dict[str, Entry]:
    """Read the published checkpoints of one kind."""
    table = tomllib.loads(CHECKPOINTS.read_text(encoding="utf-8"))[kind]
    entries = {}
    for name, row in table.items():
        row = dict(row)  # noqa: PLW2901 (emptied below, so that a misspelt key cannot hide)
        handle, parameters, golden = row.pop("handle"), row.pop("parameters"), row.pop("golden", None)
        architecture = Architecture(vocabulary_size=30000, embedding_dim=128, **row)
        entries[name] = Entry(name, kind, handle, architecture, parameters, golden)
    return entries


def convert_entry(entry: Entry, source: Path, target: Path, to: Layout, overwrite: bool) -> None:
    """Check the source, convert it, and verify the result.

    Raises:
        AlbertHubBridgeError: The source is wrong, or cannot be converted.
        typer.Exit: With code 1, the result differs from the source.
    """
    entry.check(bridge.inspect(source))
    report = bridge.convert(source, target, to=to, overwrite=overwrite, drop_head=True)
    console.print(f"{entry.name}: {entry.parameters:,} parameters, {report.source.dtype}, converted to {target}")
    for tensor in report.dropped:
        console.print(f"  left out: {tensor.name} {tensor.shape}: {tensor.reason}")
    for note in report.notes:
        console.print(f"  note: {note}")
    verify_entry(entry, source, target)


def verify_entry(entry: Entry, source: Path, target: Path) -> None:
    """Compare source and target, and both with the published golden numbers, where the entry has them.

    Raises:
        ConfigurationError: The source is not this entry.
        typer.Exit: With code 1, something differs.
    """
    entry.check(bridge.inspect(source))
    report = verify(source, target)
    for name, part in report.parts.items():
        console.print(f"  {name} {part.outcome}: {part.said}")
        for line in (*part.failures, *(f"not measured: {what}" for what in part.not_measured)):
            console.print(f"    {line}")
    for name, difference in report.max_abs_difference.items():
        console.print(f"  {name}: {difference:.1e} between {report.source_engine} and {report.target_engine}")
    if report.first_difference is not None:
        console.print(f"  first text that becomes other ids: {report.first_difference}")
    golden = True
    for folder in (source, target) if entry.golden is not None else ():
        difference = golden_difference(entry, folder)
        golden = golden and difference <= GOLDEN_TOLERANCE
        console.print(f"  golden numbers of KerasHub: {difference:.1e} from {folder}")
    if not (report.passed and golden):
        console.print("  they differ")
        raise typer.Exit(1)
    console.print("  they agree")


def golden_difference(entry: Entry, folder: Path) -> float:
    """Return the largest absolute difference between an entry's golden numbers and what a folder computes."""
    import torch

    from albert_hub_bridge import AlbertBackbone

    if entry.golden is None:
        raise ValueError(f"{entry.name} has no golden numbers.")
    inputs = {name: np.array(entry.golden[name]) for name in ("token_ids", "segment_ids", "padding_mask")}
    with torch.inference_mode():
        outputs = AlbertBackbone.from_preset(folder)(inputs)
    found = {"sequence_output": outputs["sequence_output"][0, 0, :5], "pooled_output": outputs["pooled_output"][0, :5]}
    return max(float((found[name] - torch.tensor(entry.golden[name])).abs().max()) for name in found)


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Turn wrong input into one message and exit code 2."""
    try:
        yield
    except (AlbertHubBridgeError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from error


def pick(entries: Mapping[str, Entry], name: str) -> Entry:
    """Return the entry of that name.

    Raises:
        typer.BadParameter: There is none.
    """
    if name not in entries:
        raise typer.BadParameter(f"{name!r} is not in {CHECKPOINTS.name}; there are {', '.join(entries)}.")
    return entries[name]
