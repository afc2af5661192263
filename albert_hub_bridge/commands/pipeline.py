"""Convert, verify and push in one go: the only module that combines commands."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from albert_hub_bridge.checkpoint import Progress
from albert_hub_bridge.commands.convert import convert_with
from albert_hub_bridge.commands.options import ConvertOptions
from albert_hub_bridge.commands.publish import PushOptions, push_with
from albert_hub_bridge.commands.verify import verify_and_record
from albert_hub_bridge.errors import TargetError
from albert_hub_bridge.verification.progress import StageProgress, ignore_progress


def convert_and_push(
    options: ConvertOptions,
    source: str | Path,
    target: str,
    push_options: PushOptions,
    *,
    converting: Callable[[], AbstractContextManager[Progress | None]] = nullcontext,
    verifying: Callable[[], AbstractContextManager[StageProgress | None]] = nullcontext,
) -> str:
    """Convert into a temporary folder, verify the result and push it.

    Args:
        options: Of the conversion.
        source: As for `convert`.
        target: As for `push`.
        push_options: Of the push.
        converting: Opens what shows the progress of the conversion, as `convert` reports it.
        verifying: Opens what shows the stages of the verification, as `verify` reports them.

    Returns:
        The address of the pushed repository or model.

    Raises:
        AlbertHubBridgeError: As `convert`, `verify` and `push`; or the result differs from the source. Nothing was
            pushed.
    """
    push_options.check(target)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / target.rpartition("/")[2]
        with converting() as progress:
            convert_with(options, source, folder, progress=progress)
        with verifying() as stages:
            report, _ = verify_and_record(
                source, folder, allow_pickle=options.allow_pickle, progress=stages or ignore_progress
            )
        if not report.passed:
            raise TargetError(
                f"Nothing was pushed, because the converted model differs from {source}. Convert it to a folder and "
                f"look at the differences: albert-hub-bridge verify {shlex.quote(str(source))} FOLDER. If they are "
                "intended, push the folder with --no-verify. Its card contains the result."
            )
        return push_with(push_options, folder, target)
