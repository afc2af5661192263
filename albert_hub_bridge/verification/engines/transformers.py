"""The engine for transformers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from albert_hub_bridge._version import __version__
from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.errors import EngineError
from albert_hub_bridge.mapping.heads import HEADS
from albert_hub_bridge.verification.engines.common import Encoded
from albert_hub_bridge.verification.engines.spiece_model import spiece_model_alone, tokenizer_with_albert_rules
from albert_hub_bridge.verification.engines.torch_models import TorchEngine


# Head -> the pipeline that computes it, and its options: all labels.
_PIPELINES = {
    "sequence_classification": "text-classification",
    "token_classification": "token-classification",
    "masked_lm": "fill-mask",
}
_PIPELINE_OPTIONS: dict[str, dict[str, Any]] = {
    "text-classification": {"top_k": None},
    "token-classification": {"ignore_labels": []},
    "fill-mask": {"top_k": 5},
}


class TransformersEngine(TorchEngine):
    """transformers, with its own ALBERT or with this package's classes, as the layout requires."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        import torch
        import transformers

        # Absolute: transformers takes `user/repo` for a repository on the Hub.
        folder, head = os.path.abspath(checkpoint.folder), checkpoint.head
        options: dict[str, Any] = {"dtype": torch.float32, "trust_remote_code": False}
        pooler = {} if checkpoint.has_pooler else {"add_pooling_layer": False}
        with _quiet(transformers):
            encoder = model = transformers.AutoModel.from_pretrained(folder, **options, **pooler)
            if head is not None:
                model = getattr(transformers, HEADS[head.kind].auto).from_pretrained(folder, **options)
            self._tokenizer: Any = None
            if (alone := spiece_model_alone(checkpoint)) is not None:
                self._tokenizer = tokenizer_with_albert_rules(alone)
            elif checkpoint.has_tokenizer:
                self._tokenizer = load_tokenizer(checkpoint.folder)
        if self._tokenizer is not None:
            self.sides = self._tokenizer.padding_side, self._tokenizer.truncation_side
        super().__init__(encoder, model, head)
        package = f" with albert_hub_bridge {__version__}" if checkpoint.layout == "albert_hub" else ""
        self.name = f"transformers {transformers.__version__} {type(model).__name__}{package}"

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Tokenize with the repository's AutoTokenizer. Special tokens in a text are ordinary text.

        If there is no tokenizer.json, AlbertTokenizer has the scores of ALBERT's rules.
        """
        if self._tokenizer is None:
            return None
        return token_ids(self._tokenizer, texts)

    def special_ids(self) -> dict[str, int]:
        """Return the ids of `pad`, `cls` and `sep`; 0 where the repository's tokenizer has none."""
        return {name: getattr(self._tokenizer, f"{name}_token_id", None) or 0 for name in ("pad", "cls", "sep")}

    def encode(self, first: Sequence[str], second: Sequence[str] | None, length: int) -> Encoded | None:
        """Encode with the repository's AutoTokenizer. See `Engine.encode` and `tokenize`."""
        if self._tokenizer is None or self._tokenizer.pad_token is None:
            return None
        texts = [list(each) for each in (first, second) if each is not None]
        rows = self._tokenizer(
            *texts, truncation=True, padding="max_length", max_length=length, split_special_tokens=True
        )
        ids, mask = (np.asarray(rows[name], np.int32) for name in ("input_ids", "attention_mask"))
        segments = np.asarray(rows["token_type_ids"], np.int32) if "token_type_ids" in rows else None
        return Encoded(ids, segments, mask)

    def features(self, texts: Sequence[str], length: int) -> list[np.ndarray]:
        """Compute with the pipeline for feature extraction. See `Engine.features`."""
        import transformers

        with _quiet(transformers):
            pipeline = transformers.pipeline(
                "feature-extraction", model=self._encoder, tokenizer=self._tokenizer, device="cpu"
            )
            options = {"truncation": True, "max_length": length, "split_special_tokens": True}
            found = pipeline(list(texts), batch_size=len(texts), tokenize_kwargs=options)
        rows = [np.asarray(each, np.float32)[0] for each in found]  # with the padding of the batch
        counts = (len(ids) for ids in self._tokenizer(list(texts), **options)["input_ids"])
        left = self.sides[0] == "left"
        return [row[-count:] if left else row[:count] for row, count in zip(rows, counts, strict=True)]

    def classify(self, text: str) -> list[dict[str, Any]]:
        """Return the label and the score that the pipeline for text classification gives to a text."""
        import transformers

        with _quiet(transformers):
            classifier = transformers.pipeline(
                "text-classification", model=self._model, tokenizer=self._tokenizer, device="cpu"
            )
            found: list[dict[str, Any]] = classifier(text)
        return found

    def answers(self, texts: Sequence[str]) -> tuple[str, list[list[tuple[str, float]]]] | None:
        """Compute texts with the pipeline for the head, in one batch.

        Args:
            texts: They fit into the model, with a mask token after each, and have no special tokens.

        Returns:
            The task of the pipeline, and for each text its labels, as ids, with their scores; None if there is no
            pipeline for the head, or no token that it needs.
        """
        import transformers

        task = _PIPELINES.get(self._head.kind) if self._head is not None else None
        tokenizer = self._tokenizer
        if task is None or tokenizer is None or tokenizer.pad_token is None or tokenizer.mask_token is None:
            return None
        given = [f"{text} {tokenizer.mask_token}" if task == "fill-mask" else text for text in texts]
        with _quiet(transformers):
            make: Any = transformers.pipeline  # its overloads take literal tasks alone
            pipeline = make(task, model=self._model, tokenizer=tokenizer, device="cpu")
            found = pipeline(given, batch_size=len(given), **_PIPELINE_OPTIONS[task])
        if found and isinstance(found[0], dict):  # fill-mask, of one text
            found = [found]
        ids = self._model.config.label2id
        answers = []
        for rows in found:
            names = [
                str(row["token"])
                if "token" in row
                else f"label {ids[row['label']]}"
                if "label" in row
                else f"token {row['index']} label {ids[row['entity']]}"
                for row in rows
            ]
            answers.append([(name, float(row["score"])) for name, row in zip(names, rows, strict=True)])
        return task, answers


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a repository as a user does, with AutoTokenizer.

    Raises:
        EngineError: transformers does not load it.
    """
    import transformers

    # Absolute: transformers takes `user/repo` for a repository on the Hub.
    path = os.path.abspath(folder)
    try:
        with _quiet(transformers):
            return transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # each tokenizer has exceptions of its own
        raise EngineError(f"{path} fails in its own library: {type(error).__name__}: {error}") from error
    except BaseException as error:  # panics of the tokenizers library are not an Exception
        if type(error).__name__ != "PanicException":
            raise
        raise EngineError(f"{path} fails in its own library: {error}") from error


def token_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of each text, without special tokens. Special tokens in a text are ordinary text."""
    options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
    rows = tokenizer(list(texts), **options)["input_ids"]
    return [list(row) for row in rows]


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Hide transformers' progress bar and load report. The verification report has the same facts."""
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
