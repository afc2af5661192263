"""What reports show of what was not converted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from albert_hub_bridge.checkpoint import DroppedTensor
from albert_hub_bridge.document import Block, escape
from albert_hub_bridge.mapping.configs import NO_LOSS, IgnoredKey
from albert_hub_bridge.text import one_line


def show_losses(
    dropped: Sequence[DroppedTensor], ignored: Iterable[IgnoredKey], notes: Iterable[str]
) -> Iterator[Block]:
    """Yield tensors and settings that were not converted, and notes."""
    if dropped:
        yield f"[yellow]{len(dropped)} tensors were not converted:[/]"
        for tensor in dropped:
            yield f"  {escape(one_line(tensor.name, 160))} {tensor.shape}: {escape(tensor.reason)}"
    if settings := lost_settings(ignored):
        names = ", ".join(settings)
        yield f"[dim]Settings that were not converted (--json shows the reasons): {escape(names)}.[/]"
    yield from show_notes(notes)


def lost_settings(ignored: Iterable[IgnoredKey]) -> list[str]:
    """Return the keys whose loss a user should know of."""
    return list(dict.fromkeys(key.key for key in ignored if key.reason not in NO_LOSS))


def show_notes(notes: Iterable[str]) -> Iterator[Block]:
    """Yield a line for each note."""
    for note in notes:
        yield f"[yellow]Note:[/] {escape(note)}"
