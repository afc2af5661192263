"""Every command and every Python block of README.md and docs/ runs, and its output is what the page shows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docs.blocks import LANGUAGES, ROOT, is_shown, page_name, pages, read_blocks
from tests.docs.running import PageRunner, page_runner


PAGES = {page_name(page): page for page in pages()}

# How many blocks are not run, for all pages together. Each says why in the comment above it.
NOT_RUN = 18


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageRunner]:
    pytest.importorskip("keras_hub", reason="the pages use KerasHub")
    with page_runner(tmp_path_factory.mktemp("pages")) as runner:
        yield runner


@pytest.mark.parametrize(
    "name", [name for name, page in PAGES.items() if any(not block.reason for block in read_blocks(page.read_text()))]
)
def test_blocks_run_and_print_what_the_page_shows(name: str, runner: PageRunner) -> None:
    if "albert-hub-bridge embed" in PAGES[name].read_text():
        pytest.importorskip("pyarrow", reason="embed needs the extra 'embed'")
    failures = [
        f"{name}:{step['line']}: {step['code']}\nexit codes expected and found: {step['exit']}\n{step['output']}"
        for step in runner.run(PAGES[name])
        if step["exit"][0] != step["exit"][1] or (step["shown"].strip() and not is_shown(step["shown"], step["output"]))
    ]
    assert not failures, "\n".join(failures)


def test_blocks_that_do_not_run_are_counted() -> None:
    assert (
        sum(block.reason is not None for page in PAGES.values() for block in read_blocks(page.read_text())) == NOT_RUN
    )


@pytest.mark.parametrize("name", PAGES)
def test_fences_name_a_language(name: str) -> None:
    text = PAGES[name].read_text()
    blocks = read_blocks(text)
    assert {block.language for block in blocks} <= {*LANGUAGES, "js"}
    assert all(block.reason for block in blocks if block.language == "js")
    assert text.count("```") == 2 * len(blocks)


def test_the_readme_has_at_most_90_lines_and_tells_the_make_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 90
    assert "make demo" in text
    assert "make test" in text


@pytest.mark.parametrize(
    ("shown", "found", "same"),
    [
        ("passed: 4.50e-15 (at most 1e-12)", "passed:  1.00e-16\n(at most 1e-12)", True),
        ("passed: 4.50e-15 (at most 1e-12)", "passed: 1.00e-16 (at most 1e-11)", False),
        ("first\n...\nlast", "first\nsecond\nthird\nlast", True),
        ("first\n...\nlast", "first\nsecond", False),
        ("PASSED: source and target match.", "FAILED: source and target differ.", False),
    ],
)
def test_only_measured_numbers_are_masked(shown: str, found: str, same: bool) -> None:
    assert is_shown(shown, found) is same
