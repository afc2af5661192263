"""Verify a conversion again, and the golden numbers: `python -m conversion.verify_parity --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from conversion.recipes import errors_as_messages, pick, read_entries, verify_entry


def main(
    name: Annotated[str, typer.Argument(help="Entry of checkpoints.toml.")],
    source: Annotated[Path, typer.Argument(help="Folder of the downloaded source.")],
    target: Annotated[Path, typer.Argument(help="Folder of what it was converted to.")],
) -> None:
    """Compare a published checkpoint with its conversion, and both with the published golden numbers."""
    with errors_as_messages():
        verify_entry(pick({**read_entries("keras"), **read_entries("transformers")}, name), source, target)


if __name__ == "__main__":
    typer.run(main)
