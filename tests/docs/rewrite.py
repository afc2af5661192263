"""Write what the pages show again: the output of commands, and the generated parts.

Run: `python -m tests.docs.rewrite [PAGE ...]`, such as docs/architecture.md. Read the difference before you commit it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.docs.blocks import is_shown, page_name, pages
from tests.docs.running import PageRunner, page_runner
from tests.docs.tables import GENERATED, write_part


def main() -> None:
    """Rewrite the pages that are named, or all."""
    named = sys.argv[1:]
    for name, (page, _) in GENERATED.items():
        if not named or page_name(page) in named:
            write_part(name)
    with tempfile.TemporaryDirectory() as parent, page_runner(Path(parent)) as runner:
        for page in pages():
            if not named or page_name(page) in named:
                rewrite_page(page, runner)


def rewrite_page(page: Path, runner: PageRunner) -> None:
    """Replace each shown output that is not the output of its command."""
    text = page.read_text(encoding="utf-8")
    for step in runner.run(page):
        if step["exit"][0] != step["exit"][1]:
            raise SystemExit(f"{page}:{step['line']}: {step['code']}\n{step['output']}")
        if step["shown"].strip() and not is_shown(step["shown"], step["output"]):
            before = f"$ {step['code']}\n{step['shown']}"
            output = "".join(f"{line.rstrip()}\n" for line in step["output"].strip().splitlines())
            text = text.replace(before, f"$ {step['code']}\n{output}", 1)
            print(f"{page_name(page)}:{step['line']}: {step['code']}")
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
