"""The engine for this package's own model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from albert_hub_bridge._version import __version__
from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.layouts.keras.compatibility import with_pooler
from albert_hub_bridge.layouts.tokenize import tokenize
from albert_hub_bridge.runtime.loading import load_model
from albert_hub_bridge.verification.engines.common import Encoded, encode_ids, features_of, pack
from albert_hub_bridge.verification.engines.torch_models import TorchEngine, compute_outputs


_SPECIAL = ("pad", "cls", "sep")


class AlbertHubEngine(TorchEngine):
    """This package's model, for checkpoints that no installed library can compute."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        model = load_model(with_pooler(checkpoint))
        super().__init__(model.base_model, model, checkpoint.head)
        self._tokenizer, self._layout = checkpoint.tokenizer, checkpoint.layout
        why = "with dequantized weights" if checkpoint.is_dequantized else "keras_hub is not installed"
        if checkpoint.layout == "google":
            why = "no installed library loads Google's checkpoints"
        self.name = f"albert_hub_bridge {__version__} ({why})"

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Tokenize with sentencepiece as KerasHub does, or with `tokenizers` if there is text normalization."""
        return tokenize(self._tokenizer, self._layout, texts) if self._tokenizer is not None else None

    def special_ids(self) -> dict[str, int]:
        """Return the ids in the vocabulary."""
        return self._tokenizer.vocabulary.special_ids if self._tokenizer is not None else dict.fromkeys(_SPECIAL, 0)

    def encode(self, first: Sequence[str], second: Sequence[str] | None, length: int) -> Encoded | None:
        """Encode with our own computation of what the layout's library does. See `Engine.encode`."""
        if self._tokenizer is None:
            return None
        parts = [self.tokenize(texts) or [] for texts in (first, second) if texts is not None]
        rows = list(zip(*parts, strict=True))
        return encode_ids(rows, self._tokenizer.vocabulary.special_ids, length, self._tokenizer.truncate)

    def features(self, texts: Sequence[str], length: int) -> list[np.ndarray]:
        """See `Engine.features`."""
        return features_of(self, texts, length)


def compute_in_float64(checkpoint: Checkpoint, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Compute the encoder of a checkpoint with this package's model, in float64. See `Engine.compute`."""
    names = {rule.albert_hub for rule in checkpoint.encoder_rules}
    weights = {name: weight for name, weight in checkpoint.weights.items() if name in names}
    encoder = load_model(replace(checkpoint, head=None, weights=weights)).double()
    return compute_outputs(encoder, encoder, None, inputs)


def epsilon_effect(checkpoint: Checkpoint, epsilon: float, texts: Sequence[str]) -> float:
    """Return the largest absolute difference of the scores with another epsilon in the masked-LM head.

    Args:
        checkpoint: A checkpoint with a masked-LM or pretraining head.
        epsilon: The other epsilon.
        texts: The texts. If the checkpoint has no vocabulary, the ids 0, 1, 2, ... are used instead.
    """
    engine, inputs = _engine_and_inputs(checkpoint, texts)
    before = engine.compute(inputs)["head_output"]
    engine.use_epsilon(epsilon)
    return float(np.max(np.abs(engine.compute(inputs)["head_output"] - before)))


def activation_effect(checkpoint: Checkpoint, activation: str, texts: Sequence[str]) -> dict[str, float]:
    """Return the largest absolute difference of each output with another activation.

    Args:
        checkpoint: A checkpoint.
        activation: The name of the other activation.
        texts: As for `epsilon_effect`.
    """
    engine, inputs = _engine_and_inputs(checkpoint, texts)
    before = engine.compute(inputs)
    engine.use_activation(activation)
    return {name: float(np.max(np.abs(after - before[name]))) for name, after in engine.compute(inputs).items()}


def _engine_and_inputs(checkpoint: Checkpoint, texts: Sequence[str]) -> tuple[AlbertHubEngine, dict[str, np.ndarray]]:
    size = checkpoint.architecture.vocabulary_size
    rows, special_ids = [[index % size for index in range(40)]], {"pad": 0, "cls": 0, "sep": 0}
    if checkpoint.tokenizer is not None:
        rows = tokenize(checkpoint.tokenizer, "transformers", texts)
        special_ids = checkpoint.tokenizer.vocabulary.special_ids
    limits = checkpoint.architecture.num_segments, checkpoint.architecture.max_sequence_length
    return AlbertHubEngine(checkpoint), pack(rows, special_ids, *limits)
