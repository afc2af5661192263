"""What a report shows, once: on the terminal, as plain text and in a notebook.

A report gives its content as blocks. A block is a line of text with rich's markup, or facts: texts by their names,
which become two columns. Texts of files and users go through `escape`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from albert_hub_bridge.text import printable


if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.style import Style


Block = str | Mapping[str, str]

# Legible on white and on black: notebooks have both.
_COLORS = {"green": "#2da44e", "red": "#e5534b", "yellow": "#bf8700"}
_CELL = "text-align: left; vertical-align: top; white-space: pre-wrap"


def escape(text: str) -> str:
    """Escape a text of a file or user, so that rich reads no markup in it and it cannot control the terminal."""
    from rich.markup import escape as escape_markup

    return escape_markup(printable(text))


class Document:
    """A report. `print` shows what the command shows, and a notebook shows tables."""

    __slots__ = ()

    def blocks(self) -> Iterator[Block]:
        """Yield what the report shows, from top to bottom."""
        raise NotImplementedError(type(self))

    def as_dict(self) -> dict[str, Any]:
        """Return the report as data for JSON."""
        raise NotImplementedError(type(self))

    @property
    def needs_attention(self) -> bool:
        """Whether something was not converted, or differs, so that `--quiet` prints the report too."""
        return False

    def picture(self) -> tuple[bytes, str] | None:
        """Return a PNG that belongs to the report, and what it shows. None by default."""
        return None

    def __str__(self) -> str:
        """Return what the command prints."""
        from rich.console import Console

        text = io.StringIO()
        console = Console(
            file=text, highlight=False, soft_wrap=True, emoji=False, color_system=None, force_jupyter=False
        )
        for block in self.blocks():
            console.print(as_renderable(block))
        return "\n".join(line.rstrip() for line in text.getvalue().splitlines())

    def _repr_html_(self) -> str:
        """Return the report as HTML, which a notebook shows."""
        import base64
        import html

        parts = [_as_html(block) for block in self.blocks()]
        if (picture := self.picture()) is not None:
            png, shows = picture
            data = base64.b64encode(png).decode("ascii")
            parts.append(f'<img alt="{html.escape(shows)}" src="data:image/png;base64,{data}">')
        return "<div>" + "\n".join(part for part in parts if part) + "</div>"


def as_renderable(block: Block) -> RenderableType:
    """Return a block for the terminal."""
    from rich.table import Table
    from rich.text import Text

    if isinstance(block, str):
        return Text.from_markup(block, emoji=False)
    table = Table.grid(padding=(0, 2))
    for name, value in block.items():
        table.add_row(Text(printable(name), style="dim"), Text.from_markup(value, emoji=False))
    return table


def _as_html(block: Block) -> str:
    import html

    if isinstance(block, str):
        return f'<div style="white-space: pre-wrap">{_line_as_html(block)}</div>'
    rows = [
        f'<tr><th style="{_CELL}">{name}</th><td style="{_CELL}">{value}</td></tr>'
        for name, value in ((html.escape(printable(name)), _line_as_html(value)) for name, value in block.items())
    ]
    return f"<table>{''.join(rows)}</table>" if rows else ""


def _line_as_html(line: str) -> str:
    """Return markup as HTML. Everything that is not markup of ours is escaped."""
    import html

    from rich.console import Console
    from rich.text import Text

    segments = Text.from_markup(line, emoji=False, end="").render(Console(color_system=None), end="")
    parts = []
    for segment in segments:
        text, css = html.escape(segment.text), _css(segment.style)
        parts.append(f'<span style="{css}">{text}</span>' if css else text)
    return "".join(parts)


def _css(style: Style | None) -> str:
    if style is None:
        return ""
    color = _COLORS.get(style.color.name) if style.color is not None else None
    rules = {"color": color, "font-weight": "bold" if style.bold else None, "opacity": "0.7" if style.dim else None}
    return "; ".join(f"{name}: {value}" for name, value in rules.items() if value is not None)
