"""A SentencePiece vocabulary as a pipeline of the `tokenizers` library.

This module needs `tokenizers` and `sentencepiece`, and neither torch nor transformers.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, field, fields
from math import isfinite
from typing import Any

import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2 as proto_types
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors


CLS, SEP, PAD, UNK, MASK = "[CLS]", "[SEP]", "<pad>", "<unk>", "[MASK]"
SPECIAL_PIECES = {"pad": PAD, "unk": UNK, "cls": CLS, "sep": SEP, "mask": MASK}


@dataclass(frozen=True, slots=True)
class TextNormalization:
    """What ALBERT's tokenizers do to a text, besides the vocabulary's own normalization.

    Args:
        replace_quotes: First, replace two back-ticks, or two apostrophes, with a double quote.
        strip_accents: Then decompose (NFKD) and remove combining marks.
        lower_case: Then lower-case.
        split_white_space: After the vocabulary's own normalization, split at all white space of Unicode. SentencePiece
            splits at spaces alone. Tabs and line breaks that are left would become `<unk>`.
    """

    replace_quotes: bool = False
    strip_accents: bool = False
    lower_case: bool = False
    split_white_space: bool = False

    @property
    def name(self) -> str:
        """`none`, `uncased`, or the names of the steps."""
        for name, normalization in NAMED_NORMALIZATIONS.items():
            if self == normalization:
                return name
        return " + ".join(step.name for step in fields(self) if getattr(self, step.name))

    def __or__(self, other: TextNormalization) -> TextNormalization:
        """Return the steps of both."""
        return TextNormalization(*(any(pair) for pair in zip(astuple(self), astuple(other), strict=True)))


# KerasHub computes `none`: only the vocabulary's own normalization. transformers' AlbertTokenizer and Google's release
# compute `uncased`.
NAMED_NORMALIZATIONS = {"none": TextNormalization(), "uncased": TextNormalization(True, True, True, True)}

# Unicode's White_Space. As a range of a regular expression, transformers.js understands it as the tokenizers library.
WHITE_SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


# Part of a vocabulary's normalization name: "nmt_nfkc after uncased" has text normalization compiled into it.
AFTER = " after "


def baked_normalization(normalization: str) -> TextNormalization:
    """Return the text normalization that is compiled into a vocabulary, from the name of its normalization."""
    name = normalization.partition(AFTER)[2]
    return NAMED_NORMALIZATIONS.get(name) or TextNormalization(
        *(step.name in name.split(" + ") for step in fields(TextNormalization))
    )


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A parsed SentencePiece unigram vocabulary with ALBERT's special pieces."""

    pieces: tuple[tuple[str, float], ...]
    special_ids: dict[str, int]  # "pad", "unk", "cls", "sep", "mask"
    charsmap: bytes
    normalization: str  # the vocabulary's own normalization: "nmt_nfkc", ...
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    processor: sentencepiece.SentencePieceProcessor = field(repr=False, compare=False)

    @property
    def size(self) -> int:
        """Number of pieces."""
        return len(self.pieces)


def parse_proto(proto: bytes) -> Any:
    """Parse a serialized SentencePiece model of any type, a `ModelProto`.

    Raises:
        ValueError: The bytes are something else.
    """
    model: Any = proto_types.ModelProto()  # type: ignore[attr-defined]
    try:
        model.ParseFromString(proto)
    except DecodeError as error:
        raise ValueError(f"not a SentencePiece model: {error}") from error
    return model


def parse_vocabulary(proto: bytes) -> Vocabulary:
    """Parse a serialized SentencePiece model (`spiece.model`, `vocabulary.spm`).

    Raises:
        ValueError: The bytes are not a unigram SentencePiece model, or a special piece of ALBERT is missing.
    """
    model = parse_proto(proto)
    if not model.pieces:
        raise ValueError("not a SentencePiece model: it has no pieces")
    # Pieces come first in the file, so a file that is cut between two of them still parses. `vocab_size` does not tell:
    # tools that add pieces do not update it.
    if not (model.HasField("trainer_spec") and model.HasField("normalizer_spec")):
        raise ValueError(f"the model ends after {len(model.pieces)} pieces: was the file cut off?")
    trainer = model.trainer_spec
    if trainer.model_type != trainer.UNIGRAM:
        found = trainer.ModelType.Name(trainer.model_type)
        raise ValueError(f"expected a UNIGRAM model, found {found}")
    if trainer.byte_fallback or trainer.treat_whitespace_as_suffix or not model.normalizer_spec.escape_whitespaces:
        raise ValueError("byte_fallback, treat_whitespace_as_suffix or raw whitespace, which ALBERT never uses")
    pieces = tuple((piece.piece, piece.score) for piece in model.pieces)
    if not all(isfinite(score) for _, score in pieces):
        raise ValueError("a score is not a number")
    if charsmap := model.normalizer_spec.precompiled_charsmap:
        try:
            normalizers.Precompiled(charsmap)
        except Exception as error:  # the library raises nothing more precise
            raise ValueError(f"the precompiled charsmap does not parse: {error}") from error
    ids = {piece: index for index, (piece, _) in enumerate(pieces)}
    if missing := [piece for piece in SPECIAL_PIECES.values() if piece not in ids]:
        raise ValueError(f"the special pieces {', '.join(missing)} are missing")
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    except RuntimeError as error:
        raise ValueError(f"SentencePiece rejects the model: {error}") from error
    if processor.unk_id() != ids[UNK]:
        raise ValueError(f"the unknown piece is {pieces[processor.unk_id()][0]}, not {UNK}")
    return Vocabulary(
        pieces=pieces,
        special_ids={name: ids[piece] for name, piece in SPECIAL_PIECES.items()},
        charsmap=charsmap,
        normalization=model.normalizer_spec.name or "identity",
        add_dummy_prefix=model.normalizer_spec.add_dummy_prefix,
        remove_extra_whitespaces=model.normalizer_spec.remove_extra_whitespaces,
        processor=processor,
    )


def text_normalizer(normalization: TextNormalization) -> normalizers.Normalizer:
    """Build the steps before the vocabulary from the normalizers that transformers' AlbertTokenizer uses."""
    steps: list[normalizers.Normalizer] = []
    if normalization.replace_quotes:
        steps += [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if normalization.strip_accents:
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if normalization.lower_case:
        steps += lower_case()
    return normalizers.Sequence(steps)


def lower_case() -> list[normalizers.Normalizer]:
    """Build the lower-casing. transformers.js would lower-case a sigma at the end of a word to another letter."""
    return [normalizers.Replace("Σ", "σ"), normalizers.Lowercase()]


def fold_case(charsmap: bytes) -> list[normalizers.Normalizer]:
    """Build steps that change nothing after a map that folds case; none for other maps.

    transformers.js does not read the map. It computes NFKC instead, which folds no case. The steps only change Cherokee
    letters, which a folding map turns into capitals.
    """
    fold = normalizers.Precompiled(charsmap).normalize_str
    letters = "".join(map(chr, range(0x20, 0x590)))  # Latin, Greek, Cyrillic, Armenian
    kept, instead = "İ", "\U000f0130"  # the maps of SentencePiece keep it; a character for private use stands in for it
    folded = fold(letters).replace(kept, "")
    if fold("A") != "a" or normalizers.Lowercase().normalize_str(folded) != folded:
        return []
    return [normalizers.Replace(kept, instead), *lower_case(), normalizers.Replace(instead, kept)]


def handle_spaces(
    add_dummy_prefix: bool, remove_extra_whitespaces: bool, split_white_space: bool
) -> tuple[list[normalizers.Normalizer], pre_tokenizers.PreTokenizer]:
    """Build the handling of spaces, or of all white space of Unicode.

    Returns:
        The last steps of the normalizer, and the pre-tokenizer.
    """
    if add_dummy_prefix and remove_extra_whitespaces:
        # Like transformers' AlbertTokenizer: offsets of a word do not include the space before it.
        # A regular expression, because transformers.js keeps the spaces if it splits at a plain text.
        words = pre_tokenizers.Split(Regex(f"[{WHITE_SPACE}]" if split_white_space else " "), "removed")
        return [], pre_tokenizers.Sequence([words, pre_tokenizers.Metaspace(prepend_scheme="always")])
    steps: list[normalizers.Normalizer] = []
    if split_white_space:
        steps.append(normalizers.Replace(Regex(f"[{WHITE_SPACE}]"), " "))
    if remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Replace(Regex("^ | $"), "")]
    if add_dummy_prefix:
        steps.append(normalizers.Prepend(" "))
    return steps, pre_tokenizers.Metaspace(prepend_scheme="never")


def build_tokenizer(vocabulary: Vocabulary, normalization: TextNormalization) -> Tokenizer:
    """Build the pipeline: text normalization, the vocabulary's normalization, unigram, and `[CLS] a [SEP] b [SEP]`."""
    # This library applies a character map to one grapheme cluster at a time. It never sees two quotes, or a letter
    # without its marks. So text normalization that is compiled into the map also runs before it.
    before = normalization | baked_normalization(vocabulary.normalization)
    steps: list[normalizers.Normalizer] = [text_normalizer(before)]
    if vocabulary.charsmap:
        steps += [normalizers.Precompiled(vocabulary.charsmap), *fold_case(vocabulary.charsmap)]
    spaces, pre_tokenizer = handle_spaces(
        vocabulary.add_dummy_prefix, vocabulary.remove_extra_whitespaces, before.split_white_space
    )

    tokenizer = Tokenizer(models.Unigram(list(vocabulary.pieces), unk_id=vocabulary.special_ids["unk"]))
    tokenizer.normalizer = normalizers.Sequence(steps + spaces)
    tokenizer.pre_tokenizer = pre_tokenizer
    prepend = "always" if vocabulary.add_dummy_prefix else "never"
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=prepend)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS}:0 $A:0 {SEP}:0",
        pair=f"{CLS}:0 $A:0 {SEP}:0 $B:1 {SEP}:1",
        special_tokens=[(CLS, vocabulary.special_ids["cls"]), (SEP, vocabulary.special_ids["sep"])],
    )
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False) for piece in SPECIAL_PIECES.values()])
    return tokenizer
