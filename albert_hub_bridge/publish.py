"""From a converted folder to a hub: verified, with a card, and nothing but known files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from albert_hub_bridge import bridge
from albert_hub_bridge.errors import ConfigurationError, Problem, TargetError
from albert_hub_bridge.model_card import render_card, written_by_hand
from albert_hub_bridge.provenance import CARD, RECORD, changed_files, read_record, record_bytes
from albert_hub_bridge.reports import Verification
from albert_hub_bridge.stores.folders import replace_file
from albert_hub_bridge.stores.push import push_to_hugging_face, push_to_kaggle
from albert_hub_bridge.verification import verify as verify_folders


def record_verification(folder: Path, report: Verification) -> bool:
    """Write what was measured into a converted folder's record and card.

    Returns:
        Whether it was: a folder without a record, or one that was changed since, is left alone.
    """
    record = read_record(folder)
    if record is None or changed_files(folder, record):
        return False
    measured = report.as_dict()
    record["verification"] = {key: value for key, value in measured.items() if key not in ("source", "target")}
    replace_file(folder / RECORD, record_bytes(record))
    _replace_card(folder, record, folder.resolve().name)
    return True


def card(folder: str | Path) -> Path:
    """Render the card of a converted folder again; what was written into it by hand stays.

    Raises:
        ConfigurationError: The folder has no record of its conversion.
    """
    path = Path(folder)
    _replace_card(path, _record_of(path), path.resolve().name)
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
    scheme, mark, name = target.partition("://")
    if not mark or scheme not in ("hf", "kaggle"):
        raise TargetError(f"{target} should be hf://user/repo or kaggle://user/model/keras/name.")
    record = _record_of(path)
    if changes := changed_files(path, record):
        listed = ", ".join(f"{file} ({change})" for file, change in changes.items())
        raise TargetError(f"{folder} is not what was converted any more: {listed}. Convert it again.")
    if verify and not (record["verification"] or {}).get("passed"):
        why = "did not agree with" if record["verification"] else "was not compared with"
        raise TargetError(
            f"{folder} {why} its source. Run: albert-hub-bridge verify SOURCE {folder}. "
            "To push it all the same, and have the card say so: --no-verify."
        )
    message = message or f"Convert {record['source']['handle']} to the {record['target']['layout']} layout"
    files = [*record["target"]["files"], RECORD, CARD]
    _replace_card(path, record, name)  # it says where to load it from
    if scheme == "kaggle":
        return push_to_kaggle(path, files, name, message=message)
    return push_to_hugging_face(
        path, files, name, message=message, private=private, revision=revision, create_pr=create_pr
    )


def convert_and_push(
    source: str | Path, target: str, *, verify: bool = True, options: dict[str, Any], **push_options: Any
) -> str:
    """Convert, verify and push in one go; nothing stays on this machine but what the hubs' clients keep.

    Args:
        source: As `bridge.convert` takes it.
        target: As `push` takes it.
        verify: Whether to verify.
        options: For `bridge.convert`.
        **push_options: For `push`.

    Raises:
        AlbertHubBridgeError: As `bridge.convert`, `verification.verify` and `push`.
    """
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / target.rpartition("/")[2]
        bridge.convert(source, folder, **options)
        if verify:
            record_verification(folder, verify_folders(source, folder))
        return push(folder, target, verify=verify, **push_options)


def _replace_card(folder: Path, record: dict[str, Any], location: str) -> None:
    replace_file(folder / CARD, render_card(record, location, written_by_hand(folder)).encode())


def _record_of(folder: Path) -> dict[str, Any]:
    record = read_record(folder)
    if record is None:
        problem = Problem("missing", RECORD, "only what `convert` made has one")
        raise ConfigurationError(folder / RECORD, "record", [problem])
    return record
