"""Verify a conversion and its golden numbers again: `python -m conversion.verify_parity --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from albert_hub_bridge.console import errors_as_messages
from conversion.recipes import pick, read_entries, verify_entry


def main(
    name: Annotated[str, typer.Argument(help="Entry of checkpoints.toml.")],
    source: Annotated[Path, typer.Argument(help="Folder of the downloaded source.")],
    target: Annotated[Path, typer.Argument(help="Folder of the converted checkpoint.")],
) -> None:
    """Compare a published checkpoint with its conversion, and both with the golden numbers that KerasHub publishes."""
    with errors_as_messages():
        verify_entry(pick({**read_entries("keras"), **read_entries("transformers")}, name), source, target)


if __name__ == "__main__":
    typer.run(main)
