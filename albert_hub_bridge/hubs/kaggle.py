"""Pull from and push to Kaggle with kagglehub."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from albert_hub_bridge.errors import SourceError, TargetError
from albert_hub_bridge.hubs.common import Source, errors_as_source_errors, missing_client


def pull_from_kaggle(name: str, needed: Callable[[Iterable[str]], list[str]]) -> Source:
    handle = f"kaggle://{name}"
    if len(name.split("/")) not in (4, 5):
        raise SourceError(f"{handle} should be kaggle://org/model/keras/name or kaggle://org/model/keras/name/version.")
    with errors_as_source_errors(handle, "Kaggle"):
        try:
            import kagglehub
        except ImportError as error:
            raise missing_client(handle, "kagglehub") from error
        with kagglehub_on_stderr():
            folder = Path(kagglehub.model_download(name))  # a variation holds one preset, so all of it is needed
    version = folder.name if folder.name.isdigit() else name.rsplit("/", maxsplit=1)[-1]
    return Source(folder, f"kaggle://{'/'.join(name.split('/')[:4])}", version)


@contextmanager
def kagglehub_on_stderr() -> Iterator[None]:
    """Let kagglehub tell of its progress on standard error, because standard output is for the report."""
    handlers = [one for one in logging.getLogger("kagglehub").handlers if type(one) is logging.StreamHandler]
    streams = [handler.setStream(sys.stderr) or sys.stderr for handler in handlers]
    try:
        yield
    finally:
        for handler, stream in zip(handlers, streams, strict=True):
            handler.setStream(stream)


def push_to_kaggle(folder: Path, files: Sequence[str], name: str, *, message: str, license_name: str | None) -> str:
    """Push files as a new version of a Kaggle model; kagglehub makes a model that does not exist, private.

    Args:
        folder: Of the files.
        files: Their names; nothing else leaves the machine.
        name: `user/model/framework/name`.
        message: Of the version.
        license_name: Of a new model, as Kaggle calls it; None where it is not known.

    Raises:
        TargetError: The handle has another form, kagglehub is not installed, or Kaggle refused.
    """
    handle = f"kaggle://{name}"
    if len(name.split("/")) != 4:
        raise TargetError(f"{handle} should be kaggle://user/model/keras/name; Kaggle counts the versions itself.")
    try:
        import kagglehub
    except ImportError as error:
        raise TargetError(
            f"{handle} is uploaded by kagglehub, which is not installed: pip install kagglehub"
        ) from error
    with tempfile.TemporaryDirectory() as parent:
        for file in files:  # kagglehub takes whole folders, and only these files shall leave the machine
            link = Path(parent) / file
            link.parent.mkdir(parents=True, exist_ok=True)
            os.symlink((folder / file).resolve(), link)
        try:
            with kagglehub_on_stderr():
                kagglehub.model_upload(name, parent, license_name, message)
        except Exception as error:  # kagglehub's own, requests', and ValueError
            said = " ".join(str(error).split())[:300]
            denied = "You are not logged in (kaggle.com), or your token may not write there."
            hints = {401: denied, 403: denied, 429: "Kaggle wants fewer requests. Wait, and run the command again."}
            hint = hints.get(getattr(getattr(error, "response", None), "status_code", 0), "Run the command again.")
            raise TargetError(f"{handle} has no new version. {hint} ({type(error).__name__}: {said})") from error
    return f"https://www.kaggle.com/models/{name}"
