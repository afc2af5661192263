"""Compute with the real keras_hub."""

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
    """The real keras_hub."""

    is_keras_hub = True

    def __init__(self, checkpoint: Checkpoint) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow looks for a GPU long after its import too
        os.environ.setdefault("KERAS_BACKEND", "torch")  # the backend that is installed anyway; the user's choice wins
        with silence_stderr():
            import keras
            import keras_hub

        # Keras 3 has two ways to attend. The one without dropout has no zeros for keys that are all masked.
        self.averages_padding = checkpoint.architecture.dropout == 0
        self.name = f"keras_hub {keras_hub.__version__} (Keras {keras.__version__} on {keras.backend.backend()})"
        folder = str(checkpoint.folder)
        self._backbone = keras_hub.models.AlbertBackbone.from_preset(folder, dtype="float32")
        self._tokenizer: Any = None
        if checkpoint.tokenizer is not None:
            self._tokenizer = keras_hub.models.AlbertTokenizer.from_preset(folder)
        self._task: Any = None
        if checkpoint.head is not None:
            task = getattr(keras_hub.models, HEADS[checkpoint.head.kind].keras)
            self._task = task.from_preset(folder, dtype="float32", preprocessor=None)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Tokenize with keras_hub's AlbertTokenizer."""
        if self._tokenizer is None:
            return None
        return [[int(index) for index in self._tokenizer(text)] for text in texts]

    def compute(self, inputs: dict[str, np.ndarray], with_head: bool = True) -> dict[str, np.ndarray]:
        """Compute with keras_hub's AlbertBackbone, and with its task where there is one."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are using a softmax over axis")  # of a sequence of one token
            outputs = {name: np.asarray(value) for name, value in self._backbone.predict(inputs, verbose=0).items()}
            if self._task is not None and with_head:
                everywhere = np.broadcast_to(np.arange(inputs["token_ids"].shape[1]), inputs["token_ids"].shape)
                positions = {"mask_positions": everywhere} if "MaskedLM" in type(self._task).__name__ else {}
                outputs["head_output"] = np.asarray(self._task.predict({**inputs, **positions}, verbose=0))
        return outputs

    def hidden_states(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Compute with the graph of keras_hub's AlbertBackbone, in which a layer has a node for each of its runs."""
        import keras

        backbone = self._backbone
        runs = [backbone.embeddings_projection.output]
        for group in backbone.transformer_layers:
            nodes = zip(*(layer._inbound_nodes for layer in group), strict=True)  # one tuple for each run of the group
            runs += [node.outputs[0] for run in nodes for node in run]
        states = keras.Model(backbone.input, runs).predict(inputs, verbose=0)
        return np.stack([np.asarray(state) for state in states])

    def use_epsilon(self, epsilon: float) -> bool:
        """Refuse: KerasHub's epsilon is part of its graph."""
        return False

    def round_weights(self, dtype: str) -> None:
        """Round the variables of the backbone and the task."""
        for model in (self._backbone, self._task):
            for weight in model.weights if model is not None else ():
                weight.assign(rounded(weight.numpy(), dtype))


@contextmanager
def silence_stderr() -> Iterator[None]:
    """Close the mouth of TensorFlow, which keras_hub imports where it finds it, and which logs past Python."""
    sys.stderr.flush()
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
