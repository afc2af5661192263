"""Convert an official transformers checkpoint to a KerasHub preset: `python -m conversion.hf_to_keras --help`."""

from __future__ import annotations

from pathlib import Path

import typer

from albert_hub_bridge.console import errors_as_messages
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
    hub: Hub = None,
    push: Push = False,
    overwrite: Overwrite = False,
) -> None:
    """Pull official transformers checkpoints, convert them to KerasHub presets, verify them, and push them."""
    with errors_as_messages():
        run_recipe(read_entries("transformers"), name, source, output, "keras", hub=hub, push=push, overwrite=overwrite)


if __name__ == "__main__":
    typer.run(main)
