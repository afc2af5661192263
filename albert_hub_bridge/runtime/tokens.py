"""From texts to batches of tokens: the tokenizer of any checkpoint, and batches of texts of about one length."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.layouts.hub.files import TOKENIZER
from albert_hub_bridge.layouts.hub.tokenizer import write_alberts_tokenizer


if TYPE_CHECKING:
    from jaxtyping import Int
    from torch import Tensor


Text = str | tuple[str, str]  # or a pair


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Texts that are computed together, with the longest first.

    Args:
        places: The place of each text in its chunk.
        lengths: The number of tokens of each text.
        input_ids: The ids, with padding on the right.
        token_type_ids: The segment of each token.
        attention_mask: 1 for tokens, 0 for padding.
    """

    places: Sequence[int]
    lengths: Sequence[int]
    input_ids: Int[Tensor, "batch seq"]
    token_type_ids: Int[Tensor, "batch seq"]
    attention_mask: Int[Tensor, "batch seq"]


@dataclass(frozen=True, slots=True)
class TokenizedChunk:
    """The texts of a chunk as tokens.

    Args:
        batches: The batches. Each text is in one of them.
        lengths: The number of tokens of each text, in the order of the chunk.
        truncated: The places of the texts that were cut.
    """

    batches: Sequence[TokenBatch]
    lengths: Sequence[int]
    truncated: Sequence[int]


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """Return the tokenizer of a checkpoint.

    For a repository it is the one that transformers loads. For a preset, Google's release and a repository with
    `spiece.model` alone it is the one that `convert` writes into a repository, which gives the ids of their library.

    Args:
        checkpoint: A checkpoint of any layout.

    Raises:
        SourceError: It has no tokenizer, or transformers cannot load it.
    """
    from transformers import AutoTokenizer

    from albert_hub_bridge.model.tokenization_albert_hub import AlbertHubTokenizer

    is_repository = checkpoint.layout in ("transformers", "albert_hub")
    if is_repository and (checkpoint.tokenizer_files is not None or (checkpoint.folder / TOKENIZER).is_file()):
        try:
            # Absolute: transformers takes `user/repo` for a repository on the Hub.
            return AutoTokenizer.from_pretrained(os.path.abspath(checkpoint.folder), trust_remote_code=False)
        except Exception as error:  # each tokenizer has exceptions of its own
            raise SourceError(
                f"transformers cannot load the tokenizer of {checkpoint.folder}: {type(error).__name__}: {error}"
            ) from error
    if checkpoint.tokenizer is None:
        raise SourceError(f"{checkpoint.folder} has no vocabulary, so it takes no texts.")
    with TemporaryDirectory() as folder:
        write_alberts_tokenizer(checkpoint.tokenizer, Path(folder), "albert_hub", checkpoint.architecture)
        return AlbertHubTokenizer.from_pretrained(folder)


class Tokenization:
    """Turns a chunk of texts into batches of tokens, when it is called.

    Args:
        tokenizer: A tokenizer of transformers.
        max_length: The largest number of tokens of a text, special tokens included. Longer texts are cut.
        batch_tokens: The largest number of tokens of a batch, padding included.
        prompt: What is put before each text, and before the first text of a pair.
    """

    def __init__(self, tokenizer: Any, max_length: int, batch_tokens: int, prompt: str = "") -> None:
        self._tokenizer, self._prompt = tokenizer, prompt
        self._max_length, self._batch_tokens = max_length, batch_tokens
        self._pad_id = tokenizer.pad_token_id or 0  # masked, so any id will do

    def __call__(self, texts: Sequence[Text]) -> TokenizedChunk:
        """Return the tokens of the texts of a chunk.

        Args:
            texts: Texts, or pairs.
        """
        if not texts:  # transformers' tokenizers fail
            return TokenizedChunk([], [], [])
        prompted: list[Text] = [
            self._prompt + text if isinstance(text, str) else (self._prompt + text[0], text[1]) for text in texts
        ]
        ids, segments = self._tokenize(prompted, truncation=False)
        truncated = [place for place, row in enumerate(ids) if len(row) > self._max_length]
        if truncated:
            cut = self._tokenize([prompted[place] for place in truncated], truncation=True)
            for place, *row in zip(truncated, *cut, strict=True):
                ids[place], segments[place] = row
        lengths = [len(row) for row in ids]
        batches = [
            self._batch(places, [ids[place] for place in places], [segments[place] for place in places])
            for places in length_buckets(lengths, self._batch_tokens)
        ]
        return TokenizedChunk(batches, lengths, truncated)

    def _tokenize(self, texts: Sequence[Text], truncation: bool) -> tuple[list[list[int]], list[list[int]]]:
        """Return the ids and the segments of each text."""
        found = self._tokenizer(
            texts,
            truncation=truncation,
            max_length=self._max_length if truncation else None,
            padding=False,
            return_token_type_ids=True,
            return_attention_mask=False,
            verbose=False,
        )
        return found["input_ids"], found["token_type_ids"]

    def _batch(self, places: Sequence[int], ids: Sequence[list[int]], segments: Sequence[list[int]]) -> TokenBatch:
        import numpy as np
        import torch

        lengths = [len(row) for row in ids]
        shape = len(ids), lengths[0]
        input_ids, token_type_ids = np.full(shape, self._pad_id), np.zeros(shape, int)
        for row, length in enumerate(lengths):
            input_ids[row, :length], token_type_ids[row, :length] = ids[row], segments[row]
        mask = np.arange(shape[1]) < np.asarray(lengths)[:, None]
        tensors = (torch.from_numpy(array) for array in (input_ids, token_type_ids, mask.astype(int)))
        return TokenBatch(places, lengths, *tensors)


def length_buckets(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Yield batches of texts of about one length, with the longest texts first.

    Args:
        lengths: The number of tokens of each text.
        batch_tokens: The largest number of tokens of a batch, padding included. A text that is longer is a batch.

    Yields:
        The places of the texts in `lengths`, by length. The longest text of a batch is its first.
    """
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
