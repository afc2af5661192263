"""What the clients of all hubs share: the pulled source, and error messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from albert_hub_bridge.errors import SourceError


@dataclass(frozen=True, slots=True)
class Source:
    """A preset or repository that lies on this machine.

    Args:
        folder: Where it is.
        handle: What it is called: `kaggle://...`, `hf://...`, `modelscope://...`, or the folder as it was named.
        revision: The commit or version that was pulled; None for a folder.
    """

    folder: Path
    handle: str
    revision: str | None = None


def literal_pattern(name: str) -> str:
    """Return the pattern that only this name matches."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def nothing_there(handle: str) -> SourceError:
    return SourceError(f"{handle} has no config.json: it is neither a KerasHub preset nor an ALBERT repository.")


def missing_client(handle: str, package: str) -> SourceError:
    return SourceError(f"{handle} is downloaded by {package}, which is not installed: pip install {package}")


_LOGINS = {"Hugging Face": "hf auth login", "Kaggle": "kaggle.com", "ModelScope": "modelscope login"}


@contextmanager
def errors_as_source_errors(handle: str, hub: str) -> Iterator[None]:
    """Turn what a client raises, each its own tree, into one message that says what was tried."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        kind, text = type(error).__name__, " ".join(str(error).split())
        hints = {
            "RepositoryNotFoundError": "There is no such repository, or it is private and you are not logged in "
            "(hf auth login).",
            "RevisionNotFoundError": "There is no such revision.",
            "GatedRepoError": "Its owner wants to be asked first: accept the terms on its page, and log in "
            "(hf auth login).",
            "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set, and it is not in the cache.",
            "LocalEntryNotFoundError": "It is not in the cache, and the hub cannot be reached.",
            "HFValidationError": "The form is hf://user/repo or hf://user/repo@revision.",
        }
        status = getattr(getattr(error, "response", None), "status_code", None)
        if kind not in hints and status in (401, 403, 404):
            hints[kind] = (
                f"There is no such model, or it is private or gated and you are not logged in ({_LOGINS[hub]})."
            )
        if status == 429:
            hints[kind] = "The hub wants fewer requests. Wait, and run the command again."
        if (status or 0) >= 500:
            hints[kind] = "The hub itself failed. Run the command again later."
        if any(word in kind for word in ("Chunked", "Incomplete", "Corrupt", "Integrity", "Protocol")):
            hints[kind] = "It was damaged or cut off on its way. Run the command again."
        if "onnect" in kind or "Timeout" in kind:
            hints[kind] = "It cannot be reached. Check the network, or download it elsewhere and pass the folder."
        said = f"{kind}: {text[:300]}" if text else kind
        raise SourceError(f"{handle} could not be downloaded from {hub}. {hints.get(kind, '')} ({said})") from error
