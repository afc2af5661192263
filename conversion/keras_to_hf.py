"""Convert a published KerasHub preset to a Hub repository: `python -m conversion.keras_to_hf --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from albert_hub_bridge.console import errors_as_messages
from albert_hub_bridge.layouts.hub.spelling import RepositoryLayout
from conversion.recipes import (
    Downloaded,
    Hub,
    Name,
    Output,
    Overwrite,
    Push,
    read_entries,
    run_recipe,
)


def main(
    name: Name,
    source: Downloaded = None,
    output: Output = Path(),
    layout: Annotated[RepositoryLayout, typer.Option(help="Layout of the repositories.")] = "transformers",
    hub: Hub = None,
    push: Push = False,
    overwrite: Overwrite = False,
) -> None:
    """Pull published KerasHub presets, convert them to Hub repositories, verify them, and push them."""
    with errors_as_messages():
        run_recipe(read_entries("keras"), name, source, output, layout, hub=hub, push=push, overwrite=overwrite)


if __name__ == "__main__":
    typer.run(main)
