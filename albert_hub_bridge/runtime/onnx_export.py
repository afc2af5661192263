"""Export a checkpoint to ONNX, and quantize it. Both need the extra `onnx`."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.errors import AlbertHubBridgeError
from albert_hub_bridge.mapping.onnx_names import INPUTS, output_names
from albert_hub_bridge.runtime.loading import load_model


OPSET = 18  # ONNX Runtime 1.14 and later; newer opsets are not faster
MAX_BYTES = 2**31 - 2**20  # protobuf's limit for one message, less what is no weight
_NEEDED = ("onnx", "onnx_ir", "onnxruntime", "onnxscript")


def require_onnx() -> None:
    """Refuse an export that would fail, before any work is done.

    Raises:
        AlbertHubBridgeError: A package of the extra `onnx` is not installed.
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise AlbertHubBridgeError(
            f"Exporting to ONNX needs {', '.join(missing)}. Run: pip install 'albert-hub-bridge[onnx]'."
        )


def export_model(checkpoint: Checkpoint) -> bytes:
    """Export the model of a checkpoint, with its head, in float32. Weights that layers share are stored once.

    The inputs are `input_ids`, `attention_mask` and `token_type_ids`, int64, of any batch size and length. `OPSET` is
    the version of the operators.

    Returns:
        The serialized model, the same bytes for the same checkpoint and versions of the libraries.

    Raises:
        AlbertHubBridgeError: The model is too large for one file.
    """
    import torch

    size = 4 * sum(prod(weight.shape) for weight in checkpoint.weights.values())
    if size > MAX_BYTES:
        raise AlbertHubBridgeError(
            f"An ONNX file holds at most 2 GB, and the weights of {checkpoint.folder} have {size:,} bytes in float32."
        )
    model, head = load_model(checkpoint), checkpoint.head
    has_choices = head is not None and head.kind == "multiple_choice"
    axes = ["batch_size", *["num_choices"] * has_choices, "sequence_length"]
    example = torch.ones((2, *[3] * has_choices, 8), dtype=torch.long)
    mask, segments = example.clone(), torch.zeros_like(example)
    mask[..., -2:] = 0
    with _quiet():
        program: Any = torch.onnx.export(
            model,
            kwargs=dict(zip(INPUTS, (example, mask, segments), strict=True)),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes={name: dict(enumerate(axes)) for name in INPUTS},
            input_names=list(INPUTS),
            output_names=output_names(head.kind if head is not None else None, checkpoint.has_pooler),
            verbose=False,
        )
    return _serialize(program.model)


def _serialize(model: Any) -> bytes:
    """Serialize a model of torch's exporter, without what says where and how it was made."""
    import onnx_ir
    from onnx_ir.passes import common

    _transpose_weights(model.graph)
    for change in (
        common.DeduplicateInitializersPass(MAX_BYTES),  # small weights were transposed for each of their uses
        common.RemoveUnusedNodesPass(),
        common.ClearMetadataAndDocStringPass(),  # paths of this machine
    ):
        change(model)
    content = onnx_ir.to_proto(model)
    # The shapes of the weights stand beside the weights too. ONNX Runtime before 1.32 transposes a weight when it
    # quantizes a model, and refuses the other shape then.
    weights, values = {weight.name for weight in content.graph.initializer}, content.graph.value_info
    kept = [value for value in values if value.name not in weights]
    del values[:]
    values.extend(kept)
    return bytes(content.SerializeToString(deterministic=True))


def _transpose_weights(graph: Any) -> None:
    """Transpose weights here that the graph only uses transposed.

    The quantization takes only the weights themselves, not what is computed from them.
    """
    import numpy as np
    import onnx_ir

    for weight in list(graph.initializers.values()):
        nodes = [use.node for use in weight.uses()]
        if not nodes or any(node.op_type != "Transpose" or len(weight.shape) != 2 for node in nodes):
            continue
        values = onnx_ir.tensor(np.ascontiguousarray(weight.const_value.numpy().T), name=f"{weight.name}.transposed")
        transposed = onnx_ir.Value(
            name=values.name, shape=onnx_ir.Shape(reversed(weight.shape)), type=weight.type, const_value=values
        )
        graph.register_initializer(transposed)
        for node in nodes:
            node.outputs[0].replace_all_uses_with(transposed)
            graph.remove(node, safe=True)
        del graph.initializers[weight.name]


def quantize_model(content: bytes) -> bytes:
    """Quantize an exported model to int8, as ONNX Runtime does dynamically: weights now, and activations as it runs.

    Args:
        content: What `export_model` returned.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _quiet():
        file = Path(folder) / "model.onnx"
        quantize_dynamic(onnx.load_model_from_string(content), file, weight_type=QuantType.QInt8)
        return file.read_bytes()


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide warnings and messages of the exporter, which are about its own parts."""
    loggers = [logging.getLogger(name) for name in ("", "torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
