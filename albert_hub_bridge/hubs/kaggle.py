"""Pull from and push to Kaggle with kagglehub."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from albert_hub_bridge.errors import SourceError, TargetError
from albert_hub_bridge.hubs.client_errors import (
    DAMAGED,
    ClientErrors,
    as_source_errors,
    broken_client,
    describe,
    missing_client,
    requests_errors,
    status_advice,
)
from albert_hub_bridge.hubs.local_source import LocalSource


_DENIED = "You are not logged in (kaggle.com), or your token has no write access."
_PUSH_ERRORS = ClientErrors(
    by_status={401: _DENIED, 403: _DENIED, 429: "Kaggle received too many requests. Wait, then run the command again."},
    default="Run the command again.",
)


def _pull_errors() -> ClientErrors:
    from kagglehub import exceptions

    statuses = status_advice("kaggle.com")
    return ClientErrors(
        by_class=(
            ((exceptions.DataCorruptionError,), DAMAGED),
            ((exceptions.CredentialError, exceptions.UnauthenticatedError), statuses[401]),
            *requests_errors(),
        ),
        by_status=statuses,
    )


def pull_from_kaggle(name: str, needed: Callable[[Iterable[str]], list[str]]) -> LocalSource:
    """Download a variation of a model.

    Args:
        name: `org/model/keras/name` or `org/model/keras/name/version`.
        needed: Not used: a variation holds one preset, so all of its files are needed.

    Raises:
        SourceError: The name is not valid, kagglehub is not installed, or the model could not be downloaded.
    """
    handle = f"kaggle://{name}"
    if len(name.split("/")) not in (4, 5):
        raise SourceError(f"{handle} should be kaggle://org/model/keras/name or kaggle://org/model/keras/name/version.")
    try:
        import kagglehub

        client_errors = _pull_errors()
    except ImportError as error:
        raise missing_client(handle, "kagglehub") from error
    except Exception as error:
        raise broken_client(handle, "kagglehub", error) from error
    with as_source_errors(handle, "Kaggle", client_errors), _progress_on_stderr():
        folder = Path(kagglehub.model_download(name))
    version = folder.name if folder.name.isdigit() else name.rsplit("/", maxsplit=1)[-1]
    return LocalSource(folder, f"kaggle://{'/'.join(name.split('/')[:4])}", version)


def push_to_kaggle(files: Mapping[str, Path | bytes], name: str, *, message: str, license_name: str | None) -> str:
    """Push files as a new version of a model. kagglehub creates a missing model, as private.

    Args:
        files: The files or their contents, by their names in the model.
        name: `user/model/framework/name`.
        message: The notes of the version.
        license_name: The license of a new model, by Kaggle's name for it; None if it is not known.

    Returns:
        The URL of the model.

    Raises:
        TargetError: The name is not valid, kagglehub is not installed, or Kaggle refused the upload.
    """
    handle = f"kaggle://{name}"
    if len(name.split("/")) != 4:
        raise TargetError(f"{handle} should be kaggle://user/model/keras/name. Kaggle numbers the versions itself.")
    try:
        import kagglehub
    except ImportError as error:
        raise TargetError(
            f"{handle} is uploaded with kagglehub, which is not installed: pip install kagglehub"
        ) from error
    with tempfile.TemporaryDirectory() as parent:
        for file, content in files.items():  # kagglehub uploads whole folders: give it one that has only these files
            path = Path(parent) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                os.symlink(content.resolve(), path)
        try:
            with _progress_on_stderr():
                kagglehub.model_upload(name, parent, license_name, message)
        except Exception as error:
            raise TargetError(
                f"{handle} has no new version. {_PUSH_ERRORS.advice(error)} ({describe(error)})"
            ) from error
    return f"https://www.kaggle.com/models/{name}"


@contextmanager
def _progress_on_stderr() -> Iterator[None]:
    """Let kagglehub report its progress on standard error. Standard output is for the report of the command."""
    handlers = [h for h in logging.getLogger("kagglehub").handlers if type(h) is logging.StreamHandler]
    streams = [handler.setStream(sys.stderr) or sys.stderr for handler in handlers]
    try:
        yield
    finally:
        for handler, stream in zip(handlers, streams, strict=True):
            handler.setStream(stream)
