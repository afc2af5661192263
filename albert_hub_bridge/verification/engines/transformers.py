"""Compute with transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from albert_hub_bridge._version import __version__
from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.mapping.heads import HEADS
from albert_hub_bridge.verification.engines.torch_models import (
    compute_hidden_states,
    compute_outputs,
    round_parameters,
    set_head_epsilon,
)


class TransformersEngine:
    """transformers: with this package's classes for the albert_hub layout, with its own for the transformers layout."""

    is_keras_hub = averages_padding = False

    def __init__(self, checkpoint: Checkpoint) -> None:
        import torch
        import transformers

        package = f" with albert_hub_bridge {__version__}" if checkpoint.layout == "albert_hub" else ""
        options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": False}  # nor is anybody asked
        self._head = checkpoint.head
        self._with_head: Any = None
        with quiet_transformers(transformers):
            pooling = {} if checkpoint.has_pooler else {"add_pooling_layer": False}
            self._model: Any = transformers.AutoModel.from_pretrained(checkpoint.folder, **options, **pooling)
            if self._head is not None:
                auto = getattr(transformers, HEADS[self._head.kind].auto)
                self._with_head = auto.from_pretrained(checkpoint.folder, **options)
            self._tokenizer: Any = None
            if checkpoint.tokenizer is not None:
                self._tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.folder, trust_remote_code=False)
        model = self._model if self._with_head is None else self._with_head
        self.name = f"transformers {transformers.__version__} {type(model).__name__}{package}"

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Tokenize with the repository's AutoTokenizer; special tokens written in a text are text."""
        if self._tokenizer is None:
            return None
        rows = self._tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [list(row) for row in rows]

    def compute(self, inputs: dict[str, np.ndarray], with_head: bool = True) -> dict[str, np.ndarray]:
        """Compute with the repository's AutoModel, and with its AutoModelFor... where it has a head."""
        return compute_outputs(self._model, self._with_head, self._head if with_head else None, inputs)

    def hidden_states(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Compute with the repository's AutoModel."""
        return compute_hidden_states(self._model, inputs)

    def use_epsilon(self, epsilon: float) -> bool:
        """Change the epsilon of the model."""
        return set_head_epsilon(self._with_head, epsilon)

    def round_weights(self, dtype: str) -> None:
        """Round the parameters of both models."""
        for model in (self._model, self._with_head):
            if model is not None:
                round_parameters(model, dtype)


@contextmanager
def quiet_transformers(transformers: Any) -> Iterator[None]:
    """Keep transformers' own progress bar and load report off the screen: the report here says it all."""
    logging = transformers.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
