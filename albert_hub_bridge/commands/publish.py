"""From a converted folder to a hub: verified, with a card, and nothing but known files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albert_hub_bridge.commands import convert as albert_hub
from albert_hub_bridge.commands.recording import record_of, record_verification, write_record_files
from albert_hub_bridge.errors import TargetError
from albert_hub_bridge.hubs.huggingface import push_to_hugging_face
from albert_hub_bridge.hubs.kaggle import push_to_kaggle
from albert_hub_bridge.provenance.integrity import changed_files
from albert_hub_bridge.provenance.record import CARD, PICTURE, RECORD
from albert_hub_bridge.verification.run import verify as verify_folders


def card(folder: str | Path) -> Path:
    """Render the card of a converted folder again; what was written into it by hand stays.

    Raises:
        ConfigurationError: The folder has no record of its conversion.
    """
    path = Path(folder)
    write_record_files(path, record_of(path), path.resolve().name)
    return path / CARD


def push(
    folder: str | Path,
    target: str,
    *,
    verify: bool = True,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    message: str | None = None,
) -> str:
    """Push a converted folder, in one commit.

    Args:
        folder: That `convert` made, and `verify` compared with its source.
        target: `hf://user/repo`, or `kaggle://user/model/keras/name`.
        verify: Whether to refuse what `verify` has not passed; the card says "not measured" otherwise.
        private: Whether a new repository is private; the hub's default otherwise.
        revision: Branch to commit to.
        create_pr: Whether to open a pull request instead.
        message: Of the commit.

    Returns:
        Where to look at it.

    Raises:
        ConfigurationError: The folder has no record of its conversion.
        TargetError: The folder was changed since it was made, or is not verified, or the hub refused.
    """
    path = Path(folder)
    record = check_before_push(path, target, verify=verify)
    scheme, _, name = target.partition("://")
    message = message or f"Convert {record['source']['handle']} to the {record['target']['layout']} layout"
    write_record_files(path, record, target)  # the card says where to load it from
    files = files_to_push(record)
    if scheme == "kaggle":
        license_name = "Apache 2.0" if record["published"] is not None else None
        return push_to_kaggle(path, files, name, message=message, license_name=license_name)
    return push_to_hugging_face(
        path, files, name, message=message, private=private, revision=revision, create_pr=create_pr
    )


def files_to_push(record: Mapping[str, Any]) -> list[str]:
    """Name the files that `push` sends of a folder with that record; nothing else leaves the machine."""
    return [*record["target"]["files"], RECORD, CARD, *([PICTURE] if record["picture"] is not None else [])]


def check_address(target: str) -> None:
    """Refuse what is not the address of a repository or model on a hub.

    Raises:
        TargetError: It is not.
    """
    scheme, _, name = target.partition("://")
    if (scheme, name.count("/")) not in (("hf", 1), ("kaggle", 3)):
        raise TargetError(f"{target} should be hf://user/repo or kaggle://user/model/keras/name.")


def check_before_push(path: Path, target: str, *, verify: bool = True) -> dict[str, Any]:
    """Refuse what `push` must not send, and return the record of what it may.

    Raises:
        ConfigurationError, TargetError: As `push`, but for what the hub says.
    """
    check_address(target)
    record = record_of(path)
    if changes := changed_files(path, record):
        listed = ", ".join(f"{file} ({change})" for file, change in changes.items())
        raise TargetError(f"{path} is not what was converted any more: {listed}. Convert it again.")
    if verify and not (record["verification"] or {}).get("passed"):
        why = "did not agree with" if record["verification"] else "was not compared with"
        raise TargetError(
            f"{path} {why} its source. Run: albert-hub-bridge verify SOURCE {path}. "
            "To push it all the same, and have the card say so: --no-verify."
        )
    return record


def convert_and_push(
    source: str | Path, target: str, *, verify: bool = True, options: dict[str, Any], **push_options: Any
) -> str:
    """Convert, verify and push in one go; nothing stays on this machine but what the hubs' clients keep.

    Args:
        source: As `albert_hub.convert` takes it.
        target: As `push` takes it.
        verify: Whether to verify.
        options: For `albert_hub.convert`.
        **push_options: For `push`.

    Raises:
        AlbertHubBridgeError: As `albert_hub.convert`, `verification.verify` and `push`.
    """
    check_address(target)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / target.rpartition("/")[2]
        albert_hub.convert(source, folder, **options)
        if verify:
            report = verify_folders(source, folder, allow_pickle=options.get("allow_pickle", False))
            record_verification(folder, report)
            if not report.passed:
                raise TargetError(
                    f"Nothing was pushed: what {source} becomes does not agree with it. Convert it to a folder, and "
                    f"see how: albert-hub-bridge verify {source} FOLDER. If it is what you asked for, push that folder "
                    "with --no-verify; its card says what was measured."
                )
        return push(folder, target, verify=verify, **push_options)
