"""Convert an official stock checkpoint to a KerasHub preset: `python -m conversion.hf_to_keras --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from conversion.recipes import convert_entry, errors_as_messages, pick, read_entries


def main(
    name: Annotated[str, typer.Argument(help="Entry of checkpoints.toml, such as albert-base-v2.")],
    source: Annotated[Path, typer.Argument(help="Folder of the downloaded repository.")],
    output: Annotated[Path, typer.Option(help="Folder that gets a folder NAME-keras.")] = Path(),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Check that a repository is the official one, convert it to a KerasHub preset, and verify the result."""
    with errors_as_messages():
        entry = pick(read_entries("stock"), name)
        convert_entry(entry, source, output / f"{name}-keras", "keras", overwrite)


if __name__ == "__main__":
    typer.run(main)
