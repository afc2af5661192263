"""Turn the exceptions of the hubs' clients into this package's, with advice for the user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from albert_hub_bridge.errors import SourceError


DAMAGED = "The download is damaged or incomplete. Run the command again."
UNREACHABLE = "The hub cannot be reached. Check the network, or download the model elsewhere and pass its folder."

AdviceByClass = Sequence[tuple[tuple[type[Exception], ...], str]]


@dataclass(frozen=True, slots=True)
class ClientErrors:
    """What a client raises, and what the user can do about it.

    Args:
        by_class: Advice for exception classes. The first row that matches counts, so subclasses come first.
        by_status: Advice for the HTTP status of the response, if no class matches. 500 stands for all higher ones.
        default: Advice for everything else.
    """

    by_class: AdviceByClass = ()
    by_status: Mapping[int, str] = field(default_factory=dict)
    default: str = ""

    def advice(self, error: Exception) -> str:
        """Return the advice for an exception."""
        for classes, advice in self.by_class:
            if isinstance(error, classes):
                return advice
        status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "status_code", None)
        return self.by_status.get(min(status or 0, 500), self.default)


def status_advice(login: str) -> dict[int, str]:
    """Return the advice for the statuses of a failed download.

    Args:
        login: How the user logs in to this hub.
    """
    no_access = f"The model does not exist, or it is private or gated and you are not logged in ({login})."
    return {
        401: no_access,
        403: no_access,
        404: no_access,
        429: "The hub received too many requests. Wait, then run the command again.",
        500: "The hub failed. Run the command again later.",
    }


def requests_errors() -> AdviceByClass:
    """Return the advice for the exceptions of requests, which the clients of Kaggle and ModelScope use."""
    from requests import exceptions as requests
    from urllib3 import exceptions as urllib3

    incomplete = (requests.ChunkedEncodingError, urllib3.ProtocolError, urllib3.IncompleteRead)
    unreachable = (requests.ConnectionError, requests.Timeout, urllib3.TimeoutError, ConnectionError, TimeoutError)
    return ((incomplete, DAMAGED), (unreachable, UNREACHABLE))


def describe(error: BaseException) -> str:
    """Return the class and the message of an exception in one line."""
    text = " ".join(str(error).split())
    text = text if len(text) <= 300 else f"{text[:300]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def as_source_errors(handle: str, hub: str, errors: ClientErrors) -> Iterator[None]:
    """Raise every exception of a download as a `SourceError`.

    Args:
        handle: The model that is downloaded.
        hub: The name of its hub.
        errors: Advice for the exceptions of the client.
    """
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(
            f"{handle} could not be downloaded from {hub}. {errors.advice(error)} ({describe(error)})"
        ) from error


def missing_client(handle: str, package: str) -> SourceError:
    """Return the exception for a client that is not installed."""
    return SourceError(f"{handle} is downloaded with {package}, which is not installed: pip install {package}")


def broken_client(handle: str, package: str, error: Exception) -> SourceError:
    """Return the exception for a client that is installed and cannot be imported."""
    return SourceError(
        f"{handle} needs {package}, which cannot be imported ({type(error).__name__}: {error}). Install it again: "
        f"pip install --force-reinstall {package}"
    )
