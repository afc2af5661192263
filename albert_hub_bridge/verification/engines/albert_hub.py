"""Compute with this package's own model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from albert_hub_bridge._version import __version__
from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.layouts.keras.compatibility import with_pooler
from albert_hub_bridge.model.sentencepiece_unigram import TextNormalization, build_tokenizer
from albert_hub_bridge.runtime.loading import load_model
from albert_hub_bridge.verification.engines.common import pack
from albert_hub_bridge.verification.engines.torch_models import (
    compute_hidden_states,
    compute_outputs,
    round_parameters,
    set_head_epsilon,
)


class AlbertHubEngine:
    """This package's own model of a source that no library here computes as it is."""

    is_keras_hub = averages_padding = False

    def __init__(self, checkpoint: Checkpoint) -> None:
        why = "with dequantized weights" if checkpoint.quantized else "keras_hub is not installed"
        if checkpoint.layout == "google":
            why = "nothing else runs Google's checkpoints"
        self.name = f"albert_hub_bridge {__version__} ({why})"
        self._model = load_model(with_pooler(checkpoint))
        self._text, self._head = checkpoint.tokenizer, checkpoint.head

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Tokenize with sentencepiece, as KerasHub's tokenizer does, after text normalization where there are any."""
        import sentencepiece

        if self._text is None:
            return None
        if self._text.normalization != TextNormalization():
            tokenizer = build_tokenizer(self._text.vocabulary, self._text.normalization)
            return [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
        processor = sentencepiece.SentencePieceProcessor(model_proto=self._text.proto)
        return [list(processor.encode(text)) for text in texts]

    def compute(self, inputs: dict[str, np.ndarray], with_head: bool = True) -> dict[str, np.ndarray]:
        """Compute with this package's model."""
        return compute_outputs(self._model.base_model, self._model, self._head if with_head else None, inputs)

    def hidden_states(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Compute with this package's model."""
        return compute_hidden_states(self._model.base_model, inputs)

    def use_epsilon(self, epsilon: float) -> bool:
        """Change the epsilon of the model."""
        return set_head_epsilon(self._model, epsilon)

    def round_weights(self, dtype: str) -> None:
        """Round the parameters of the model."""
        round_parameters(self._model, dtype)


def compute_in_float64(checkpoint: Checkpoint, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Compute a checkpoint's encoder with this package's model, in float64."""
    names = {rule.albert_hub for rule in checkpoint.encoder_rules}
    weights = {name: weight for name, weight in checkpoint.weights.items() if name in names}
    model = load_model(replace(checkpoint, head=None, weights=weights)).double()
    return compute_outputs(model, None, None, inputs)


def epsilon_effect(checkpoint: Checkpoint, epsilon: float, texts: Sequence[str]) -> float:
    """Measure how far another epsilon in the masked-LM head moves its scores: the largest absolute difference.

    Args:
        checkpoint: With such a head.
        epsilon: The other one.
        texts: What goes in; ids 0, 1, 2, ... where the checkpoint has no vocabulary.
    """
    model, size = load_model(checkpoint), checkpoint.architecture.vocabulary_size
    rows, special_ids = [[index % size for index in range(40)]], {"pad": 0, "cls": 0, "sep": 0}
    if checkpoint.tokenizer is not None:
        tokenizer = build_tokenizer(checkpoint.tokenizer.vocabulary, checkpoint.tokenizer.normalization)
        rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
        special_ids = checkpoint.tokenizer.vocabulary.special_ids
    inputs = pack(rows, special_ids, checkpoint.architecture.num_segments, checkpoint.architecture.max_sequence_length)
    before = compute_outputs(model.base_model, model, checkpoint.head, inputs)["head_output"]
    set_head_epsilon(model, epsilon)
    after = compute_outputs(model.base_model, model, checkpoint.head, inputs)["head_output"]
    return float(np.max(np.abs(after - before)))
