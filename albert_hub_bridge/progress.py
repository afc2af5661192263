"""Show what a command is doing, on the standard error."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from albert_hub_bridge.console import err, out
from albert_hub_bridge.verification.progress import STAGES, Stage, StageProgress, ignore_progress


if TYPE_CHECKING:  # rich.progress takes a while to import, and only a terminal shows its bars
    from rich.progress import TaskID

    from albert_hub_bridge.commands.embedding_report import EmbeddingProgress


_STAGES: Mapping[Stage, str] = {
    "reading": "reading both sides",
    "tensors": "comparing tensors",
    "reference": "computing in float64",
    "loading": "loading both libraries",
    "engines": "computing generated inputs",
    "texts": "computing texts",
}


@contextmanager
def progress_bar(hidden: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar, and yield a function that takes the bytes done and the bytes in all."""
    if _is_hidden(hidden):
        yield lambda _done, _total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=err(), transient=True) as bar:
        task = bar.add_task("Converting", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def embedding_bar(hidden: bool) -> Iterator[Callable[[EmbeddingProgress], None]]:
    """Show how far `embed` is, and yield a function that takes that."""
    if _is_hidden(hidden):
        yield lambda _so_far: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err(), transient=True) as bar:
        task = bar.add_task("Loading the model", total=None)

        def show(so_far: EmbeddingProgress) -> None:
            speed = f"{so_far.per_second(so_far.texts):,.0f} texts/s, {so_far.per_second(so_far.tokens):,.0f} tokens/s"
            description = f"{speed}, {so_far.padding:.0%} padding"
            total = 1.0 if so_far.share else None  # nobody knows how long the standard input is
            bar.update(task, description=description, completed=so_far.share, total=total)

        yield show


def _is_hidden(hidden: bool) -> bool:
    return hidden or out().quiet or not err().is_terminal


@contextmanager
def stages_of_verification() -> Iterator[StageProgress]:
    """Show the stages of a verification, and yield a function that takes them.

    A terminal shows a bar with the time left for the stage. Elsewhere each stage is a line on the standard error. What
    other libraries log or warn of meanwhile is not shown: the report has what matters of it.
    """
    with _without_notices_of_libraries():
        if out().quiet:
            yield ignore_progress
        elif err().is_terminal:
            with _bar_of_stages() as progress:
                yield progress
        else:
            yield _print_stage


@contextmanager
def _bar_of_stages() -> Iterator[StageProgress]:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(15), TimeRemainingColumn())
    with Progress(*columns, console=err(), transient=True) as bar:
        shown: dict[Stage, TaskID] = {}

        def show(stage: Stage, done: int, total: int) -> None:
            if stage not in shown:
                for task in shown.values():
                    bar.remove_task(task)
                shown.clear()
                shown[stage] = bar.add_task(_stage_in_words(stage), total=total if total > 1 else None)
            bar.update(shown[stage], completed=done)

        yield show


def _print_stage(stage: Stage, done: int, _total: int) -> None:
    if not done:
        err().print(_stage_in_words(stage))


def _stage_in_words(stage: Stage) -> str:
    return f"{STAGES.index(stage) + 1}/{len(STAGES)} {_STAGES[stage]}"


@contextmanager
def _without_notices_of_libraries() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(max(before, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
