"""A real browser, for the tests and the screenshots of the docs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

FRAMES = """async () => {
  for (let i = 0; i < 10; i++) await new Promise(requestAnimationFrame)
}"""


def find_browser() -> str | None:
    """Return the path of a browser of the system; None if there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


@contextmanager
def open_browser() -> Iterator[Any]:
    """Start a browser, and yield it as Playwright has it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def open_page(browser: Any, url: str, *, width: int = 1100, height: int = 900, scheme: str = "light") -> Iterator[Any]:
    """Open the page as a new visitor. What it requests of other hosts, and its errors, fail the test.

    Args:
        browser: Of `open_browser`.
        url: Of the page.
        width: Of the window, in pixels.
        height: Of the window, in pixels.
        scheme: `light` or `dark`, as the visitor's system prefers.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    abroad: list[str] = []
    errors: list[str] = []

    def note(request: Any) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            abroad.append(request.url)

    page.on("request", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        page.goto(url)
        page.wait_for_selector("#inspect")
        yield page
        assert not abroad, f"the page loads from other hosts: {abroad}"
        assert not errors, errors
    finally:
        context.close()


def fill(page: Any, label: str, text: str, *, by_keyboard: bool = False) -> None:
    """Fill a field, until it keeps the text.

    Gradio empties the fields of a page, a tab or an accordion once more shortly after it has drawn them. The wait is
    counted in frames of the page, so a busy machine makes it longer.
    """
    field = page.get_by_label(label)
    for _ in range(50):
        if by_keyboard:
            field.focus()
            page.keyboard.press("Control+A")
            page.keyboard.type(text)
        else:
            field.fill(text)
        page.evaluate(FRAMES)
        if field.input_value() == text:
            return
    raise AssertionError(f"{label} does not keep its text: {field.input_value()!r}")


def inspect(page: Any, source: str) -> None:
    fill(page, "Repository, Kaggle handle or preset", source)
    page.get_by_role("button", name="Inspect").click()
    page.wait_for_selector("#inspection h3, #inspection .ahb-error")


def choose(page: Any, dropdown: str, option: str) -> None:
    page.locator(f"#{dropdown} input").click()
    page.get_by_role("option", name=option).click()


def convert(page: Any) -> None:
    page.get_by_role("button", name="Convert", exact=True).click()
    page.wait_for_selector("#conversion h3, #conversion .ahb-error")
