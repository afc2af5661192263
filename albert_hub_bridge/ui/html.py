"""Small pieces of HTML. Every text is escaped here, and nowhere else."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

from albert_hub_bridge.text import printable


_OUTCOMES = {
    "passed": ("✓", "good"),
    "failed": ("✗", "bad"),
    "not measured": ("–", "neutral"),
    "same ids": ("✓", "good"),
    "other ids": ("≠", "neutral"),
}


class Html(str):
    """A text that is HTML already."""

    __slots__ = ()


def text(content: object) -> Html:
    """Return a text of a file or a visitor as HTML."""
    return content if isinstance(content, Html) else Html(html.escape(printable(str(content))))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """Return an element. `class_` is the attribute `class`, and `aria_label` is `aria-label`."""
    listed = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(printable(str(value)))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{listed}>{''.join(map(text, children))}</{name}>")


def join(parts: Iterable[object]) -> Html:
    """Return elements one after the other."""
    return Html("".join(map(text, parts)))


def facts(rows: Mapping[str, object], caption: str) -> Html:
    """Return names and values as a table of two columns."""
    body = [tag("tr", tag("th", name, scope="row"), tag("td", value)) for name, value in rows.items()]
    return scrolling(
        tag("table", tag("caption", caption, class_="ahb-hidden"), tag("tbody", *body), class_="ahb-facts")
    )


def table(caption: object, head: Sequence[object], rows: Iterable[Sequence[object]], class_: str = "") -> Html:
    """Return a table. The first cell of each row names the row."""
    columns = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = [
        tag("tr", tag("th", first, scope="row"), *(cell if _is_cell(cell) else tag("td", cell) for cell in rest))
        for first, *rest in rows
    ]
    return scrolling(tag("table", tag("caption", caption), tag("thead", columns), tag("tbody", *body), class_=class_))


def _is_cell(cell: object) -> bool:
    return isinstance(cell, Html) and cell.startswith("<td")


def scrolling(content: Html) -> Html:
    """Return wide content that scrolls in its own box, by keyboard too, so that a phone shows the page as a whole."""
    return tag("div", content, class_="ahb-scroll", tabindex="0", role="group", aria_label="scrolls sideways")


def details(title: object, *children: object, is_open: bool = False) -> Html:
    """Return content that can be opened."""
    return tag("details", tag("summary", title), *children, **({"open": "open"} if is_open else {}))


def badge(outcome: str) -> Html:
    """Return an outcome in words, with a mark and a colour."""
    mark, kind = _OUTCOMES[outcome]
    return tag("span", tag("span", mark, aria_hidden="true"), f" {outcome}", class_=f"ahb-badge ahb-{kind}")


def notes(items: Iterable[object], title: str) -> Html:
    """Return notes as a list; nothing if there are none."""
    listed = [tag("li", item) for item in items]
    return join([tag("h4", title), tag("ul", *listed)] if listed else [])


def diff(lines: str) -> Html:
    """Return a unified diff. Added and removed lines begin with + and -, and have colours too."""
    kinds = {"+": "ahb-added", "-": "ahb-removed", "@": "ahb-place"}
    shown = [tag("span", line + "\n", class_=kinds.get(line[:1], "ahb-same")) for line in lines.splitlines()]
    return tag("pre", *shown, class_="ahb-diff", tabindex="0", role="group", aria_label="changes, line by line")
