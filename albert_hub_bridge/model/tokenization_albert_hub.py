"""The tokenizer of an `AlbertHubModel`: the ids of the SentencePiece vocabulary, with transformers' interface."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

import sentencepiece
from tokenizers import AddedToken
from transformers.tokenization_utils_base import BatchEncoding, TruncationStrategy
from transformers.tokenization_utils_tokenizers import TokenizersBackend
from transformers.utils import PaddingStrategy

from .sentencepiece_encoding import Encoding, Mark, Padding, overlapping_windows, token_budgets
from .sentencepiece_pieces import Pieces, PipelineSplitter, SentencePieceSplitter, join_words
from .sentencepiece_unigram import SPECIAL_PIECES, TextNormalization, build_tokenizer, parse_vocabulary


TRUNCATION_RULES = ("round_robin", "waterfall", "longest_first")
Text = str | Sequence[str]  # or a list of words


class AlbertHubTokenizer(TokenizersBackend):
    """ALBERT's tokenizer: `[CLS] a [SEP] b [SEP]`, segment ids, padding mask, offsets.

    Ids come from SentencePiece, so they equal KerasHub's for every text. With text normalization, or with a
    `tokenizer.json` alone, they come from the `tokenizers` pipeline in that file. Offsets of a word do not include the
    space before it. Without text normalization, added tokens match the text before any normalization.

    Args:
        vocab_file: A SentencePiece model (`spiece.model`, `vocabulary.spm`). It is saved with `tokenizer.json`.
        tokenizer_file: The `tokenizer.json` of a saved tokenizer. It is used if there is no `vocab_file`.
        replace_quotes: Whether to replace two back-ticks, or two apostrophes, with a double quote.
        strip_accents: Whether to remove accents.
        do_lower_case: Whether to lower-case. KerasHub never does, even for presets named `..._uncased`.
        split_white_space: Whether to split at all white space of Unicode that the vocabulary's own normalization
            leaves, as transformers' AlbertTokenizer does, and not at spaces alone.
        truncate: How `truncation=True` (which transformers treats as `"longest_first"`) truncates pairs: `round_robin`
            or `waterfall` as in KerasHub, or `longest_first` as in transformers. A call can also name `only_first` or
            `only_second`. Overflowing tokens of pairs require one of these two.
        **kwargs: Options of every transformers tokenizer: `model_max_length`, `split_special_tokens`, ...

    Raises:
        ValueError: Neither file was given, `vocab_file` is not a unigram model with ALBERT's special pieces, or
            `truncate` is unknown.

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
        split_white_space: bool = False,
        truncate: str = "longest_first",
        **kwargs: Any,
    ) -> None:
        if truncate not in TRUNCATION_RULES:
            raise ValueError(f"truncate must be one of {', '.join(TRUNCATION_RULES)}, not {truncate!r}.")
        if __name__.startswith("albert_hub_bridge."):  # only classes that came with a repository's code save that code
            kwargs.pop("auto_map", None)
        normalization = TextNormalization(replace_quotes, strip_accents, do_lower_case, split_white_space)
        self._processor: sentencepiece.SentencePieceProcessor | None = None
        self._normalizes = normalization != TextNormalization()
        self._splitters: dict[bool, SentencePieceSplitter | PipelineSplitter] = {}
        backend: dict[str, Any] = {"tokenizer_file": tokenizer_file}
        if vocab_file is not None:
            try:
                vocabulary = parse_vocabulary(Path(vocab_file).read_bytes())
            except ValueError as error:
                raise ValueError(f"{vocab_file}: {error}") from error
            backend = {"tokenizer_object": build_tokenizer(vocabulary, normalization)}
            self._processor = vocabulary.processor
        elif tokenizer_file is None and "tokenizer_object" not in kwargs:
            raise ValueError("AlbertHubTokenizer needs a vocab_file (SentencePiece) or a tokenizer_file.")
        special = {f"{name}_token": piece for name, piece in SPECIAL_PIECES.items()}
        super().__init__(
            vocab_file=vocab_file,
            replace_quotes=replace_quotes,
            strip_accents=strip_accents,
            do_lower_case=do_lower_case,
            split_white_space=split_white_space,
            truncate=truncate,
            **{**special, **backend, **kwargs},
        )
        self.truncate = truncate
        # A saved pipeline may truncate and pad. This class does both itself.
        self.backend_tokenizer.no_truncation()
        self.backend_tokenizer.no_padding()

    @classmethod
    def convert_to_native_format(cls, trust_remote_code: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Return the files unchanged. transformers' own conversion would rebuild the pipeline."""
        return kwargs

    def _add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        self._splitters.clear()
        if self._processor is not None and not self._normalizes:
            new_tokens = [_as_typed(token, special_tokens) for token in new_tokens]
        return super()._add_tokens(new_tokens, special_tokens)

    def train_new_from_iterator(self, *_: Any, **__: Any) -> NoReturn:
        """Raise. transformers would train a pipeline, but the ids would still come from the old vocabulary.

        Raises:
            NotImplementedError: Always. The message says how to train a vocabulary.
        """
        raise NotImplementedError(
            "AlbertHubTokenizer does not train vocabularies. Train a SentencePiece unigram model with pad_id=0, "
            "unk_id=1, bos_id=-1, eos_id=-1 and control_symbols=['[CLS]', '[SEP]', '[MASK]'], and load it as "
            "vocab_file."
        )

    def _encode_plus(  # type: ignore[override]
        self,
        text: Any,
        text_pair: Any = None,
        add_special_tokens: bool = True,
        padding_strategy: PaddingStrategy = PaddingStrategy.DO_NOT_PAD,
        truncation_strategy: TruncationStrategy = TruncationStrategy.DO_NOT_TRUNCATE,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: Any = None,
        return_overflowing_tokens: bool = False,
        return_offsets_mapping: bool = False,
        split_special_tokens: bool | None = None,
        verbose: bool = True,
        **kwargs: Any,
    ) -> BatchEncoding:
        texts = _rows(text, text_pair, is_split_into_words)
        split = self.split_special_tokens if split_special_tokens is None else split_special_tokens
        rows = self._split_rows(texts, split, return_offsets_mapping)
        samples = list(range(len(rows)))  # index of the text of each row
        if truncation_strategy != TruncationStrategy.DO_NOT_TRUNCATE and max_length is not None:
            rule = (
                self.truncate if truncation_strategy == TruncationStrategy.LONGEST_FIRST else truncation_strategy.value
            )
            if return_overflowing_tokens and rule in TRUNCATION_RULES and any(len(row) > 1 for row in rows):
                raise ValueError(
                    "Only one text of a pair can overflow: truncation must be 'only_first' or 'only_second'."
                )
            parts = stride if return_overflowing_tokens else None
            cut = [
                self._truncate_row(row, max_length - (len(row) + 1) * add_special_tokens, rule, parts) for row in rows
            ]
            samples = [sample for sample, found in zip(samples, cut, strict=True) for _ in found]
            rows = [row for found in cut for row in found]
        marks = (
            ((self.cls_token, self.cls_token_id), (self.sep_token, self.sep_token_id)) if add_special_tokens else None
        )
        padding = self._padding(rows, marks, padding_strategy, max_length, pad_to_multiple_of, padding_side)
        encodings = [Encoding(row, marks, padding) for row in rows]
        for encoding in encodings:
            self._eventual_warn_about_too_long_sequence(encoding.ids, max_length, verbose)
        data = self._as_lists(encodings, return_offsets_mapping=return_offsets_mapping, **kwargs)
        if return_overflowing_tokens:
            data["overflow_to_sample_mapping"] = samples
        elif return_tensors is None and _is_text(text, is_split_into_words):
            return BatchEncoding({name: values[0] for name, values in data.items()}, encodings)  # type: ignore[arg-type]
        return BatchEncoding(data, encodings, tensor_type=return_tensors)  # type: ignore[arg-type]

    def _split_rows(
        self, rows: Sequence[Sequence[Text]], split_special: bool, with_offsets: bool
    ) -> list[list[Pieces]]:
        if split_special not in self._splitters:
            self._splitters[split_special] = (
                PipelineSplitter(self.backend_tokenizer, split_special)
                if self._processor is None or self._normalizes
                else SentencePieceSplitter(self._processor, self.added_tokens_decoder, split_special)
            )
        plain = [part for row in rows for text in row for part in ([text] if isinstance(text, str) else text)]
        found = iter(self._splitters[split_special].split(plain, with_offsets))
        return [
            [next(found) if isinstance(text, str) else join_words([next(found) for _ in text]) for text in row]
            for row in rows
        ]

    def _truncate_row(self, row: list[Pieces], budget: int, rule: str, stride: int | None) -> list[list[Pieces]]:
        """Truncate a row. With a stride, return several rows that overlap by `stride` pieces."""
        lengths = [len(text.ids) for text in row]
        if sum(lengths) <= budget:
            return [row]
        sizes = token_budgets(lengths, budget, rule)
        left = self.truncation_side == "left"
        if stride is None:
            spans = [
                (length - size, length) if left else (0, size) for length, size in zip(lengths, sizes, strict=True)
            ]
            return [[text.part(*span) for text, span in zip(row, spans, strict=True)]]
        parts = [
            [text] if size == length else [text.part(*span) for span in overlapping_windows(length, size, stride, left)]
            for text, length, size in zip(row, lengths, sizes, strict=True)
        ]
        return [list(choice) for choice in product(*parts)]  # only one text has several parts

    def _padding(
        self,
        rows: Sequence[Sequence[Pieces]],
        marks: tuple[Mark, Mark] | None,
        strategy: PaddingStrategy,
        max_length: int | None,
        multiple: int | None,
        side: str | None,
    ) -> Padding | None:
        if strategy == PaddingStrategy.DO_NOT_PAD or not rows:
            return None
        if strategy == PaddingStrategy.MAX_LENGTH and max_length is not None:
            length = max_length
        else:
            length = max(sum(len(text.ids) for text in row) + (len(row) + 1 if marks else 0) for row in rows)
        if multiple:
            length = -(-length // multiple) * multiple
        left = (side or self.padding_side) == "left"
        return Padding(length, (self.pad_token, self.pad_token_id), self.pad_token_type_id, left)

    def _as_lists(
        self,
        encodings: Sequence[Encoding],
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        **_: Any,
    ) -> dict[str, list[Any]]:
        names = self.model_input_names
        requested = {
            "token_type_ids": "token_type_ids" in names if return_token_type_ids is None else return_token_type_ids,
            "attention_mask": "attention_mask" in names if return_attention_mask is None else return_attention_mask,
            "special_tokens_mask": return_special_tokens_mask,
            "offset_mapping": return_offsets_mapping,
        }
        attributes = {"token_type_ids": "type_ids", "offset_mapping": "offsets"}
        data: dict[str, list[Any]] = {"input_ids": [encoding.ids for encoding in encodings]}
        for name, is_requested in requested.items():
            if is_requested:
                data[name] = [getattr(encoding, attributes.get(name, name)) for encoding in encodings]
        if return_length:
            data["length"] = [len(encoding) for encoding in encodings]
        return data

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:  # type: ignore[override]
        """Save the SentencePiece model, if there is one, as `spiece.model`. KerasHub reads no other file."""
        if self._processor is None:
            return ()
        target = Path(save_directory) / f"{filename_prefix + '-' if filename_prefix else ''}spiece.model"
        target.write_bytes(self._processor.serialized_model_proto())
        return (str(target),)

    def _save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        file_names: tuple[str, ...],
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
    ) -> tuple[str, ...]:
        # transformers 5 saves only tokenizer.json, which KerasHub cannot read.
        saved = super()._save_pretrained(save_directory, file_names, legacy_format, filename_prefix)
        return saved + self.save_vocabulary(str(save_directory), filename_prefix)


def _as_typed(token: str | AddedToken, special: bool) -> AddedToken:
    """Return a token that matches the text before normalization: SentencePiece does not return a normalized text."""
    token = AddedToken(token, special=special) if isinstance(token, str) else token
    flags = {name: getattr(token, name) for name in ("single_word", "lstrip", "rstrip", "special")}
    return AddedToken(token.content, normalized=False, **flags)


def _is_text(text: Any, as_words: bool) -> bool:
    if as_words:
        return isinstance(text, list | tuple) and all(isinstance(word, str) for word in text)
    return isinstance(text, str)


def _rows(text: Any, pair: Any, as_words: bool) -> list[tuple[Text, ...]]:
    """Return a tuple of one or two texts for each input, for every input form of transformers.

    Raises:
        ValueError: An input is no text or pair, or the numbers of first and second texts differ.
    """
    is_batch = isinstance(text, list | tuple) and not _is_text(text, as_words)
    rows: list[tuple[Any, ...]]
    if is_batch and pair is not None:
        if not isinstance(pair, list | tuple) or len(pair) != len(text):
            raise ValueError("text_pair must be a list with as many texts as text.")
        rows = list(zip(text, pair, strict=True))
    elif is_batch:
        rows = [tuple(row) if isinstance(row, list | tuple) and not _is_text(row, as_words) else (row,) for row in text]
    else:
        rows = [(text, pair)] if pair else [(text,)]  # transformers treats an empty second text as none
    if not all(1 <= len(row) <= 2 and all(_is_text(part, as_words) for part in row) for row in rows):
        one = "list[str] (words)" if as_words else "str"
        raise ValueError(f"A text input must be of type {one}, a pair of these, or a list of either.")
    return rows


__all__ = ["AlbertHubTokenizer"]
