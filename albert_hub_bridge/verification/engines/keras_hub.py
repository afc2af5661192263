"""The engine for keras_hub."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.mapping.heads import HEADS
from albert_hub_bridge.verification.engines.common import rounded


class KerasHubEngine:
    """keras_hub, for presets."""

    is_keras_hub = True

    def __init__(self, checkpoint: Checkpoint) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow also logs long after its import
        os.environ.setdefault("KERAS_BACKEND", "torch")  # always installed; the user's choice wins
        with _silent_stderr():
            import keras
            import keras_hub

        # Keras attends in two ways. Without dropout, it does not return zeros if all keys are masked.
        self.averages_padding = checkpoint.architecture.dropout == 0
        self.name = f"keras_hub {keras_hub.__version__} (Keras {keras.__version__} on {keras.backend.backend()})"
        # Absolute: KerasHub takes a bare name for a published preset, and downloads that.
        folder = os.path.abspath(checkpoint.folder)
        self._backbone = keras_hub.models.AlbertBackbone.from_preset(folder, dtype="float32")
        self._tokenizer: Any = None
        if checkpoint.tokenizer is not None:
            self._tokenizer = keras_hub.models.AlbertTokenizer.from_preset(folder)
        self._task: Any = None
        if checkpoint.head is not None:
            task = getattr(keras_hub.models, HEADS[checkpoint.head.kind].keras)
            self._task = task.from_preset(folder, dtype="float32", preprocessor=None)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Tokenize with AlbertTokenizer."""
        if self._tokenizer is None:
            return None
        return [[int(index) for index in self._tokenizer(text)] for text in texts]

    def special_ids(self) -> dict[str, int]:
        """Return what AlbertTokenizer has."""
        return {name: int(getattr(self._tokenizer, f"{name}_token_id", 0)) for name in ("pad", "cls", "sep")}

    def compute(self, inputs: dict[str, np.ndarray], with_head: bool = True) -> dict[str, np.ndarray]:
        """Compute with AlbertBackbone, and with the task if there is a head. See `Engine.compute`."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are using a softmax over axis")  # for sequences of one token
            outputs = {name: np.asarray(value) for name, value in self._backbone.predict(inputs, verbose=0).items()}
            if self._task is not None and with_head:
                all_positions = np.broadcast_to(np.arange(inputs["token_ids"].shape[1]), inputs["token_ids"].shape)
                positions = {"mask_positions": all_positions} if "MaskedLM" in type(self._task).__name__ else {}
                outputs["head_output"] = np.asarray(self._task.predict({**inputs, **positions}, verbose=0))
        return outputs

    def hidden_states(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Compute with the graph of AlbertBackbone: a layer has a node for each of its runs."""
        import keras

        backbone = self._backbone
        runs = [backbone.embeddings_projection.output]
        for group in backbone.transformer_layers:
            nodes = zip(*(layer._inbound_nodes for layer in group), strict=True)  # one tuple per run of the group
            runs += [node.outputs[0] for run in nodes for node in run]
        states = keras.Model(backbone.input, runs).predict(inputs, verbose=0)
        return np.stack([np.asarray(state) for state in states])

    def use_epsilon(self, epsilon: float) -> bool:
        """Return False: the epsilon is part of KerasHub's graph."""
        return False

    def use_activation(self, activation: str) -> bool:
        """Return False: KerasHub has one activation."""
        return False

    def round_weights(self, dtype: str) -> None:
        """Round the variables of the backbone and the task."""
        for model in (self._backbone, self._task):
            for weight in model.weights if model is not None else ():
                weight.assign(rounded(weight.numpy(), dtype))


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Silence TensorFlow, which does not log through Python. keras_hub imports it if it is installed."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
