"""The results of a verification as a model card shows them, for readers who do not know this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from albert_hub_bridge.mapping.onnx_names import ONNX_FILES, check_name
from albert_hub_bridge.provenance.record import ONLY_PADDING, ConversionRecord
from albert_hub_bridge.text import first_few, one_line


class Row(NamedTuple):
    """What one check compares, what the card says if it passed, and whether the check's summary says more."""

    compares: str
    passed: str
    shows_summary: bool = False


_UP_TO_ROUNDING = "equal up to rounding: they differ by at most {difference}"
_QUANTIZED = "its rounded weights change them by {relative} on average, relative to the values"

# fmt: off
_ROWS = {
    "configuration":       Row("settings",                                                 "equal", True),
    "tensors":             Row("weights",                                                  "equal", True),
    "reference":           Row("formulas, computed by independent code in float64",        _UP_TO_ROUNDING),
    "engines":             Row("outputs for generated tokens, with every kind of padding", _UP_TO_ROUNDING),
    "texts":               Row("tokens and outputs for texts",                             _UP_TO_ROUNDING, True),
    "engines (KerasHub)":  Row("outputs for generated tokens, computed by KerasHub",       _UP_TO_ROUNDING),
    "texts (KerasHub)":    Row("tokens and outputs for texts, computed by KerasHub",       _UP_TO_ROUNDING, True),
    check_name("float32"):  Row(f"outputs of `{ONNX_FILES['float32']}`",                    _UP_TO_ROUNDING),
    check_name("int8"):     Row(f"outputs of `{ONNX_FILES['int8']}`",                       _QUANTIZED),
}
# fmt: on
_MAX_FAILURES = 5


def rows_of_results(record: ConversionRecord) -> dict[str, str]:
    """Return the rows of the table of results; none before a verification."""
    if record.verification is None:
        return {}
    checks = record.verification["checks"]
    rows = {row.compares: _outcome(checks[name], row) for name, row in _ROWS.items() if name in checks}
    missing = [_ROWS[check_name(each.precision)] for each in record.onnx if check_name(each.precision) not in checks]
    return rows | {row.compares: "not compared: run verify again" for row in missing}


def _outcome(check: Mapping[str, Any], row: Row) -> str:
    """Return what a check found. The record has the rest: where, with which limit, and every failure."""
    failures: Sequence[str] = check["failures"]
    parts = [f"**different**: {first_few(failures, _MAX_FAILURES)}"] if failures else []
    if check["summary"] and not failures:
        parts.append(_finding(check, row))
    if check["summary"] and row.shows_summary:
        parts.append(check["summary"])
    parts += [f"not compared: {what}" for what in check["not_measured"] if not what.startswith(ONLY_PADDING)]
    return plain("; ".join(parts)).replace("|", r"\|")


def _finding(check: Mapping[str, Any], row: Row) -> str:
    """Return what a check found that passed. The relative difference is shown if it is not the absolute one."""
    absolute, relative = check["absolute"], check["value"]
    if not absolute or relative is None:
        return "equal"
    shown = f"{absolute:.1e}", f"{relative:.1e}"
    difference = shown[0] if shown[0] == shown[1] else f"{shown[0]}, relative {shown[1]}"
    return row.passed.format(difference=difference, relative=shown[1])


_MARKUP = str.maketrans({"<": "&lt;", "`": "'"})


def plain(text: str) -> str:
    """Return a text of the source on one line, without Markdown or HTML: no tags, links or code."""
    return one_line(text, 2000).translate(_MARKUP).replace("](", "] (")
