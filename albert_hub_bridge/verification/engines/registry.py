"""Choose the engine for a checkpoint."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.errors import EngineError
from albert_hub_bridge.verification.engines.albert_hub import AlbertHubEngine
from albert_hub_bridge.verification.engines.common import Engine, Result
from albert_hub_bridge.verification.engines.keras_hub import KerasHubEngine
from albert_hub_bridge.verification.engines.transformers import TransformersEngine


def open_engine(checkpoint: Checkpoint, rounded: str | None = None) -> Engine:
    """Open the library that a checkpoint's layout is meant for.

    Args:
        checkpoint: What to load.
        rounded: The dtype to round the weights to first, or None.

    Raises:
        EngineError: The library cannot load it; so do the methods of what is returned.
    """
    if checkpoint.layout in ("albert_hub", "transformers"):
        kind: type[Engine] = TransformersEngine
    elif (
        checkpoint.layout == "keras" and importlib.util.find_spec("keras_hub") is not None and not checkpoint.quantized
    ):
        kind = KerasHubEngine
    else:
        kind = AlbertHubEngine
    engine = GuardedEngine(kind, checkpoint)
    if rounded is not None:
        engine.round_weights(rounded)
    return engine


class GuardedEngine:
    """Any engine, with whatever its library raises turned into an `EngineError` that names the folder."""

    def __init__(self, kind: type[Engine], checkpoint: Checkpoint) -> None:
        self._folder = checkpoint.folder
        self._engine = self._guard(kind, checkpoint)
        self.name = self._engine.name
        self.is_keras_hub, self.averages_padding = self._engine.is_keras_hub, self._engine.averages_padding

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Tokenize with the engine."""
        return self._guard(self._engine.tokenize, texts)

    def compute(self, inputs: dict[str, np.ndarray], with_head: bool = True) -> dict[str, np.ndarray]:
        """Compute with the engine."""
        return self._guard(self._engine.compute, inputs, with_head)

    def hidden_states(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Compute with the engine."""
        return self._guard(self._engine.hidden_states, inputs)

    def use_epsilon(self, epsilon: float) -> bool:
        """Change the engine's epsilon."""
        return self._guard(self._engine.use_epsilon, epsilon)

    def round_weights(self, dtype: str) -> None:
        """Round the engine's weights."""
        self._guard(self._engine.round_weights, dtype)
        self.name += f", its weights rounded to {dtype}"

    def _guard(self, step: Callable[..., Result], *arguments: Any) -> Result:
        try:
            return step(*arguments)
        except Exception as error:  # each library raises its own kinds
            raise EngineError(f"{self._folder} fails in its own library: {type(error).__name__}: {error}") from error
