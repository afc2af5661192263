"""Compute with PyTorch models that have the interface of transformers."""

from __future__ import annotations

from typing import Any

import numpy as np

from albert_hub_bridge.mapping.heads import Head
from albert_hub_bridge.verification.engines.common import rounded


class TorchEngine:
    """The common part of the engines that compute with PyTorch.

    Args:
        encoder: A model without head.
        model: The model with its head; the encoder if there is no head.
        head: The head, or None.
    """

    is_keras_hub = averages_padding = False
    sides = ("right", "right")

    def __init__(self, encoder: Any, model: Any, head: Head | None) -> None:
        self._encoder, self._model, self._head = encoder, model, head

    def compute(self, inputs: dict[str, np.ndarray], with_head: bool = True) -> dict[str, np.ndarray]:
        """Compute the outputs. See `Engine.compute`."""
        return compute_outputs(self._encoder, self._model, self._head if with_head else None, inputs)

    def compute_in_float64(self, inputs: dict[str, np.ndarray], with_head: bool = True) -> dict[str, np.ndarray]:
        """Compute the outputs in float64. See `Engine.compute_in_float64`."""
        from torch import nn

        models = self._encoder, self._model
        for model in models:
            nn.Module.double(model)  # transformers refuses `model.double` of a model with int8 layers
        try:
            return self.compute(inputs, with_head)
        finally:
            for model in models:
                nn.Module.float(model)  # exact: each value was a float32

    def hidden_states(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Compute the output of each layer. See `Engine.hidden_states`."""
        import torch

        with torch.inference_mode():
            return torch.stack(self._encoder(**_as_tensors(inputs), output_hidden_states=True).hidden_states).numpy()

    def use_epsilon(self, epsilon: float) -> bool:
        """Change the epsilon of the masked-LM head's layer norm."""
        set_head_epsilon(self._model, epsilon)
        return True

    def use_activation(self, activation: str) -> bool:
        """Change the activation of all layers and of the masked-LM head."""
        from transformers.activations import ACT2FN

        for model in (self._encoder, self._model):
            for module in model.modules():
                if hasattr(module, "activation"):
                    module.activation = ACT2FN[activation]
        return True

    def round_weights(self, dtype: str) -> None:
        """Round all weights to a dtype."""
        import torch

        for model in (self._encoder, self._model):
            for parameter in model.parameters():
                parameter.data = torch.from_numpy(rounded(parameter.detach().numpy(), dtype))


def set_head_epsilon(model: Any, epsilon: float) -> None:
    """Change the epsilon of the layer norm in the head of a masked LM, of this package or of transformers."""
    if hasattr(model, "masked_lm_head"):
        model.masked_lm_head.intermediate_layer_norm.eps = epsilon
    else:
        model.predictions.LayerNorm.eps = epsilon


def compute_outputs(
    encoder: Any, model: Any, head: Head | None, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Compute the outputs of an encoder, and of a model with a head if `head` is not None.

    Args:
        encoder: A model without head.
        model: A model with this head.
        head: The head, or None.
        inputs: `token_ids`, `segment_ids` and `padding_mask`, each (batch, seq).

    Returns:
        As `Engine.compute`; with a pretraining head, also `sentence_order_output`.
    """
    import torch

    tensors = _as_tensors(inputs)
    with torch.inference_mode():
        encoded = encoder(**tensors)
        outputs = {"sequence_output": encoded.last_hidden_state}
        if encoded.pooler_output is not None:
            outputs["pooled_output"] = encoded.pooler_output
        if head is not None:
            if head.kind == "multiple_choice":  # each row is the only choice
                tensors = {name: tensor.unsqueeze(1) for name, tensor in tensors.items()}
            outputs |= head_outputs(head, model(**tensors))
    return {name: value.numpy() for name, value in outputs.items()}


def head_outputs(head: Head, scores: Any) -> dict[str, Any]:
    """Return the outputs of a head by the names of `Engine.compute`, after the activation of a classifier.

    Args:
        head: The head.
        scores: What the model returned: an object with the tensors of transformers' names.
    """
    import torch

    if head.kind == "question_answering":
        return {"head_output": torch.stack((scores.start_logits, scores.end_logits), dim=-1)}
    if head.kind == "pretraining":
        return {"head_output": scores.prediction_logits, "sentence_order_output": scores.sop_logits}
    logits = scores.logits
    if head.activation == "softmax":
        logits = logits.softmax(-1)
    elif head.activation == "sigmoid":
        logits = logits.sigmoid()
    return {"head_output": logits}


def _as_tensors(inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return KerasHub's inputs as tensors, by transformers' names."""
    import torch

    names = {"token_ids": "input_ids", "segment_ids": "token_type_ids", "padding_mask": "attention_mask"}
    return {names[name]: torch.from_numpy(array).long() for name, array in inputs.items()}
