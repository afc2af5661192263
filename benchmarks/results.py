"""Write the results of a benchmark as JSON, and draw them as bars: what `--json FILE` and `--png FILE` give.

A table is a list of rows, and a row maps the name of a column to text or a number. Numbers keep their digits in the
JSON; only what is printed is rounded.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


Row = Mapping[str, Any]

OURS, OTHERS = "tab:orange", "tab:gray"


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark the options `--json` and `--png`."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the tables as JSON")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the tables as bars")


def write_json(path: Path, machine: str, tables: Mapping[str, Sequence[Row]]) -> None:
    """Write tables as JSON.

    Args:
        path: The file to write.
        machine: What `describe_machine` returned when they were measured.
        tables: The rows of each table, by its title.
    """
    content = {"machine": machine.splitlines(), "tables": {title: list(rows) for title, rows in tables.items()}}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def bars(
    path: Path,
    machine: str,
    groups: Mapping[str, Mapping[str, float]],
    label: str,
    reference: float | None = None,
    number: str = "%.2f",
) -> None:
    """Draw bars for each table, at most four tables beside each other.

    Args:
        path: The file to write; its suffix is the format.
        machine: What `describe_machine` returned; it stands below the picture.
        groups: The length of each bar by its name, by the title of each table. Bars whose name begins with "ours"
            have a color of their own.
        label: What the lengths are, with the unit.
        reference: Where to draw a line, such as 1 for ratios.
        number: How to write a length, as `printf` does.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    most = max(len(each) for each in groups.values())
    columns = min(len(groups), 4)
    rows = -(-len(groups) // columns)
    size = 5 * columns, 0.4 + rows * (0.8 + 0.35 * most)
    # Equal names are written once in a row.
    share = "row" if len({tuple(each) for each in groups.values()}) == 1 else "none"
    figure, axes = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, sharey=share)
    for axis in axes.flat[len(groups) :]:
        axis.set_axis_off()
    for axis, (title, lengths) in zip(axes.flat, groups.items(), strict=False):
        colors = [OURS if name.startswith("ours") else OTHERS for name in lengths]
        drawn = axis.barh(list(lengths), list(lengths.values()), color=colors)
        axis.bar_label(drawn, fmt=number, padding=2)
        if reference is not None:
            axis.axvline(reference, color="black", linewidth=0.8)
        axis.set(title=title, xlabel=label, xlim=(0, 1.2 * max(*lengths.values(), reference or 0)))
        axis.yaxis.set_inverted(True)
    figure.supxlabel(machine, fontsize=7)
    figure.savefig(path, dpi=120)
