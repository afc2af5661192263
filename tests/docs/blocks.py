"""The fenced blocks of README.md and docs/, and how their output is compared.

A page is Markdown. Its blocks run in the order of the page, in one folder and one Python namespace. A comment in the
line above a block changes that:

    <!-- not run: REASON -->    the block is not run; `test_blocks.py` pins how many there are
    <!-- exit code: 2 -->       the last command of the block ends with this code

A console block has lines that begin with `$ `, which are commands, and below each the output, if the page shows it.
A line `...` in it stands for any output.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path


ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

RUN = ("bash", "console", "python")
LANGUAGES = (*RUN, "text")  # text is for the eye: messages, trees

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_COMMENT = re.compile(r"<!-- (?P<key>not run|exit code): (?P<value>[^\n]+) -->\n+ *$")

# What differs from run to run and from machine to machine.
_MASKS = (
    (re.compile(r"\d\.\d+e[+-]\d+"), "<measured>"),
    (re.compile(r"at length \d+, [a-z ]+, seed \d+"), "at <place>"),
    (re.compile(r"\b\d+\.\d+\.\d+\b"), "<version>"),
    (re.compile(r"http://127\.0\.0\.1:\d+"), "https://huggingface.co"),
    (re.compile(r"\b[0-9a-f]{40}\b"), "<commit>"),
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Args:
        line: Number of the line of its opening fence, from 1.
        language: Of its code.
        code: What is between the fences.
        reason: Why it is not run; None if it is run.
        exit_code: That its last command ends with.
    """

    line: int
    language: str
    code: str
    reason: str | None = None
    exit_code: int = 0

    @property
    def commands(self) -> list[tuple[str, str]]:
        """The commands of a console block, each with the output that the page shows for it."""
        parts = re.split(r"^\$ ", self.code, flags=re.MULTILINE)
        if parts[0].strip():
            raise ValueError(f"line {self.line}: a console block begins with a command")
        return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts[1:]]


def pages() -> list[Path]:
    """Return README.md and every page of docs/."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def page_name(page: Path) -> str:
    """Return the name of a page, relative to the repository."""
    return page.relative_to(ROOT).as_posix()


def read_blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    blocks = []
    for match in _FENCE.finditer(text):
        comment = _COMMENT.search(text, 0, match.start())
        key, value = (comment["key"], comment["value"]) if comment else (None, "")
        blocks.append(
            Block(
                line=text.count("\n", 0, match.start()) + 1,
                language=match["language"],
                code=textwrap.dedent(match["code"]),
                reason=value if key == "not run" else None,
                exit_code=int(value) if key == "exit code" else 0,
            )
        )
    return blocks


def masked(output: str) -> str:
    """Join the lines of an output, and mask its measured numbers, places, versions, addresses and commits."""
    output = " ".join(output.split())
    for pattern, replacement in _MASKS:
        output = pattern.sub(replacement, output)
    return output


def is_shown(expected: str, found: str) -> bool:
    """Return whether the output that a page shows is the output of its command."""
    parts = [re.escape(masked(part)) for part in re.split(r"^\.\.\.$", expected, flags=re.MULTILINE)]
    return re.fullmatch(" ?.*? ?".join(parts), masked(found)) is not None
