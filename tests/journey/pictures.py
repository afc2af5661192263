"""Make the pictures of the docs: `python -m tests.journey.pictures`. It needs chromium, and takes a minute.

They show what the commands really print: a terminal, the card of a classifier, and the report of a notebook. The model
is a classifier with random weights, as `make demo` makes it.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from markdown_it import MarkdownIt
from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from albert_hub_bridge import verify
from albert_hub_bridge.layouts.keras.preset import write_preset
from albert_hub_bridge.mapping.heads import Head
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, train_vocabulary
from tests.journey.terminal import run_in_terminal


PICTURES = Path(__file__).parent.parent.parent / "docs" / "pictures"
WIDTH = 100  # of the terminal, in characters
COMMANDS = (
    "albert-hub-bridge convert reviews-keras reviews --to transformers --labels negative,positive --license apache-2.0",
    "albert-hub-bridge verify reviews-keras reviews",
)
STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 800px; margin: 20px auto; color: #1f2328; background: white }
h1, h2 { border-bottom: 1px solid #d0d7de; padding-bottom: 6px }
table { border-collapse: collapse } td, th { border: 1px solid #d0d7de; padding: 4px 12px; text-align: left }
pre, code { font: 13px/1.4 monospace; background: #f6f8fa } pre { padding: 12px; white-space: pre-wrap }
blockquote { border-left: 4px solid #d0d7de; margin-left: 0; padding-left: 16px; color: #57606a }
img { max-width: 100% }
"""


def main() -> None:
    """Write all pictures."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as parent:
        os.chdir(parent)
        Path("reviews-keras").mkdir()
        head = Head(kind="sequence_classification", num_labels=2)
        write_preset(random_checkpoint(SAMPLE_ARCHITECTURE, train_vocabulary(), head=head), Path("reviews-keras"))
        draw_terminal(PICTURES / "terminal.svg")
        card = Path("reviews/README.md").read_text(encoding="utf-8").split("---\n", 2)[2]
        card = card.partition("## What was converted")[0]  # the rest is tables of settings and checksums
        body = MarkdownIt("commonmark", {"html": True}).enable("table").render(card)
        photograph(body, 1600, PICTURES / "model-card.png", Path("reviews"))
        report = verify("reviews-keras", "reviews")._repr_html_()
        cell = html.escape('from albert_hub_bridge import verify\n\nverify("reviews-keras", "reviews")')
        photograph(f"<pre>{cell}</pre>{report}", 900, PICTURES / "notebook.png", Path())


def draw_terminal(file: Path) -> None:
    """Draw a terminal in which `COMMANDS` were typed. Its progress, on the standard error, is not shown."""
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"))  # noqa: SIM115
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in COMMANDS:
        console.print(Text(f"$ {command}", style="bold"))
        code, shown = run_in_terminal(["sh", "-c", f"PATH='{path}' {command} 2> /dev/null"], WIDTH)
        assert code == 0, shown
        console.print(Text.from_ansi(shown))
    # Without fonts of other hosts.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="", theme=MONOKAI), flags=re.DOTALL)
    assert not re.search(r"url\([\"']?http", svg)
    file.write_text(svg, encoding="utf-8")


def photograph(body: str, height: int, file: Path, folder: Path) -> None:
    """Show a page in chromium, and keep its upper part as a PNG with few colors."""
    page = folder / "page.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><style>{STYLE}</style>{body}", encoding="utf-8")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("chromium is not installed")
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu", f"--window-size=880,{height}"]
    subprocess.run(
        [chromium, *options, f"--screenshot={file}", page.resolve().as_uri()], check=True, capture_output=True
    )
    with Image.open(file) as picture:
        picture.convert("RGB").quantize(64).save(file, optimize=True)


if __name__ == "__main__":
    main()
