"""Who computes each side of a verification: every layout's own library, from raw text to numbers."""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import numpy as np

from albert_hub_bridge import __version__
from albert_hub_bridge.errors import EngineError
from albert_hub_bridge.mapping.heads import HEADS, Head
from albert_hub_bridge.model.sentencepiece_unigram import TextRules, build_tokenizer
from albert_hub_bridge.presets import load_model
from albert_hub_bridge.stores.checkpoint import DTYPES, Checkpoint
from albert_hub_bridge.stores.keras_preset import with_pooler


Result = TypeVar("Result")


class Engine(Protocol):
    """One side of a verification."""

    name: str
    is_keras_hub: bool
    averages_padding: bool  # what a row attends to that is all padding: the average of its values, or zeros

    def __init__(self, checkpoint: Checkpoint) -> None: ...

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Return the ids of each text without special tokens, or None without a vocabulary."""

    def compute(self, inputs: dict[str, np.ndarray], with_head: bool = True) -> dict[str, np.ndarray]:
        """Compute in float32 for KerasHub's three inputs.

        Args:
            inputs: `token_ids`, `segment_ids` and `padding_mask`, each (batch, seq).
            with_head: Whether to compute the head too, where there is one.

        Returns:
            `sequence_output`; `pooled_output`, where there is a pooler; and `head_output`, where there is a head: its
            scores, or what the classifier's activation makes of them.
        """

    def hidden_states(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Compute what the embeddings give, and what each layer gives every time it runs.

        Returns:
            (1 + runs of layers, batch, seq, hidden), in float32.
        """

    def use_epsilon(self, epsilon: float) -> bool:
        """Give the masked-LM head's layer norm another epsilon; return whether that is possible."""

    def round_weights(self, dtype: str) -> None:
        """Round all weights to another dtype, and go on in float32: what a target of that dtype computes."""


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


def open_engine(checkpoint: Checkpoint, rounded: str | None = None) -> Engine:
    """Open the library that a checkpoint's layout is meant for.

    Args:
        checkpoint: What to load.
        rounded: The dtype to round the weights to first, or None.

    Raises:
        EngineError: The library cannot load it; so do the methods of what is returned.
    """
    if checkpoint.layout in ("bridge", "stock"):
        kind: type[Engine] = TransformersEngine
    elif (
        checkpoint.layout == "keras" and importlib.util.find_spec("keras_hub") is not None and not checkpoint.quantized
    ):
        kind = KerasHubEngine
    else:
        kind = BridgeEngine
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


class KerasHubEngine:
    """The real keras_hub."""

    is_keras_hub = True

    def __init__(self, checkpoint: Checkpoint) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow looks for a GPU long after its import too
        os.environ.setdefault("KERAS_BACKEND", "torch")  # the backend that is installed anyway; the user's choice wins
        with _no_stderr():
            import keras
            import keras_hub

        # Keras 3 has two ways to attend. The one without dropout has no zeros for keys that are all masked.
        self.averages_padding = checkpoint.architecture.dropout == 0
        self.name = f"keras_hub {keras_hub.__version__} (Keras {keras.__version__} on {keras.backend.backend()})"
        folder = str(checkpoint.folder)
        self._backbone = keras_hub.models.AlbertBackbone.from_preset(folder, dtype="float32")
        self._tokenizer: Any = None
        if checkpoint.text is not None:
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
                weight.assign(_rounded(weight.numpy(), dtype))


class BridgeEngine:
    """This package's own model of a source that no library here computes as it is."""

    is_keras_hub = averages_padding = False

    def __init__(self, checkpoint: Checkpoint) -> None:
        why = "with dequantized weights" if checkpoint.quantized else "keras_hub is not installed"
        if checkpoint.layout == "google":
            why = "nothing else runs Google's checkpoints"
        self.name = f"albert_hub_bridge {__version__} ({why})"
        self._model = load_model(with_pooler(checkpoint))
        self._text, self._head = checkpoint.text, checkpoint.head

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Tokenize with sentencepiece, as KerasHub's tokenizer does, after text rules where there are any."""
        import sentencepiece

        if self._text is None:
            return None
        if self._text.rules != TextRules():
            tokenizer = build_tokenizer(self._text.vocabulary, self._text.rules)
            return [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
        processor = sentencepiece.SentencePieceProcessor(model_proto=self._text.proto)
        return [list(processor.encode(text)) for text in texts]

    def compute(self, inputs: dict[str, np.ndarray], with_head: bool = True) -> dict[str, np.ndarray]:
        """Compute with this package's model."""
        return _compute(self._model.base_model, self._model, self._head if with_head else None, inputs)

    def hidden_states(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Compute with this package's model."""
        return _hidden_states(self._model.base_model, inputs)

    def use_epsilon(self, epsilon: float) -> bool:
        """Change the epsilon of the model."""
        return _use_epsilon(self._model, epsilon)

    def round_weights(self, dtype: str) -> None:
        """Round the parameters of the model."""
        _round_parameters(self._model, dtype)


class TransformersEngine:
    """transformers: with this package's classes for the bridge layout, with its own for the stock layout."""

    is_keras_hub = averages_padding = False

    def __init__(self, checkpoint: Checkpoint) -> None:
        import torch
        import transformers

        package = f" with albert_hub_bridge {__version__}" if checkpoint.layout == "bridge" else ""
        options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": False}  # nor is anybody asked
        self._head = checkpoint.head
        self._with_head: Any = None
        with _quiet(transformers):
            pooling = {} if checkpoint.has_pooler else {"add_pooling_layer": False}
            self._model: Any = transformers.AutoModel.from_pretrained(checkpoint.folder, **options, **pooling)
            if self._head is not None:
                auto = getattr(transformers, HEADS[self._head.kind].auto)
                self._with_head = auto.from_pretrained(checkpoint.folder, **options)
            self._tokenizer: Any = None
            if checkpoint.text is not None:
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
        return _compute(self._model, self._with_head, self._head if with_head else None, inputs)

    def hidden_states(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Compute with the repository's AutoModel."""
        return _hidden_states(self._model, inputs)

    def use_epsilon(self, epsilon: float) -> bool:
        """Change the epsilon of the model."""
        return _use_epsilon(self._with_head, epsilon)

    def round_weights(self, dtype: str) -> None:
        """Round the parameters of both models."""
        for model in (self._model, self._with_head):
            if model is not None:
                _round_parameters(model, dtype)


def _round_parameters(model: Any, dtype: str) -> None:
    import torch

    for parameter in model.parameters():
        parameter.data = torch.from_numpy(_rounded(parameter.detach().numpy(), dtype))


def _rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    return values.astype(DTYPES[dtype]).astype(np.float32)


def _use_epsilon(model: Any, epsilon: float) -> bool:
    """Change the epsilon of a masked LM of this package, or of transformers."""
    if hasattr(model, "masked_lm_head"):
        model.masked_lm_head.intermediate_layer_norm.eps = epsilon
    else:
        model.predictions.LayerNorm.eps = epsilon
    return True


def _compute(encoder: Any, with_head: Any, head: Head | None, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
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


def _hidden_states(encoder: Any, inputs: dict[str, np.ndarray]) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return torch.stack(encoder(**_as_tensors(inputs), output_hidden_states=True).hidden_states).numpy()


def _as_tensors(inputs: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return KerasHub's inputs by transformers' names."""
    import torch

    names = {"token_ids": "input_ids", "segment_ids": "token_type_ids", "padding_mask": "attention_mask"}
    return {names[name]: torch.from_numpy(array).long() for name, array in inputs.items()}


def compute_in_float64(checkpoint: Checkpoint, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Compute a checkpoint's encoder with this package's model, in float64."""
    names = {rule.bridge for rule in checkpoint.encoder_rules}
    weights = {name: weight for name, weight in checkpoint.weights.items() if name in names}
    model = load_model(replace(checkpoint, head=None, weights=weights)).double()
    return _compute(model, None, None, inputs)


def epsilon_effect(checkpoint: Checkpoint, epsilon: float, texts: Sequence[str]) -> float:
    """Measure how far another epsilon in the masked-LM head moves its scores: the largest absolute difference.

    Args:
        checkpoint: With such a head.
        epsilon: The other one.
        texts: What goes in; ids 0, 1, 2, ... where the checkpoint has no vocabulary.
    """
    model, size = load_model(checkpoint), checkpoint.architecture.vocabulary_size
    rows, special_ids = [[index % size for index in range(40)]], {"pad": 0, "cls": 0, "sep": 0}
    if checkpoint.text is not None:
        tokenizer = build_tokenizer(checkpoint.text.vocabulary, checkpoint.text.rules)
        rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
        special_ids = checkpoint.text.vocabulary.special_ids
    inputs = pack(rows, special_ids, checkpoint.architecture.num_segments, checkpoint.architecture.max_sequence_length)
    before = _compute(model.base_model, model, checkpoint.head, inputs)["head_output"]
    _use_epsilon(model, epsilon)
    after = _compute(model.base_model, model, checkpoint.head, inputs)["head_output"]
    return float(np.max(np.abs(after - before)))


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
