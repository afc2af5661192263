"""Merge what users wrote into a model card with a card that is rendered again.

`conversion.json` has the card as it was rendered last. What differs from it in the folder's card is an edit. Edits
stay, and everything else becomes what is rendered now. Both can want to change the same line: that is a conflict, which
the user has to decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import NamedTuple

from albert_hub_bridge.text import one_line


Lines = Sequence[str]

_MAX_LINES = 5_000  # of a card that is merged; comparing takes quadratic time
_MAX_SHOWN = 3  # conflicts in a message
_KEY = re.compile(r"[\w-]+(?=:)")


class Conflict(NamedTuple):
    """Lines that a user edited, and that the new card changes too.

    Args:
        line: Where they are in the edited card, from 1.
        edited: What the user wrote; empty if the lines were deleted.
        rendered: What the new card has there.
    """

    line: int
    edited: Lines
    rendered: Lines


@dataclass(frozen=True, slots=True)
class MergedCard:
    """An edited card and a new one in one.

    Args:
        text: The card.
        conflicts: Where both changed the same lines. The text has the new ones there.
    """

    text: str
    conflicts: list[Conflict] = field(default_factory=list)

    def describe_conflicts(self) -> str:
        """Return the conflicts as lines: what is in the card, and what should be there."""
        shown = [
            f"\n  line {line}\n    has     {_shown(edited)}\n    should be {_shown(rendered)}"
            for line, edited, rendered in self.conflicts[:_MAX_SHOWN]
        ]
        more = len(self.conflicts) - len(shown)
        return "".join(shown) + (f"\n  and {more} more" if more else "")


def _shown(lines: Lines) -> str:
    return one_line(" ".join(line for line in lines if line.strip()), 200)


def lines_of(card: str) -> list[str]:
    """Return the lines of a card."""
    return card.rstrip().split("\n")


def merge_edits(before: Lines, edited: str, rendered: str) -> MergedCard:
    """Merge an edited card with a new one.

    Args:
        before: The lines that were rendered before the user edited them.
        edited: The card with the user's edits.
        rendered: The card as it is rendered now.
    """
    before, mine, new = list(before), lines_of(edited), lines_of(rendered)
    if mine == before or not edited.strip():
        return MergedCard(rendered)
    if not before or max(map(len, (before, mine, new))) > _MAX_LINES:
        return MergedCard(rendered, [] if mine == new else [Conflict(1, mine, new)])
    _keep_title(before, mine, new)
    merged: list[str] = []
    conflicts: list[Conflict] = []
    at = _Run(0, 0, 0, 0)
    for run in _common_runs(before, mine, new):
        parts = before[at.before : run.before], mine[at.mine : run.mine], new[at.new : run.new]
        both = _merge_part(*parts)
        if both is None:
            conflicts.append(_conflict(*parts, first_line=at.mine + 1))
        merged += [*(parts[2] if both is None else both), *before[run.before : run.before + run.length]]
        at = _Run(run.before + run.length, run.mine + run.length, run.new + run.length, 0)
    for line in _second_keys(merged):
        place = mine.index(line) + 1 if line in mine else 1
        conflicts.append(Conflict(place, [line], [f"{line.partition(':')[0]} once: the new card has it too"]))
    return MergedCard("\n".join(merged) + "\n", conflicts)


def _conflict(before: Lines, mine: Lines, new: Lines, first_line: int) -> Conflict:
    """Return the conflict of a part: of what is there, only the lines that the user wrote."""
    own = [index for index, line in enumerate(mine) if line not in before]
    return Conflict(first_line + (own[0] if own else 0), [mine[index] for index in own], new)


class _Run(NamedTuple):
    """Lines that are the same in all three texts: where they begin, and how many they are."""

    before: int
    mine: int
    new: int
    length: int


def _common_runs(before: Lines, mine: Lines, new: Lines) -> Iterator[_Run]:
    """Yield the runs that are in all three, from top to bottom; at last, the end of all."""
    matchers = [SequenceMatcher(None, before, each, autojunk=False) for each in (mine, new)]
    for one in matchers[0].get_matching_blocks():
        for other in matchers[1].get_matching_blocks():
            start, end = max(one.a, other.a), min(one.a + one.size, other.a + other.size)
            if start < end:
                yield _Run(start, one.b + start - one.a, other.b + start - other.a, end - start)
    yield _Run(len(before), len(mine), len(new), 0)


def _merge_part(before: Lines, mine: Lines, new: Lines) -> Lines | None:
    """Merge what is between two runs; None if both sides changed the same lines."""
    if mine in (before, new):
        return new
    if new == before:
        return mine
    # Lines that one side put before or after the lines of the other.
    size = len(before)
    for one, other in ((mine, new), (new, mine)):
        if one[len(one) - size :] == before:
            return [*one[: len(one) - size], *other]
        if one[:size] == before:
            return [*other, *one[size:]]
    return None


def _keep_title(before: list[str], mine: list[str], new: list[str]) -> None:
    """Let a title of the user's own stay: on a hub, the rendered title is another one."""
    title = mine[_title(mine)]
    if title and before[_title(before)] != title:
        before[_title(before)] = new[_title(new)] = title


def _title(lines: Lines) -> slice:
    """Return where the first heading after the metadata is."""
    start = _end_of_metadata(lines)
    index = next((index for index in range(start, len(lines)) if lines[index].startswith("# ")), None)
    return slice(0, 0) if index is None else slice(index, index + 1)


def _end_of_metadata(lines: Lines) -> int:
    if lines[0].rstrip() != "---":
        return 0
    return next((index for index in range(1, len(lines)) if lines[index].rstrip() == "---"), 0)


def _second_keys(lines: Lines) -> Iterator[str]:
    """Yield the lines with a key that the metadata has already, because both sides added it. A hub refuses them."""
    seen: set[str] = set()
    for line in lines[: _end_of_metadata(lines)]:
        if (found := _KEY.match(line)) is None:
            continue
        if found[0] in seen:
            yield line
        seen.add(found[0])
