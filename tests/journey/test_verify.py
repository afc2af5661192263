"""What `verify` shows while it runs: a bar on a terminal, a line for each stage elsewhere, and nothing of libraries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from albert_hub_bridge import convert, verify
from albert_hub_bridge.verification.progress import STAGES
from tests.journey.terminal import COMMAND, run_in_terminal, run_without_terminal


@pytest.fixture(scope="module")
def folder(preset: Path) -> Path:
    convert(preset, preset.parent / "albert", to="transformers")
    return preset.parent / "albert"


def test_each_stage_is_a_line_without_a_terminal(preset: Path, folder: Path) -> None:
    code, output, errors = run_without_terminal([*COMMAND, "verify", str(preset), str(folder), "--json"])
    assert code == 0
    assert json.loads(output)["passed"] is True
    assert errors.splitlines() == [
        "1/6 reading both sides",
        "2/6 comparing tensors",
        "3/6 computing in float64",
        "4/6 loading both libraries",
        "5/6 computing generated inputs",
        "6/6 computing texts",
    ]


@pytest.mark.parametrize("width", [80, 60])
def test_a_terminal_shows_a_bar_and_then_the_report_alone(width: int, preset: Path, folder: Path) -> None:
    code, output = run_in_terminal([*COMMAND, "verify", str(preset), str(folder)], width)
    assert code == 0
    bar, _, report = output.rpartition("\x1b[2K")
    assert "1/6 reading both sides" in bar
    assert "\x1b[?25l" in bar  # the cursor is hidden
    assert "…" not in bar
    lines = report.partition("\x1b[?25h")[2].splitlines() if "\x1b[?25h" in report else report.splitlines()
    assert [line for line in lines if "PASSED: source and target match." in line]
    for noise in ("torchao", "Warning", "WARNING", "W1", "Loading weights"):
        assert noise not in output


def test_quiet_shows_neither(preset: Path, folder: Path) -> None:
    code, _, errors = run_without_terminal([*COMMAND, "verify", str(preset), str(folder), "--quiet"])
    assert (code, errors) == (0, "")


def test_the_function_reports_work_that_grows_to_all_of_it(preset: Path, folder: Path) -> None:
    reported: list[tuple[str, int, int]] = []
    assert verify(preset, folder, progress=lambda *step: reported.append(step)).passed
    assert list(dict.fromkeys(stage for stage, _, _ in reported)) == list(STAGES)
    for stage in ("tensors", "engines"):
        done = [done for name, done, _ in reported if name == stage]
        (total,) = {total for name, _, total in reported if name == stage}
        assert done == sorted(done)
        assert (done[0], done[-1]) == (0, total)
        assert len(done) > 3
