"""The tokenizer of an `AlbertHubModel`: the ids of the SentencePiece vocabulary, with transformers' interface."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import AddedToken
from transformers.tokenization_utils_base import BatchEncoding, TruncationStrategy
from transformers.tokenization_utils_tokenizers import TokenizersBackend
from transformers.utils import PaddingStrategy

from .sentencepiece_encoding import Encoding, Offset, Pieces, budgets
from .sentencepiece_unigram import SPECIAL_PIECES, TextRules, build_tokenizer, parse_vocabulary


TRUNCATION_RULES = ("round_robin", "waterfall", "longest_first")


class AlbertHubTokenizer(TokenizersBackend):
    """ALBERT's tokenizer: `[CLS] a [SEP] b [SEP]`, segment ids, padding mask, offsets.

    Ids come from SentencePiece itself, so they are those of KerasHub for every text. The `tokenizers` pipeline is what
    is saved as `tokenizer.json`, and what encodes where SentencePiece cannot: texts that are split into words,
    overflowing tokens, and texts with rules before the vocabulary.

    Args:
        vocab_file: A SentencePiece model (`spiece.model`, `vocabulary.spm`). It is saved beside `tokenizer.json`.
        tokenizer_file: The `tokenizer.json` of a saved tokenizer, for where there is no `vocab_file`.
        replace_quotes: Whether to replace two back-ticks or two apostrophes by a double quote.
        strip_accents: Whether to remove accents.
        do_lower_case: Whether to lower-case. KerasHub never does, whatever a preset's name says.
        truncate: How pairs are cut by `truncation=True`: `round_robin` or `waterfall`, as a preset says and KerasHub
            does, or `longest_first`, as transformers does. Other strategies can be named in the call.
        **kwargs: What every transformers tokenizer takes: `model_max_length`, `split_special_tokens`, ...

    Raises:
        ValueError: Neither file was given, or `vocab_file` is not a unigram model with ALBERT's special pieces, or
            there is no such way to cut pairs.

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
        truncate: str = "longest_first",
        **kwargs: Any,
    ) -> None:
        if truncate not in TRUNCATION_RULES:
            raise ValueError(f"truncate must be one of {', '.join(TRUNCATION_RULES)}, not {truncate!r}.")
        rules = TextRules(replace_quotes, strip_accents, do_lower_case)
        self._processor: sentencepiece.SentencePieceProcessor | None = None
        backend: dict[str, Any] = {"tokenizer_file": tokenizer_file}
        if vocab_file is not None:
            proto = Path(vocab_file).read_bytes()
            try:
                vocabulary = parse_vocabulary(proto)
            except ValueError as error:
                raise ValueError(f"{vocab_file}: {error}") from error
            backend = {"tokenizer_object": build_tokenizer(vocabulary, rules)}
            if rules == TextRules():
                self._processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
        elif tokenizer_file is None and "tokenizer_object" not in kwargs:
            raise ValueError("AlbertHubTokenizer needs a vocab_file (SentencePiece) or a tokenizer_file.")
        special = {f"{name}_token": piece for name, piece in SPECIAL_PIECES.items()}
        super().__init__(
            vocab_file=vocab_file,
            replace_quotes=replace_quotes,
            strip_accents=strip_accents,
            do_lower_case=do_lower_case,
            truncate=truncate,
            **{**special, **backend, **kwargs},
        )
        self.truncate = truncate

    @classmethod
    def convert_to_native_format(cls, trust_remote_code: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Leave the files to `__init__`; transformers' own conversion would rebuild the pipeline from parts."""
        return kwargs

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
        split_special_tokens: bool | None = None,
        verbose: bool = True,
        **kwargs: Any,
    ) -> BatchEncoding:
        if (
            self._processor is None
            or is_split_into_words
            or return_overflowing_tokens
            or not _are_texts(text, text_pair)
        ):
            return super()._encode_plus(
                text,
                text_pair,
                add_special_tokens=add_special_tokens,
                padding_strategy=padding_strategy,
                truncation_strategy=truncation_strategy,
                max_length=max_length,
                stride=stride,
                is_split_into_words=is_split_into_words,
                pad_to_multiple_of=pad_to_multiple_of,
                padding_side=padding_side,
                return_tensors=return_tensors,
                return_overflowing_tokens=return_overflowing_tokens,
                split_special_tokens=split_special_tokens,
                verbose=verbose,
                **kwargs,
            )
        split = self.split_special_tokens if split_special_tokens is None else split_special_tokens
        rows = _rows(text, text_pair)
        pieces = _in_pieces(rows, self._processor, AddedTokens(self.added_tokens_decoder, split))
        if truncation_strategy != TruncationStrategy.DO_NOT_TRUNCATE and max_length is not None:
            pieces = [self._cut(row, max_length, truncation_strategy, add_special_tokens) for row in pieces]
        special_ids = {"cls": self.cls_token_id, "sep": self.sep_token_id} if add_special_tokens else None
        encodings = [Encoding(row, special_ids) for row in pieces]
        self._pad_all(encodings, padding_strategy, max_length, pad_to_multiple_of, padding_side)
        for encoding in encodings:
            self._eventual_warn_about_too_long_sequence(encoding.ids, max_length, verbose)
        data = self._as_lists(encodings, **kwargs)
        if isinstance(text, str) and return_tensors is None:
            return BatchEncoding({name: values[0] for name, values in data.items()}, encodings)  # type: ignore[arg-type]
        return BatchEncoding(data, encodings, tensor_type=return_tensors)  # type: ignore[arg-type]

    def _cut(self, row: list[Pieces], max_length: int, strategy: TruncationStrategy, special: bool) -> list[Pieces]:
        budget = max_length - (len(row) + 1 if special else 0)
        if sum(len(part.ids) for part in row) <= budget:
            return row
        rule = self.truncate if strategy == TruncationStrategy.LONGEST_FIRST else strategy.value
        kept = budgets([len(part.ids) for part in row], budget, rule)
        return [part.cut(length, self.truncation_side == "left") for part, length in zip(row, kept, strict=True)]

    def _pad_all(
        self,
        encodings: Sequence[Encoding],
        strategy: PaddingStrategy,
        max_length: int | None,
        multiple: int | None,
        side: str | None,
    ) -> None:
        if strategy == PaddingStrategy.DO_NOT_PAD or not encodings:
            return
        length = max_length if strategy == PaddingStrategy.MAX_LENGTH else max(map(len, encodings))
        length = length if length is not None else max(map(len, encodings))
        if multiple:
            length = -(-length // multiple) * multiple
        token, index, segment = self.pad_token, self.pad_token_id, self.pad_token_type_id
        left = (side or self.padding_side) == "left"
        for encoding in encodings:
            encoding.pad(length, token, index, segment, left)

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
        wanted = {
            "token_type_ids": "token_type_ids" in names if return_token_type_ids is None else return_token_type_ids,
            "attention_mask": "attention_mask" in names if return_attention_mask is None else return_attention_mask,
            "special_tokens_mask": return_special_tokens_mask,
            "offset_mapping": return_offsets_mapping,
        }
        attributes = {"token_type_ids": "type_ids", "offset_mapping": "offsets"}
        data: dict[str, list[Any]] = {"input_ids": [encoding.ids for encoding in encodings]}
        for name, is_wanted in wanted.items():
            if is_wanted:
                data[name] = [getattr(encoding, attributes.get(name, name)) for encoding in encodings]
        if return_length:
            data["length"] = [len(encoding) for encoding in encodings]
        return data

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


class AddedTokens:
    """What is cut out of a text before the vocabulary sees it: special tokens, and those that a user added.

    Args:
        tokens: By their ids.
        split_special: Whether special tokens that are written in a text are text.
    """

    def __init__(self, tokens: Mapping[int, AddedToken], split_special: bool) -> None:
        self.ids = {token.content: i for i, token in tokens.items() if not (split_special and token.special)}
        wanted = [token for token in tokens.values() if token.content in self.ids]
        parts = [
            (r"\s*" if token.lstrip else "")
            + (r"(?<!\w)" if token.single_word else "")
            + f"({re.escape(token.content)})"
            + (r"(?!\w)" if token.single_word else "")
            + (r"\s*" if token.rstrip else "")
            for token in sorted(wanted, key=lambda token: -len(token.content))
        ]
        self.pattern = re.compile("|".join(parts)) if parts else None

    def find(self, text: str) -> list[tuple[int, int, str]]:
        """Return where each added token begins and ends in a text, with its content."""
        if self.pattern is None:
            return []
        return [(*match.span(), match[match.lastindex or 0]) for match in self.pattern.finditer(text)]


def _in_pieces(
    rows: Sequence[Sequence[str]], processor: sentencepiece.SentencePieceProcessor, added: AddedTokens
) -> list[list[Pieces]]:
    """Cut texts at added tokens, and give all that lies between them to SentencePiece at once."""
    # Few objects are kept for each text: with millions alive, collecting garbage costs more than SentencePiece.
    details = partial(_details, processor, added)
    cuts = [_cut_at(text, added) for row in rows for text in row]
    found = iter(processor.encode([part for cut in cuts for part, token, _, _ in cut if not token]))
    ids = iter(
        [[i for part, token, _, _ in cut for i in ([added.ids[part]] if token else next(found))] for cut in cuts]
    )
    return [[Pieces(next(ids), text, details) for text in row] for row in rows]


Part = tuple[str, bool, int, int]  # a part of a text, or an added token; which of them; where it begins and ends


def _cut_at(text: str, added: AddedTokens) -> list[Part]:
    parts, start = [], 0
    for first, last, token in added.find(text):
        if start < first:
            parts.append((text[start:first], False, start, first))
        parts.append((token, True, first, last))
        start = last
    if start < len(text):
        parts.append((text[start:], False, start, len(text)))
    return parts


def _details(
    processor: sentencepiece.SentencePieceProcessor, added: AddedTokens, text: str
) -> tuple[list[str], list[Offset]]:
    """Return the pieces of a text, and where each lies in it."""
    tokens: list[str] = []
    offsets: list[Offset] = []
    for part, is_token, start, end in _cut_at(text, added):
        if is_token:
            tokens.append(part)
            offsets.append((start, end))
        else:
            found = processor.encode_as_offset_mapping(part)
            tokens += found["pieces"]
            offsets += [(start + first, start + last) for first, last in found["offsets"]]
    return tokens, offsets


def _are_texts(text: Any, pair: Any) -> bool:
    """Tell plain texts from the other forms that transformers takes, or refuses with its own words."""
    if isinstance(text, str):
        return pair is None or isinstance(pair, str)
    if not isinstance(text, list | tuple) or not text:
        return False
    one = all(isinstance(part, str) or (isinstance(part, tuple) and len(part) == 2) for part in text)
    both = pair is None or (isinstance(pair, list | tuple) and len(pair) == len(text))
    return one and both and all(isinstance(part, str) for part in (pair or ()))


def _rows(text: Any, pair: Any) -> list[tuple[str, ...]]:
    if isinstance(text, str):
        return [(text, pair)] if pair else [(text,)]
    if pair is not None:
        return list(zip(text, pair, strict=True))
    return [part if isinstance(part, tuple) else (part,) for part in text]


__all__ = ["AlbertHubTokenizer"]
