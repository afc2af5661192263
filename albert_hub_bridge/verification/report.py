"""The verification report: one `Check` for each way of comparing, and the `Verification` that holds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any, Literal

from albert_hub_bridge.document import Block, Document, escape
from albert_hub_bridge.layouts.losses import show_notes
from albert_hub_bridge.provenance.picture import draw_parity


Outcome = Literal["passed", "failed", "not measured"]

_COLORS = {"passed": "green", "failed": "red", "not measured": "yellow"}
_MAX_FAILURES = 10  # of one check, in what is shown; `as_dict` has all


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of a verification.

    Args:
        summary: What was compared, and where `value` was found. Empty if nothing could be measured.
        value: The largest difference, if numbers were compared.
        limit: The largest `value` that passes.
        failures: Each setting, tensor or output that differs, and how.
        not_measured: Each comparison that was not possible, and why.
    """

    summary: str = ""
    value: float | None = None
    limit: float | None = None
    failures: Sequence[str] = ()
    not_measured: Sequence[str] = ()

    @property
    def outcome(self) -> Outcome:
        """The outcome: a check without failures passed, if it measured anything."""
        if self.failures:
            return "failed"
        return "passed" if self.summary else "not measured"

    def describe(self) -> str:
        """Return the value, its limit and the summary in one line: "1.79e-06 (at most 1e-05) on 8 texts"."""
        if self.value is None:
            return self.summary
        limit = f" (at most {self.limit:.0e})" if self.limit is not None else ""
        return f"{self.value:.2e}{limit} {self.summary}"

    def as_dict(self) -> dict[str, Any]:
        """Return the check as JSON values. NaN and infinity become None."""
        content = {field.name: getattr(self, field.name) for field in fields(Check)}
        value = _finite(self.value)
        return {"outcome": self.outcome, **content, "value": value, "description": self.describe()}


# Outputs of different architectures cannot be compared.
NOT_COMPARABLE = Check(not_measured=("the architectures differ: there is nothing to compare",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification(Document):
    """The verification report of a source and a target.

    Args:
        source: The source folder.
        target: The target folder.
        source_engine: The library that computed the source, with its version.
        target_engine: The library that computed the target, with its version.
        texts: Number of texts.
        checks: The checks by name: `configuration`, `tensors`, `reference`, `engines` and `texts`.
        different_fields: Settings that differ, with the source's and the target's value. The epsilon of the masked-LM
            head is not among them if the target's layout cannot store it.
        different_tensors: Tensors whose bits differ, by albert_hub names. A pooler of zeros that only one side has does
            not count.
        vocabularies: Whether the source and the target have a vocabulary.
        different_ids: Number of texts that become different token ids.
        first_difference: The first such text, with the pieces of both sides from the first difference on.
        max_abs_difference: Largest absolute difference of `sequence_output`, `pooled_output` and `head_output` on the
            texts, in float32. Only outputs that both sides have; empty if the architectures differ.
        tolerance: The largest `max_abs_difference` that passes.
        notes: What was changed before the comparison, and why.
        layer_differences: Largest absolute difference of the embeddings' output, and of the output of each run of a
            layer, on the first texts.
        example_output: What the target's library says about the example of a classifier's card; None for other models.
    """

    source: str
    target: str
    source_engine: str
    target_engine: str
    texts: int
    checks: Mapping[str, Check]
    different_fields: Mapping[str, tuple[Any, Any]]
    different_tensors: Sequence[str]
    vocabularies: tuple[bool, bool]
    different_ids: int
    first_difference: Mapping[str, Any] | None
    max_abs_difference: Mapping[str, float]
    tolerance: float
    notes: Sequence[str] = ()
    layer_differences: Sequence[float] = ()
    example_output: str | None = None

    @property
    def failed_checks(self) -> list[str]:
        """The names of the checks that failed."""
        return [name for name, check in self.checks.items() if check.outcome == "failed"]

    def __bool__(self) -> bool:
        """Return whether the verification passed, so that `assert verify(...)` cannot succeed on a failure."""
        return self.passed

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return not self.failed_checks

    def blocks(self) -> Iterator[Block]:
        """Yield what the report shows."""
        facts = {
            "source": escape(f"{self.source}, computed by {self.source_engine}"),
            "target": escape(f"{self.target}, computed by {self.target_engine}"),
        }
        for name, check in self.checks.items():
            summary = f": {escape(check.describe())}" if check.summary else ""
            lines = [f"[{_COLORS[check.outcome]}]{check.outcome}[/]{summary}"]
            lines += [f"[red]{escape(failure)}[/]" for failure in check.failures[:_MAX_FAILURES]]
            if more := len(check.failures[_MAX_FAILURES:]):
                lines.append(f"[red]and {more} more[/]")
            lines += [f"[yellow]not measured: {escape(what)}[/]" for what in check.not_measured]
            facts[name] = "\n".join(lines)
        yield facts
        yield from show_notes(self.notes)
        if self.first_difference is not None:
            yield {f"first text with other ids, {k}": escape(repr(v)) for k, v in self.first_difference.items()}
        if self.passed:
            yield "[bold green]PASSED: source and target match.[/]"
        else:
            failed = ", ".join(self.failed_checks)
            yield f"[bold red]FAILED: source and target differ. Failed checks: {failed}.[/]"

    def picture(self) -> tuple[bytes, str] | None:
        """Return the difference after each layer as a PNG, if it was measured and matplotlib is installed."""
        png = draw_parity(self.as_dict())
        return None if png is None else (png, "The largest difference after each layer")

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values. NaN and infinity become None."""
        return {
            "passed": self.passed,
            **asdict(self),
            "checks": {name: check.as_dict() for name, check in self.checks.items()},
            "max_abs_difference": {name: _finite(value) for name, value in self.max_abs_difference.items()},
            "layer_differences": [_finite(value) for value in self.layer_differences],
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None
