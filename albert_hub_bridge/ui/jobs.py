"""The jobs of a visit: what the process of a visit does, and how it is asked.

`python -m albert_hub_bridge.ui.jobs` reads one job a line from the standard input, as JSON. It writes JSON lines:
`{"stage": ...}` while it works, and `{"result": ...}` or `{"error": ...}` at the end. A token comes with the job that
needs it, and is kept nowhere. The page ends the process when the visit ends, or when a job takes too much.
"""

from __future__ import annotations

import base64
import json
import os
import resource
import shutil
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from albert_hub_bridge.commands.complete import complete
from albert_hub_bridge.commands.convert import convert_with
from albert_hub_bridge.commands.inspect import inspect
from albert_hub_bridge.commands.options import ConvertOptions
from albert_hub_bridge.commands.publish import plan_push, push
from albert_hub_bridge.commands.reports import Conversion, Inspection
from albert_hub_bridge.commands.verify import verify_and_record
from albert_hub_bridge.errors import AlbertHubBridgeError
from albert_hub_bridge.hubs.huggingface import access_to_hugging_face, list_hugging_face
from albert_hub_bridge.layouts.losses import lost_tensors
from albert_hub_bridge.layouts.registry import needed_files, pull
from albert_hub_bridge.mapping.configs import NO_LOSS
from albert_hub_bridge.ui.advice import for_visitors
from albert_hub_bridge.ui.limits import Limits
from albert_hub_bridge.ui.upload import name_of_upload, unpack
from albert_hub_bridge.verification.progress import STAGES as STAGES_OF_VERIFICATION
from albert_hub_bridge.verification.progress import Stage
from albert_hub_bridge.verification.side_by_side import OpenedSides


_SECONDS_BETWEEN = 0.2  # two lines on one stage


class Jobs:
    """The jobs of one visit.

    Args:
        folder: Of the visit. Nothing is written anywhere else.
        limits: Of the visit.
        say: Takes what a stage has done.
    """

    def __init__(self, folder: Path, limits: Limits, say: Callable[[Mapping[str, Any]], None]) -> None:
        self._folder, self._limits, self._say = folder, limits, say
        self._opened: tuple[tuple[Path, Path], OpenedSides] | None = None
        self._last = ("", 0.0)

    def unpack(self, archive: str, name: str) -> dict[str, Any]:
        """Unpack an upload, and return the folder of the model in it."""
        self._stage("read", 0, 1)
        folder = self._folder / "upload" / name_of_upload(name)
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            return {"folder": str(unpack(Path(archive), folder, self._limits))}
        except Exception:
            shutil.rmtree(folder.parent, ignore_errors=True)
            raise

    def inspect(self, source: str, head: str | None, drop_head: bool) -> dict[str, Any]:
        """Describe a source."""
        self._stage("pull", 0, 1)
        pull(source)
        self._stage("read", 0, 1)
        report = inspect(source, head=head, drop_head=drop_head)  # type: ignore[arg-type]
        settings = report.architecture.keras_arguments | report.architecture.differences_from_keras
        return {**_shown(report), "settings": settings, "not_downloaded": _not_downloaded(source)}

    def convert(self, source: str, target: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Convert a source, and verify the result."""
        chosen = ConvertOptions(**options)
        folder = Path(target)
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.parent.mkdir(parents=True)
        self._opened = None
        self._stage("pull", 0, 1)
        pull(source)
        self._stage("read", 0, 1)
        conversion = convert_with(
            chosen, source, folder, progress=lambda done, total: self._stage("write", done, total)
        )
        self._stage("verify", 0, len(STAGES_OF_VERIFICATION))
        verification, recorded = verify_and_record(source, folder, progress=self._stage_of_verification)
        picture = verification.picture()
        different = None
        if (first := verification.first_difference) is not None:
            with suppress(AlbertHubBridgeError):
                different = self._sides(source, folder).look([first["text"]]).as_dict()
        return {
            "conversion": {**_shown(conversion), "source": _shown(conversion.source)},
            "verification": verification.as_dict(),
            "recorded": recorded,
            "picture": base64.b64encode(picture[0]).decode() if picture is not None else None,
            "different": different,
            "files": {file: (folder / file).stat().st_size for file in _names(folder)},
        }

    def look(self, source: str, target: str, texts: list[str]) -> dict[str, Any]:
        """Return what both sides make of texts."""
        self._stage("read", 0, 1)
        try:
            return self._sides(source, Path(target)).look(texts).as_dict()
        except ValueError as error:
            raise AlbertHubBridgeError(str(error)) from error

    def pack(self, target: str, file: str) -> dict[str, Any]:
        """Pack the converted folder into a zip archive, in the folder of its name."""
        folder, archive = Path(target), Path(file)
        with zipfile.ZipFile(archive, "w") as packed:
            for name in _names(folder):
                self._stage("write", 0, 1)
                packed.write(folder / name, f"{folder.name}/{name}")
        return {"file": str(archive), "bytes": archive.stat().st_size}

    def plan_push(self, folder: str, target: str, verify: bool) -> dict[str, Any]:
        """Return what a push would do."""
        return plan_push(folder, target, verify=verify).as_dict()

    def push(self, folder: str, target: str, verify: bool, private: bool, create_pr: bool) -> dict[str, Any]:
        """Push a converted folder."""
        self._stage("push", 0, 1)
        return {"url": push(folder, target, verify=verify, private=private or None, create_pr=create_pr)}

    def complete(self, source: str, dry_run: bool) -> dict[str, Any]:
        """Complete a repository by a pull request."""
        self._stage("pull", 0, 1)
        return complete(source, dry_run=dry_run, progress=self._stage_of_verification).as_dict()

    def _sides(self, source: str, target: Path) -> OpenedSides:
        """Return both sides, loaded. They stay loaded for the next text."""
        key = pull(source).folder, target
        if self._opened is None or self._opened[0] != key:
            self._opened = None
            self._opened = key, OpenedSides(*key)
        return self._opened[1]

    def _stage_of_verification(self, stage: Stage, done: int, total: int) -> None:
        finished = STAGES_OF_VERIFICATION.index(stage)
        self._stage("verify", finished + done / max(total, 1), len(STAGES_OF_VERIFICATION))

    def _stage(self, stage: str, done: float, total: float) -> None:
        last, when = self._last
        if stage != last or time.monotonic() - when > _SECONDS_BETWEEN:
            self._last = stage, time.monotonic()
            self._say({"stage": stage, "share": min(done / total, 1.0) if total else 0.0})


def _shown(report: Inspection | Conversion) -> dict[str, Any]:
    """Return a report as data, with those losses that people want to know."""
    settings = {each.key: asdict(each) for each in report.ignored if each.reason not in NO_LOSS}
    tensors = [asdict(each) for each in lost_tensors(report.dropped)]
    return {**report.as_dict(), "dropped": tensors, "ignored": list(settings.values())}


def _not_downloaded(source: str) -> list[str]:
    """Return the files of a repository on Hugging Face that no layout has."""
    if not source.startswith("hf://"):
        return []
    name, _, revision = source.removeprefix("hf://").partition("@")
    names = list_hugging_face(name, revision or None)
    return sorted(set(names) - set(needed_files(names)) - {".gitattributes"})


def _names(folder: Path) -> list[str]:
    """Return the files of a converted folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def without_folder(text: str, folder: Path) -> str:
    """Return a message without the path of the visit's folder, which is nobody's business."""
    for path in (folder.resolve(), folder):
        text = text.replace(f"{path}/", "")
    return text


def run(jobs: Jobs, line: str, folder: Path, limits: Limits) -> dict[str, Any]:
    """Run one job, and return what is said at its end."""
    asked = json.loads(line)
    token = asked.pop("token", None)
    try:
        with access_to_hugging_face(token, limits.unpacked_bytes):
            return {"result": getattr(jobs, asked.pop("job"))(**asked)}
    except (AlbertHubBridgeError, OSError, ValueError) as error:
        message = str(error)
    except MemoryError:
        message = "The machine of this page has not enough memory for this model. Convert it on your own machine."
    except Exception as error:  # a fault of this package: the page says so, and its log says where
        places = "".join(traceback.format_tb(error.__traceback__))  # without values
        return {"error": f"This page failed ({type(error).__name__}). Please report it.", "unexpected": places}
    message = message if token is None else message.replace(token, "***")
    return {"error": for_visitors(without_folder(message, folder))}


def main() -> None:
    """Answer jobs until the standard input ends."""
    with open(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # what libraries print is no answer
        _serve(sys.stdin, answers)


def _serve(questions: IO[str], answers: IO[str]) -> None:
    def say(content: Mapping[str, Any]) -> None:
        answers.write(json.dumps(content, default=str) + "\n")
        answers.flush()

    settings = json.loads(questions.readline())
    folder, limits = Path(settings["folder"]), Limits(**settings["limits"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.visit_bytes, limits.visit_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # if the memory of the machine is full, this process is ended, and not the page
        Path("/proc/self/oom_score_adj").write_text("900")
    jobs = Jobs(folder, limits, say)
    for line in questions:
        say(run(jobs, line, folder, limits))


def settings_line(folder: Path, limits: Limits) -> str:
    """Return the first line that the process reads."""
    return json.dumps({"folder": str(folder), "limits": asdict(limits)}) + "\n"


if __name__ == "__main__":
    main()
