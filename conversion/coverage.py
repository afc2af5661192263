"""What goes through, in which direction: the table in docs/reference/coverage.md, made by converting the fixtures.

`python -m conversion.coverage` prints it. A test compares it with README.md.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, get_args

from albert_hub_bridge import convert
from albert_hub_bridge.choices import LayoutName
from albert_hub_bridge.errors import CheckpointError


FIXTURES = Path(__file__).parent.parent / "tests" / "fixtures"

# Words in the notes of a report, and the remark in the table.
_REMARKS = {
    "has epsilon": "other epsilon in the head, its effect measured",
    "will be zeros": "a pooler of zeros",
    "The int8 weights were dequantized": "dequantized",
    "as unexpected": "a pooler that the class reports as unexpected",
    "computes in": "without the mixed policy",
    "not support problem_type": "without problem_type",
}


class _Way(NamedTuple):
    """The option that goes on after a refusal: of the function, of the command, and why it is needed."""

    name: str
    value: Any
    option: str
    reason: str


# By the place of the problem.
_WAYS = {
    "head": _Way("drop_head", True, "--drop-head", "KerasHub has no such head"),
    "architectures": _Way(
        "head", "sequence_classification", "--head sequence_classification", "the class of the head is not named"
    ),
}


def coverage_as_markdown() -> str:
    """Convert every fixture to every layout, and render the reports; fixtures with the same results share a row."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for archive in sorted(FIXTURES.glob("*.zip")):
        with TemporaryDirectory() as parent, zipfile.ZipFile(archive) as files:
            source = Path(parent) / "source"
            files.extractall(source)
            if archive.stem == "keras_nlp_0_6_4":
                (source / "tokenizer.json").unlink()  # it contains the vocabulary in a form that is not read
            if (source / "adapter").is_dir() or list(source.glob("*.lora.h5")):
                continue  # an adapter and its base
            cells = [_cell(source, Path(parent) / layout, layout) for layout in get_args(LayoutName)]
        head = next((head for head, _ in cells if head), "encoder")
        alike.setdefault((head, *(words for _, words in cells)), []).append(f"`{archive.stem}`")
    columns = ["what it is", *(f"to `{layout}`" for layout in get_args(LayoutName)), "written by"]
    lines = [f"| {' | '.join(columns)} |", f"{'|---' * len(columns)}|"]
    lines += [f"| {' | '.join(row)} | {', '.join(names)} |" for row, names in sorted(alike.items())]
    return "\n".join(lines)


def _cell(source: Path, target: Path, to: LayoutName) -> tuple[str | None, str]:
    """Return the head of a fixture, and the cell of the table for one layout."""
    try:
        report = convert(source, target, to=to, allow_pickle=True)
        words = []
    except CheckpointError as error:
        ways = [_WAYS[problem.where] for problem in error.problems]
        options: dict[str, Any] = {way.name: way.value for way in ways}
        report = convert(source, target, to=to, allow_pickle=True, **options)
        words = [f"refused: {' and '.join(way.reason for way in ways)}"]
        words += [f"with {' '.join(f'`{way.option}`' for way in ways)}: {report.head or 'the encoder'}"]
    words += [remark for text, remark in _REMARKS.items() if any(text in note for note in report.notes)]
    return report.source.head, "; ".join(words) or "all of it"


if __name__ == "__main__":
    print(coverage_as_markdown())
