"""What the recipes share: the entries of `checkpoints.toml`, and the steps that every conversion goes through."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from rich.console import Console

from albert_hub_bridge import convert, inspect
from albert_hub_bridge.checkpoint import Layout
from albert_hub_bridge.commands import publish
from albert_hub_bridge.commands.recording import record_verification
from albert_hub_bridge.commands.reports import Inspection
from albert_hub_bridge.errors import AlbertHubBridgeError, ConfigurationError, Problem
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.verification.run import verify


if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHECKPOINTS = Path(__file__).with_name("checkpoints.toml")
GOLDEN_TOLERANCE = 1e-4  # KerasHub's own test compares its six digits with this

console = Console(highlight=False, soft_wrap=True, emoji=False, markup=False)
Kind = Literal["keras", "transformers"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A published checkpoint: where it lives, and what it has to be."""

    name: str
    kind: Kind
    handle: str
    architecture: Architecture
    parameters: int
    golden: Mapping[str, Any] | None
    text_normalization: str
    normalization: str

    def check(self, found: Inspection) -> None:
        """Refuse a source that is not this entry.

        Raises:
            ConfigurationError: The architecture or the text normalization differ; lists every difference.
        """
        problems = [
            Problem("differs", name, f"expected {expected}, found {getattr(found.architecture, name)}")
            for name, expected in self.architecture.keras_arguments.items()
            if name != "dropout" and getattr(found.architecture, name) != expected
        ]
        text = found.vocabulary
        if text is not None and text.text_normalization != self.text_normalization:
            problems.append(
                Problem(
                    "differs",
                    "text normalization",
                    f"expected {self.text_normalization}, found {text.text_normalization}",
                )
            )
        if problems:
            raise ConfigurationError(found.source, f"source for {self.name}", problems, "Is this the right folder?")


def read_entries(kind: Kind) -> dict[str, Entry]:
    """Read the published checkpoints of one kind."""
    tables = tomllib.loads(CHECKPOINTS.read_text(encoding="utf-8"))
    vocabulary, entries = tables["vocabulary"], {}
    text = vocabulary["text_normalization"][kind], vocabulary["normalization"]
    for name, row in tables[kind].items():
        row = dict(row)  # noqa: PLW2901 (emptied below, so that a misspelt key cannot hide)
        handle, parameters, golden = row.pop("handle"), row.pop("parameters"), row.pop("golden", None)
        architecture = Architecture(vocabulary_size=vocabulary["pieces"], embedding_dim=128, **row)
        entries[name] = Entry(name, kind, handle, architecture, parameters, golden, *text)
    return entries


def run_recipe(
    entries: Mapping[str, Entry],
    name: str,
    source: Path | None,
    output: Path,
    to: Layout,
    *,
    hub: str | None,
    push: bool,
    overwrite: bool,
) -> None:
    """Go the whole way for one entry, or for all: pull, convert, verify, card, push.

    Args:
        entries: Of `checkpoints.toml`.
        name: One of them, or `all`.
        source: Folder that was downloaded before; what the entry's handle names is pulled otherwise.
        output: Gets a folder `NAME-LAYOUT` for each.
        to: Their layout.
        hub: `hf://user` or `kaggle://user/model/framework`; the name of the folder follows.
        push: Whether to push; what would be pushed is said otherwise.
        overwrite: Whether to replace folders that are there.

    Raises:
        AlbertHubBridgeError: A source cannot be found, or is wrong, or the hub refuses.
        typer.BadParameter: There is no such entry, or the arguments contradict each other.
        typer.Exit: With code 1, a result differs from its source.
    """
    chosen = list(entries.values()) if name == "all" else [pick(entries, name)]
    if source is not None and name == "all":
        raise typer.BadParameter("a folder is the source of one entry, not of all; name the entry.")
    if push and hub is None:
        raise typer.BadParameter("--push needs --hub, such as --hub hf://user.")
    folders = [output / f"{entry.name}-{to}" for entry in chosen]
    addresses = [f"{hub or 'hf://USER'}/{folder.name}" for folder in folders]
    for address in addresses:
        publish.check_address(address)  # before anything is downloaded
    for entry, folder, address in zip(chosen, folders, addresses, strict=True):
        convert_entry(entry, source or entry.handle, folder, to, overwrite)
        files = publish.files_to_push(publish.check_before_push(folder, address))
        if push:
            console.print(f"  pushed to {publish.push(folder, address)}")
            continue
        size = sum((folder / file).stat().st_size for file in files)
        console.print(f"  a dry run: --push sends {len(files)} files, {size / 1e6:,.1f} MB, to {address}:")
        console.print(f"  {', '.join(files)}")


def convert_entry(entry: Entry, source: str | Path, target: Path, to: Layout, overwrite: bool) -> None:
    """Check the source, convert it, verify the result, and write what was measured into its card.

    Raises:
        AlbertHubBridgeError: The source is wrong, or cannot be converted.
        typer.Exit: With code 1, the result differs from the source.
    """
    entry.check(inspect(source))
    report = convert(source, target, to=to, overwrite=overwrite, drop_head=True)
    console.print(f"{entry.name}: {entry.parameters:,} parameters, {report.source.dtype}, converted to {target}")
    for tensor in report.dropped:
        console.print(f"  left out: {tensor.name} {tensor.shape}: {tensor.reason}")
    for note in report.notes:
        console.print(f"  note: {note}")
    verify_entry(entry, source, target)


def verify_entry(entry: Entry, source: str | Path, target: Path) -> None:
    """Compare source and target, and both with the published golden numbers, where the entry has them.

    What was measured goes into the target's record and card.

    Raises:
        ConfigurationError: The source is not this entry.
        typer.Exit: With code 1, something differs.
    """
    entry.check(inspect(source))
    report = verify(source, target)
    for name, check in report.checks.items():
        console.print(f"  {name} {check.outcome}: {check.describe()}")
        for line in (*check.failures, *(f"not measured: {what}" for what in check.not_measured)):
            console.print(f"    {line}")
    for name, difference in report.max_abs_difference.items():
        console.print(f"  {name}: {difference:.1e} between {report.source_engine} and {report.target_engine}")
    if report.first_difference is not None:
        console.print(f"  first text that becomes other ids: {report.first_difference}")
    golden, far = None, False
    for folder in (source, target) if entry.golden is not None else ():
        difference = golden_difference(entry, folder)
        golden, far = {**(entry.golden or {}), "max_abs_difference": difference}, far or difference > GOLDEN_TOLERANCE
        console.print(f"  golden numbers of KerasHub: {difference:.1e} from {folder}")
    record_verification(target, report, golden)
    if far or not report.passed:
        console.print("  they differ")
        raise typer.Exit(1)
    console.print("  they agree")


def golden_difference(entry: Entry, folder: str | Path) -> float:
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


# What both recipes ask for.
Name = Annotated[str, typer.Argument(help="Entry of checkpoints.toml, such as albert_base_en_uncased; or all.")]
Downloaded = Annotated[
    Path | None, typer.Argument(help="Folder that was downloaded before; pulled otherwise.", show_default=False)
]
Output = Annotated[Path, typer.Option(help="Folder that gets a folder NAME-LAYOUT.")]
Hub = Annotated[
    str | None,
    typer.Option(help="Where to push NAME-LAYOUT: hf://user or kaggle://user/model/framework.", show_default=False),
]
Push = Annotated[bool, typer.Option("--push/--dry-run", help="Push; or only say what would be pushed where.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]


def pick(entries: Mapping[str, Entry], name: str) -> Entry:
    """Return the entry of that name.

    Raises:
        typer.BadParameter: There is none.
    """
    if name not in entries:
        raise typer.BadParameter(f"{name!r} is not in {CHECKPOINTS.name}; there are {', '.join(entries)}.")
    return entries[name]
