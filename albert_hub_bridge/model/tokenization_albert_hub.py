"""The tokenizer of an `AlbertHubModel`: the ids of the SentencePiece vocabulary, with transformers' interface."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from transformers.tokenization_utils_tokenizers import TokenizersBackend

from .sentencepiece_unigram import SPECIAL_PIECES, TextRules, build_tokenizer, parse_vocabulary


class AlbertHubTokenizer(TokenizersBackend):
    """ALBERT's tokenizer: `[CLS] a [SEP] b [SEP]`, segment ids, padding mask, on the `tokenizers` library.

    Args:
        vocab_file: A SentencePiece model (`spiece.model`, `vocabulary.spm`). It is saved beside `tokenizer.json`.
        tokenizer_file: The `tokenizer.json` of a saved tokenizer; it wins over `vocab_file`.
        replace_quotes: Whether to replace two back-ticks or two apostrophes by a double quote.
        strip_accents: Whether to remove accents.
        do_lower_case: Whether to lower-case. KerasHub never does, whatever a preset's name says.
        **kwargs: What every transformers tokenizer takes: `model_max_length`, `split_special_tokens`, ...

    Raises:
        ValueError: Neither file was given, or `vocab_file` is not a unigram model with ALBERT's special pieces.

    Example:

    ```python
    >>> tokenizer = AlbertHubTokenizer("preset/assets/tokenizer/vocabulary.spm")
    >>> tokenizer("the quick", "brown fox")["token_type_ids"]
    [0, 0, 0, 0, 1, 1, 1]
    ```
    """

    vocab_files_names = {"vocab_file": "spiece.model", "tokenizer_file": "tokenizer.json"}
    model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    vocab_file: str | None = None

    def __init__(
        self,
        vocab_file: str | None = None,
        tokenizer_file: str | None = None,
        replace_quotes: bool = False,
        strip_accents: bool = False,
        do_lower_case: bool = False,
        **kwargs: Any,
    ) -> None:
        backend: dict[str, Any] = {"tokenizer_file": tokenizer_file}
        if tokenizer_file is None and "tokenizer_object" not in kwargs:
            if vocab_file is None:
                raise ValueError("AlbertHubTokenizer needs a vocab_file (SentencePiece) or a tokenizer_file.")
            try:
                vocabulary = parse_vocabulary(Path(vocab_file).read_bytes())
            except ValueError as error:
                raise ValueError(f"{vocab_file}: {error}") from error
            rules = TextRules(replace_quotes, strip_accents, do_lower_case)
            backend = {"tokenizer_object": build_tokenizer(vocabulary, rules)}
        special = {f"{name}_token": piece for name, piece in SPECIAL_PIECES.items()}
        super().__init__(
            vocab_file=vocab_file,
            replace_quotes=replace_quotes,
            strip_accents=strip_accents,
            do_lower_case=do_lower_case,
            **{**special, **backend, **kwargs},
        )

    @classmethod
    def convert_to_native_format(cls, trust_remote_code: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Leave the files to `__init__`; transformers' own conversion would rebuild the pipeline from parts."""
        return kwargs

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:  # type: ignore[override]
        """Write the SentencePiece model as `spiece.model`, where there is one; KerasHub can read nothing else."""
        if self.vocab_file is None:
            return ()
        target = Path(save_directory) / f"{filename_prefix + '-' if filename_prefix else ''}spiece.model"
        if Path(self.vocab_file).resolve() != target.resolve():
            shutil.copyfile(self.vocab_file, target)
        return (str(target),)

    def _save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        file_names: tuple[str, ...],
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
    ) -> tuple[str, ...]:
        # transformers 5 saves tokenizer.json alone, and with it KerasHub's way back is lost.
        saved = super()._save_pretrained(save_directory, file_names, legacy_format, filename_prefix)
        return saved + self.save_vocabulary(str(save_directory), filename_prefix)


__all__ = ["AlbertHubTokenizer"]
