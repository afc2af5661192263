"""Untrusted ONNX files: a graph in one file, without loops and without operators that a library would have to add."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from albert_hub_bridge.disk.regular_files import read_bytes
from albert_hub_bridge.errors import FileError, Problem


MAX_BYTES = 2**31 - 1  # protobuf's limit


def read_onnx(file: Path) -> bytes:
    """Read an ONNX file, and refuse what no export of an ALBERT has.

    Returns:
        The content of the file. A runtime that loads it opens no other file.

    Raises:
        FileError: It is no ONNX model, or has external data, operators of other domains, or graphs inside operators.
        OSError: It cannot be read.
    """
    import onnx
    from google.protobuf.message import DecodeError

    content = read_bytes(file, MAX_BYTES)
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise _refused(file, f"expected an ONNX model, found {error}") from error
    if problem := _problem(model):
        raise _refused(file, f"expected a graph that needs nothing else, found {problem}")
    return content


def _problem(model: Any) -> str | None:
    import onnx

    external = [t.name for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    if external:
        return f"external data of {external[0][:100]!r}"
    if model.functions or model.graph.sparse_initializer or model.training_info:
        return "functions, sparse tensors or training"
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            return f"an operator of {node.domain[:100]!r}"
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs or attribute.HasField("sparse_tensor"):
                return f"a graph or a sparse tensor inside {node.op_type[:100]!r}"
            tensors = [attribute.t, *attribute.tensors]
            if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
                return f"external data inside {node.op_type[:100]!r}"
    return None


def _refused(file: Path, detail: str) -> FileError:
    advice = "Export it again: albert-hub-bridge export-onnx FOLDER --overwrite."
    return FileError(file, "ONNX model", [Problem("unusable", file.name, detail)], advice)
