"""The ONNX files of a repository: export them, compare them with the repository, and write them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.document import Block, Document, escape
from albert_hub_bridge.errors import AlbertHubBridgeError
from albert_hub_bridge.mapping.onnx_names import INPUTS, ONNX_FILES, Precision, check_name, output_names
from albert_hub_bridge.provenance.record import OnnxRecord
from albert_hub_bridge.runtime.onnx_export import OPSET, export_model, quantize_model, require_onnx
from albert_hub_bridge.verification.sample_texts import SAMPLE_TEXTS


_LIMIT = 1e-5  # largest relative difference in float32, as `verify` allows it by default


@dataclass(frozen=True, slots=True)
class OnnxExport(Document):
    """The ONNX files of a repository.

    Args:
        folder: The repository.
        files: Of each file, what the record says.
        measured: Of each file, how it differs from the repository.
    """

    folder: str
    files: Sequence[OnnxRecord]
    measured: Sequence[str]

    def blocks(self) -> Iterator[Block]:
        """Yield what the report shows."""
        for file, measured in zip(self.files, self.measured, strict=True):
            yield f"[bold]{file.file}[/] ({file.precision}, opset {file.opset}): {escape(measured)}"

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return asdict(self)


def export_models(checkpoint: Checkpoint, quantize: Precision | None) -> tuple[dict[str, bytes], OnnxExport]:
    """Export a repository to ONNX, and compare the result with the library of its layout.

    Args:
        checkpoint: The repository, as it was read.
        quantize: `int8` for a second model with quantized weights.

    Returns:
        The content of each file by its name, and a report.

    Raises:
        AlbertHubBridgeError: A package is missing, the model is too large, or the result differs from the repository.
    """
    # Slow to import, and most conversions export nothing.
    from albert_hub_bridge.verification.engines.registry import open_engine
    from albert_hub_bridge.verification.onnx import check_onnx
    from albert_hub_bridge.verification.side import Side

    require_onnx()
    models: dict[Precision, bytes] = {"float32": export_model(checkpoint)}
    if quantize is not None:
        models[quantize] = quantize_model(models["float32"])
    checks = check_onnx(Side(checkpoint, open_engine(checkpoint)), models, SAMPLE_TEXTS, _LIMIT)
    if failures := [failure for check in checks.values() for failure in check.failures]:
        raise AlbertHubBridgeError(
            f"Nothing was written, because the exported model differs from {checkpoint.folder}: {', '.join(failures)}."
        )
    head = checkpoint.head.kind if checkpoint.head is not None else None
    outputs = output_names(head, checkpoint.has_pooler)
    files = [OnnxRecord(ONNX_FILES[precision], precision, OPSET, list(INPUTS), outputs) for precision in models]
    measured = [checks[check_name(precision)].describe() for precision in models]
    report = OnnxExport(str(checkpoint.folder), files, measured)
    return {ONNX_FILES[precision]: content for precision, content in models.items()}, report
