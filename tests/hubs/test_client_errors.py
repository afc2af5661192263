"""The advice for exceptions that the local servers cannot provoke, or only slowly."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import requests
import urllib3.exceptions
from huggingface_hub import errors as hub_errors
from kagglehub import exceptions as kagglehub_errors
from modelscope.hub import errors as modelscope_errors

from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.hubs import huggingface, kaggle, modelscope
from albert_hub_bridge.hubs.client_errors import DAMAGED, UNREACHABLE, ClientErrors, as_source_errors
from albert_hub_bridge.hubs.source import pull_source


# httpx or httpx2, the HTTP library of huggingface_hub.
http: Any = sys.modules[hub_errors.HfHubHTTPError.__bases__[0].__module__]


def _with_status(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("refused", response=response)


# fmt: off
ADVICE: tuple[tuple[Callable[[], ClientErrors], Exception, str], ...] = (
    (huggingface._pull_errors, http.ConnectError("x"),                         UNREACHABLE),
    (huggingface._pull_errors, http.ReadTimeout("x"),                          UNREACHABLE),
    (huggingface._pull_errors, ConnectionResetError("x"),                      UNREACHABLE),
    (huggingface._pull_errors, http.RemoteProtocolError("x"),                  DAMAGED),
    (huggingface._pull_errors, hub_errors.CorruptedCacheException("x"),        DAMAGED),
    (huggingface._pull_errors, hub_errors.OfflineModeIsEnabled("x"),           "HF_HUB_OFFLINE is set"),
    (huggingface._pull_errors, hub_errors.LocalEntryNotFoundError("x"),        "not in the cache, and the hub cannot"),
    (huggingface._pull_errors, hub_errors.HFValidationError("x"),              "Use hf://user/repo or"),
    (kaggle._pull_errors,      kagglehub_errors.DataCorruptionError("x"),      DAMAGED),
    (kaggle._pull_errors,      requests.exceptions.ChunkedEncodingError("x"),  DAMAGED),
    (kaggle._pull_errors,      urllib3.exceptions.IncompleteRead(1, 2),        DAMAGED),
    (kaggle._pull_errors,      requests.ConnectTimeout("x"),                   UNREACHABLE),
    (kaggle._pull_errors,      TimeoutError("x"),                              UNREACHABLE),
    (kaggle._pull_errors,      kagglehub_errors.UnauthenticatedError(),        "not logged in (kaggle.com)"),
    (kaggle._pull_errors,      _with_status(503),                              "The hub failed."),
    (kaggle._pull_errors,      _with_status(418),                              ""),
    (kaggle._pull_errors,      ValueError("x"),                                ""),
    (modelscope._pull_errors,  modelscope_errors.FileIntegrityError("x"),      DAMAGED),
    (modelscope._pull_errors,  modelscope_errors.RequestTimeoutError("x"),     UNREACHABLE),
    (modelscope._pull_errors,  modelscope_errors.NotExistError("x"),           "not logged in (modelscope login)"),
    (modelscope._pull_errors,  modelscope_errors.APIError("x", status_code=429), "too many requests"),
)
# fmt: on


@pytest.mark.parametrize(("errors", "error", "advice"), ADVICE)
def test_advice_follows_the_class_then_the_status(
    errors: Callable[[], ClientErrors], error: Exception, advice: str
) -> None:
    found = errors().advice(error)
    assert advice in found
    assert bool(advice) == bool(found)


def test_as_source_errors_describes_the_exception_and_keeps_source_errors() -> None:
    with (
        pytest.raises(SourceError, match=r"^a could not be downloaded from B\. Advice\. \(ValueError: two lines\)$"),
        as_source_errors("a", "B", ClientErrors(default="Advice.")),
    ):
        raise ValueError("two\nlines")
    with pytest.raises(SourceError, match=r"^own$"), as_source_errors("a", "B", ClientErrors()):
        raise SourceError("own")


def test_client_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> ClientErrors:
        raise RuntimeError("an old version of requests")

    for hub, package, name in (
        ("modelscope", "modelscope", "user/repo"),
        ("kaggle", "kagglehub", "org/model/keras/name"),
    ):
        monkeypatch.setattr(f"albert_hub_bridge.hubs.{hub}._pull_errors", broken)
        with pytest.raises(SourceError, match=rf"{package}, which cannot be imported \(RuntimeError: an old version"):
            pull_source(f"{hub}://{name}", list)
