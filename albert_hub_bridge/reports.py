"""What the public verbs return: everything they found, and as JSON can hold it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Literal

from albert_hub_bridge.mapping.configs import IgnoredKey
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.stores.checkpoint import DroppedTensor, Layout, SourceLayout
from albert_hub_bridge.stores.sentence_transformers import Pooling


@dataclass(frozen=True, slots=True)
class VocabularySummary:
    """What a vocabulary is, and what happens to texts before it."""

    pieces: int
    text_rules: str  # what happens first: "sentencepiece" for nothing, "uncased", ...
    text_rules_from: str  # who says so
    rules_in_vocabulary: bool  # whether that is part of the vocabulary's own normalization, where it stays
    normalization: str  # what the vocabulary does then
    sequence_length: int | None
    truncate: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a folder holds."""

    source: str
    layout: SourceLayout
    architecture: Architecture
    variant: dict[str, Any]  # what it does otherwise than KerasHub's
    parameters: int
    tensors: int
    bytes: int
    dtype: str
    head: str | None
    vocabulary: VocabularySummary | None
    dropped: Sequence[DroppedTensor]
    ignored: Sequence[IgnoredKey]
    notes: Sequence[str]
    made_by: str | None = None  # what `conversion.json` says of where it comes from

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was converted, and what was not.

    Args:
        source: What was read.
        target: The folder that was made.
        layout: Its layout.
        dtype: Of its weights.
        head: What is on its encoder, or None.
        text_rules: Of the target: the source's, or those that were asked for.
        text_rules_from: Who says so.
        changed_texts: How many of the sample texts become other ids than in the source; None without a vocabulary.
        sample_size: How many sample texts there are.
        sentence_transformers: How the target pools for sentence-transformers; None where it is no model for it.
        dropped: Tensors of the source that are not in the target.
        notes: What else the user should know, of the source and of the conversion.
    """

    source: Inspection
    target: str
    layout: Layout
    dtype: str
    head: str | None
    text_rules: str | None
    text_rules_from: str | None
    changed_texts: int | None
    sample_size: int
    sentence_transformers: Pooling | None
    dropped: Sequence[DroppedTensor]
    notes: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return asdict(self)


Outcome = Literal["passed", "failed", "not measured"]


PARTS = ("configuration", "tensors", "reference", "engines", "texts")  # of a certificate


@dataclass(frozen=True, slots=True)
class Part:
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
    ) -> Part:
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
            masked-LM head, of which KerasHub and the stock layout have only one each.
        different_tensors: Tensors whose bits differ, by bridge names; empty where all are identical. A pooler that
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
    parts: Mapping[str, Part]
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


@dataclass(frozen=True, slots=True)
class FilesCheck:
    """Whether a converted folder is what it was when it was made, by its own `conversion.json`.

    Args:
        folder: That was checked.
        made_by: What the record says of where it comes from.
        files: Number of files that the record has checksums of.
        tensors: Number of tensors that it has checksums of.
        changes: "changed", "missing" or "new", by the name of each file of which that is true. Only files that presets
            and repositories have are new.
        different_tensors: Tensors that are not those of the record, where the folder can be read.
        others: Files of other kinds, which the record says nothing of.
    """

    folder: str
    made_by: str
    files: int
    tensors: int
    changes: dict[str, str]
    different_tensors: Sequence[str]
    others: Sequence[str]

    @property
    def passed(self) -> bool:
        """Whether every file and tensor is there and is the same, and nothing was added that libraries would read."""
        return not self.changes and not self.different_tensors

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON can hold it."""
        return {"passed": self.passed, **asdict(self)}
