"""Open the engine of a checkpoint."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.choices import REPOSITORY_LAYOUTS
from albert_hub_bridge.errors import EngineError
from albert_hub_bridge.verification.engines.albert_hub import AlbertHubEngine
from albert_hub_bridge.verification.engines.common import Engine
from albert_hub_bridge.verification.engines.keras_hub import KerasHubEngine
from albert_hub_bridge.verification.engines.transformers import TransformersEngine


def open_engine(checkpoint: Checkpoint, rounded: str | None = None) -> Engine:
    """Load a checkpoint with the library of its layout.

    Args:
        checkpoint: The checkpoint. If it is that of `Checkpoint.in_int8`, layers round their inputs as they run.
        rounded: A dtype to round the weights to, or None.

    Returns:
        The engine. Its methods raise EngineError too.

    Raises:
        EngineError: The library cannot load the checkpoint.
    """
    with engine_errors(checkpoint.folder):
        engine = cast("Engine", _GuardedEngine(_engine_class(checkpoint)(checkpoint), checkpoint.folder))
    if rounded is not None:
        engine.round_weights(rounded)
        engine.name += f", its weights rounded to {rounded}"
    return engine


def _engine_class(checkpoint: Checkpoint) -> type[Engine]:
    if checkpoint.is_dequantized:
        return AlbertHubEngine  # the libraries round the inputs of int8 layers, and the other side does not
    if checkpoint.layout in REPOSITORY_LAYOUTS:
        return TransformersEngine
    if checkpoint.layout == "keras" and importlib.util.find_spec("keras_hub") is not None:
        return KerasHubEngine
    return AlbertHubEngine


@contextmanager
def engine_errors(folder: Path) -> Iterator[None]:
    """Raise EngineError instead of any exception of a library."""
    try:
        yield
    except Exception as error:  # each library has exceptions of its own
        raise EngineError(f"{folder} fails in its own library: {type(error).__name__}: {error}") from error


class _GuardedEngine:
    """An engine whose methods raise EngineError instead of any exception of its library."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine, self._folder = engine, folder

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._engine, name)
        return engine_errors(self._folder)(value) if callable(value) else value
