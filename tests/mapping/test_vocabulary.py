from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import Tokenizer
from transformers import AlbertTokenizer

from albert_hub_bridge import AlbertHubTokenizer, convert, inspect, verify
from albert_hub_bridge.errors import VocabularyError
from albert_hub_bridge.layouts.keras.preset import write_preset
from albert_hub_bridge.mapping.tokenizer_json import added_tokens, proto_from_tokenizer
from albert_hub_bridge.mapping.vocabulary import bake_normalization
from albert_hub_bridge.model.sentencepiece_unigram import (
    NAMED_NORMALIZATIONS,
    SPECIAL_PIECES,
    TextNormalization,
    Vocabulary,
    baked_normalization,
    build_tokenizer,
    parse_vocabulary,
)
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, train_vocabulary, write_sample_preset
from tests import corpus


# Ties were 5 of 90,000 lines with the English vocabulary, and 2 of 1,000 with one trained on 4,000 lines, where many
# pieces have the same score.
MAX_TIES = 1 / 200
ENGLISH = Path(__file__).parents[3] / "shared" / "vocab" / "albert-english-30k.model"


@cache
def _proto(name: str) -> bytes:
    if name == "english":
        if not ENGLISH.is_file():
            pytest.skip("the folder shared/vocab is not here")
        return ENGLISH.read_bytes()
    return train_vocabulary(
        2000, [line for line in corpus.documentation(4000) if line.strip()], normalization_rule_name=name
    )


def _lines(vocabulary: Vocabulary, count: int) -> list[str]:
    pieces = [piece for piece, _ in vocabulary.pieces]
    return [
        *corpus.documentation(2 * count),
        *corpus.unicode(count, ascii_share=0.0),
        *corpus.unicode(count, ascii_share=0.7),
        *corpus.from_pieces(count, pieces),
        *corpus.white(count // 4),
        *corpus.LONG,
    ]


def _transformers(vocabulary: Vocabulary, normalization: TextNormalization) -> AlbertTokenizer:
    """Return the tokenizer of transformers for a vocabulary. It always replaces quotes."""
    return AlbertTokenizer(
        vocab=list(vocabulary.pieces),
        _spm_precompiled_charsmap=vocabulary.charsmap or None,
        do_lower_case=normalization.lower_case,
        keep_accents=not normalization.strip_accents,
    )


def _spells_a_control_piece(text: str) -> bool:
    return any(piece in text or piece.lower() in text.lower() for piece in SPECIAL_PIECES.values())


def _score(ids: list[int], vocabulary: Vocabulary) -> float:
    return sum(vocabulary.pieces[index][1] for index in ids)


def _differences(
    texts: list[str], our_ids: list[list[int]], their_ids: list[list[int]], vocabulary: Vocabulary
) -> tuple[int, int, list[str]]:
    """Return the number of ties, the number of texts that spell out a control piece, and the other differing texts.

    A tie is a text with two segmentations of the same score. SentencePiece adds scores in float32 and tokenizers in
    float64, so rounding decides. Neither is wrong.
    """
    ties, controls, rest = 0, 0, []
    for text, ours, theirs in zip(texts, our_ids, their_ids, strict=True):
        if ours == theirs:
            continue
        if abs(_score(ours, vocabulary) - _score(theirs, vocabulary)) < 1e-4 and len(ours) == len(theirs):
            ties += 1
        elif _spells_a_control_piece(text):
            controls += 1
        else:
            rest.append(text)
    return ties, controls, rest


@pytest.mark.parametrize(
    "normalization",
    [
        NAMED_NORMALIZATIONS["uncased"],
        TextNormalization(True, False, True, True),
        TextNormalization(True, True, False, True),
    ],
)
@pytest.mark.parametrize("name", ["english", "nmt_nfkc", "identity"])
def test_baked_vocabulary_gives_the_ids_of_transformers(name: str, normalization: TextNormalization) -> None:
    proto = _proto(name)
    vocabulary = parse_vocabulary(proto)
    texts = _lines(vocabulary, 4000)
    baked = sentencepiece.SentencePieceProcessor(model_proto=bake_normalization(proto, normalization))
    theirs = _transformers(vocabulary, normalization)(texts, add_special_tokens=False, split_special_tokens=True)[
        "input_ids"
    ]
    ties, _, rest = _differences(texts, baked.encode(texts), theirs, vocabulary)
    assert ties <= len(texts) * MAX_TIES
    if name == "identity":
        # The sign that stands for a space in pieces, text twice: two pieces in transformers, one space here.
        rest = [text for text in rest if "▁" not in text]
    if not normalization.strip_accents:
        # transformers' normalizer takes a cluster of marks as one character: documented, and beyond Latin text.
        rest = [text for text in rest if any(ord(character) > 0x2FF for character in text)]
        assert len(rest) <= len(texts) / 50
        rest = []
    assert rest == [], (len(rest), [ascii(t[:60]) for t in rest[:4]])


def test_keras_tokenizer_gives_the_ids_of_transformers(tmp_path: Path) -> None:
    import keras_hub

    proto = _proto("nmt_nfkc")
    vocabulary, normalization = parse_vocabulary(proto), NAMED_NORMALIZATIONS["uncased"]
    checkpoint = random_checkpoint(replace(SAMPLE_ARCHITECTURE, vocabulary_size=vocabulary.size), proto)
    assert checkpoint.tokenizer is not None
    write_preset(replace(checkpoint, tokenizer=replace(checkpoint.tokenizer, normalization=normalization)), tmp_path)
    texts = [*_lines(vocabulary, 4000), "\x00", "a\x00b", "x\x00", "\x00É"]
    keras = keras_hub.models.AlbertTokenizer.from_preset(str(tmp_path))
    ours = [[int(index) for index in row] for row in keras(texts)]
    theirs = _transformers(vocabulary, normalization)(texts, add_special_tokens=False, split_special_tokens=True)[
        "input_ids"
    ]
    ties, _, rest = _differences(texts, ours, theirs, vocabulary)
    assert ties <= len(texts) * MAX_TIES
    assert rest == [], (len(rest), [ascii(t[:60]) for t in rest[:4]])


def test_baking_no_new_normalization_returns_the_same_vocabulary(vocabulary: bytes) -> None:
    assert bake_normalization(vocabulary, TextNormalization()) is vocabulary
    baked = bake_normalization(vocabulary, NAMED_NORMALIZATIONS["uncased"])
    assert bake_normalization(baked, NAMED_NORMALIZATIONS["uncased"]) is baked
    assert bake_normalization(baked, TextNormalization(lower_case=True)) is baked


def test_normalization_can_be_baked_step_by_step(vocabulary: bytes) -> None:
    proto, texts = vocabulary, [*corpus.documentation(2000), "``À La''", "E\u0301 ``'' \u1e9b\u0323"]
    for normalization, name in (
        (TextNormalization(replace_quotes=True), "replace_quotes"),
        (TextNormalization(lower_case=True), "replace_quotes + lower_case"),
        (TextNormalization(split_white_space=True), "replace_quotes + lower_case + split_white_space"),
        (TextNormalization(strip_accents=True), "uncased"),
    ):
        proto = bake_normalization(proto, normalization)
        assert parse_vocabulary(proto).normalization == f"nmt_nfkc after {name}"
        assert baked_normalization(f"nmt_nfkc after {name}").name == name
    stepwise, at_once = (
        sentencepiece.SentencePieceProcessor(model_proto=model).encode(texts)
        for model in (proto, bake_normalization(vocabulary, NAMED_NORMALIZATIONS["uncased"]))
    )
    assert stepwise == at_once
    assert baked_normalization("nmt_nfkc") == TextNormalization()


def test_baking_changes_the_name_and_keeps_the_pieces(vocabulary: bytes) -> None:
    before, after = (
        parse_vocabulary(vocabulary),
        parse_vocabulary(bake_normalization(vocabulary, NAMED_NORMALIZATIONS["uncased"])),
    )
    assert (before.normalization, after.normalization) == ("nmt_nfkc", "nmt_nfkc after uncased")
    assert before.pieces == after.pieces


@pytest.mark.parametrize(
    ("normalization", "text", "normalized"),
    [
        (TextNormalization(replace_quotes=True), "``a river''", '"a river"'),
        (TextNormalization(strip_accents=True), "à la rivière, e\u0301", "a la riviere, e"),
        (TextNormalization(lower_case=True), "A RIVER", "a river"),
        (TextNormalization(split_white_space=True), "a\x85river", "a river"),
        (NAMED_NORMALIZATIONS["uncased"], "``À La''", '"a la"'),
    ],
)
def test_each_step_normalizes_its_example(
    normalization: TextNormalization, text: str, normalized: str, vocabulary: bytes
) -> None:
    plain, ruled = (
        sentencepiece.SentencePieceProcessor(model_proto=bake_normalization(vocabulary, r))
        for r in (TextNormalization(), normalization)
    )
    assert ruled.encode(text) == plain.encode(normalized)
    pipeline = build_tokenizer(parse_vocabulary(vocabulary), normalization)
    assert pipeline.encode(text, add_special_tokens=False).ids == plain.encode(normalized)


def test_uncased_repository_becomes_a_lower_casing_preset(tmp_path: Path) -> None:
    write_sample_preset(tmp_path / "sample")
    report = convert(tmp_path / "sample", tmp_path / "transformers", to="transformers", normalize="uncased")
    assert report.text_normalization == "uncased"
    assert report.changed_texts == 5
    assert inspect(tmp_path / "transformers").vocabulary.text_normalization == "uncased"  # type: ignore[union-attr]
    report = convert(tmp_path / "transformers", tmp_path / "keras", to="keras")
    assert (report.text_normalization, report.changed_texts) == ("uncased", 0)
    found = inspect(tmp_path / "keras").vocabulary
    assert found is not None
    assert (found.text_normalization, found.normalization_in_vocabulary, found.normalization) == (
        "uncased",
        True,
        "nmt_nfkc",
    )
    again = convert(tmp_path / "keras", tmp_path / "plain", to="albert_hub", normalize="none")
    assert again.text_normalization == "uncased"
    assert "does not remove it" in again.source.notes[0]
    verification = verify(
        tmp_path / "transformers", tmp_path / "keras", texts=["The River Rose; À ``LA'' Rivière!", "a"]
    )
    assert verification.passed
    assert not verify(tmp_path / "sample", tmp_path / "keras", texts=["The River"]).passed


def test_normalization_can_be_removed_and_is_verified(tmp_path: Path) -> None:
    write_sample_preset(tmp_path / "sample")
    convert(tmp_path / "sample", tmp_path / "uncased", to="albert_hub", normalize="uncased")
    report = convert(tmp_path / "uncased", tmp_path / "plain", to="albert_hub", normalize="none")
    assert (report.text_normalization, report.changed_texts) == ("none", 5)
    assert verify(tmp_path / "sample", tmp_path / "plain").passed
    with pytest.raises(ValueError, match="normalize must be one of keep, none, uncased, not 'lower'"):
        convert(tmp_path / "sample", tmp_path / "other", to="keras", normalize="lower")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["english", "nmt_nfkc", "nmt_nfkc_cf", "identity"])
def test_albert_hub_tokenizer_gives_the_ids_of_sentencepiece(name: str, tmp_path: Path) -> None:
    proto = _proto(name)
    (tmp_path / "spiece.model").write_bytes(proto)
    tokenizer = AlbertHubTokenizer(str(tmp_path / "spiece.model"))
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    texts = _lines(parse_vocabulary(proto), 20_000)
    assert len(texts) > 100_000
    ours = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert ours == processor.encode(texts)


@pytest.mark.parametrize("normalization", ["none", "uncased"])
@pytest.mark.parametrize("name", ["english", "nmt_nfkc"])
def test_tokenizer_json_alone_gives_almost_the_same_ids(name: str, normalization: str) -> None:
    """Compare the pipeline of a repository with only a `tokenizer.json`."""
    proto = bake_normalization(_proto(name), NAMED_NORMALIZATIONS[normalization])
    vocabulary = parse_vocabulary(proto)
    pipeline = build_tokenizer(vocabulary, TextNormalization())
    pipeline.encode_special_tokens = True
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    # The normalizers differ for marks beyond Latin text: 18 of 20,000 texts with the English vocabulary.
    for texts, allowed in ((corpus.documentation(20_000), 0), (corpus.unicode(4000, ascii_share=0.7), 80)):
        ours = [encoding.ids for encoding in pipeline.encode_batch_fast(texts, add_special_tokens=False)]
        ties, _, rest = _differences(texts, ours, processor.encode(texts), vocabulary)
        assert ties <= len(texts) * MAX_TIES
        assert len(rest) <= allowed, rest[:5]


@pytest.mark.parametrize("normalization", ["none", "uncased"])
@pytest.mark.parametrize("name", ["english", "nmt_nfkc"])
def test_tokenizer_json_converts_back_to_its_model(name: str, normalization: str) -> None:
    proto = _proto(name)
    before = parse_vocabulary(proto)
    content = json.loads(build_tokenizer(before, NAMED_NORMALIZATIONS[normalization]).to_str())
    made, found = proto_from_tokenizer(content)
    after = parse_vocabulary(made)
    assert found == NAMED_NORMALIZATIONS[normalization]
    assert (after.pieces, after.charsmap, after.special_ids) == (before.pieces, before.charsmap, before.special_ids)
    texts = _lines(before, 1000)
    one, other = (sentencepiece.SentencePieceProcessor(model_proto=model) for model in (proto, made))
    assert one.encode(texts) == other.encode(texts)


def test_tokenizer_saved_by_transformers_5_is_converted(tmp_path: Path) -> None:
    write_sample_preset(tmp_path / "sample")
    convert(tmp_path / "sample", tmp_path / "transformers", to="transformers")
    vocabulary = parse_vocabulary((tmp_path / "transformers" / "spiece.model").read_bytes())
    for name in ("spiece.model", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "transformers" / name).unlink()
    _transformers(vocabulary, NAMED_NORMALIZATIONS["uncased"]).save_pretrained(tmp_path / "transformers")
    assert not (tmp_path / "transformers" / "spiece.model").exists()
    report = convert(tmp_path / "transformers", tmp_path / "keras", to="keras")
    assert report.text_normalization == "uncased"
    assert "the vocabulary was made from tokenizer.json" in report.source.notes[0]
    assert verify(tmp_path / "transformers", tmp_path / "keras", texts=["The River, à (LA) ''x'' - 2.50", "a"]).passed


@pytest.mark.parametrize("normalization", [TextNormalization(), TextNormalization(split_white_space=True)])
@pytest.mark.parametrize("remove_extra_whitespaces", [True, False])
@pytest.mark.parametrize("add_dummy_prefix", [True, False])
def test_handling_of_spaces_survives_the_round_trip(
    add_dummy_prefix: bool, remove_extra_whitespaces: bool, normalization: TextNormalization
) -> None:
    proto = train_vocabulary(
        add_dummy_prefix=add_dummy_prefix, remove_extra_whitespaces=remove_extra_whitespaces, character_coverage=1.0
    )
    vocabulary = parse_vocabulary(proto)
    pipeline = build_tokenizer(vocabulary, normalization)
    made, found_normalization = proto_from_tokenizer(json.loads(pipeline.to_str()))
    assert found_normalization == normalization
    one, other = (
        sentencepiece.SentencePieceProcessor(model_proto=bake_normalization(model, normalization))
        for model in (proto, made)
    )
    texts = [
        "a  bridge   (of) a",
        " a river",
        "   a. ",
        "a b ",
        "",
        "A Bridge é",
        "a\x85b",
        *corpus.documentation(2000),
    ]
    assert one.encode(texts) == other.encode(texts)
    found = [encoding.ids for encoding in pipeline.encode_batch(texts, add_special_tokens=False)]
    assert _differences(texts, found, one.encode(texts), vocabulary)[2] == []


def _step(kind: str, **fields: object) -> dict[str, object]:
    return {"type": kind, **fields}


_METASPACE = _step("Metaspace", replacement="▁", prepend_scheme="always", split=True)
_OLD_METASPACE = _step("Metaspace", replacement="▁", str_rep="▁", add_prefix_space=True)
_SPACES = _step("Replace", pattern={"Regex": " {2,}"}, content=" ")
_QUOTES = [_step("Replace", pattern={"String": quotes}, content='"') for quotes in ("``", "''")]


def _file(
    vocabulary: bytes, before: list[object], after: list[object], pre_tokenizer: object, **model: object
) -> dict[str, Any]:
    """Return a `tokenizer.json` with more steps before and after the map, and another pre-tokenizer."""
    content = json.loads(build_tokenizer(parse_vocabulary(vocabulary), TextNormalization()).to_str())
    steps = content["normalizer"]["normalizers"]
    content["normalizer"]["normalizers"] = [*before, *steps, *after]
    return {**content, "pre_tokenizer": pre_tokenizer, "model": {**content["model"], **model}}


@pytest.mark.parametrize(
    ("before", "after", "pre_tokenizer", "normalization"),
    [
        # transformers 5; the files of 2020 on the Hub; what transformers 4 made of a SentencePiece model
        ([*_QUOTES, _step("NFKD"), _step("StripAccents"), _step("Lowercase")], [], "Split", "uncased"),
        ([*_QUOTES, _step("Lowercase")], [], "Split", "replace_quotes + lower_case + split_white_space"),
        ([*_QUOTES, _step("NFKD"), _step("StripAccents"), _step("Lowercase")], [], "Old", "uncased"),
        (_QUOTES, [_SPACES], _METASPACE, "replace_quotes"),
    ],
)
def test_pipelines_of_transformers_are_converted(
    before: list[object], after: list[object], pre_tokenizer: object, normalization: str, vocabulary: bytes
) -> None:
    if isinstance(pre_tokenizer, str):
        parts = [_step("WhitespaceSplit"), _OLD_METASPACE if pre_tokenizer == "Old" else _METASPACE]
        pre_tokenizer = _step("Sequence", pretokenizers=parts)
    content = _file(vocabulary, before, after, pre_tokenizer)
    made, found = proto_from_tokenizer(content)
    assert found.name == normalization
    texts = [text.strip() for text in (*corpus.documentation(2000), "``À  La'' (2.50)")]
    pipeline = Tokenizer.from_str(json.dumps(content))
    pipeline.encode_special_tokens = True
    theirs = [encoding.ids for encoding in pipeline.encode_batch(texts, add_special_tokens=False)]
    ours = sentencepiece.SentencePieceProcessor(model_proto=bake_normalization(made, found)).encode(texts)
    assert _differences(texts, ours, theirs, parse_vocabulary(vocabulary))[2] == []


_SPLIT = _step(
    "Sequence", pretokenizers=[_step("Split", pattern={"String": " "}, behavior="Removed", invert=False), _METASPACE]
)


@pytest.mark.parametrize("normalization", ["none", "uncased"])
@pytest.mark.parametrize("name", ["nmt_nfkc", "nmt_nfkc_cf", "identity"])
def test_steps_for_transformers_js_change_no_ids(name: str, normalization: str) -> None:
    """Compare with the pipeline that this package wrote before it considered transformers.js, and read that too."""
    proto = train_vocabulary(normalization_rule_name=name)
    vocabulary = parse_vocabulary(proto)
    expected = replace(NAMED_NORMALIZATIONS[normalization], split_white_space=False)
    pipeline = build_tokenizer(vocabulary, expected)
    content = json.loads(pipeline.to_str())
    steps = [_step("Precompiled", precompiled_charsmap=base64.b64encode(vocabulary.charsmap).decode())]
    if not vocabulary.charsmap:
        steps = []
    if normalization == "uncased":
        steps = [*_QUOTES, _step("NFKD"), _step("StripAccents"), _step("Lowercase"), *steps]
    before = {**content, "normalizer": _step("Sequence", normalizers=steps), "pre_tokenizer": _SPLIT}
    assert before != content
    for each in (before, content):
        made, found = proto_from_tokenizer(each)
        assert (found, parse_vocabulary(made).charsmap) == (expected, vocabulary.charsmap)
    texts = [*_lines(vocabulary, 1000), "İstanbul ΟΔΟΣ Straße", "Ⅷ ℂ 𝐀", "a\u3000b  c \u2003 "]
    ours, theirs = (
        [encoding.ids for encoding in each.encode_batch_fast(texts, add_special_tokens=False)]
        for each in (pipeline, Tokenizer.from_str(json.dumps(before)))
    )
    assert ours == theirs


@pytest.mark.parametrize(
    ("before", "after", "pre_tokenizer", "named"),
    [
        ([_step("Replace", pattern={"String": "-"}, content=" ")], [], _SPLIT, '"String": "-"'),
        ([_step("Replace", pattern={"String": "A"}, content='"')], [], _SPLIT, '"String": "A"'),
        (_QUOTES[:1], [], _SPLIT, "``"),
        ([_step("NFKD")], [], _SPLIT, "NFKD"),
        ([_step("StripAccents")], [], _SPLIT, "StripAccents"),
        ([_step("Lowercase"), *_QUOTES], [], _SPLIT, "``"),
        ([], [_step("Lowercase")], _SPLIT, "Lowercase"),
        ([_step("Replace", pattern={"String": "Σ"}, content="σ")], [], _SPLIT, '"String": "\u03a3"'),
        ([], [_step("Strip", strip_left=True, strip_right=True)], _SPLIT, "Strip"),
        ([], [], None, "no pre-tokenizer"),
        ([], [], _METASPACE, "Metaspace"),
        ([], [], {**_METASPACE, "prepend_scheme": "first"}, "first"),
        ([], [], {**_METASPACE, "split": False, "prepend_scheme": "never"}, '"split": false'),
        (
            [],
            [],
            _step("Sequence", pretokenizers=[_step("Digits", individual_digits=True), *_SPLIT["pretokenizers"]]),
            "Digits",
        ),
    ],
)
def test_unsupported_pipelines_are_refused(
    before: list[object], after: list[object], pre_tokenizer: object, named: str, vocabulary: bytes
) -> None:
    with pytest.raises(ValueError, match=re.escape(named)) as error:
        proto_from_tokenizer(_file(vocabulary, before, after, pre_tokenizer))
    assert "steps that SentencePiece does not have, or not at this place" in str(error.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"unk_id": None}, "no unknown piece"),
        ({"byte_fallback": True}, "falls back to bytes"),
        ({"unk_id": 50_000}, "no unknown piece"),
    ],
)
def test_unsupported_models_are_refused(model: dict[str, object], message: str, vocabulary: bytes) -> None:
    with pytest.raises(ValueError, match=message):
        proto_from_tokenizer(_file(vocabulary, [], [], _SPLIT, **model))


def test_tokens_beyond_the_vocabulary_are_refused(vocabulary: bytes) -> None:
    pipeline = build_tokenizer(parse_vocabulary(vocabulary), TextNormalization())
    pipeline.add_tokens(["<new>", "(", "[MASK]"])
    content = json.loads(pipeline.to_str())
    assert added_tokens(content) == ["(", "<new>"]
    with pytest.raises(ValueError, match="tokens beyond its vocabulary, such as '<new>'"):
        proto_from_tokenizer(content)


def test_tokenizer_of_transformers_5_converts_back_to_sentencepiece(vocabulary_file: Path) -> None:
    theirs = AlbertTokenizer.from_pretrained(vocabulary_file.parent)
    content = json.loads(theirs.backend_tokenizer.to_str())
    assert added_tokens(content) == ["(", ")", '"', "-", ".", "–", "£", "€"]
    made, normalization = proto_from_tokenizer(content)
    assert normalization.name == "uncased"
    texts = [*corpus.documentation(2000), "3.0 (a-b)"]
    one, other = (sentencepiece.SentencePieceProcessor(model_proto=p) for p in (vocabulary_file.read_bytes(), made))
    assert one.encode(texts) == other.encode(texts)
    assert theirs("a(b", add_special_tokens=False)["input_ids"] != one.encode("a(b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no model instead of a Unigram model"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "unk_id": 0}}, "a BPE model instead of"),
        ({"model": {"type": "WordLevel", "vocab": [], "unk_id": 0}}, "a WordLevel model instead of"),
        ({"model": {"type": "Unigram", "vocab": [["a", "b"]], "unk_id": 0}}, "not the tokenizer.json"),
        (
            {"model": {"type": "Unigram", "vocab": [["a", 0]], "unk_id": 0}, "normalizer": {"type": "X"}},
            "not a file for",
        ),
    ],
)
def test_invalid_tokenizer_json_is_refused(content: object, message: str, tmp_path: Path) -> None:
    write_sample_preset(tmp_path / "sample")
    convert(tmp_path / "sample", tmp_path / "transformers", to="transformers")
    (tmp_path / "transformers" / "spiece.model").unlink()
    (tmp_path / "transformers" / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(VocabularyError, match=message) as error:
        inspect(tmp_path / "transformers")
    assert "tokenizer.json" in str(error.value)
