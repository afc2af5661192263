"""Read what a report shows in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser


class HtmlReport(HTMLParser):
    """The rows of tables, the lines outside of them, and the pictures. Tags that reports do not have are refused."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: dict[str, str] = {}
        self.lines: list[str] = []
        self.pictures: list[str] = []
        self._name = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        assert tag in {"div", "table", "tr", "th", "td", "span", "img"}
        if tag == "img":
            self.pictures.append(str(dict(attrs)["src"]))
            return
        self.open.append(tag)
        if tag == "div":
            self.lines.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "th" in self.open:
            self._name = data
            self.rows[data] = ""
        elif "td" in self.open:
            self.rows[self._name] += data
        elif data.strip():
            self.lines[-1] += data
