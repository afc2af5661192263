"""The engine for ONNX Runtime, which computes the ONNX files of a repository."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from albert_hub_bridge.mapping.heads import Head
from albert_hub_bridge.mapping.onnx_names import INPUTS
from albert_hub_bridge.verification.engines.torch_models import head_outputs


class OnnxRuntimeEngine:
    """ONNX Runtime, on the processor. It only computes: the repository's tokenizer is another engine's.

    Args:
        content: An ONNX model, as `read_onnx` returns it.
        head: The head of the repository.
    """

    def __init__(self, content: bytes, head: Head | None) -> None:
        import onnxruntime

        self.name = f"onnxruntime {onnxruntime.__version__}"
        self._head = head
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def compute(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the outputs of the file.

        Args:
            inputs: `token_ids`, `segment_ids` and `padding_mask`, each (batch, seq).

        Returns:
            `sequence_output` and `pooled_output`, if there is no head; else `head_output`. See `Engine.compute`.
        """
        import torch

        arrays = {name: inputs[keras].astype(np.int64) for name, keras in INPUTS.items()}
        if self._head is not None and self._head.kind == "multiple_choice":  # each row is the only choice
            arrays = {name: array[:, None] for name, array in arrays.items()}
        names = [output.name for output in self._session.get_outputs()]
        found = dict(zip(names, self._session.run(names, arrays), strict=True))
        if self._head is None:
            keras_names = {"last_hidden_state": "sequence_output", "pooler_output": "pooled_output"}
            return {keras_names[name]: array for name, array in found.items() if name in keras_names}
        scores = {name: torch.from_numpy(array) for name, array in found.items()}
        if self._head.kind == "pretraining":
            scores["prediction_logits"] = scores.pop("logits")
        outputs = head_outputs(self._head, SimpleNamespace(**scores))
        return {name: tensor.numpy() for name, tensor in outputs.items()}
