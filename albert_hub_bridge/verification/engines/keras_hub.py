"""The engine for keras_hub."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.layouts.keras.files import KERAS_TOKENIZER, TASK_WEIGHTS, WEIGHTS
from albert_hub_bridge.mapping.heads import HEADS
from albert_hub_bridge.runtime.live_keras import layers_of
from albert_hub_bridge.verification.engines.albert_hub import AlbertHubEngine
from albert_hub_bridge.verification.engines.common import Encoded, features_of, rounded


class KerasHubEngine:
    """keras_hub, for presets."""

    is_keras_hub = True
    sides = ("right", "right")

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
        self._folder = os.path.abspath(checkpoint.folder)
        self._head = checkpoint.head
        # Keras computes layer norms in float32 under every dtype. Where states are rounded to int8, that is not enough
        # to tell rounding errors: this package's model of the same files has them in float64.
        self._in_float64 = AlbertHubEngine(checkpoint) if checkpoint.dtype == "int8" else None
        self._int8_rules = [
            [rule for rule in rules if rule.albert_hub in checkpoint.int8]
            for rules in (checkpoint.encoder_rules, checkpoint.head_rules)
        ]
        self._rounded_to: str | None = None
        self._models = self._load("float32")
        self._tokenizer: Any = None
        if checkpoint.tokenizer is not None:
            is_universal = os.path.exists(os.path.join(self._folder, KERAS_TOKENIZER))
            file = {"config_file": KERAS_TOKENIZER} if is_universal else {}
            self._tokenizer = keras_hub.models.AlbertTokenizer.from_preset(self._folder, **file)
            self._truncate = checkpoint.tokenizer.truncate

    def _load(self, dtype: str) -> tuple[Any, Any]:
        """Return the backbone, and the task or None, with rounded weights if the engine has them."""
        import keras_hub

        load = self._load_int8 if self._in_float64 is not None else self._load_float
        backbone, task = load(keras_hub.models.AlbertBackbone, dtype=dtype), None
        if self._head is not None:
            task_class = getattr(keras_hub.models, HEADS[self._head.kind].keras)
            task = load(task_class, dtype=dtype, preprocessor=None)
        if self._rounded_to is not None:
            _round(backbone, task, self._rounded_to)
        return backbone, task

    def _load_float(self, model_class: Any, **options: Any) -> Any:
        return model_class.from_preset(self._folder, **options)

    def _load_int8(self, model_class: Any, **options: Any) -> Any:
        """Load a quantized preset. KerasHub 0.32 makes float layers for it, and then refuses the weights."""
        model = model_class.from_preset(self._folder, load_weights=False, **options)
        backbone = getattr(model, "backbone", model)
        with _cheap_collections():
            for part, rules in zip((backbone, model), self._int8_rules, strict=True):
                for layer in layers_of(part, rules).values() if rules else ():
                    if layer.quantization_mode is None:
                        layer.quantize("int8")
        if model is not backbone:
            model.load_task_weights(os.path.join(self._folder, TASK_WEIGHTS))
        backbone.load_weights(os.path.join(self._folder, WEIGHTS))
        return model

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Tokenize with AlbertTokenizer."""
        if self._tokenizer is None:
            return None
        return [[int(index) for index in self._tokenizer(text)] for text in texts]

    def special_ids(self) -> dict[str, int]:
        """Return what AlbertTokenizer has."""
        return {name: int(getattr(self._tokenizer, f"{name}_token_id", 0)) for name in ("pad", "cls", "sep")}

    def encode(self, first: Sequence[str], second: Sequence[str] | None, length: int) -> Encoded | None:
        """Encode with the preprocessor of AlbertTextClassifier. See `Engine.encode`."""
        import keras
        import keras_hub

        if self._tokenizer is None:
            return None
        preprocessor = keras_hub.models.AlbertTextClassifierPreprocessor(
            self._tokenizer, sequence_length=length, truncate=self._truncate
        )
        # Without `y`, a pair would be taken for a text and its label.
        packed = preprocessor(list(first) if second is None else (list(first), list(second)), y=None)
        names = ("token_ids", "segment_ids", "padding_mask")
        return Encoded(*(np.asarray(keras.ops.convert_to_numpy(packed[name])).astype(np.int32) for name in names))

    def features(self, texts: Sequence[str], length: int) -> list[np.ndarray]:
        """See `Engine.features`."""
        return features_of(self, texts, length)

    def compute(self, inputs: dict[str, np.ndarray], with_head: bool = True) -> dict[str, np.ndarray]:
        """Compute with AlbertBackbone, and with the task if there is a head. See `Engine.compute`."""
        return _compute(*self._models, inputs, with_head)

    def compute_in_float64(self, inputs: dict[str, np.ndarray], with_head: bool = True) -> dict[str, np.ndarray]:
        """Compute with models in float64, which are loaded for each call. See `Engine.compute_in_float64`."""
        if self._in_float64 is not None:
            return self._in_float64.compute_in_float64(inputs, with_head)
        with _cheap_collections():
            outputs = _compute(*self._load("float64"), inputs, with_head)
            gc.collect()  # models of Keras are cycles, and these are as large as the checkpoint twice
        return outputs

    def hidden_states(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Compute with the graph of AlbertBackbone: a layer has a node for each of its runs."""
        import keras

        backbone = self._models[0]
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
        self._rounded_to = dtype
        _round(*self._models, dtype)


def _round(backbone: Any, task: Any, dtype: str) -> None:
    for model in (backbone, task):
        for weight in model.weights if model is not None else ():
            weight.assign(rounded(weight.numpy(), dtype))


def _compute(backbone: Any, task: Any, inputs: dict[str, np.ndarray], with_head: bool) -> dict[str, np.ndarray]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using a softmax over axis")  # for sequences of one token
        warnings.filterwarnings("ignore", "The use of `x.T`")  # Keras transposes the scales of an int8 embedding
        outputs = {name: np.asarray(value) for name, value in backbone.predict(inputs, verbose=0).items()}
        if task is not None and with_head:
            all_positions = np.broadcast_to(np.arange(inputs["token_ids"].shape[1]), inputs["token_ids"].shape)
            positions = {"mask_positions": all_positions} if "MaskedLM" in type(task).__name__ else {}
            outputs["head_output"] = np.asarray(task.predict({**inputs, **positions}, verbose=0))
    return outputs


@contextmanager
def _cheap_collections() -> Iterator[None]:
    """Keep the garbage collector away from what exists. Keras runs it for each layer that it quantizes."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


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
