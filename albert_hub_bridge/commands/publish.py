"""The commands `card` and `push`: from a converted folder to a hub."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any

from albert_hub_bridge.commands.record_files import RecordFiles, render_record_files
from albert_hub_bridge.commands.recording import required_record
from albert_hub_bridge.disk.checksums import sha256_of
from albert_hub_bridge.document import Block, Document, escape
from albert_hub_bridge.errors import TargetError
from albert_hub_bridge.hubs.huggingface import compare_with_hugging_face, push_to_hugging_face
from albert_hub_bridge.hubs.kaggle import push_to_kaggle
from albert_hub_bridge.provenance.integrity import changed_files, describe_changes
from albert_hub_bridge.provenance.record import CARD, ConversionRecord


@dataclass(frozen=True, slots=True)
class PushOptions:
    """The options of `push` that say how to push, which documents them."""

    private: bool | None = None
    revision: str | None = None
    create_pr: bool = False
    message: str | None = None

    def check(self, target: str) -> None:
        """Refuse an address that is none of a repository or model on a hub, or whose hub lacks an option.

        Raises:
            TargetError: Of the address or the options.
        """
        scheme, _, name = target.partition("://")
        if scheme == "modelscope":
            raise TargetError(
                f"{target}: models are pulled from ModelScope, and not pushed to it. Push to hf:// or kaggle://."
            )
        if (scheme, name.count("/")) not in (("hf", 1), ("kaggle", 3)):
            raise TargetError(f"{target} should be hf://user/repo or kaggle://user/model/keras/name.")
        if scheme == "kaggle" and (self.revision is not None or self.create_pr):
            raise TargetError(
                "Kaggle has neither branches nor pull requests, and numbers the versions itself. Leave out --revision "
                "(revision=...) and --create-pr (create_pr=True)."
            )

    def check_unused(self, target: str) -> None:
        """Refuse the options for a target that is a folder.

        Raises:
            TargetError: There are some.
        """
        if self != PushOptions():
            raise TargetError(
                f"--private, --revision, --create-pr and --message are for a target on a hub, such as hf://user/repo. "
                f"{target} is a folder. Leave them out here, and pass them to push."
            )


def card(folder: str | Path) -> Path:
    """Render the model card of a converted folder again. What a user wrote into it stays.

    Returns:
        The card's file.

    Raises:
        SourceError: The folder does not exist, or has no record of its conversion.
        ConfigurationError: The record is wrong.
        TargetError: A user edited lines that the new card changes too. Nothing was changed.
    """
    path = Path(folder)
    record = required_record(path)
    rendered = render_record_files(path, record, path.resolve().name)
    rendered.check_card()
    rendered.write()
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
    """Push a converted folder, in one commit. Only its converted files, its record, card and picture are sent.

    The pushed card says how to load the model from there, and has what you wrote into it. The folder is not changed.

    Args:
        folder: Made by `convert`, and compared with its source by `verify`.
        target: `hf://user/repo`, or `kaggle://user/model/keras/name`.
        verify: Whether to refuse a folder that has not passed `verify`. Its card shows the result, or "not measured".
        private: Whether a new repository is private; the hub's default otherwise.
        revision: Branch to commit to.
        create_pr: Whether to open a pull request instead.
        message: Of the commit. By default it says what the commit changes.

    Returns:
        The address of the pushed repository or model.

    Raises:
        SourceError: The folder does not exist, or has no record of its conversion.
        ConfigurationError: The record is wrong.
        TargetError: The folder was changed since its conversion, or is not verified; or its card was edited where the
            pushed one differs; or the hub lacks an option, or refused the folder.
    """
    return push_with(PushOptions(private, revision, create_pr, message), folder, target, verify=verify)


def push_with(options: PushOptions, folder: str | Path, target: str, *, verify: bool = True) -> str:
    """Push with all options in one object. `push` documents the rest."""
    options.check(target)
    path = Path(folder)
    record = check_before_push(path, verify=verify)
    scheme, _, name = target.partition("://")
    rendered = render_record_files(path, record, target)  # the card shows how to load it from there
    rendered.check_card()
    files = _files_to_push(path, rendered)
    if scheme == "kaggle":
        license_id = record.metadata.license or (record.published or {}).get("license")
        license_name = "Apache 2.0" if license_id == "apache-2.0" else None  # Kaggle has names of its own
        message = options.message or f"Converted from {record.source.handle}"
        return push_to_kaggle(files, name, message=message, license_name=license_name)
    return push_to_hugging_face(
        files,
        name,
        source=record.source.handle,
        message=options.message,
        private=options.private,
        revision=options.revision,
        create_pr=options.create_pr,
    )


def _files_to_push(path: Path, rendered: RecordFiles) -> dict[str, Path | bytes]:
    return {**{file: path / file for file in rendered.record.files_to_push}, **rendered.contents}


@dataclass(frozen=True, slots=True)
class PushPlan(Document):
    """What `push` would do.

    Args:
        target: `hf://user/repo`.
        user: Whose token it is.
        exists: Whether the repository exists.
        files: The outcome (`new`, `changed` or `unchanged`), the size and the SHA-256 of each file, by name.
        card_diff: What becomes of the repository's card, as a unified diff.
    """

    target: str
    user: str
    exists: bool
    files: Mapping[str, Mapping[str, Any]]
    card_diff: str

    def blocks(self) -> Iterator[Block]:
        """Yield what the report shows."""
        yield f"[bold]{escape(self.target)}[/] {'exists' if self.exists else 'is made'}; pushed as {escape(self.user)}"
        yield {escape(name): f"{file['outcome']}, {file['bytes']:,} bytes" for name, file in self.files.items()}
        yield escape(self.card_diff)

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as data for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def plan_push(folder: str | Path, target: str, *, verify: bool = True) -> PushPlan:
    """Return what `push` would do with a converted folder, and change nothing.

    Args:
        folder: As for `push`.
        target: `hf://user/repo`.
        verify: As for `push`.

    Raises:
        SourceError, ConfigurationError, TargetError: As `push`; or the target is on another hub.
    """
    if not target.startswith("hf://"):
        raise TargetError(f"{target} should be hf://user/repo.")
    PushOptions().check(target)
    path = Path(folder)
    record = check_before_push(path, verify=verify)
    rendered = render_record_files(path, record, target)
    rendered.check_card()
    files = _files_to_push(path, rendered)
    published = compare_with_hugging_face(files, target.partition("://")[2], CARD)
    listed = {
        name: {
            "outcome": published.outcomes[name],
            "bytes": len(content) if isinstance(content, bytes) else content.stat().st_size,
            "sha256": sha256_of(content),
        }
        for name, content in sorted(files.items())
    }
    card = rendered.contents.get(CARD, b"").decode()
    old = "/dev/null" if published.card is None else f"a/{CARD}"
    diff = unified_diff((published.card or "").splitlines(), card.splitlines(), old, f"b/{CARD}", lineterm="")
    return PushPlan(target, published.user, published.exists, listed, "\n".join(diff))


def check_before_push(path: Path, *, verify: bool = True) -> ConversionRecord:
    """Return the record of a folder that may be pushed.

    Args:
        path: The folder.
        verify: As for `push`.

    Raises:
        SourceError, ConfigurationError, TargetError: As `push`, except for the address and for errors of the hub.
    """
    record = required_record(path)
    folder = shlex.quote(str(path))
    compare = f"albert-hub-bridge verify {shlex.quote(record.source.handle)} {folder}"
    if changes := changed_files(path, record):
        raise TargetError(
            f"{path} was changed since its conversion: {describe_changes(changes)}. Convert it again. If you meant the "
            f"changes, run: {compare} --accept-changes"
        )
    if verify and not (record.verification or {}).get("passed"):
        result = "differs from its source" if record.verification else "was not compared with its source"
        raise TargetError(
            f"{path} {result}. Run: {compare}, or in Python "
            f"verify(source, target, record=True). To push it anyway, pass --no-verify (verify=False). Its card shows "
            "what was measured."
        )
    return record
