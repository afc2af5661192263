"""Vectors of many texts: the one way from texts to vectors, for a list, for the command `embed` and for a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.choices import DTYPE_NAMES, ComputeDtype, Device, PoolingMode, choose
from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.layouts.hub.encoding_settings import encoding_settings
from albert_hub_bridge.layouts.layout import ReadOptions
from albert_hub_bridge.layouts.registry import pull, read_checkpoint
from albert_hub_bridge.runtime.ahead import ahead
from albert_hub_bridge.runtime.fingerprint import fingerprint
from albert_hub_bridge.runtime.loading import load_model
from albert_hub_bridge.runtime.tokens import Text, TokenBatch, Tokenization, TokenizedChunk, load_tokenizer


if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


_CHUNK_TEXTS = 4096  # among so many texts, many have the same length
_AHEAD = 2  # chunks that wait for the model, tokenized


@dataclass(frozen=True, slots=True)
class EmbeddingSettings:
    """How texts become vectors: the arguments of `Embedder`, with no default left open."""

    pooling: PoolingMode
    normalize: bool
    prompt: str
    max_length: int
    dtype: ComputeDtype
    device: Device
    batch_tokens: int
    compile: bool


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of a chunk of texts.

    Args:
        vectors: The vectors in the order of the texts, (texts, dimension). Without pooling, an array for each text,
            (tokens, dimension). Always float32.
        tokens: The number of tokens, without padding.
        positions: The number of tokens with the padding of their batches.
        truncated: The places of the texts that were longer than `max_length`.
    """

    vectors: np.ndarray | list[np.ndarray]
    tokens: int
    positions: int
    truncated: Sequence[int]


class Embedder:
    """A model that turns texts into vectors.

    A vector in float32 is that of the text alone, up to rounding: at most 1e-5 of the largest value apart.

    Args:
        model: A source, as in `albert_hub_bridge.convert`.
        pooling: How the states of a text's tokens become its vector. `mean`: their mean. `cls`: the state of `[CLS]`.
            `pooler`: the output of the pooler. `none`: no vector of the text, but one of each token. By default what
            the repository's files for sentence-transformers say, or `mean`.
        normalize: Whether vectors are divided by their length. By default what these files say, or False.
        prompt: What is put before each text. By default what these files say, or nothing.
        max_length: The largest number of tokens of a text or pair, special tokens included. Longer ones are cut. By
            default what these files or the tokenizer say. The model's number of positions is the limit.
        dtype: What the model computes in: `float32`, `bfloat16` or `float16`.
        device: `cpu`, `cuda`, or `auto`: a GPU if there is one.
        batch_tokens: The largest number of tokens that are computed at once. By default 4,096 on a CPU, 16,384 on
            a GPU in float32 or with `compile`, and 65,536 on a GPU otherwise.
        compile: Whether torch.compile compiles the model, which takes a minute.
        threads: The number of threads that compute, for the whole process. By default as many as torch takes.
        allow_pickle: Whether to read weights that are pickled.

    Raises:
        SourceError: The model cannot be found, or has no tokenizer or no pooler; or its files for
            sentence-transformers ask for something that this class does not do, and `pooling` is not given.
        CheckpointError: The model is not valid.
        ValueError: An argument has an unsupported value.

    Attributes:
        settings: The arguments, with no default left open.
        dimension: The size of a vector.
        fingerprint: A SHA-256 that two models share only if they give the same vectors.
        tokenize: Turns a chunk of texts into what `compute` takes. `encode_chunks` calls both.

    Example:

    ```python
    >>> embedder = Embedder("hf://albert/albert-base-v2")
    >>> embedder.encode(["a text", "another text"]).shape
    (2, 768)
    ```
    """

    def __init__(
        self,
        model: str | Path,
        *,
        pooling: PoolingMode | None = None,
        normalize: bool | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
        dtype: ComputeDtype = "float32",
        device: Device = "auto",
        batch_tokens: int | None = None,
        compile: bool = False,  # noqa: A002 (torch's name)
        threads: int | None = None,
        allow_pickle: bool = False,
    ) -> None:
        import torch

        _check_positive(max_length=max_length, batch_tokens=batch_tokens, threads=threads)
        device = _available_device(choose("device", device, get_args(Device)))
        dtype = choose("dtype", dtype, get_args(ComputeDtype), DTYPE_NAMES)
        with read_checkpoint(pull(model).folder, ReadOptions(drop_head=True, allow_pickle=allow_pickle)) as checkpoint:
            tokenizer = load_tokenizer(checkpoint)
            # As the library of the source computes: with the int8 weights, if it has any.
            encoder = load_model(checkpoint.in_int8() if checkpoint.int8 else checkpoint).base_model
            is_int8 = bool(checkpoint.int8)
            pooling, normalize, prompt, longest = _as_in_files(checkpoint, pooling, normalize, prompt)
        if pooling == "pooler" and encoder.pooled_dense is None:
            raise SourceError(f"{model} has no pooler. Choose another pooling: mean, cls or none.")
        if pooling == "none" and normalize:
            raise ValueError("normalize is for one vector of a text, and pooling none gives one of each token.")
        self.settings = EmbeddingSettings(
            pooling=pooling,
            normalize=normalize,
            prompt=prompt,
            max_length=_max_length(max_length, longest, tokenizer.model_max_length, encoder.config.max_sequence_length),
            dtype=dtype,
            device=device,
            batch_tokens=batch_tokens or _batch_tokens(device, dtype, compile),
            compile=compile,
        )
        self.fingerprint = fingerprint(encoder, tokenizer)
        self.dimension: int = encoder.config.hidden_dim
        self.tokenize = Tokenization(tokenizer, self.settings.max_length, self.settings.batch_tokens, prompt)
        self._encoder = encoder.to(device, getattr(torch, self.settings.dtype))
        if compile:
            self._encoder = torch.compile(self._encoder, dynamic=True)
        elif device == "cpu" and self.settings.dtype != "float16" and not is_int8:  # oneDNN computes the other two
            self._encoder.optimize_for_inference()
        if threads is not None:
            torch.set_num_threads(threads)

    def encode(self, texts: Sequence[Text]) -> np.ndarray | list[np.ndarray]:
        """Return the vectors of texts or pairs, in their order.

        Args:
            texts: Texts, or pairs as tuples of two texts.

        Returns:
            The vectors, float32, (texts, dimension). Without pooling, an array for each text, (tokens, dimension).

        Raises:
            TypeError: One text is given, and no list.
        """
        if isinstance(texts, str):
            raise TypeError("encode takes a list of texts, not one text. Pass encode([text]).")
        remaining = iter(texts)
        chunks = iter(lambda: list(islice(remaining, _CHUNK_TEXTS)), [])
        found = [chunk.vectors for chunk in self.encode_chunks(chunks)]
        if self.settings.pooling == "none":
            return [vectors for chunk in found for vectors in chunk]
        return np.concatenate([np.empty((0, self.dimension), np.float32), *found])

    def encode_chunks(self, chunks: Iterable[Sequence[Text]]) -> Iterator[Embedded]:
        """Yield the vectors of chunks of texts, in their order, while another thread tokenizes the next chunks.

        Texts are sorted by length in their chunk alone, so the vectors of a chunk do not depend on the other chunks.

        Args:
            chunks: Chunks of texts or pairs, as `encode` takes them. They are read ahead, in the other thread. Some
                thousand texts are a good chunk.
        """
        for tokens in ahead(self.tokenize, chunks, _AHEAD):
            yield self.compute(tokens)

    def compute(self, chunk: TokenizedChunk) -> Embedded:
        """Return the vectors of a chunk that `tokenize` returned.

        Args:
            chunk: The texts as tokens.
        """
        import torch

        vectors: Any = [None] * len(chunk.lengths)
        if self.settings.pooling != "none":
            vectors = np.empty((len(chunk.lengths), self.dimension), np.float32)
        for batch in chunk.batches:
            with torch.inference_mode():
                found = self._vectors(batch).float().cpu().numpy()
            if self.settings.pooling != "none":
                vectors[batch.places] = found
            else:
                for place, states, length in zip(batch.places, found, batch.lengths, strict=True):
                    vectors[place] = states[:length].copy()  # not a view that keeps the whole batch
        positions = sum(batch.input_ids.numel() for batch in chunk.batches)
        return Embedded(vectors, sum(chunk.lengths), positions, chunk.truncated)

    def _vectors(self, batch: TokenBatch) -> Float[Tensor, "batch hidden"] | Float[Tensor, "batch seq hidden"]:
        import torch

        pooling, device = self.settings.pooling, self.settings.device
        inputs = (batch.input_ids, batch.attention_mask, batch.token_type_ids)
        # Where the model can, it computes no padding for these positions.
        positions = "first" if pooling in ("cls", "pooler") else "unmasked"
        outputs = self._encoder(*(each.to(device, non_blocking=True) for each in inputs), positions=positions)
        if pooling == "none":
            return outputs.last_hidden_state
        if pooling == "mean":  # the states of padding are zeros
            lengths = torch.tensor(batch.lengths, device=device).unsqueeze(1)
            vectors = outputs.last_hidden_state.sum(1, dtype=torch.float32) / lengths
        else:
            vectors = outputs.pooler_output if pooling == "pooler" else outputs.last_hidden_state[:, 0]
        return torch.nn.functional.normalize(vectors.float(), dim=-1) if self.settings.normalize else vectors


def _as_in_files(
    checkpoint: Checkpoint, pooling: PoolingMode | None, normalize: bool | None, prompt: str | None
) -> tuple[PoolingMode, bool, str, int | None]:
    """Return pooling, normalization, prompt and the largest length, by default those of sentence-transformers."""
    found = encoding_settings(checkpoint.modules, prompt)
    if pooling is None and found.obstacles:
        raise SourceError(
            f"The files of {checkpoint.folder} for sentence-transformers ask for {' and '.join(found.obstacles)}. That "
            "is not supported. To ignore that, choose a pooling: --pooling mean (pooling='mean')."
        )
    return (
        choose("pooling", pooling, get_args(PoolingMode)) if pooling is not None else found.pooling,
        found.normalize and pooling != "none" if normalize is None else normalize,
        found.prompt,
        found.max_length,
    )


def _max_length(wanted: int | None, in_files: int | None, of_tokenizer: int, positions: int) -> int:
    if wanted is not None and wanted > positions:
        raise ValueError(f"max_length is at most {positions}, the number of the model's positions, not {wanted}.")
    return min(wanted or in_files or of_tokenizer, positions)


def _batch_tokens(device: Device, dtype: ComputeDtype, is_compiled: bool) -> int:
    """Return how many tokens keep a device busy. More add padding, which a GPU computes in these two cases."""
    if device == "cpu":
        return 4096
    return 16_384 if dtype == "float32" or is_compiled else 65_536


def _check_positive(**values: int | None) -> None:
    for name, value in values.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}.")


def _available_device(device: Device) -> Device:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("This torch finds no GPU. Choose device cpu, or auto.")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
