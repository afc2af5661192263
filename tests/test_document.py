"""Reports in Python and in a notebook: `str` is the command's text, and `_repr_html_` has tables and the picture."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from albert_hub_bridge import AlbertBackbone, check, convert, convert_adapter, inspect, verify
from albert_hub_bridge.cli import app
from albert_hub_bridge.document import Block, Document
from tests.html_report import HtmlReport


def _command(*words: str | Path) -> str:
    """Return what a command prints, without the spaces with which rich fills its columns."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    return "".join(f"{line.rstrip()}\n" for line in result.stdout.splitlines())


def _without_measured(text: str) -> list[str]:
    return re.sub(r"\d\.\d\de-\d\d", "...", text).rstrip().splitlines()


def test_str_is_the_text_of_the_command(preset: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    report = convert(preset, target, to="transformers")
    assert _command("convert", preset, target, "--to", "transformers", "--overwrite").startswith(f"{report}\n")
    assert _command("inspect", target) == f"{inspect(target)}\n"
    assert _command("verify", target) == f"{check(target)}\n"
    shown = _without_measured(_command("verify", preset, target))
    expected = _without_measured(str(verify(preset, target)))
    assert shown[: len(expected)] == expected
    assert expected[-1] == "PASSED: source and target match."


def test_html_has_tables_and_the_picture(preset: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    converted = convert(preset, target, to="transformers")
    assert f"{preset} (keras) to {target} (transformers): " in HtmlReport(converted._repr_html_()).lines[1]
    inspected = HtmlReport(inspect(target)._repr_html_())
    assert inspected.rows["hidden_dim"] == "32"
    assert inspected.rows["parameters"] == "43,264 in 73 tensors"
    assert not inspected.pictures
    report = verify(preset, target)
    verified = HtmlReport(report._repr_html_())
    assert set(verified.rows) == {"source", "target", *report.checks}
    assert verified.rows["tensors"].startswith("passed: 73 tensors")
    assert verified.lines[-1].endswith("PASSED: source and target match.")
    (picture,) = verified.pictures
    assert base64.b64decode(picture.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert "unchanged" in HtmlReport(check(target)._repr_html_()).lines[-1]


def test_reports_of_adapters_and_failures_are_shown(preset: Path, tmp_path: Path) -> None:
    backbone = AlbertBackbone.from_preset(preset)
    backbone.enable_lora(2)
    backbone.save_lora_weights(tmp_path / "a.lora.h5")
    report = convert_adapter(tmp_path / "a.lora.h5", tmp_path / "adapter", base=preset, to="transformers")
    assert "8 layers, rank 8" in str(report)
    assert any("8 layers, rank 8" in line for line in HtmlReport(report._repr_html_()).lines)
    target = tmp_path / "target"
    convert(preset, target, to="transformers")
    (target / "config.json").unlink()
    (target / "tokenizer.json").unlink()
    changed = check(target)
    assert not changed
    assert HtmlReport(changed._repr_html_()).rows == {"config.json": "missing", "tokenizer.json": "missing"}
    assert str(changed).splitlines()[-1].startswith("FAILED: 2 files")


class _Untrusted(Document):
    """A report with texts of a stranger."""

    def blocks(self) -> Sequence[Block]:  # type: ignore[override]
        from albert_hub_bridge.document import escape

        text = escape("<script>alert(1)</script> [bold]x[/] [/nothing] \x1b[31m &amp;")
        return [f"[bold]{text}[/]", {"<b>name</b>": f"[red]{text}[/]"}, {}]


def test_texts_of_strangers_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = "<script>alert(1)</script> [bold]x[/] [/nothing] \\x1b[31m &amp;"
    monkeypatch.setenv("COLUMNS", "200")
    assert str(_Untrusted()).splitlines() == [shown, f"<b>name</b>  {shown}"]
    page = HtmlReport(_Untrusted()._repr_html_())
    assert page.rows == {"<b>name</b>": shown}
    assert shown in page.lines
    assert '<span style="font-weight: bold">' in _Untrusted()._repr_html_()
    assert '<span style="color: #e5534b">' in _Untrusted()._repr_html_()
