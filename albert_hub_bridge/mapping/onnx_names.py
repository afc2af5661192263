"""Files, inputs and outputs of ONNX models, as Optimum names them.

Source:
    https://huggingface.co/docs/optimum-onnx, and transformers.js, which reads the same names.
"""

from __future__ import annotations

from typing import Literal

from albert_hub_bridge.mapping.heads import HeadKind


Precision = Literal["float32", "int8"]

ONNX_FILES: dict[Precision, str] = {"float32": "onnx/model.onnx", "int8": "onnx/model_quantized.onnx"}

# The inputs in their order, and what KerasHub calls them.
INPUTS = {"input_ids": "token_ids", "attention_mask": "padding_mask", "token_type_ids": "segment_ids"}


def output_names(head: HeadKind | None, has_pooler: bool) -> list[str]:
    """Return the names of the outputs in their order.

    Args:
        head: The head; None for an encoder alone.
        has_pooler: Whether the encoder has a pooler.
    """
    if head is None:
        return ["last_hidden_state", *["pooler_output"] * has_pooler]
    if head == "question_answering":
        return ["start_logits", "end_logits"]
    # A pretraining model fills masks too, so its first scores have the name that the pipeline for that looks for.
    return ["logits", *["sop_logits"] * (head == "pretraining")]


def check_name(precision: Precision) -> str:
    """Return the name of the check that compares an ONNX file with its repository."""
    return "onnx" if precision == "float32" else f"onnx {precision}"
