"""Pull from ModelScope with modelscope."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from albert_hub_bridge.hubs.common import (
    Source,
    errors_as_source_errors,
    literal_pattern,
    missing_client,
    nothing_there,
)


def pull_from_modelscope(name: str, needed: Callable[[Iterable[str]], list[str]]) -> Source:
    handle = f"modelscope://{name}"
    with errors_as_source_errors(handle, "ModelScope"):
        try:
            from modelscope.hub.api import HubApi
            from modelscope.hub.snapshot_download import snapshot_download
        except ImportError as error:
            raise missing_client(handle, "modelscope") from error
        model_id, _, revision = name.partition("@")
        revision = revision or "master"
        names = needed(file["Path"] for file in HubApi().get_model_files(model_id, revision=revision, recursive=True))
        if not names:
            raise nothing_there(handle)
        patterns = [literal_pattern(name) for name in names]
        # The client compares every file with the checksum that the hub states.
        folder = Path(snapshot_download(model_id, revision=revision, allow_patterns=patterns))
    return Source(folder, handle, revision)
