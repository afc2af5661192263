"""Convert, verify and push in one go: the only module that combines commands."""

from __future__ import annotations

import tempfile
from pathlib import Path

from albert_hub_bridge.checkpoint import Progress
from albert_hub_bridge.commands.convert import convert_with
from albert_hub_bridge.commands.options import ConvertOptions
from albert_hub_bridge.commands.publish import PushOptions, push_with
from albert_hub_bridge.commands.verify import verify_and_record
from albert_hub_bridge.errors import TargetError


def convert_and_push(
    options: ConvertOptions,
    source: str | Path,
    target: str,
    push_options: PushOptions,
    *,
    progress: Progress | None = None,
) -> str:
    """Convert into a temporary folder, verify the result and push it.

    Args:
        options: Of the conversion.
        source: As for `convert`.
        target: As for `push`.
        push_options: Of the push.
        progress: As for `convert`.

    Returns:
        The address of the pushed repository or model.

    Raises:
        AlbertHubBridgeError: As `convert`, `verify` and `push`; or the result differs from the source. Nothing was
            pushed.
    """
    push_options.check(target)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / target.rpartition("/")[2]
        convert_with(options, source, folder, progress=progress)
        report, _ = verify_and_record(source, folder, allow_pickle=options.allow_pickle)
        if not report.passed:
            raise TargetError(
                f"Nothing was pushed, because the converted model differs from {source}. Convert it to a folder and "
                f"look at the differences: albert-hub-bridge verify {source} FOLDER. If they are intended, push the "
                "folder with --no-verify. Its card contains the result."
            )
        return push_with(push_options, folder, target)
