"""The reports of `convert` and `inspect`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from albert_hub_bridge.checkpoint import DroppedTensor
from albert_hub_bridge.choices import LayoutName, Pooling, SourceLayoutName
from albert_hub_bridge.commands.onnx_files import OnnxExport
from albert_hub_bridge.document import Block, Document, escape
from albert_hub_bridge.layouts.layout import DESCRIPTIONS
from albert_hub_bridge.layouts.losses import is_worth_a_look, show_losses
from albert_hub_bridge.mapping.configs import IgnoredKey
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.provenance.record import VocabularySummary


@dataclass(frozen=True, slots=True)
class Inspection(Document):
    """The content of a preset or repository.

    Args:
        source: The folder or handle.
        layout: Its layout.
        architecture: Of its encoder.
        parameters: Number of parameters.
        tensors: Number of tensors.
        bytes: Size of all weights.
        dtype: Of the weights.
        head: Description of the head; None for an encoder alone.
        vocabulary: Its vocabulary; None without a tokenizer.
        dropped: Tensors that are not converted.
        ignored: Settings that are not converted.
        notes: Notes for the user.
        made_by: Source and tool of the conversion that made the folder, and later changes; None without a record.
    """

    source: str
    layout: SourceLayoutName
    architecture: Architecture
    parameters: int
    tensors: int
    bytes: int
    dtype: str
    head: str | None
    vocabulary: VocabularySummary | None
    dropped: Sequence[DroppedTensor]
    ignored: Sequence[IgnoredKey]
    notes: Sequence[str]
    made_by: str | None = None

    def blocks(self) -> Iterator[Block]:
        """Yield what the report shows."""
        settings = self.architecture.keras_arguments | self.architecture.differences_from_keras
        facts = {name: str(value) for name, value in settings.items()}
        facts["parameters"] = f"{self.parameters:,} in {self.tensors} tensors"
        facts["size"] = f"{self.bytes / 1e6:,.1f} MB, {self.dtype}"
        if self.made_by is not None:
            facts["made by"] = escape(self.made_by)
        facts["head"] = escape(self.head or "none")
        facts |= _vocabulary_facts(self.vocabulary) if self.vocabulary is not None else {"vocabulary": "none"}
        yield f"[bold]{escape(self.source)}[/]: {DESCRIPTIONS[self.layout]}"
        yield facts
        yield from show_losses(self.dropped, self.ignored, self.notes)

    @property
    def needs_attention(self) -> bool:
        """See `Document`."""
        return is_worth_a_look(self.dropped, self.ignored, self.notes)

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Conversion(Document):
    """What was converted, and what was not.

    Args:
        source: What was read.
        target: The folder that was made.
        layout: Its layout.
        dtype: Of its weights.
        head: Description of its head; None for an encoder alone.
        text_normalization: What happens to a text before the vocabulary's own normalization; None without a tokenizer.
        text_normalization_from: The file, library or option that defines it.
        tokenizer: The class of a tokenizer whose files were carried over as they are; None if it was converted.
        dropped_tokenizer: Whether what is no SentencePiece vocabulary of the tokenizer was dropped.
        changed_texts: Number of sample texts that have other ids than in the source; None if that was not compared.
        sample_size: Number of sample texts.
        sentence_transformers: How the target pools for sentence-transformers; None if it is no model for it.
        dropped: Tensors that were not converted.
        ignored: Settings that were not converted.
        notes: Notes for the user, on the source and the conversion.
        onnx: The ONNX files of the target; None if it has none.
        includes_code: Whether the target has the code of its classes.
        labels: Names of a classifier's labels, in order; None if they have none.
    """

    source: Inspection
    target: str
    layout: LayoutName
    dtype: str
    head: str | None
    text_normalization: str | None
    text_normalization_from: str | None
    tokenizer: str | None
    dropped_tokenizer: bool
    changed_texts: int | None
    sample_size: int
    sentence_transformers: Pooling | None
    dropped: Sequence[DroppedTensor]
    ignored: Sequence[IgnoredKey]
    notes: Sequence[str]
    onnx: OnnxExport | None = None
    includes_code: bool = False
    labels: Sequence[str] | None = None

    def blocks(self) -> Iterator[Block]:
        """Yield what the report shows."""
        source, target = escape(self.source.source), escape(self.target)
        size = f"{self.source.parameters:,} parameters, {self.dtype}" + (f", {escape(self.head)}" if self.head else "")
        yield f"[bold]{source}[/] ({self.source.layout}) to [bold]{target}[/] ({self.layout}): {size}"
        lines = []
        if self.tokenizer is not None:
            lines.append(f"The tokenizer is the source's own, a {escape(self.tokenizer)}.")
        elif self.text_normalization is not None:
            origin = escape(str(self.text_normalization_from))
            lines.append(f"Text normalization of the target: {escape(self.text_normalization)} ({origin}).")
        if self.changed_texts is not None:
            lines.append(f"{self.changed_texts} of {self.sample_size} sample texts have other ids than in the source.")
        if lines:
            yield " ".join(lines)
        if self.labels is not None:
            yield f"Labels: {escape(', '.join(f'{index} {label}' for index, label in enumerate(self.labels[:100])))}."
        if self.layout == "albert_hub" and not self.includes_code:
            yield "[dim]Programs that do not import albert_hub_bridge need the code beside it: --include-code.[/]"
        if self.onnx is not None:
            yield from self.onnx.blocks()
        yield from show_losses(self.dropped, self.ignored, self.notes)

    @property
    def needs_attention(self) -> bool:
        """See `Document`."""
        return bool(self.changed_texts) or is_worth_a_look(self.dropped, self.ignored, self.notes)

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return asdict(self)


def _vocabulary_facts(vocabulary: VocabularySummary) -> dict[str, str]:
    inside = " (in the vocabulary)" if vocabulary.normalization_in_vocabulary else ""
    normalization = f"{vocabulary.text_normalization}{inside} ({vocabulary.text_normalization_from})"
    length = vocabulary.sequence_length or "not defined"
    facts = {
        "text normalization": escape(normalization),
        "vocabulary": escape(f"{vocabulary.pieces:,} pieces, normalization {vocabulary.normalization}"),
    }
    if vocabulary.splits_numbers is not None:
        facts["1984,"] = "a number and a comma" if vocabulary.splits_numbers else "a number with a comma: one piece"
    return facts | {"packing": f"sequence length {length}, pairs truncated {vocabulary.truncate}"}
