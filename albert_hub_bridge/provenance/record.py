"""`conversion.json`: how a folder was converted, as data. The model card is rendered from it."""

# No `from __future__ import annotations`: values are checked against annotations that are types, not strings.

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from albert_hub_bridge.choices import LayoutName, Pooling, SourceLayoutName
from albert_hub_bridge.disk.strict_json import json_bytes, read_json
from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.hubs.local_source import LocalSource
from albert_hub_bridge.layouts.files import RECORD_FILES
from albert_hub_bridge.mapping.heads import HeadKind
from albert_hub_bridge.mapping.onnx_names import Precision
from albert_hub_bridge.provenance.card_metadata import CardMetadata
from albert_hub_bridge.provenance.strict_reader import check_dataclass, field_types, read_dataclass


RECORD, CARD, PICTURE = RECORD_FILES

# What two libraries give for a row without a text is not compared. People do not ask for it, so cards leave it out.
ONLY_PADDING = "rows with only padding tokens"

# The checks of a verification, in the order of the report and the card.
CHECKS = ("configuration", "tensors", "reference", "engines", "texts")


@dataclass
class FileDigest:
    """Size and SHA-256 (in hexadecimal) of a file."""

    bytes: int
    sha256: str


@dataclass
class SourceRecord:
    """The source of a conversion.

    Args:
        handle: Its name on a hub, or the name of its folder.
        revision: Commit or version on the hub; None for a folder.
        layout: Its layout.
        dtype: Of its weights; None before the conversion.
        files: Digest of every file, by its name.
    """

    handle: str
    revision: str | None
    layout: SourceLayoutName
    dtype: str | None
    files: dict[str, FileDigest]


@dataclass
class TargetRecord:
    """The target of a conversion.

    Args:
        layout: Its layout.
        dtype: Of its weights; None before the conversion.
        files: Digest of every file, by its name; without the record, the card and the picture.
        tensors: SHA-256 of every tensor, by its name in the albert_hub layout (`digests.sha256_of_tensor`).
    """

    layout: LayoutName
    dtype: str | None
    files: dict[str, FileDigest]
    tensors: dict[str, str]


@dataclass
class VocabularySummary:
    """A vocabulary, and the normalization of a text.

    Args:
        pieces: Number of pieces.
        text_normalization: What happens to a text before the vocabulary's own normalization: `none`, `uncased`, ...
        text_normalization_from: The file or library that defines it.
        normalization_in_vocabulary: Whether it is part of the vocabulary's own normalization.
        normalization: The vocabulary's own normalization, such as `nmt_nfkc`.
        lower_cases: Whether texts are lower-cased, by either of them.
        sequence_length: Largest number of tokens of a packed input; None where the source does not define it.
        truncate: How pairs are truncated.
        splits_numbers: Whether `1984,` is always `1984` and `,`, as in Google's ALBERT; None if no piece ends with a
            digit and a comma.
    """

    pieces: int
    text_normalization: str
    text_normalization_from: str
    normalization_in_vocabulary: bool
    normalization: str
    lower_cases: bool
    sequence_length: int | None
    truncate: str
    splits_numbers: bool | None = None


@dataclass
class IgnoredKeyRecord:
    """A setting of the source that was not converted."""

    key: str
    value: Any
    reason: str


@dataclass
class DroppedTensorRecord:
    """A tensor of the source that was not converted."""

    name: str
    shape: list[int]
    reason: str


@dataclass
class GoldenNumbers:
    """Numbers that KerasHub publishes for a preset, and the result of comparing a conversion with them.

    Args:
        source: URL of the test that contains them.
        token_ids: The input, (1, sequence).
        segment_ids: The input, (1, sequence).
        padding_mask: The input, (1, sequence).
        sequence_output: First numbers of the first token's state.
        pooled_output: First numbers of the pooled output.
        max_abs_difference: Largest absolute difference of the conversion's numbers; None if they were not compared.
    """

    source: str
    token_ids: list[list[int]]
    segment_ids: list[list[int]]
    padding_mask: list[list[int]]
    sequence_output: list[int | float]
    pooled_output: list[int | float]
    max_abs_difference: int | float | None


@dataclass
class OnnxRecord:
    """An ONNX file of the target.

    Args:
        file: Its name.
        precision: Of its weights: `float32` or `int8`.
        opset: The version of its operators.
        inputs: The names of its inputs.
        outputs: The names of its outputs.
    """

    file: str
    precision: Precision
    opset: int
    inputs: list[str]
    outputs: list[str]


@dataclass
class ConversionRecord:
    """The content of `conversion.json`. The same source, options and version give the same record.

    Args:
        tool: Name and version of this package.
        command: The command that converts the source.
        source: What was read.
        target: What was written.
        metadata: Of the model card: what the source's card or the options say.
        published: License, language, data and paper of a published checkpoint; None for others.
        architecture: Settings of the encoder, by KerasHub's names.
        head: Description of the target's head.
        head_kind: Kind of the target's head.
        has_pooler: Whether the target's encoder has a pooler.
        parameters: Number of parameters.
        vocabulary: Of the target; None without a tokenizer.
        changed_texts: Number of sample texts that have other ids than in the source; None if that was not compared.
        sample_size: Number of sample texts.
        sentence_transformers: Pooling for sentence-transformers.
        ignored: Settings that were not converted.
        dropped: Tensors that were not converted.
        notes: Notes for the user.
        labels: Names of a classifier's labels, in order; None for other models.
        labels_from_option: Whether the option `labels` named them.
        card: Lines of the card as it was rendered last, without what users wrote into it.
        accepted: Names of files that were changed after the conversion, and accepted by a verification since then.
        verification: What `verify` measured, without the names of the folders; None before.
        picture: Digest of the picture of the differences per layer.
        golden: Published numbers, where there are any.
        tokenizer: Class of a tokenizer whose files were carried over as they are; None if it was converted.
        approximate_gelu: Whether the target computes the tanh form of the source's gelu.
        dropped_tokenizer: Whether `--drop-tokenizer` left out what is no SentencePiece vocabulary of the tokenizer.
        onnx: The ONNX files of the target.
    """

    tool: str
    command: str
    source: SourceRecord
    target: TargetRecord
    metadata: CardMetadata
    published: dict[str, str] | None
    architecture: dict[str, Any]
    head: str | None
    head_kind: HeadKind | None
    has_pooler: bool
    parameters: int
    vocabulary: VocabularySummary | None
    changed_texts: int | None
    sample_size: int
    sentence_transformers: Pooling | None
    ignored: list[IgnoredKeyRecord]
    dropped: list[DroppedTensorRecord]
    notes: list[str]
    labels: list[str] | None = None
    labels_from_option: bool = False
    card: list[str] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    verification: dict[str, Any] | None = None
    picture: FileDigest | None = None
    golden: GoldenNumbers | None = None
    tokenizer: str | None = None
    dropped_tokenizer: bool = False
    approximate_gelu: bool = False
    onnx: list[OnnxRecord] = field(default_factory=list)

    @property
    def made_by(self) -> str:
        """The source and the tool, in words."""
        revision = f", revision {self.source.revision}" if self.source.revision else ""
        return f"converted from {self.source.handle}{revision}, by {self.tool}"

    @property
    def files_to_push(self) -> list[str]:
        """The names of the files that `push` sends."""
        return [*self.target.files, RECORD, CARD, *([PICTURE] if self.picture is not None else [])]

    def to_bytes(self) -> bytes:
        """Return the content of the file.

        Raises:
            TypeError: A field has a value of another type, so that the file could not be read back.
        """
        check_dataclass(self)
        return json_bytes(json.loads(json.dumps(asdict(self), default=str)))


@dataclass
class _Verification:
    """The keys of `verification` that the card and the picture need. It has more."""

    passed: bool
    texts: int
    source_engine: str
    target_engine: str
    checks: dict[str, dict[str, Any]]
    max_abs_difference: dict[str, int | float | None]
    max_relative_difference: dict[str, int | float | None]
    layer_differences: list[int | float | None]
    relative_layer_differences: list[int | float | None]
    tolerance: int | float
    notes: list[str]


def read_record(folder: Path) -> ConversionRecord | None:
    """Read a folder's `conversion.json`.

    Returns:
        The record, or None if there is no such file.

    Raises:
        ConfigurationError: It is not a record of this package. All problems are listed.
    """
    file = folder / RECORD
    if not file.is_file():
        return None
    problems: list[Problem] = []
    record: ConversionRecord = read_dataclass(ConversionRecord, read_json(file), "", problems)
    if not problems and record.verification is not None:
        needed = {name: value for name, value in record.verification.items() if name in field_types(_Verification)}
        read_dataclass(_Verification, needed, "verification.", problems)
    if problems:
        raise ConfigurationError(file, "record", problems, "Convert it again, or remove this file.")
    return record


def public_handle(source: LocalSource) -> str:
    """Return the name of a source for publication: of a folder only its last part, because its path is private."""
    return source.handle if "://" in source.handle else source.folder.resolve().name
