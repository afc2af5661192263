"""What the page does: each action takes what a visitor typed, and yields what the page shows while it works.

An action yields HTML for people and data for programs, which are None until it has ended.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import gradio as gr

from albert_hub_bridge.errors import AlbertHubBridgeError
from albert_hub_bridge.text import split_names
from albert_hub_bridge.ui import render
from albert_hub_bridge.ui.addresses import name_of_source, parse_repository, parse_source
from albert_hub_bridge.ui.advice import LEAVE_OUT
from albert_hub_bridge.ui.html import join
from albert_hub_bridge.ui.upload import name_of_upload
from albert_hub_bridge.ui.visit import Choices, Visit, VisitError, Visits


Shown = tuple[Any, ...]  # HTML, data, and what some actions change besides
Parameters = ParamSpec("Parameters")

AS_IN_SOURCE = "as in the source"
_INSPECTION = ("pull", "read")  # the stages


def _errors_as_messages(action: Callable[Parameters, Iterator[Shown]]) -> Callable[Parameters, Iterator[Shown]]:
    """Show the message of an error instead of raising it."""

    @wraps(action)
    def guarded(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Iterator[Shown]:
        shown: Shown = ("", None)
        try:
            for shown in action(*args, **kwargs):
                yield shown
        except AlbertHubBridgeError as error:
            yield (render.error(str(error)), {"error": str(error)}, *(gr.skip() for _ in shown[2:]))

    return guarded


class Actions:
    """The actions of the page.

    Args:
        visits: The visits.
        served: The folder with the uploads.
        local_folders: Whether a folder of this machine is a source.
    """

    def __init__(self, visits: Visits, served: Path, *, local_folders: bool = False) -> None:
        self._visits, self._served, self._local_folders = visits, served, local_folders
        self._light, self._heavy = visits.limits.light_seconds, visits.limits.heavy_seconds

    @_errors_as_messages
    def inspect(
        self, source: str, head: str, token: str, request: gr.Request, profile: gr.OAuthToken | None
    ) -> Iterator[Shown]:
        """Inspect a source on a hub, before anything is converted. Without a text, the upload is inspected again."""
        visit = self._visits.of(str(request.session_hash))
        choices = visit.choices
        if source.strip() or not choices.is_upload:
            address = parse_source(source, local_folders=self._local_folders)
            visit.choices = Choices(source=address, name=name_of_source(address))
        yield render.waiting("Inspecting"), None
        yield from self._inspect(visit, head, _token(token, profile))

    @_errors_as_messages
    def inspect_upload(self, upload: str | None, head: str, request: gr.Request) -> Iterator[Shown]:
        """Unpack and inspect an upload. Yields its field too, which becomes empty."""
        visit = self._visits.of(str(request.session_hash))
        if upload is None:
            raise VisitError("Choose a zip archive to upload.")
        visit.choices = Choices()
        yield render.waiting("Unpacking"), None, None
        job = {"job": "unpack", "archive": upload, "name": Path(upload).name}
        try:
            found = yield from _with_skip(self._work(visit, job, self._light, _INSPECTION))
        finally:
            self._remove_upload(Path(upload))
        visit.choices = Choices(source=found["folder"], name=name_of_upload(Path(upload).name), is_upload=True)
        for shown in self._inspect(visit, head, None):
            yield (*shown, gr.skip())

    def _inspect(self, visit: Visit, head: str, token: str | None) -> Iterator[Shown]:
        kind, drop_head = _head(head)
        given = {"source": visit.choices.source, "head": kind, "drop_head": drop_head, "token": token}
        found = yield from self._work(visit, {"job": "inspect", **given}, self._light, _INSPECTION)
        found["source"] = self._label(visit)
        yield render.inspection(found), found

    @_errors_as_messages
    def convert(
        self,
        layout: str,
        dtype: str,
        normalize: str,
        head: str,
        labels: str,
        drop_tokenizer: bool,
        approximate_gelu: bool,
        token: str,
        request: gr.Request,
        profile: gr.OAuthToken | None,
    ) -> Iterator[Shown]:
        """Convert the source that was inspected, and verify the result."""
        visit = self._visits.of(str(request.session_hash))
        choices = visit.choices
        if choices.source is None:
            raise VisitError("Choose a source first: type an address or upload a zip, and inspect it.")
        yield render.waiting("Waiting for the process"), None
        choices.target, choices.planned = None, None
        head_kind, drop_head = _head(head)
        options = {
            "to": layout,
            "dtype": None if dtype == AS_IN_SOURCE else dtype,
            "normalize": normalize,
            "head": head_kind,
            "drop_head": drop_head,
            "drop_tokenizer": drop_tokenizer,
            "allow_approximate_gelu": approximate_gelu,
            "labels": split_names(labels) if labels.strip() else None,
        }
        target = visit.folder / "converted" / f"{choices.name}-{layout.replace('_', '-')}"
        given = {"source": choices.source, "target": str(target), "options": options, "token": _token(token, profile)}
        result = yield from self._work(visit, {"job": "convert", **given}, self._heavy, tuple(render.STAGES))
        result["conversion"]["source"]["source"] = self._label(visit)
        result["conversion"]["target"] = target.name
        result["verification"] |= {"source": self._label(visit), "target": target.name}
        choices.target = target
        data = {name: value for name, value in result.items() if name != "picture"}
        yield render.conversion(result), data

    @_errors_as_messages
    def look(self, texts: str, request: gr.Request) -> Iterator[Shown]:
        """Show what both sides make of texts, one a line."""
        visit, target = self._converted(request)
        lines = [line.strip() for line in texts.splitlines() if line.strip()]
        yield render.waiting("Loading both libraries"), None
        job = {"job": "look", "source": visit.choices.source, "target": str(target), "texts": lines}
        found = yield from self._work(visit, job, self._light, ("read",))
        yield render.looks(found), found

    @_errors_as_messages
    def download(self, request: gr.Request) -> Iterator[Shown]:
        """Pack the converted folder. Yields a button that downloads it too."""
        visit, target = self._converted(request)
        yield render.waiting("Packing"), None, gr.skip()
        file = visit.downloads / f"{target.name}.zip"
        file.unlink(missing_ok=True)
        job = {"job": "pack", "target": str(target), "file": str(file)}
        found = yield from _with_skip(self._work(visit, job, self._light, ("write",)))
        said = f"{file.name} is ready, {found['bytes'] / 1e6:,.1f} MB."
        data = {"name": file.name, "bytes": found["bytes"]}
        yield render.finished(said), data, gr.DownloadButton(f"Download {file.name}", value=str(file), interactive=True)

    @_errors_as_messages
    def plan_push(
        self,
        repository: str,
        unverified: bool,
        token: str,
        request: gr.Request,
        profile: gr.OAuthToken | None,
    ) -> Iterator[Shown]:
        """Show what a push would send."""
        visit, target = self._converted(request)
        address, given = parse_repository(repository), _required(_token(token, profile))
        yield render.waiting("Comparing with the Hub"), None
        job = {"job": "plan_push", "folder": str(target), "target": address, "verify": not unverified, "token": given}
        plan = yield from self._work(visit, job, self._light, ("read",))
        visit.choices.planned = ("push", address, unverified)
        yield render.push_plan(plan), plan

    @_errors_as_messages
    def push(
        self,
        repository: str,
        private: bool,
        create_pr: bool,
        unverified: bool,
        token: str,
        request: gr.Request,
        profile: gr.OAuthToken | None,
    ) -> Iterator[Shown]:
        """Push the converted folder, after a dry run of that."""
        visit, target = self._converted(request)
        address, given = parse_repository(repository), _required(_token(token, profile))
        _check_plan(visit, ("push", address, unverified))
        yield render.waiting("Pushing"), None
        job = {"job": "push", "folder": str(target), "target": address, "verify": not unverified, "token": given}
        found = yield from self._work(
            visit, {**job, "private": private, "create_pr": create_pr}, self._heavy, ("push",)
        )
        visit.choices.planned = None
        yield render.finished(render.link(found["url"], "Pushed: ")), found

    @_errors_as_messages
    def plan_completion(
        self, repository: str, token: str, request: gr.Request, profile: gr.OAuthToken | None
    ) -> Iterator[Shown]:
        """Show what a pull request would add, so that the other library loads a repository too."""
        yield from self._complete(repository, _token(token, profile), request, dry_run=True)

    @_errors_as_messages
    def complete(
        self, repository: str, token: str, request: gr.Request, profile: gr.OAuthToken | None
    ) -> Iterator[Shown]:
        """Open that pull request, after a dry run of it."""
        yield from self._complete(repository, _required(_token(token, profile)), request, dry_run=False)

    def _complete(self, repository: str, token: str | None, request: gr.Request, *, dry_run: bool) -> Iterator[Shown]:
        visit = self._visits.of(str(request.session_hash))
        address = parse_repository(repository or _source_on_hub(visit))
        if not dry_run:
            _check_plan(visit, ("complete", address))
        yield render.waiting("Reading"), None
        job = {"job": "complete", "source": address, "dry_run": dry_run, "token": token}
        report = yield from self._work(visit, job, self._heavy, ("pull", "verify"))
        visit.choices.planned = ("complete", address) if dry_run else None
        shown = render.completion(report)
        if report["url"]:
            shown = join([render.finished(render.link(report["url"], "The pull request is open: ")), shown])
        yield shown, report

    def stop(self, request: gr.Request) -> None:
        """Stop the job of a visitor."""
        self._visits.stop(str(request.session_hash))

    def leave(self, request: gr.Request) -> None:
        """End a visit."""
        self._visits.leave(str(request.session_hash))

    def _work(
        self, visit: Visit, job: Mapping[str, Any], seconds: float, stages: Sequence[str]
    ) -> Generator[Shown, None, dict[str, Any]]:
        """Run a job, yield its progress, and return its result.

        Raises:
            VisitError: The job failed. The message is that of the command.
        """
        started, stage, share = time.monotonic(), stages[0], 0.0
        for said in self._visits.run(visit, dict(job), seconds):
            if "error" in said:
                raise VisitError(said["error"])
            if "result" in said:
                result: dict[str, Any] = said["result"]
                return result
            stage, share = said.get("stage", stage), said.get("share", share)
            yield render.progress(stage, share, time.monotonic() - started, stages), None
        raise VisitError("The process ended without an answer. Try again.")

    def _converted(self, request: gr.Request) -> tuple[Visit, Path]:
        visit = self._visits.of(str(request.session_hash))
        if visit.choices.target is None:
            raise VisitError("Convert a source first.")
        return visit, visit.choices.target

    def _label(self, visit: Visit) -> str:
        """Return the source in words: of an upload its name, because the path is that of this machine."""
        choices = visit.choices
        return f"{choices.name} (uploaded)" if choices.is_upload else str(choices.source)

    def _remove_upload(self, upload: Path) -> None:
        """Remove an upload, which Gradio keeps in a folder of its own."""
        if self._served.resolve() in upload.resolve().parents:
            shutil.rmtree(upload.parent, ignore_errors=True)


def _source_on_hub(visit: Visit) -> str:
    source = visit.choices.source or ""
    return source.partition("@")[0] if source.startswith("hf://") else ""


def _with_skip(work: Generator[Shown, None, dict[str, Any]]) -> Generator[Shown, None, dict[str, Any]]:
    """Add to the progress of a job that a third output stays as it is."""
    while True:
        try:
            shown = next(work)
        except StopIteration as end:
            found: dict[str, Any] = end.value
            return found
        yield (*shown, gr.skip())


def _head(choice: str) -> tuple[str | None, bool]:
    """Return the options `head` and `drop_head` for a choice of the page."""
    if choice == LEAVE_OUT:
        return None, True
    return (None if choice == AS_IN_SOURCE else choice), False


def _token(typed: str, profile: gr.OAuthToken | None) -> str | None:
    """Return the visitor's token: of the login on a Space, or as it was typed."""
    return profile.token if profile is not None else (typed.strip() or None)


def _required(token: str | None) -> str:
    if token is None:
        raise VisitError(
            "This needs your token: log in, or type a token that may write (huggingface.co/settings/tokens)."
        )
    return token


def _check_plan(visit: Visit, planned: tuple[object, ...]) -> None:
    if visit.choices.planned != planned:
        raise VisitError("Do a dry run of this first, and look at it. Nothing was sent.")
