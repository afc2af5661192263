"""The verification report: one `Check` for each way of comparing, and the `Verification` that holds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any, Literal

from albert_hub_bridge.document import Block, Document, escape
from albert_hub_bridge.layouts.losses import show_notes
from albert_hub_bridge.provenance.picture import draw_parity
from albert_hub_bridge.provenance.record import CHECKS
from albert_hub_bridge.verification.differences import ROUNDING_FACTOR, Difference


Outcome = Literal["passed", "failed", "not measured"]

_COLORS = {"passed": "green", "failed": "red", "not measured": "yellow"}
_MAX_FAILURES = 10  # of one check, in what is shown; `as_dict` has all


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check of a verification.

    Args:
        summary: What was compared, and where `largest` was found. Empty if nothing could be measured.
        largest: The largest relative difference, if numbers were compared, and the same one in absolute terms.
        limit: The largest relative difference that passes.
        rounding: The rounding errors of both libraries at this place, if `largest` is above the limit.
            `ROUNDING_FACTOR` times as much passes too.
        failures: Each setting, tensor or output that differs, and how.
        not_measured: Each comparison that was not possible, and why.
    """

    summary: str = ""
    largest: Difference | None = None
    limit: float | None = None
    rounding: Difference | None = None
    failures: Sequence[str] = ()
    not_measured: Sequence[str] = ()

    @property
    def outcome(self) -> Outcome:
        """The outcome: a check without failures passed, if it measured anything."""
        if self.failures:
            return "failed"
        return "passed" if self.summary else "not measured"

    @property
    def value(self) -> float | None:
        """The largest relative difference."""
        return self.largest.relative if self.largest is not None else None

    def describe(self) -> str:
        """Return the differences, the limit and the summary in one line.

        For example "1.79e-06 relative (at most 1e-05), 3.58e-06 absolute, on 8 texts".
        """
        if self.largest is None:
            return self.summary
        allowed = f"at most {self.limit:.0e}"
        if self.rounding is not None:
            allowed += f", or {ROUNDING_FACTOR} times both rounding errors, {self.rounding.relative:.1e}"
        return f"{self.largest.relative:.2e} relative ({allowed}), {self.largest.absolute:.2e} absolute, {self.summary}"

    def as_dict(self) -> dict[str, Any]:
        """Return the check as JSON values. NaN and infinity become None."""
        return {
            "outcome": self.outcome,
            "summary": self.summary,
            "value": _finite(self.value),
            "absolute": _finite(self.largest.absolute if self.largest is not None else None),
            "limit": self.limit,
            "rounding": _finite(self.rounding.relative if self.rounding is not None else None),
            "failures": self.failures,
            "not_measured": self.not_measured,
            "description": self.describe(),
        }


# Outputs of different architectures cannot be compared.
NOT_COMPARABLE = Check(not_measured=("the architectures differ: there is nothing to compare",))


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsCheck(Check):
    """The check of the settings.

    Args:
        different_fields: Settings that differ, with the source's and the target's value. The epsilon of the masked-LM
            head is not among them if the target's layout cannot store it.
    """

    different_fields: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorsCheck(Check):
    """The check of the tensors.

    Args:
        different_tensors: Tensors whose bits differ, by albert_hub names. A pooler of zeros that only one side has does
            not count.
    """

    different_tensors: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TextsCheck(Check):
    """The check of the texts.

    Args:
        texts: Number of texts.
        vocabularies: Whether the source and the target have a vocabulary.
        different_ids: Number of texts that become different token ids.
        first_difference: The first such text, with the pieces of both sides from the first difference on.
        outputs: The largest difference of `sequence_output`, `pooled_output` and `head_output` in float32. Only outputs
            that both sides have; empty if the architectures differ.
        layers: The largest difference of the embeddings' output, and of the output of each run of a layer, on the first
            texts.
        remarks: What users get for texts and pairs that differs because the library of a side has no other way.
    """

    texts: int
    vocabularies: tuple[bool, bool]
    different_ids: int = 0
    first_difference: Mapping[str, Any] | None = None
    outputs: Mapping[str, Difference] = field(default_factory=dict)
    layers: Sequence[Difference] = ()
    remarks: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification(Document):
    """The verification report of a source and a target.

    Args:
        source: The source folder.
        target: The target folder.
        source_engine: The library that computed the source, with its version.
        target_engine: The library that computed the target, with its version.
        configuration: The check of the settings.
        tensors: The check of the tensors.
        reference: The check against the reference encoder.
        engines: The check of both libraries on generated inputs.
        on_texts: The check of both libraries on texts.
        on_keras: The checks of KerasHub on a universal target, by name; none for other targets.
        on_onnx: The check of each ONNX file of the target, by name.
        tolerance: The largest relative difference of outputs on texts that passes.
        notes: What was changed before the comparison, and why.
        example_output: What the target's library says about the example of a classifier's card; None for other models.
    """

    source: str
    target: str
    source_engine: str
    target_engine: str
    configuration: SettingsCheck
    tensors: TensorsCheck
    reference: Check
    engines: Check
    on_texts: TextsCheck
    on_keras: Mapping[str, Check]
    on_onnx: Mapping[str, Check]
    tolerance: float
    notes: Sequence[str] = ()
    example_output: str | None = None

    @property
    def checks(self) -> Mapping[str, Check]:
        """The checks by name: `configuration`, `tensors`, `reference`, `engines`, `texts`, and others if any."""
        in_order = self.configuration, self.tensors, self.reference, self.engines, self.on_texts
        return {**dict(zip(CHECKS, in_order, strict=True)), **self.on_keras, **self.on_onnx}

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

    @property
    def texts(self) -> int:
        """Number of texts."""
        return self.on_texts.texts

    @property
    def different_fields(self) -> Mapping[str, tuple[Any, Any]]:
        """Settings that differ. See `SettingsCheck`."""
        return self.configuration.different_fields

    @property
    def different_tensors(self) -> Sequence[str]:
        """Tensors whose bits differ. See `TensorsCheck`."""
        return self.tensors.different_tensors

    @property
    def vocabularies(self) -> tuple[bool, bool]:
        """Whether the source and the target have a vocabulary."""
        return self.on_texts.vocabularies

    @property
    def different_ids(self) -> int:
        """Number of texts that become different token ids."""
        return self.on_texts.different_ids

    @property
    def first_difference(self) -> Mapping[str, Any] | None:
        """The first text with different token ids. See `TextsCheck`."""
        return self.on_texts.first_difference

    @property
    def max_abs_difference(self) -> dict[str, float]:
        """Largest absolute difference of each output on the texts, in float32."""
        return {name: difference.absolute for name, difference in self.on_texts.outputs.items()}

    @property
    def max_relative_difference(self) -> dict[str, float]:
        """The same differences, each divided by the largest absolute value of the output, or by 1 if that is larger."""
        return {name: difference.relative for name, difference in self.on_texts.outputs.items()}

    @property
    def layer_differences(self) -> list[float]:
        """Largest absolute difference of the embeddings' output, and of the output of each run of a layer."""
        return [difference.absolute for difference in self.on_texts.layers]

    @property
    def relative_layer_differences(self) -> list[float]:
        """The same differences, relative as in `max_relative_difference`."""
        return [difference.relative for difference in self.on_texts.layers]

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

    @property
    def needs_attention(self) -> bool:
        """See `Document`."""
        return not self.passed

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values. NaN and infinity become None."""
        kept = [
            each.name for each in fields(Verification) if each.name not in (*CHECKS, "on_texts", "on_keras", "on_onnx")
        ]
        return {
            "passed": self.passed,
            **{name: getattr(self, name) for name in (*kept, *_DERIVED)},
            "checks": {name: check.as_dict() for name, check in self.checks.items()},
            **{name: {output: _finite(value) for output, value in getattr(self, name).items()} for name in _BY_OUTPUT},
            **{name: [_finite(value) for value in getattr(self, name)] for name in _BY_LAYER},
        }


# The properties of a `Verification` that its JSON has.
_DERIVED = ("texts", "different_fields", "different_tensors", "vocabularies", "different_ids", "first_difference")
_BY_OUTPUT = ("max_abs_difference", "max_relative_difference")
_BY_LAYER = ("layer_differences", "relative_layer_differences")


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None
