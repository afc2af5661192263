"""Pull from and push to Hugging Face with huggingface_hub."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from albert_hub_bridge.disk.checksums import git_object_of, sha256_of
from albert_hub_bridge.errors import SourceError, TargetError
from albert_hub_bridge.hubs.client_errors import (
    DAMAGED,
    UNREACHABLE,
    ClientErrors,
    as_source_errors,
    describe,
    status_advice,
)
from albert_hub_bridge.hubs.local_source import LocalSource, not_a_checkpoint
from albert_hub_bridge.text import first_few


_MAX_NAMED = 3  # files in the title of a commit


@dataclass(frozen=True, slots=True)
class _Access:
    token: str | bool | None = None  # None: that of the user's login
    max_bytes: int | None = None


_OF_LOGIN = _Access()
_ACCESS: ContextVar[_Access] = ContextVar("access", default=_OF_LOGIN)


@contextmanager
def access_to_hugging_face(token: str | None, max_bytes: int | None = None) -> Iterator[None]:
    """Use another token than that of the user's login, in this thread, until the end of the `with` block.

    Args:
        token: The token; None for none at all.
        max_bytes: The largest number of bytes that a source may have on the Hub; any by default.
    """
    reset = _ACCESS.set(_Access(token or False, max_bytes))
    try:
        yield
    finally:
        _ACCESS.reset(reset)


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(token=_ACCESS.get().token)


# fmt: off
_PUSH_ERRORS = ClientErrors(by_status={
    401: "You are not logged in, or the token has expired: hf auth login.",
    403: "Your token has no write access to the repository.",
    404: "The repository or revision does not exist.",
    409: "Another commit is in progress. Run the command again.",
    412: "The repository received another commit meanwhile. Look at it, then run the command again.",
    429: "The Hub received too many requests. Wait, then run the command again: uploaded files are kept.",
})
# fmt: on


def _pull_errors() -> ClientErrors:
    from huggingface_hub import errors as hub

    # huggingface_hub uses httpx or httpx2, depending on its version. Both have the same exception classes.
    http: Any = sys.modules[hub.HfHubHTTPError.__bases__[0].__module__]
    login = "hf auth login"
    missing = f"The repository does not exist, or it is private and you are not logged in ({login})."
    gated = f"The repository is gated. Accept the terms on its page, and log in ({login})."
    incomplete = (hub.CorruptedCacheException, http.ProtocolError, http.ReadError)
    unreachable = (http.ConnectError, http.ProxyError, http.TimeoutException, ConnectionError, TimeoutError)
    # fmt: off
    return ClientErrors(
        by_class=(
            ((hub.OfflineModeIsEnabled,),    "HF_HUB_OFFLINE is set, and the repository is not in the cache."),
            ((hub.GatedRepoError,),          gated),
            ((hub.RepositoryNotFoundError,), missing),
            ((hub.RevisionNotFoundError,),   "The revision does not exist."),
            ((hub.LocalEntryNotFoundError,), "The repository is not in the cache, and the hub cannot be reached."),
            ((hub.HFValidationError,),       "Use hf://user/repo or hf://user/repo@revision."),
            (incomplete,                     DAMAGED),
            (unreachable,                    UNREACHABLE),
        ),
        by_status=status_advice(login),
    )
    # fmt: on


def pull_from_hugging_face(name: str, needed: Callable[[Iterable[str]], list[str]]) -> LocalSource:
    """Download the needed files of a repository, and compare new files with the checksums of the Hub.

    Args:
        name: `user/repo` or `user/repo@revision`.
        needed: Selects the needed files from the names of all files.

    Raises:
        SourceError: The repository has no needed files, or it could not be downloaded.
    """
    from huggingface_hub import snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import OfflineModeIsEnabled

    repo_id, _, revision = name.partition("@")
    handle = f"hf://{name}"
    with as_source_errors(handle, "Hugging Face", _pull_errors()):
        try:
            info = _api().model_info(repo_id, revision=revision or None, files_metadata=True)
        except OfflineModeIsEnabled:
            # snapshot_download would refuse a snapshot that has only the needed files.
            config = try_to_load_from_cache(repo_id, "config.json", revision=revision or None)
            if not isinstance(config, str):
                raise
            return LocalSource(Path(config).parent, handle, Path(config).parent.name)
        files = {file.rfilename: file for file in info.siblings or ()}
        names = needed(files)
        if not names:
            raise not_a_checkpoint(handle)
        _check_size(handle, sum(files[name].size or 0 for name in names))
        new = [n for n in names if not isinstance(try_to_load_from_cache(repo_id, n, revision=info.sha), str)]
        # With the revision's name instead of the commit, so that the cache knows the name when offline.
        patterns = list(map(escape, names))
        folder = Path(
            snapshot_download(repo_id, revision=revision or None, allow_patterns=patterns, token=_ACCESS.get().token)
        )
        if folder.name != info.sha:
            raise SourceError(f"{handle} changed during the download. Run the command again.")
        for file in new:
            _check_content(folder / file, files[file], handle)
    return LocalSource(folder, handle, info.sha)


def _check_size(handle: str, size: int) -> None:
    max_bytes = _ACCESS.get().max_bytes
    if max_bytes is not None and size > max_bytes:
        raise SourceError(
            f"{handle} has {size / 1e9:,.2f} GB to download, and at most {max_bytes / 1e9:,.2f} GB are downloaded here."
        )


def _check_content(file: Path, metadata: Any, handle: str) -> None:
    """Compare a downloaded file with the Hub's checksum, and delete it if they differ.

    huggingface_hub compares only sizes.
    """
    expected, found = _checksums(metadata, file)
    if expected is not None and found != expected:
        file.resolve().unlink()
        file.unlink(missing_ok=True)
        raise SourceError(
            f"{file.name} of {handle} was damaged during the download: expected the checksum {expected}, found "
            f"{found}. It was removed from the cache. Run the command again."
        )


def _checksums(metadata: Any, content: Path | bytes) -> tuple[str | None, str]:
    """Return the Hub's checksum of a file, and that of a content in the same form.

    Files in git have the checksum of a git blob. Files in LFS have a SHA-256.
    """
    if metadata.lfs is None:
        return metadata.blob_id, git_object_of(content)
    return metadata.lfs.sha256, sha256_of(content)


def list_hugging_face(name: str, revision: str | None) -> list[str]:
    """Return the names of all files of a repository at a commit.

    Raises:
        SourceError: The Hub could not be asked.
    """
    with as_source_errors(f"hf://{name}", "Hugging Face", _pull_errors()):
        return sorted(file.rfilename for file in _api().model_info(name, revision=revision).siblings or ())


def propose_to_hugging_face(
    files: Mapping[str, Path | bytes], name: str, parent: str, revision: str | None, *, message: str
) -> str:
    """Open a pull request with files, unless the branch received a commit after `parent`.

    The Hub itself compares the commits only where it writes to a branch, so this asks for the branch's commit before.

    Args:
        files: The files or their contents, by their names in the repository.
        name: `user/repo`.
        parent: The commit that the files were made for.
        revision: The branch; `main` by default.
        message: The title.

    Returns:
        The URL of the pull request.

    Raises:
        TargetError: The branch has another commit, or the Hub refused the request, or could not be reached.
    """
    from huggingface_hub import CommitOperationAdd

    operations = [CommitOperationAdd(path_in_repo=file, path_or_fileobj=content) for file, content in files.items()]
    with _as_target_errors(f"hf://{name}"):
        latest = _api().model_info(name, revision=revision).sha
    if latest != parent:
        raise TargetError(f"hf://{name} was not changed: it received another commit meanwhile. Run the command again.")
    with _as_target_errors(f"hf://{name}"):
        commit = _api().create_commit(
            name, operations, commit_message=message, revision=revision, create_pr=True, parent_commit=parent
        )
    return commit.pr_url or str(commit.commit_url)


def find_pull_request(name: str, title: str) -> str | None:
    """Return the URL of an open pull request with a title; None if there is none.

    Args:
        name: `user/repo`.
        title: The title.

    Raises:
        TargetError: The Hub could not be asked.
    """
    with _as_target_errors(f"hf://{name}"):
        found = _api().get_repo_discussions(name, discussion_type="pull_request", discussion_status="open")
        return next((str(each.url) for each in found if each.title == title), None)


@contextmanager
def _as_target_errors(handle: str) -> Iterator[None]:
    """Raise a TargetError instead of what huggingface_hub raises for a commit."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise TargetError(f"{handle} was not changed. {_PUSH_ERRORS.advice(error)} ({describe(error)})") from error
    except RuntimeError as error:  # An upload failed before the commit. The cause says why.
        cause = describe(error.__cause__ or error)
        raise TargetError(f"{handle} was not changed. {error} Run the command again. ({cause})") from error
    except Exception as error:  # The connection broke, perhaps after the commit.
        raise TargetError(
            f"The push to {handle} did not finish. Run the command again: it commits only files that are not there "
            f"yet. ({describe(error)})"
        ) from error


def push_to_hugging_face(
    files: Mapping[str, Path | bytes],
    name: str,
    *,
    source: str,
    message: str | None,
    private: bool | None,
    revision: str | None,
    create_pr: bool,
) -> str:
    """Push files in one commit. The commit fails if the branch received another commit meanwhile.

    Args:
        files: The files or their contents, by their names in the repository.
        name: `user/repo`. The repository is created if it does not exist.
        source: Where the files come from, for the commit message.
        message: The commit message. By default it says what the commit changes.
        private: Whether a new repository is private; None for the default of its owner.
        revision: The branch to commit to; `main` by default.
        create_pr: Whether to open a pull request instead.

    Returns:
        The URL of the commit or pull request.

    Raises:
        TargetError: The Hub refused the commit, or could not be reached.
    """
    from huggingface_hub import CommitOperationAdd

    api = _api()
    with _as_target_errors(f"hf://{name}"):
        api.create_repo(name, private=private, exist_ok=True)
        if revision is not None and not create_pr:
            api.create_branch(name, branch=revision, exist_ok=True)
        info = api.model_info(name, revision=revision, files_metadata=True)
        operations = [CommitOperationAdd(path_in_repo=file, path_or_fileobj=content) for file, content in files.items()]
        commit = api.create_commit(
            name,
            operations,
            commit_message=message or _title(files, {file.rfilename: file for file in info.siblings or ()}, source),
            revision=revision,
            create_pr=create_pr,
            parent_commit=info.sha,
        )
    return commit.pr_url or str(commit.commit_url)


@dataclass(frozen=True, slots=True)
class Published:
    """What a repository has of the files that are to be pushed.

    Args:
        user: Whose token it is.
        exists: Whether the repository exists.
        outcomes: Of each file: `new`, `changed` or `unchanged`.
        card: The card that it has; None without one.
    """

    user: str
    exists: bool
    outcomes: Mapping[str, str]
    card: str | None


def compare_with_hugging_face(files: Mapping[str, Path | bytes], name: str, card: str) -> Published:
    """Compare files with those of a repository, before they are pushed.

    Args:
        files: As for `push_to_hugging_face`.
        name: `user/repo`.
        card: The name of the card.

    Raises:
        TargetError: The Hub could not be asked, or does not know the token.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RepositoryNotFoundError

    api = _api()
    with _as_target_errors(f"hf://{name}"):
        user = str(api.whoami()["name"])
        try:
            info = api.model_info(name, files_metadata=True)
        except RepositoryNotFoundError:
            return Published(user, False, dict.fromkeys(files, "new"), None)
        present = {file.rfilename: file for file in info.siblings or ()}
        before = None
        if card in present:
            file = hf_hub_download(name, card, revision=info.sha, token=_ACCESS.get().token)
            before = Path(file).read_text(encoding="utf-8", errors="replace")
    outcomes = {}
    for file_name, content in files.items():
        is_same = file_name in present and len(set(_checksums(present[file_name], content))) == 1
        outcomes[file_name] = "unchanged" if is_same else "changed" if file_name in present else "new"
    return Published(user, True, outcomes, before)


def _title(files: Mapping[str, Path | bytes], present: Mapping[str, Any], source: str) -> str:
    """Return the title of a commit: what it adds to a repository and what it changes."""
    new = [name for name in files if name not in present]
    changed = [name for name in files if name in present and len(set(_checksums(present[name], files[name]))) == 2]
    if not changed:
        return f"Add {'the model' if len(new) == len(files) else first_few(new, _MAX_NAMED)}, converted from {source}"
    return f"Update {first_few(changed, _MAX_NAMED)}" + (f"; add {first_few(new, _MAX_NAMED)}" if new else "")
