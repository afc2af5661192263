"""Convert a published KerasHub preset to a Hub repository: `python -m conversion.keras_to_hf --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from albert_hub_bridge.cli import Layout
from conversion.recipes import (
    Downloaded,
    Hub,
    Name,
    Output,
    Overwrite,
    Push,
    errors_as_messages,
    read_entries,
    run_recipe,
)


def main(
    name: Name,
    source: Downloaded = None,
    output: Output = Path(),
    layout: Annotated[Layout, typer.Option(help="albert_hub or transformers.")] = Layout.transformers,
    hub: Hub = None,
    push: Push = False,
    overwrite: Overwrite = False,
) -> None:
    """Pull published KerasHub presets, convert them to Hub repositories, verify them, and push them."""
    if layout is Layout.keras:
        raise typer.BadParameter("a preset is a keras layout already; choose albert_hub or transformers.")
    with errors_as_messages():
        run_recipe(read_entries("keras"), name, source, output, layout.value, hub=hub, push=push, overwrite=overwrite)


if __name__ == "__main__":
    typer.run(main)
