"""A SentencePiece vocabulary as a pipeline of the `tokenizers` library.

Pure like `architecture.py`: needs `tokenizers` and `sentencepiece`, neither torch nor transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2 as proto_types
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors


CLS, SEP, PAD, UNK, MASK = "[CLS]", "[SEP]", "<pad>", "<unk>", "[MASK]"
SPECIAL_PIECES = {"pad": PAD, "unk": UNK, "cls": CLS, "sep": SEP, "mask": MASK}


@dataclass(frozen=True, slots=True)
class TextRules:
    """What happens to a text before the vocabulary's own normalization.

    Args:
        replace_quotes: Replace two back-ticks and two apostrophes by a double quote.
        strip_accents: Decompose (NFKD) and remove combining marks.
        lower_case: Lower-case.
    """

    replace_quotes: bool = False
    strip_accents: bool = False
    lower_case: bool = False

    @property
    def name(self) -> str:
        """`sentencepiece`, `uncased`, or a description of a mixture."""
        for name, rules in NAMED_RULES.items():
            if self == rules:
                return name
        chosen = [field for field in ("replace_quotes", "strip_accents", "lower_case") if getattr(self, field)]
        return " + ".join(chosen)


# `sentencepiece` is what KerasHub computes: the vocabulary's own normalization and nothing else. `uncased` is what
# transformers' AlbertTokenizer and Google's release of ALBERT do first.
NAMED_RULES = {"sentencepiece": TextRules(), "uncased": TextRules(True, True, True)}


# In the name of a normalization: "nmt_nfkc after uncased" is one that has text rules compiled in.
AFTER = " after "


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A parsed SentencePiece unigram vocabulary with ALBERT's special pieces."""

    pieces: tuple[tuple[str, float], ...]
    special_ids: dict[str, int]  # "pad", "unk", "cls", "sep", "mask"
    charsmap: bytes
    normalization: str  # what the model calls its own normalization: "nmt_nfkc", ...
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool

    @property
    def size(self) -> int:
        """Number of pieces."""
        return len(self.pieces)


def parse_vocabulary(proto: bytes) -> Vocabulary:
    """Parse a serialized SentencePiece model (`spiece.model`, `vocabulary.spm`).

    Raises:
        ValueError: The bytes are not a unigram SentencePiece model, or a special piece of ALBERT is missing.
    """
    model: Any = proto_types.ModelProto()  # type: ignore[attr-defined]
    try:
        model.ParseFromString(proto)
    except DecodeError as error:
        raise ValueError(f"not a SentencePiece model: {error}") from error
    if not model.pieces:
        raise ValueError("not a SentencePiece model: it has no pieces")
    trainer = model.trainer_spec
    if trainer.model_type != trainer.UNIGRAM:
        found = trainer.ModelType.Name(trainer.model_type)
        raise ValueError(f"expected a UNIGRAM model, found {found}")
    if trainer.byte_fallback or trainer.treat_whitespace_as_suffix or not model.normalizer_spec.escape_whitespaces:
        raise ValueError("byte_fallback, treat_whitespace_as_suffix or raw whitespace, which ALBERT never uses")
    if not all(isfinite(piece.score) for piece in model.pieces):
        raise ValueError("a score is not a number")
    if len({piece.piece for piece in model.pieces}) < len(model.pieces) or not all(p.piece for p in model.pieces):
        raise ValueError("pieces are empty or occur twice")
    if charsmap := model.normalizer_spec.precompiled_charsmap:
        try:
            normalizers.Precompiled(charsmap)
        except Exception as error:  # the library raises nothing more precise
            raise ValueError(f"the precompiled charsmap does not parse: {error}") from error
    ids = {piece.piece: index for index, piece in enumerate(model.pieces)}
    if missing := [piece for piece in SPECIAL_PIECES.values() if piece not in ids]:
        raise ValueError(f"the special pieces {', '.join(missing)} are missing")
    return Vocabulary(
        pieces=tuple((piece.piece, piece.score) for piece in model.pieces),
        special_ids={name: ids[piece] for name, piece in SPECIAL_PIECES.items()},
        charsmap=charsmap,
        normalization=model.normalizer_spec.name or "identity",
        add_dummy_prefix=model.normalizer_spec.add_dummy_prefix,
        remove_extra_whitespaces=model.normalizer_spec.remove_extra_whitespaces,
    )


def rule_normalizer(rules: TextRules) -> normalizers.Normalizer:
    """Build what the text rules do, with the parts that transformers' AlbertTokenizer has."""
    steps: list[normalizers.Normalizer] = []
    if rules.replace_quotes:
        steps += [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if rules.strip_accents:
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if rules.lower_case:
        steps.append(normalizers.Lowercase())
    return normalizers.Sequence(steps)


def build_tokenizer(vocabulary: Vocabulary, rules: TextRules) -> Tokenizer:
    """Build the pipeline: text rules, the vocabulary's normalization, unigram, and `[CLS] a [SEP] b [SEP]`."""
    steps: list[normalizers.Normalizer] = [rule_normalizer(rules)]
    if vocabulary.charsmap:
        steps.append(normalizers.Precompiled(vocabulary.charsmap))
    if vocabulary.remove_extra_whitespaces:
        # Only spaces: SentencePiece keeps whatever else Unicode calls white.
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Replace(Regex("^ | $"), "")]

    tokenizer = Tokenizer(models.Unigram(list(vocabulary.pieces), unk_id=vocabulary.special_ids["unk"]))
    tokenizer.normalizer = normalizers.Sequence(steps)
    prepend = "always" if vocabulary.add_dummy_prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=prepend)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS}:0 $A:0 {SEP}:0",
        pair=f"{CLS}:0 $A:0 {SEP}:0 $B:1 {SEP}:1",
        special_tokens=[(CLS, vocabulary.special_ids["cls"]), (SEP, vocabulary.special_ids["sep"])],
    )
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False) for piece in SPECIAL_PIECES.values()])
    return tokenizer
