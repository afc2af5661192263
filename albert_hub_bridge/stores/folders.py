"""Reading small files with clear errors, and writing folders whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from albert_hub_bridge.errors import ConfigurationError, Problem, TargetError


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ConfigurationError: The file is missing, is not JSON, or is not an object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(file, "configuration", [Problem("missing", file.name, "")]) from error
    except (ValueError, RecursionError) as error:  # bad JSON and bad UTF-8 are both ValueErrors
        raise ConfigurationError(file, "configuration", [Problem("not JSON", file.name, str(error))]) from error
    if not isinstance(content, dict):
        detail = f"expected an object, found {type(content).__name__}"
        raise ConfigurationError(file, "configuration", [Problem("not an object", file.name, detail)])
    return content


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, indented, in the order given."""
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse a target that must not be written, before any work is done.

    Raises:
        TargetError: The target exists and `overwrite` is not set, is not a folder, or its parent does not exist.
    """
    if target.is_symlink() or target.exists():
        if not target.is_dir() or target.is_symlink():
            raise TargetError(f"The target {target} exists and is not a folder. Choose another target.")
        if not overwrite and any(target.iterdir()):
            raise TargetError(f"The target {target} exists. Pass --overwrite (overwrite=True) to replace it.")
    if not target.parent.is_dir():
        raise TargetError(f"The folder {target.parent} that should hold the target does not exist. Create it first.")


@contextmanager
def new_folder(target: Path, overwrite: bool) -> Iterator[Path]:
    """Yield an empty folder beside `target`; move it in place when the block ends well, else remove it.

    An existing target is replaced as a whole, never overlaid: files of the old one do not survive in the new one.

    Raises:
        TargetError: As `check_target`.
    """
    check_target(target, overwrite)
    mark = secrets.token_hex(4)
    draft, old = (target.parent / f".{target.name}.{kind}-{mark}" for kind in ("new", "old"))
    draft.mkdir()
    try:
        yield draft
        if target.exists():
            os.rename(target, old)
            try:
                os.rename(draft, target)
            except OSError:
                os.rename(old, target)
                raise
        else:
            os.rename(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
