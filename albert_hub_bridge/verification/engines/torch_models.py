"""Compute with models that have transformers' interface."""

from __future__ import annotations

from typing import Any

import numpy as np

from albert_hub_bridge.mapping.heads import Head
from albert_hub_bridge.verification.engines.common import rounded


def round_parameters(model: Any, dtype: str) -> None:
    import torch

    for parameter in model.parameters():
        parameter.data = torch.from_numpy(rounded(parameter.detach().numpy(), dtype))


def set_head_epsilon(model: Any, epsilon: float) -> bool:
    """Change the epsilon of a masked LM of this package, or of transformers."""
    if hasattr(model, "masked_lm_head"):
        model.masked_lm_head.intermediate_layer_norm.eps = epsilon
    else:
        model.predictions.LayerNorm.eps = epsilon
    return True


def compute_outputs(
    encoder: Any, with_head: Any, head: Head | None, inputs: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Compute with models of transformers' interface."""
    import torch

    tensors = _as_tensors(inputs)
    with torch.inference_mode():
        encoded = encoder(**tensors)
        outputs = {"sequence_output": encoded.last_hidden_state}
        if encoded.pooler_output is not None:
            outputs["pooled_output"] = encoded.pooler_output
        if head is not None:
            if head.kind == "multiple_choice":  # each text as the only choice
                tensors = {name: tensor.unsqueeze(1) for name, tensor in tensors.items()}
            scores = with_head(**tensors)
            if head.kind == "question_answering":
                outputs["head_output"] = torch.stack((scores.start_logits, scores.end_logits), dim=-1)
            elif head.kind == "pretraining":
                outputs["head_output"] = scores.prediction_logits
                outputs["sentence_order_output"] = scores.sop_logits
            else:
                outputs["head_output"] = scores.logits
                if head.activation == "softmax":
                    outputs["head_output"] = scores.logits.softmax(-1)
                elif head.activation == "sigmoid":
                    outputs["head_output"] = scores.logits.sigmoid()
    return {name: value.numpy() for name, value in outputs.items()}


def compute_hidden_states(encoder: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return torch.stack(encoder(**_as_tensors(inputs), output_hidden_states=True).hidden_states).numpy()


def _as_tensors(inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return KerasHub's inputs by transformers' names."""
    import torch

    names = {"token_ids": "input_ids", "segment_ids": "token_type_ids", "padding_mask": "attention_mask"}
    return {names[name]: torch.from_numpy(array).long() for name, array in inputs.items()}
