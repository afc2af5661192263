"""Folders to hubs, by the hubs' own clients: one commit, or one version, or nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from albert_hub_bridge.errors import TargetError
from albert_hub_bridge.stores.hub import kagglehub_on_stderr


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
