"""Convert a published KerasHub preset to a Hub repository: `python -m conversion.keras_to_hf --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from albert_hub_bridge.cli import Layout
from conversion.recipes import convert_entry, errors_as_messages, pick, read_entries


def main(
    name: Annotated[str, typer.Argument(help="Entry of checkpoints.toml, such as albert_base_en_uncased.")],
    source: Annotated[Path, typer.Argument(help="Folder of the downloaded preset.")],
    output: Annotated[Path, typer.Option(help="Folder that gets a folder NAME-LAYOUT.")] = Path(),
    layout: Annotated[Layout, typer.Option(help="bridge or stock.")] = Layout.stock,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Check that a preset is the published one, convert it to a Hub repository, and verify the result."""
    if layout is Layout.keras:
        raise typer.BadParameter("a preset is a keras layout already; choose bridge or stock.")
    with errors_as_messages():
        entry = pick(read_entries("keras"), name)
        convert_entry(entry, source, output / f"{name}-{layout.value}", layout.value, overwrite)


if __name__ == "__main__":
    typer.run(main)
