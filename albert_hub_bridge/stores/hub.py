"""Where sources come from: folders, and Hugging Face, Kaggle and ModelScope by their own clients and into their caches.

Tokens are the clients' own affair: they find them where their `login` put them.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.stores.checksums import git_object_of, sha256_of
from albert_hub_bridge.stores.published import PUBLISHED_PRESETS


_REPO_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


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


def pull_source(source: str | Path, needed: Callable[[Iterable[str]], list[str]]) -> Source:
    """Return a source's folder, after its hub's client has downloaded what is needed of it.

    Args:
        source: A folder; the name of a preset that KerasHub publishes; `kaggle://org/model/keras/name[/version]`;
            `hf://user/repo[@revision]`; `modelscope://user/repo`; or `user/repo`, which is on Hugging Face unless there
            is such a folder.
        needed: Tells which of a repository's files are needed.

    Raises:
        SourceError: There is no such folder, or the hub does not give it; the message says what was tried.
    """
    path = Path(os.path.expanduser(source))
    if path.is_dir():
        return Source(path, str(source))
    handle = str(source)
    if handle in PUBLISHED_PRESETS:
        handle = f"kaggle://{PUBLISHED_PRESETS[handle].kaggle}"
    scheme, mark, name = handle.partition("://")
    if not mark and not path.exists() and _REPO_ID.fullmatch(handle.partition("@")[0]):
        scheme, mark, name = "hf", "://", handle
    if mark:
        pull = {"hf": _pull_hugging_face, "kaggle": _pull_kaggle, "modelscope": _pull_modelscope}.get(scheme.lower())
        if pull is None:
            raise SourceError(f"{source} begins with {scheme}://, and hf://, kaggle:// and modelscope:// are known.")
        return pull(name, needed)
    if path.exists():
        raise SourceError(f"{source} is a file. Pass the folder of a preset or repository.")
    raise SourceError(
        f"The folder {source} does not exist, and it is neither a preset that KerasHub publishes nor the name of "
        "something on a hub (hf://user/repo, kaggle://org/model/keras/name, modelscope://user/repo)."
    )


def _pull_hugging_face(name: str, needed: Callable[[Iterable[str]], list[str]]) -> Source:
    """Download from Hugging Face what is needed, and compare every new file with the checksum that the Hub states."""
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import OfflineModeIsEnabled

    repo_id, _, revision = name.partition("@")
    handle = f"hf://{name}"
    with _errors_as_source_errors(handle, "Hugging Face"):
        try:
            info = HfApi().model_info(repo_id, revision=revision or None, files_metadata=True)
        except OfflineModeIsEnabled:
            # Not snapshot_download, for which a snapshot without the files that are not needed is incomplete.
            config = try_to_load_from_cache(repo_id, "config.json", revision=revision or None)
            if not isinstance(config, str):
                raise
            return Source(Path(config).parent, handle, Path(config).parent.name)
        files = {file.rfilename: file for file in info.siblings or ()}
        names = needed(files)
        if not names:
            raise _nothing_there(handle)
        new = [n for n in names if not isinstance(try_to_load_from_cache(repo_id, n, revision=info.sha), str)]
        # By its name, not by its commit, so that the cache knows the name too when there is no network.
        patterns = [_literally(n) for n in names]
        folder = Path(snapshot_download(repo_id, revision=revision or None, allow_patterns=patterns))
        if folder.name != info.sha:
            raise SourceError(f"{handle} was changed while it was downloaded. Run the command again.")
        for file in new:
            _check_content(folder / file, files[file], handle)
    return Source(folder, handle, info.sha)


def _literally(name: str) -> str:
    """Return the pattern that only this name matches."""
    return re.sub(r"([*?\[])", r"[\1]", name)


def _check_content(file: Path, stated: Any, handle: str) -> None:
    """Compare a download with the Hub's checksum, because the client compares only sizes; remove it if it differs."""
    # A file in git is stated by the name of its object, a large one by its SHA-256.
    expected = stated.blob_id if stated.lfs is None else stated.lfs.sha256
    found = git_object_of(file) if stated.lfs is None else sha256_of(file)
    if expected is not None and found != expected:
        file.resolve().unlink()
        file.unlink(missing_ok=True)
        raise SourceError(
            f"{file.name} of {handle} was damaged on its way: expected the checksum {expected}, found {found}. "
            "It was removed from the cache; run the command again."
        )


def _pull_kaggle(name: str, needed: Callable[[Iterable[str]], list[str]]) -> Source:
    handle = f"kaggle://{name}"
    if len(name.split("/")) not in (4, 5):
        raise SourceError(f"{handle} should be kaggle://org/model/keras/name or kaggle://org/model/keras/name/version.")
    with _errors_as_source_errors(handle, "Kaggle"):
        try:
            import kagglehub
        except ImportError as error:
            raise _missing_client(handle, "kagglehub") from error
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


def _pull_modelscope(name: str, needed: Callable[[Iterable[str]], list[str]]) -> Source:
    handle = f"modelscope://{name}"
    with _errors_as_source_errors(handle, "ModelScope"):
        try:
            from modelscope.hub.api import HubApi
            from modelscope.hub.snapshot_download import snapshot_download
        except ImportError as error:
            raise _missing_client(handle, "modelscope") from error
        model_id, _, revision = name.partition("@")
        revision = revision or "master"
        names = needed(file["Path"] for file in HubApi().get_model_files(model_id, revision=revision, recursive=True))
        if not names:
            raise _nothing_there(handle)
        patterns = [_literally(name) for name in names]
        # The client compares every file with the checksum that the hub states.
        folder = Path(snapshot_download(model_id, revision=revision, allow_patterns=patterns))
    return Source(folder, handle, revision)


def _nothing_there(handle: str) -> SourceError:
    return SourceError(f"{handle} has no config.json: it is neither a KerasHub preset nor an ALBERT repository.")


def _missing_client(handle: str, package: str) -> SourceError:
    return SourceError(f"{handle} is downloaded by {package}, which is not installed: pip install {package}")


_LOGINS = {"Hugging Face": "hf auth login", "Kaggle": "kaggle.com", "ModelScope": "modelscope login"}


@contextmanager
def _errors_as_source_errors(handle: str, hub: str) -> Iterator[None]:
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
