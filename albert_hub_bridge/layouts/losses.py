"""What reports show of what was not converted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from albert_hub_bridge.checkpoint import DroppedTensor, count_by_reason, is_loss
from albert_hub_bridge.document import Block, escape
from albert_hub_bridge.mapping.configs import NO_LOSS, IgnoredKey
from albert_hub_bridge.text import one_line


def show_losses(
    dropped: Sequence[DroppedTensor], ignored: Iterable[IgnoredKey], notes: Iterable[str]
) -> Iterator[Block]:
    """Yield tensors and settings that were not converted, and notes."""
    if lost := lost_tensors(dropped):
        yield f"[yellow]{len(lost)} tensors were not converted:[/]"
        for tensor in lost:
            yield f"  {escape(one_line(tensor.name, 160))} {tensor.shape}: {escape(tensor.reason)}"
    if unneeded := count_by_reason(tensor.reason for tensor in dropped if not is_loss(tensor.reason)):
        yield f"[dim]Tensors that no model needs: {escape(unneeded)}.[/]"
    if settings := lost_settings(ignored):
        names = ", ".join(settings)
        yield f"[dim]Settings that were not converted (--json shows the reasons): {escape(names)}.[/]"
    yield from show_notes(notes)


def lost_tensors(dropped: Iterable[DroppedTensor]) -> list[DroppedTensor]:
    """Return the tensors whose loss a user should know of."""
    return [tensor for tensor in dropped if is_loss(tensor.reason)]


def lost_settings(ignored: Iterable[IgnoredKey]) -> list[str]:
    """Return the keys whose loss a user should know of."""
    return list(dict.fromkeys(key.key for key in ignored if key.reason not in NO_LOSS))


def is_worth_a_look(dropped: Iterable[DroppedTensor], ignored: Iterable[IgnoredKey], notes: Sequence[str]) -> bool:
    """Return whether a user should know of something that was not converted, or of a note."""
    return bool(lost_tensors(dropped) or lost_settings(ignored) or notes)


def show_notes(notes: Iterable[str]) -> Iterator[Block]:
    """Yield a line for each note."""
    for note in notes:
        yield f"[yellow]Note:[/] {escape(note)}"
