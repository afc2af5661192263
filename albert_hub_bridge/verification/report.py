"""The report of a verification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Literal


Outcome = Literal["passed", "failed", "not measured"]


@dataclass(frozen=True, slots=True)
class Check:
    """One part of a certificate.

    Args:
        outcome: Whether it passed.
        figure: What was compared, in words; and where `value` was found.
        value: The largest difference, where numbers were compared.
        limit: What is allowed of it.
        failures: Every setting, tensor or output that differs, and how.
        not_measured: What could not be compared, and why.
    """

    outcome: Outcome
    figure: str
    value: float | None = None
    limit: float | None = None
    failures: Sequence[str] = ()
    not_measured: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        figure: str,
        failures: Sequence[str],
        value: float | None = None,
        limit: float | None = None,
        not_measured: Sequence[str] = (),
    ) -> Check:
        """Return a part that was measured: it passed where there are no failures."""
        return cls("failed" if failures else "passed", figure, value, limit, tuple(failures), tuple(not_measured))

    @property
    def said(self) -> str:
        """The figure, for people: "1.79e-06 (at most 1e-05) on 8 texts"."""
        if self.value is None:
            return self.figure
        limit = f" (at most {self.limit:.0e})" if self.limit is not None else ""
        return f"{self.value:.2e}{limit} {self.figure}"

    def as_dict(self) -> dict[str, Any]:
        """Return the part as JSON can hold it, which has no NaN."""
        value = self.value if self.value is not None and isfinite(self.value) else None
        return {**asdict(self), "value": value, "said": self.said}


@dataclass(frozen=True, slots=True)
class Verification:
    """How far two folders agree: configurations, tensors, ids, numbers.

    Args:
        source: The first folder.
        target: The second folder.
        source_engine: What computed the first side: library and version.
        target_engine: What computed the second side.
        texts: Number of texts that went in.
        parts: The certificate: `configuration`, `tensors`, `reference`, `engines` and `texts`.
        different_fields: Fields of the architecture and the head that differ, with both values; not the epsilon of the
            masked-LM head, of which KerasHub and the transformers layout have only one each.
        different_tensors: Tensors whose bits differ, by albert_hub names; empty where all are identical. A pooler that
            only one side has is not compared.
        vocabularies: Whether each side has one.
        different_ids: Texts that become different ids.
        first_difference: The first such text, with both sides' pieces from where they part.
        max_abs_difference: Of `sequence_output`, `pooled_output` and `head_output`, as far as both sides have them,
            computed in float32 on the source's ids; empty where the architectures differ, so that there is nothing
            to compare.
        tolerance: What is allowed of it.
        notes: What was done to compare the two.
        layer_differences: The largest absolute difference of what the embeddings give, and of what each layer gives
            every time it runs, on the first texts.
    """

    source: str
    target: str
    source_engine: str
    target_engine: str
    texts: int
    parts: Mapping[str, Check]
    different_fields: dict[str, tuple[Any, Any]]
    different_tensors: Sequence[str]
    vocabularies: tuple[bool, bool]
    different_ids: int
    first_difference: dict[str, Any] | None
    max_abs_difference: dict[str, float]
    tolerance: float
    notes: Sequence[str] = ()
    layer_differences: Sequence[float] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing differs that must not."""
        return all(part.outcome != "failed" for part in self.parts.values())

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        finite = {name: value if isfinite(value) else None for name, value in self.max_abs_difference.items()}
        layers = [value if isfinite(value) else None for value in self.layer_differences]
        parts = {name: part.as_dict() for name, part in self.parts.items()}
        # JSON has no NaN
        numbers = {"max_abs_difference": finite, "layer_differences": layers}
        return {"passed": self.passed, **asdict(self), "parts": parts, **numbers}
