"""Pull from ModelScope with modelscope."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from albert_hub_bridge.hubs.client_errors import (
    DAMAGED,
    ClientErrors,
    as_source_errors,
    broken_client,
    missing_client,
    requests_errors,
    status_advice,
)
from albert_hub_bridge.hubs.local_source import LocalSource, not_a_checkpoint


def _pull_errors() -> ClientErrors:
    from modelscope.hub import errors

    statuses = status_advice("modelscope login")
    return ClientErrors(
        by_class=(
            ((errors.FileIntegrityError, errors.FileDownloadError, errors.CorruptedCacheException), DAMAGED),
            ((errors.NotLoginException, errors.NotExistError), statuses[404]),
            *requests_errors(),
        ),
        by_status=statuses,
    )


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep modelscope from logging each attempt of a download. What failed in the end is in the error's message."""
    logger = logging.getLogger("modelscope_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def pull_from_modelscope(name: str, needed: Callable[[Iterable[str]], list[str]]) -> LocalSource:
    """Download the needed files of a model. The client compares every file with the checksum of the hub.

    Args:
        name: `user/repo` or `user/repo@revision`.
        needed: Selects the needed files from the names of all files.

    Raises:
        SourceError: modelscope is not installed, the model has no needed files, or it could not be downloaded.
    """
    handle = f"modelscope://{name}"
    try:
        from modelscope.hub.api import HubApi
        from modelscope.hub.snapshot_download import snapshot_download

        client_errors = _pull_errors()
    except ImportError as error:
        raise missing_client(handle, "modelscope") from error
    except Exception as error:
        raise broken_client(handle, "modelscope", error) from error
    with as_source_errors(handle, "ModelScope", client_errors), _without_warnings():
        model_id, _, revision = name.partition("@")
        revision = revision or "master"
        names = needed(file["Path"] for file in HubApi().get_model_files(model_id, revision=revision, recursive=True))
        if not names:
            raise not_a_checkpoint(handle)
        folder = Path(snapshot_download(model_id, revision=revision, allow_patterns=list(map(escape, names))))
    return LocalSource(folder, handle, revision)
