"""Who computes each side of a verification: every layout's own library, from raw text to numbers."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import numpy as np

from albert_hub_bridge import __version__
from albert_hub_bridge.errors import EngineError
from albert_hub_bridge.stores.checkpoint import Checkpoint


Result = TypeVar("Result")


class Engine(Protocol):
    """One side of a verification."""

    name: str

    def __init__(self, checkpoint: Checkpoint) -> None: ...

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Return the ids of each text without special tokens, or None without a vocabulary."""

    def compute(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return `sequence_output` and `pooled_output` in float32 for KerasHub's three inputs."""


def pack(
    ids: Sequence[Sequence[int]], special_ids: Mapping[str, int], num_segments: int, longest: int
) -> dict[str, np.ndarray]:
    """Pack ids as `[CLS] ids [SEP]`, padded to the longest, with the second half of every other row in segment 1.

    Two segments, so that a swapped or lost segment embedding shows.
    """
    rows = [[special_ids["cls"], *row[: max(longest - 2, 0)], special_ids["sep"]][:longest] for row in ids]
    shape = (len(rows), max(map(len, rows)))
    token_ids = np.full(shape, special_ids["pad"], dtype=np.int32)
    segment_ids, padding_mask = np.zeros_like(token_ids), np.zeros_like(token_ids)
    for index, row in enumerate(rows):
        token_ids[index, : len(row)] = row
        padding_mask[index, : len(row)] = 1
        if index % 2 and num_segments > 1:
            segment_ids[index, len(row) // 2 : len(row)] = 1
    return {"token_ids": token_ids, "segment_ids": segment_ids, "padding_mask": padding_mask}


def open_engine(checkpoint: Checkpoint) -> Engine:
    """Open the library that a checkpoint's layout is meant for.

    Raises:
        EngineError: The library cannot load it; so do the methods of what is returned.
    """
    if checkpoint.layout != "keras":
        kind: type[Engine] = TransformersEngine
    elif importlib.util.find_spec("keras_hub") is not None:
        kind = KerasHubEngine
    else:
        kind = BackboneEngine
    return GuardedEngine(kind, checkpoint)


class GuardedEngine:
    """Any engine, with whatever its library raises turned into an `EngineError` that names the folder."""

    def __init__(self, kind: type[Engine], checkpoint: Checkpoint) -> None:
        self._folder = checkpoint.folder
        self._engine = self._guard(kind, checkpoint)
        self.name = self._engine.name

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Tokenize with the engine."""
        return self._guard(self._engine.tokenize, texts)

    def compute(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute with the engine."""
        return self._guard(self._engine.compute, inputs)

    def _guard(self, step: Callable[[Any], Result], argument: Any) -> Result:
        try:
            return step(argument)
        except Exception as error:  # each library raises its own kinds
            raise EngineError(f"{self._folder} fails in its own library: {type(error).__name__}: {error}") from error


class KerasHubEngine:
    """The real keras_hub."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        os.environ.setdefault("KERAS_BACKEND", "torch")  # the backend that is installed anyway; the user's choice wins
        with _no_stderr():
            import keras
            import keras_hub

        self.name = f"keras_hub {keras_hub.__version__} (Keras {keras.__version__} on {keras.backend.backend()})"
        folder = str(checkpoint.folder)
        self._backbone = keras_hub.models.AlbertBackbone.from_preset(folder, dtype="float32")
        self._tokenizer: Any = None
        if checkpoint.text is not None:
            self._tokenizer = keras_hub.models.AlbertTokenizer.from_preset(folder)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Tokenize with keras_hub's AlbertTokenizer."""
        if self._tokenizer is None:
            return None
        return [[int(index) for index in self._tokenizer(text)] for text in texts]

    def compute(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute with keras_hub's AlbertBackbone."""
        outputs = self._backbone.predict(inputs, verbose=0)
        return {name: np.asarray(value) for name, value in outputs.items()}


class BackboneEngine:
    """This package's `AlbertBackbone`, where keras_hub is not installed."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        from albert_hub_bridge.backbone import AlbertBackbone

        self.name = f"albert_hub_bridge {__version__} AlbertBackbone (keras_hub is not installed)"
        self._backbone = AlbertBackbone.from_preset(checkpoint.folder).float()
        self._text = checkpoint.text

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Tokenize with sentencepiece, as KerasHub's tokenizer does."""
        import sentencepiece

        if self._text is None:
            return None
        processor = sentencepiece.SentencePieceProcessor(model_proto=self._text.proto)
        return [list(processor.encode(text)) for text in texts]

    def compute(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute with `AlbertBackbone`."""
        import torch

        with torch.inference_mode():
            outputs = self._backbone(inputs)
        return {name: value.numpy() for name, value in outputs.items()}


class TransformersEngine:
    """transformers: with this package's classes for the bridge layout, with its own for the stock layout."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        import torch
        import transformers

        package = f" with albert_hub_bridge {__version__}" if checkpoint.layout == "bridge" else ""
        with _quiet(transformers):
            self._model: Any = transformers.AutoModel.from_pretrained(checkpoint.folder, dtype=torch.float32)
            self._tokenizer: Any = None
            if checkpoint.text is not None:
                self._tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.folder)
        self.name = f"transformers {transformers.__version__} {type(self._model).__name__}{package}"

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Tokenize with the repository's AutoTokenizer; special tokens written in a text are text."""
        if self._tokenizer is None:
            return None
        rows = self._tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [list(row) for row in rows]

    def compute(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute with the repository's AutoModel."""
        import torch

        names = {"token_ids": "input_ids", "segment_ids": "token_type_ids", "padding_mask": "attention_mask"}
        with torch.inference_mode():
            outputs = self._model(**{names[name]: torch.from_numpy(array).long() for name, array in inputs.items()})
        return {"sequence_output": outputs.last_hidden_state.numpy(), "pooled_output": outputs.pooler_output.numpy()}


@contextmanager
def _no_stderr() -> Iterator[None]:
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


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
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
