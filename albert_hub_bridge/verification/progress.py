"""The stages of a verification, and how those who wait for it hear of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, TypeVar, get_args


Stage = Literal["reading", "tensors", "reference", "loading", "engines", "texts"]
STAGES: tuple[Stage, ...] = get_args(Stage)

# Takes a stage, the work done in it, and the work in all. It is called when a stage begins, too.
StageProgress = Callable[[Stage, int, int], None]

Item = TypeVar("Item")


def ignore_progress(_stage: Stage, _done: int, _total: int) -> None:
    """Tell nobody."""


def with_progress(
    items: Sequence[Item], stage: Stage, progress: StageProgress, work: Callable[[Item], int] = lambda _item: 1
) -> Iterator[Item]:
    """Yield items, and report the work that is done after each.

    Args:
        items: What the stage works on.
        stage: The stage.
        progress: Is called before the first item, and after each.
        work: Returns the work that an item takes, in any unit.
    """
    total, done = sum(map(work, items)), 0
    progress(stage, 0, total)
    for item in items:
        yield item
        done += work(item)
        progress(stage, done, total)
