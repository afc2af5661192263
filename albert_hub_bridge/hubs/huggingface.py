"""Pull from and push to Hugging Face with huggingface_hub."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from albert_hub_bridge.disk.checksums import git_object_of, sha256_of
from albert_hub_bridge.errors import SourceError, TargetError
from albert_hub_bridge.hubs.common import Source, errors_as_source_errors, literal_pattern, nothing_there


def push_to_hugging_face(
    folder: Path,
    files: Sequence[str],
    name: str,
    *,
    message: str,
    private: bool | None,
    revision: str | None,
    create_pr: bool,
) -> str:
    """Push files in one commit, which fails if somebody else committed meanwhile.

    Args:
        folder: Of the files.
        files: Their names, in the folder and in the repository; nothing else leaves the machine.
        name: `user/repo`; it is made where it does not exist.
        message: Of the commit.
        private: Whether a new repository is private; None for the owner's default.
        revision: Branch to commit to; `main` by default.
        create_pr: Whether to open a pull request instead.

    Returns:
        Where to look at it.

    Raises:
        TargetError: The Hub refused, or could not be reached, or somebody else committed meanwhile.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    handle = f"hf://{name}"
    try:
        api.create_repo(name, private=private, exist_ok=True)
        if revision is not None and not create_pr:
            api.create_branch(name, branch=revision, exist_ok=True)
        parent = api.model_info(name, revision=revision).sha
        operations = [CommitOperationAdd(path_in_repo=file, path_or_fileobj=folder / file) for file in files]
        # parent_commit makes a commit that somebody else slipped in an error instead of a loss.
        commit = api.create_commit(
            name, operations, commit_message=message, revision=revision, create_pr=create_pr, parent_commit=parent
        )
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        hints = {
            401: "You are not logged in, or the token is no longer valid: hf auth login.",
            403: "Your token may not write there. Is it your repository, and has the token the right to write?",
            404: "There is no such repository or revision.",
            409: "Somebody else is writing to it. Run the command again.",
            412: "Somebody else committed to it meanwhile. Look at what they did, and run the command again.",
            429: "The Hub wants fewer requests. Wait, and run the command again: what was uploaded is kept.",
        }
        said = " ".join(str(error).split())[:300]
        raise TargetError(f"{handle} was not changed. {hints.get(status or 0, '')} ({said})") from error
    except (OSError, ValueError) as error:
        raise TargetError(f"{handle} was not changed. ({type(error).__name__}: {error})") from error
    except RuntimeError as error:  # before the commit; the client says which file, and its cause says why
        why = " ".join(str(error.__cause__ or "").split())[:300]
        raise TargetError(f"{handle} was not changed. {error} Run the command again. ({why})") from error
    except Exception as error:  # what the client's transport raises, whose names depend on its version
        raise TargetError(
            f"The connection to {handle} broke: {type(error).__name__}: {error}. Run the command again: it commits "
            "only what is not there yet."
        ) from error
    return commit.pr_url or str(commit.commit_url)


def pull_from_hugging_face(name: str, needed: Callable[[Iterable[str]], list[str]]) -> Source:
    """Download from Hugging Face what is needed, and compare every new file with the checksum that the Hub states."""
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
    from huggingface_hub.errors import OfflineModeIsEnabled

    repo_id, _, revision = name.partition("@")
    handle = f"hf://{name}"
    with errors_as_source_errors(handle, "Hugging Face"):
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
            raise nothing_there(handle)
        new = [n for n in names if not isinstance(try_to_load_from_cache(repo_id, n, revision=info.sha), str)]
        # By its name, not by its commit, so that the cache knows the name too when there is no network.
        patterns = [literal_pattern(n) for n in names]
        folder = Path(snapshot_download(repo_id, revision=revision or None, allow_patterns=patterns))
        if folder.name != info.sha:
            raise SourceError(f"{handle} was changed while it was downloaded. Run the command again.")
        for file in new:
            _check_content(folder / file, files[file], handle)
    return Source(folder, handle, info.sha)


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
