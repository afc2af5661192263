"""The command `export-onnx`: add ONNX files to a repository."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from albert_hub_bridge.choices import REPOSITORY_LAYOUTS, Quantize
from albert_hub_bridge.commands.onnx_files import OnnxExport, export_models
from albert_hub_bridge.commands.record_files import render_record_files
from albert_hub_bridge.disk.atomic import replace_file
from albert_hub_bridge.disk.checksums import sha256_of
from albert_hub_bridge.errors import SourceError, TargetError
from albert_hub_bridge.layouts.registry import open_source, read_checkpoint
from albert_hub_bridge.mapping.onnx_names import ONNX_FILES
from albert_hub_bridge.provenance.integrity import changed_files
from albert_hub_bridge.provenance.record import ConversionRecord, FileDigest, read_record


def export_onnx(folder: str | Path, *, quantize: Quantize | None = None, overwrite: bool = False) -> OnnxExport:
    """Add `onnx/model.onnx` to a repository: its model in one file, with its head, in float32.

    The names of files, inputs and outputs are those of Optimum, which transformers.js, sentence-transformers and
    others read. The result is computed by ONNX Runtime, and compared with the library of the repository. If the folder
    has a record of its conversion, the record and the card list the new files.

    Args:
        folder: A repository in the layout `transformers` or `albert_hub`.
        quantize: `int8` to also add `onnx/model_quantized.onnx`, whose weights are quantized.
        overwrite: Whether to replace ONNX files that are there. One that is not exported again is removed.

    Returns:
        What was exported, and how it differs from the repository.

    Raises:
        SourceError, CheckpointError: The folder is no repository, or is wrong.
        TargetError: It has ONNX files, or was changed since its conversion, or cannot be written.
        AlbertHubBridgeError: A package is missing, the model is too large, or the result differs from the repository.
        ValueError: `quantize` has an unsupported value.
    """
    path = Path(folder)
    if not path.is_dir():
        raise SourceError(f"There is no folder {path}. ONNX files are added to a repository on this machine.")
    if quantize not in (None, "int8"):
        raise ValueError(f"quantize must be one of None, int8, not {quantize!r}.")
    record = _check_folder(path, overwrite)
    with read_checkpoint(open_source(path)) as checkpoint:
        if checkpoint.layout not in REPOSITORY_LAYOUTS:
            raise SourceError(
                f"{path} is no Hub repository, and only those have ONNX files. Convert it: "
                f"albert-hub-bridge convert {path} TARGET --to transformers --onnx"
            )
        if checkpoint.int8:
            raise SourceError(
                f"ONNX files are not exported of int8 weights, which {path} has. Convert it to float32: "
                f"albert-hub-bridge convert {path} TARGET --to transformers --onnx --quantize int8"
            )
        contents, report = export_models(checkpoint, quantize)
    _write(path, contents)
    if record is not None:
        _add_to_record(path, record, report)
    return report


def _check_folder(path: Path, overwrite: bool) -> ConversionRecord | None:
    """Return the record of a folder to which ONNX files may be added."""
    present = [name for name in ONNX_FILES.values() if (path / name).exists()]
    if present and not overwrite:
        raise TargetError(f"{path} has {', '.join(present)}. Pass --overwrite (overwrite=True) to replace them.")
    record = read_record(path)
    if record is not None:
        changes = {name: how for name, how in changed_files(path, record).items() if name not in ONNX_FILES.values()}
        if changes:
            listed = ", ".join(f"{name} ({change})" for name, change in changes.items())
            raise TargetError(f"{path} was changed since its conversion: {listed}. Convert it again.")
    return record


def _write(path: Path, contents: dict[str, bytes]) -> None:
    parent = path / "onnx"
    try:
        parent.mkdir(exist_ok=True)
    except OSError as error:
        raise TargetError(f"The folder {parent} cannot be made: {error}.") from error
    try:
        for name, content in contents.items():
            replace_file(path / name, content)
    except BaseException:
        with suppress(OSError):  # not empty
            parent.rmdir()
        raise
    for name in set(ONNX_FILES.values()) - set(contents):  # of another export
        (path / name).unlink(missing_ok=True)


def _add_to_record(path: Path, record: ConversionRecord, report: OnnxExport) -> None:
    others = {name: digest for name, digest in record.target.files.items() if name not in ONNX_FILES.values()}
    added = {
        each.file: FileDigest((path / each.file).stat().st_size, sha256_of(path / each.file)) for each in report.files
    }
    target = replace(record.target, files=dict(sorted((others | added).items())))
    verification = record.verification
    if verification is not None:  # these files were not there
        checks = {name: check for name, check in verification["checks"].items() if not name.startswith("onnx")}
        verification = {**verification, "checks": checks}
    record = replace(record, target=target, onnx=list(report.files), verification=verification)
    render_record_files(path, record, path.resolve().name).write()
