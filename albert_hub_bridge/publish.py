"""From a converted folder to a hub: verified, with a card, and nothing but known files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from albert_hub_bridge import bridge
from albert_hub_bridge.errors import ConfigurationError, Problem, TargetError
from albert_hub_bridge.model_card import render_card, written_by_hand
from albert_hub_bridge.picture import draw_parity
from albert_hub_bridge.provenance import CARD, PICTURE, RECORD, changed_files, check_files, read_record, record_bytes
from albert_hub_bridge.reports import FilesCheck, Verification
from albert_hub_bridge.stores.checksums import sha256_of
from albert_hub_bridge.stores.files import naming
from albert_hub_bridge.stores.folders import replace_file
from albert_hub_bridge.stores.hub import pull_source
from albert_hub_bridge.stores.layouts import is_known_file
from albert_hub_bridge.stores.push import push_to_hugging_face, push_to_kaggle
from albert_hub_bridge.verification import verify as verify_folders


def record_verification(folder: Path, report: Verification, golden: Mapping[str, Any] | None = None) -> bool:
    """Write what was measured into a converted folder's record and card.

    Args:
        folder: That `convert` made.
        report: What `verify` measured of it.
        golden: Numbers that KerasHub publishes: `source` (where), `token_ids`, the first of `sequence_output` and of
            `pooled_output`, and `max_abs_difference`, how far the folder is from them.

    Returns:
        Whether it was: a folder without a record, or one that was changed since, is left alone.
    """
    record = read_record(folder)
    if record is None or changed_files(folder, record):
        return False
    measured = report.as_dict()
    record["verification"] = {key: value for key, value in measured.items() if key not in ("source", "target")}
    record |= {"golden": golden, "picture": None}
    _write_papers(folder, record, folder.resolve().name)
    return True


def check(source: str | Path) -> FilesCheck:
    """Compare the files of a converted folder with the checksums in its `conversion.json`.

    Args:
        source: That folder, or where it was pushed to; what is checked is downloaded then.

    Raises:
        ConfigurationError: It has no record of its conversion.
        SourceError: It cannot be found.
    """
    folder = pull_source(source, lambda names: [n for n in names if is_known_file(n) or n in (RECORD, PICTURE)]).folder
    report = check_files(folder)
    if report is None:
        raise _no_record(folder)
    return replace(report, folder=str(source))


def _write_papers(folder: Path, record: dict[str, Any], location: str) -> None:
    """Write what says of a folder where it comes from: its record, its card, and the picture where there is one."""
    picture, known = folder / PICTURE, record["picture"]
    if known is None or not picture.is_file() or sha256_of(picture) != known["sha256"]:
        picture.unlink(missing_ok=True)  # of something else
        drawn = draw_parity(record["verification"]) if record["verification"] is not None else None
        record["picture"] = None
        if drawn is not None:
            replace_file(picture, drawn)
            record["picture"] = {"bytes": len(drawn), "sha256": sha256_of(picture)}
    with naming(folder / RECORD):
        before = (folder / RECORD).read_bytes()
    if (content := record_bytes(record)) != before:
        replace_file(folder / RECORD, content)
    try:
        rendered = render_card(record, location, written_by_hand(folder))
    except (KeyError, TypeError, AttributeError, ValueError, TemplateError) as error:
        problem = Problem("wrong", RECORD, f"expected what a card says of a conversion, found {error!r}")
        raise ConfigurationError(folder / RECORD, "record", [problem], "Convert it again.") from error
    replace_file(folder / CARD, rendered.encode())


def card(folder: str | Path) -> Path:
    """Render the card of a converted folder again; what was written into it by hand stays.

    Raises:
        ConfigurationError: The folder has no record of its conversion.
    """
    path = Path(folder)
    _write_papers(path, _record_of(path), path.resolve().name)
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
    _write_papers(path, record, target)  # the card says where to load it from
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
    record = _record_of(path)
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
        source: As `bridge.convert` takes it.
        target: As `push` takes it.
        verify: Whether to verify.
        options: For `bridge.convert`.
        **push_options: For `push`.

    Raises:
        AlbertHubBridgeError: As `bridge.convert`, `verification.verify` and `push`.
    """
    check_address(target)
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / target.rpartition("/")[2]
        bridge.convert(source, folder, **options)
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


def _record_of(folder: Path) -> dict[str, Any]:
    record = read_record(folder)
    if record is None:
        raise _no_record(folder)
    return record


def _no_record(folder: Path) -> ConfigurationError:
    problem = Problem("missing", RECORD, "only what `convert` made has one")
    return ConfigurationError(folder / RECORD, "record", [problem])
