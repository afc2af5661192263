"""The engine for transformers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from albert_hub_bridge._version import __version__
from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.mapping.heads import HEADS
from albert_hub_bridge.verification.engines.spiece_model import spiece_model_alone, tokenizer_with_albert_rules
from albert_hub_bridge.verification.engines.torch_models import TorchEngine


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
            elif checkpoint.tokenizer is not None:
                self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        super().__init__(encoder, model, head)
        package = f" with albert_hub_bridge {__version__}" if checkpoint.layout == "albert_hub" else ""
        self.name = f"transformers {transformers.__version__} {type(model).__name__}{package}"

    def tokenize(self, texts: Sequence[str]) -> list[list[int]] | None:
        """Tokenize with the repository's AutoTokenizer. Special tokens in a text are ordinary text.

        If there is no tokenizer.json, AlbertTokenizer has the scores of ALBERT's rules.
        """
        if self._tokenizer is None:
            return None
        rows = self._tokenizer(list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [list(row) for row in rows]

    def classify(self, text: str) -> list[dict[str, Any]]:
        """Return the label and the score that the pipeline for text classification gives to a text."""
        import transformers

        with _quiet(transformers):
            classifier = transformers.pipeline(
                "text-classification", model=self._model, tokenizer=self._tokenizer, device="cpu"
            )
            found: list[dict[str, Any]] = classifier(text)
        return found


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
