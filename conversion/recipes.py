"""The entries of `checkpoints.toml`, and the steps of every recipe: pull, check, convert, verify, push."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import typer
from rich.console import Console

from albert_hub_bridge import convert, inspect
from albert_hub_bridge.choices import LayoutName
from albert_hub_bridge.commands import publish
from albert_hub_bridge.commands.convert import resolve_target
from albert_hub_bridge.commands.recording import record_verification
from albert_hub_bridge.commands.reports import Inspection
from albert_hub_bridge.errors import ConfigurationError, Problem, write_error
from albert_hub_bridge.layouts.registry import pull
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.provenance.record import GoldenNumbers
from albert_hub_bridge.verification.run import verify


CHECKPOINTS = Path(__file__).with_name("checkpoints.toml")
GOLDEN_TOLERANCE = 1e-4  # as in KerasHub's own test, whose numbers have six digits

console = Console(highlight=False, soft_wrap=True, emoji=False, markup=False)
Kind = Literal["keras", "transformers"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A published checkpoint.

    Args:
        name: Of the entry.
        kind: Layout of the checkpoint.
        handle: Where it is published.
        architecture: Expected; its dropout is not checked.
        parameters: Expected number of parameters of the encoder.
        golden: Numbers that KerasHub publishes for it, or None.
        text_normalization: Expected.
        normalization: The vocabulary's own.
    """

    name: str
    kind: Kind
    handle: str
    architecture: Architecture
    parameters: int
    golden: GoldenNumbers | None
    text_normalization: str
    normalization: str

    def check(self, found: Inspection) -> None:
        """Refuse a source that is not this entry.

        Raises:
            ConfigurationError: The architecture or the text normalization differs. All differences are listed.
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
            raise ConfigurationError(
                found.source, f"source for {self.name}", problems, "Pass the folder of the published checkpoint."
            )


def read_entries(kind: Kind) -> dict[str, Entry]:
    """Read the published checkpoints of one kind."""
    tables = tomllib.loads(CHECKPOINTS.read_text(encoding="utf-8"))
    vocabulary, entries = tables["vocabulary"], {}
    text = vocabulary["text_normalization"][kind], vocabulary["normalization"]
    for name, row in tables[kind].items():
        row = dict(row)  # noqa: PLW2901 (emptied below, so that a misspelt key cannot hide)
        handle, parameters, golden = row.pop("handle"), row.pop("parameters"), row.pop("golden", None)
        golden = GoldenNumbers(**golden, max_abs_difference=None) if golden is not None else None
        architecture = Architecture(vocabulary_size=vocabulary["pieces"], embedding_dim=128, **row)
        entries[name] = Entry(name, kind, handle, architecture, parameters, golden, *text)
    return entries


def run_recipe(
    entries: Mapping[str, Entry],
    name: str,
    source: Path | None,
    output: Path,
    to: LayoutName,
    *,
    hub: str | None,
    push: bool,
    overwrite: bool,
) -> None:
    """Pull, convert, verify and push one entry, or all.

    Args:
        entries: Of `checkpoints.toml`.
        name: Of one entry, or `all`.
        source: Folder that was downloaded before; the entry's handle is pulled otherwise.
        output: Folder to make a folder `NAME-LAYOUT` in, for each entry.
        to: Layout of the targets.
        hub: `hf://user` or `kaggle://user/model/framework`, to which the name of the folder is appended.
        push: Whether to push, or only to print what would be pushed.
        overwrite: Whether to replace existing folders.

    Raises:
        AlbertHubBridgeError: A source cannot be found, or is wrong, or the hub refuses it.
        typer.BadParameter: There is no such entry, or the arguments contradict each other.
        typer.Exit: With code 1, a result differs from its source.
    """
    chosen = list(entries.values()) if name == "all" else [pick(entries, name)]
    if source is not None and name == "all":
        raise typer.BadParameter("a folder can be the source of one entry only. Name the entry.")
    if push and hub is None:
        raise typer.BadParameter("--push needs --hub, such as --hub hf://user.")
    folders = [output / f"{entry.name}-{to}" for entry in chosen]
    addresses = [f"{hub or 'hf://USER'}/{folder.name}" for folder in folders]
    for address in addresses:
        publish.PushOptions().check(address)  # before anything is downloaded
    make_output(output, folders, overwrite)
    for entry, folder, address in zip(chosen, folders, addresses, strict=True):
        convert_entry(entry, source or entry.handle, folder, to, overwrite)
        files = publish.check_before_push(folder).files_to_push
        if push:
            console.print(f"  pushed to {publish.push(folder, address)}")
            continue
        size = sum((folder / file).stat().st_size for file in files)
        console.print(f"  a dry run: --push sends {len(files)} files, {size / 1e6:,.1f} MB, to {address}:")
        console.print(f"  {', '.join(files)}")


def make_output(output: Path, folders: Sequence[Path], overwrite: bool) -> None:
    """Make the folder for the targets, with its parents, and check every target before a source is pulled.

    Raises:
        TargetError: A target must not be written, or the folder cannot be made.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(output, error) from error
    for folder in folders:
        resolve_target(folder, overwrite)


def convert_entry(entry: Entry, source: str | Path, target: Path, to: LayoutName, overwrite: bool) -> None:
    """Check the source, convert it, verify the result and record it in the target's card.

    Raises:
        AlbertHubBridgeError: The source is wrong, or cannot be converted.
        typer.Exit: With code 1, the result differs from the source.
    """
    entry.check(inspect(source))
    report = convert(source, target, to=to, overwrite=overwrite, drop_head=True)
    console.print(f"{entry.name}: {entry.parameters:,} parameters, {report.source.dtype}, converted to {target}")
    for tensor in report.dropped:
        console.print(f"  not converted: {tensor.name} {tensor.shape}: {tensor.reason}")
    for note in report.notes:
        console.print(f"  note: {note}")
    verify_entry(entry, source, target)


def verify_entry(entry: Entry, source: str | Path, target: Path) -> None:
    """Compare source and target, and both with the golden numbers if the entry has them.

    The result is recorded in the target's card.

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
        console.print(f"  first text with other ids: {report.first_difference}")
    golden, passed = entry.golden, report.passed
    if golden is not None:
        differences = {str(folder): golden_difference(golden, folder) for folder in (source, target)}
        for folder, difference in differences.items():
            console.print(f"  golden numbers of KerasHub: {difference:.1e} from {folder}")
        golden = replace(golden, max_abs_difference=differences[str(target)])
        passed = passed and max(differences.values()) <= GOLDEN_TOLERANCE
    record_verification(target, report, pull(source).folder, golden)
    if not passed:
        console.print("  FAILED")
        raise typer.Exit(1)
    console.print("  PASSED")


def golden_difference(golden: GoldenNumbers, folder: str | Path) -> float:
    """Return the largest absolute difference between golden numbers and the numbers that a folder computes."""
    import torch

    from albert_hub_bridge import AlbertBackbone

    inputs = {name: np.array(getattr(golden, name)) for name in ("token_ids", "segment_ids", "padding_mask")}
    with torch.inference_mode():
        outputs = AlbertBackbone.from_preset(folder)(inputs)
    sequence = outputs["sequence_output"][0, 0, :5] - torch.tensor(golden.sequence_output)
    pooled = outputs["pooled_output"][0, :5] - torch.tensor(golden.pooled_output)
    return float(torch.cat([sequence, pooled]).abs().max())


# The arguments and options of both recipes.
Name = Annotated[str, typer.Argument(help="Entry of checkpoints.toml, such as albert_base_en_uncased; or all.")]
Downloaded = Annotated[
    Path | None,
    typer.Argument(help="Folder that was downloaded before; the entry is pulled otherwise.", show_default=False),
]
Output = Annotated[Path, typer.Option(help="Folder to make the folder NAME-LAYOUT in.")]
Hub = Annotated[
    str | None,
    typer.Option(help="Where to push NAME-LAYOUT: hf://user or kaggle://user/model/framework.", show_default=False),
]
Push = Annotated[bool, typer.Option("--push/--dry-run", help="Push, or only print what would be pushed.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing folders.")]


def pick(entries: Mapping[str, Entry], name: str) -> Entry:
    """Return the entry of that name.

    Raises:
        typer.BadParameter: There is none.
    """
    if name not in entries:
        raise typer.BadParameter(f"{name!r} is not in {CHECKPOINTS.name}. Choose one of {', '.join(entries)}.")
    return entries[name]
