"""The whole way in a real browser, with a mouse and by keyboard."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from albert_hub_bridge import verify
from tests.ui import browser as browsing
from tests.ui.conftest import CARD, RunningPage, wait_until
from tests.ui.test_upload import add_link, claim_three_gigabytes


pytest.importorskip("playwright", reason="Playwright is not installed")
if browsing.find_browser() is None:
    pytest.skip(f"none of {', '.join(browsing.PROGRAMS)} is installed", allow_module_level=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with browsing.open_browser() as opened:
        yield opened


@pytest.fixture(autouse=True)
def nothing_stays(page: RunningPage) -> Iterator[None]:
    yield
    wait_until(lambda: not page.visits() and not page.workers(), "the end of the visits")


def _click(tab: Any, name: str) -> None:
    tab.get_by_role("button", name=name, exact=True).click()


def test_whole_way(page: RunningPage, browser: Any, tmp_path: Path) -> None:
    hub = page.hub
    hub.add_repo("user/incomplete", hub.files("user/preset"))
    with browsing.open_page(browser, page.url) as tab:
        _inspect_and_convert(tab)
        _look(tab)
        _download(tab, tmp_path)
        assert verify(page.models / "preset", tmp_path / "incomplete-transformers").passed
        tab.get_by_role("button", name="Options for private or unusual models").click()
        browsing.fill(tab, "Your token for Hugging Face", hub.token)
        _push(tab)
        assert "model.safetensors" in hub.files("user/from-the-browser")
        tab.get_by_role("tab", name="Complete by a pull request").click()
        tab.locator("#plan-complete").click()
        tab.locator("#completed").get_by_text("would load with transformers too").wait_for()
        assert "refs/pr/1" not in hub.repos["user/incomplete"].refs
        tab.locator("#complete-now").click()
        tab.locator("#completed").get_by_role("link").wait_for()
        assert "model.safetensors" in hub.files("user/incomplete", "refs/pr/1")
        assert hub.files("user/incomplete")["README.md"].decode() == CARD
        kept = tab.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert hub.token not in kept


def _inspect_and_convert(tab: Any) -> None:
    browsing.inspect(tab, "user/incomplete")
    found = tab.locator("#inspection").inner_text()
    assert "a KerasHub preset" in found
    assert "43,264" in found
    assert "train.py" in found, "what is not converted"
    browsing.choose(tab, "normalize", "uncased")
    _click(tab, "Convert")
    tab.wait_for_selector("#conversion .ahb-stages li[aria-current=step]")
    tab.wait_for_selector("#conversion h3")
    shown = tab.locator("#conversion")
    assert "Source and target differ." in shown.inner_text()
    assert shown.locator(".ahb-tokens .ahb-differs").count() > 0, "the first text whose ids differ, piece by piece"
    assert shown.locator("img").get_attribute("alt").startswith("Curve of the largest relative difference")
    browsing.choose(tab, "normalize", "keep")
    _click(tab, "Convert")
    tab.get_by_text("Source and target match.").wait_for()
    outcomes = shown.locator(".ahb-checks tbody tr").all_inner_texts()
    assert len(outcomes) == 5
    assert all("passed" in row for row in outcomes)


def _look(tab: Any) -> None:
    browsing.fill(tab, "Texts, one a line", "A bridge\na river <b>bold</b>")
    _click(tab, "Look")
    tab.wait_for_selector("#looks .ahb-matrix")
    looked = tab.locator("#looks")
    assert looked.locator(".ahb-tokens").count() == 2
    assert looked.locator("b").count() == 0, "a text is no HTML"
    assert looked.locator(".ahb-matrix").count() == 2


def _download(tab: Any, folder: Path) -> None:
    _click(tab, "Make the zip")
    tab.get_by_text("incomplete-transformers.zip is ready").wait_for()
    with tab.expect_download() as download:
        tab.locator("#file").click()
    with zipfile.ZipFile(download.value.path()) as packed:
        packed.extractall(folder)


def _push(tab: Any) -> None:
    tab.get_by_role("tab", name="Push").click()
    browsing.fill(tab, "Repository of yours", "user/from-the-browser")
    tab.locator("#push-now").click()
    tab.get_by_text("Do a dry run of this first").wait_for()
    tab.locator("#plan-push").click()
    tab.get_by_text("does not exist yet, and would be made").wait_for()
    assert "model.safetensors" in tab.locator("#pushed").inner_text()
    assert tab.locator("#pushed .ahb-diff .ahb-added").count() > 10
    tab.locator("#push-now").click()
    tab.locator("#pushed").get_by_role("link").wait_for()


def test_hostile_uploads(page: RunningPage, browser: Any, tmp_path: Path) -> None:
    """tests/ui/test_upload.py has more of them."""
    hostile: dict[str, tuple[Callable[[zipfile.ZipFile], object], str]] = {
        "slip": (lambda archive: archive.writestr("../../evil.txt", b"x"), "leads out of the folder"),
        "bomb": (lambda archive: archive.writestr("a", b"\0" * 50_000_000), "compressed more than 200 times"),
        "link": (add_link, "is a link"),
        "pickle": (lambda archive: archive.writestr("pytorch_model.bin", b"\x80\x02."), "is a pickle"),
    }
    for name, (add, _) in hostile.items():
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            add(archive)
    (tmp_path / "claim.zip").write_bytes(claim_three_gigabytes())
    messages = {name: message for name, (_, message) in hostile.items()} | {"claim": "unpacks to 3.00 GB"}
    with browsing.open_page(browser, page.url) as tab:
        for name, message in messages.items():
            tab.locator("#upload input[type=file]").set_input_files(tmp_path / f"{name}.zip")
            tab.locator("#inspection .ahb-error").get_by_text(message).wait_for()
        tab.locator("#upload input[type=file]").set_input_files(page.models / "my-repository.zip")
        tab.get_by_role("heading", name="my-repository (uploaded)").wait_for()
    assert not list(page.root.rglob("evil.txt"))


def test_two_visitors_and_one_who_leaves(page: RunningPage, browser: Any) -> None:
    with browsing.open_page(browser, page.url) as one:
        with browsing.open_page(browser, page.url) as other:
            for tab in (one, other):
                browsing.inspect(tab, "user/preset")
                tab.get_by_label("albert_hub: a repository").check()
            assert len(page.visits()) == 2
            _click(other, "Convert")
            other.wait_for_selector("#conversion .ahb-stages")
            _click(one, "Convert")
            one.wait_for_timeout(1000)
            assert one.locator("#conversion .ahb-stages").count() == 0, "one conversion at a time"
        # The other one left in the middle, and the first one need not wait for it.
        one.get_by_text("Source and target match.").wait_for()
        wait_until(lambda: len(page.visits()) == 1, "the end of the other visit")


def test_phone_keyboard_and_dark_theme(page: RunningPage, browser: Any) -> None:
    with browsing.open_page(browser, page.url, width=390, height=844, scheme="dark") as tab:
        browsing.fill(tab, "Repository, Kaggle handle or preset", "user/preset", by_keyboard=True)
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#inspection h3")
        tab.locator("#convert").focus()
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#conversion h3")
        tab.locator("#conversion summary").first.focus()
        tab.keyboard.press("Enter")
        assert tab.locator("#conversion details[open]").count() == 1
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390, "the page scrolls sideways"
        assert tab.evaluate("document.body.classList.contains('dark')")
        unnamed = tab.evaluate(UNNAMED)
        assert not unnamed, f"without a name for screen readers: {unnamed}"


# Fields, buttons and pictures that can be seen and have neither a label nor a text.
UNNAMED = """() => [...document.querySelectorAll('input, textarea, select, button, img, [role=button]')]
  .filter(e => e.offsetParent !== null && e.type !== 'hidden')
  .filter(e => !(e.labels && e.labels.length) && !e.getAttribute('aria-label') && !e.getAttribute('alt')
    && !e.getAttribute('aria-labelledby') && !e.getAttribute('title') && !e.textContent.trim())
  .map(e => e.outerHTML.slice(0, 120))"""
