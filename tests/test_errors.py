"""Errors about missing and existing folders are those of Python, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from albert_hub_bridge import AlbertBackbone, card, check, convert, convert_adapter, inspect, push, verify
from albert_hub_bridge.errors import AlbertHubBridgeError


@pytest.mark.parametrize(
    "call",
    [
        inspect,
        check,
        card,
        AlbertBackbone.from_preset,
        lambda missing: verify(missing, missing),
        lambda missing: convert(missing, missing.with_name("target"), to="keras"),
        lambda missing: push(missing, "hf://user/repo"),
        lambda missing: convert_adapter(missing, missing.with_name("a.lora.h5"), base=missing, to="keras"),
    ],
)
def test_missing_folders_are_file_not_found_errors(call: Callable[[Path], Any], tmp_path: Path) -> None:
    for expected in (FileNotFoundError, AlbertHubBridgeError):
        with pytest.raises(expected, match=r"nowhere does not exist"):
            call(tmp_path / "nowhere")


def test_existing_targets_are_file_exists_errors(preset: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "file").touch()
    for expected in (FileExistsError, AlbertHubBridgeError):
        with pytest.raises(expected, match=r"target exists"):
            convert(preset, tmp_path / "target", to="transformers")
        with pytest.raises(expected, match=r"has no config\.json"):
            convert(preset, tmp_path / "target", to="transformers", overwrite=True)
    for expected in (FileNotFoundError, AlbertHubBridgeError):
        with pytest.raises(expected, match=r"that should hold the target does not exist"):
            convert(preset, tmp_path / "nowhere" / "target", to="transformers")
