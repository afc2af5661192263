from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2 as proto_types
from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from albert_hub_bridge import AlbertHubConfig, AlbertHubTokenizer
from albert_hub_bridge.model.sentencepiece_unigram import (
    NAMED_NORMALIZATIONS,
    SPECIAL_PIECES,
    TextNormalization,
    build_tokenizer,
    parse_vocabulary,
)
from conversion.sample import CORPUS, train_vocabulary
from tests import corpus
from tests.conftest import TEXTS


LINES = [
    *CORPUS,
    *TEXTS,
    "",
    " ",
    "  two  spaces ",
    "tab\tand\nnew line",
    "ＦＵＬＬ width",
    "ﬁ ½ …",
    "x" * 500,
    "2.50 (a-b)",
]


def _changed(change: Callable[[Any], object]) -> bytes:
    model = proto_types.ModelProto()
    model.ParseFromString(train_vocabulary())
    change(model)
    return bytes(model.SerializeToString())


def _set_type(piece: int, name: str) -> bytes:
    return _changed(lambda model: setattr(model.pieces[piece], "type", getattr(model.pieces[piece], name)))


def _set_charsmap(content: bytes) -> bytes:
    return _changed(lambda model: setattr(model.normalizer_spec, "precompiled_charsmap", content))


def _without_the_end_of_the_charsmap() -> bytes:
    return _changed(
        lambda m: setattr(m.normalizer_spec, "precompiled_charsmap", m.normalizer_spec.precompiled_charsmap[:-10])
    )


@pytest.fixture(scope="module")
def tokenizer(vocabulary_file: Path) -> AlbertHubTokenizer:
    return AlbertHubTokenizer(str(vocabulary_file))


@pytest.mark.parametrize("normalization", ["nmt_nfkc", "nmt_nfkc_cf", "identity"])
def test_ids_are_those_of_sentencepiece(normalization: str) -> None:
    proto = train_vocabulary(normalization_rule_name=normalization)
    pipeline = build_tokenizer(parse_vocabulary(proto), TextNormalization())
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    for line in LINES:
        assert pipeline.encode(line, add_special_tokens=False).ids == processor.encode(line), line


@cache
def _on(normalization: str) -> tuple[AlbertHubTokenizer, sentencepiece.SentencePieceProcessor]:
    proto = train_vocabulary(normalization_rule_name=normalization)
    with NamedTemporaryFile(suffix=".model") as file:
        Path(file.name).write_bytes(proto)
        return AlbertHubTokenizer(file.name), sentencepiece.SentencePieceProcessor(model_proto=proto)


OF_EVERY_CATEGORY = [st.text(st.characters(categories=[category]), max_size=20) for category in corpus.CATEGORIES]


@pytest.mark.parametrize("normalization", ["nmt_nfkc", "nmt_nfkc_cf", "identity"])
@settings(max_examples=300, deadline=None)
@given(text=st.one_of(st.text(max_size=60), st.lists(st.one_of(OF_EVERY_CATEGORY), max_size=6).map("".join)))
def test_any_text_has_sentencepieces_ids_and_offsets_within_it(normalization: str, text: str) -> None:
    tokenizer, processor = _on(normalization)
    found = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    assert found["input_ids"] == processor.encode(text)
    starts = [start for start, _ in found["offset_mapping"]]
    assert starts == sorted(starts)
    assert all(0 <= start <= end <= len(text) for start, end in found["offset_mapping"])
    assert len(found.tokens()) == len(found.word_ids()) == len(found["input_ids"])
    for token, (first, last) in zip(found.tokens(), found["offset_mapping"], strict=True):
        assert not (token.startswith("▁") and text[first:last][:1].isspace())
        assert first < last or token == "▁"


def test_ids_are_those_of_keras_hub(vocabulary: bytes, tokenizer: AlbertHubTokenizer) -> None:
    import keras_hub

    theirs = keras_hub.models.AlbertTokenizer(vocabulary)
    for line in LINES:
        assert tokenizer(line, add_special_tokens=False)["input_ids"] == [int(index) for index in theirs(line)], line


def test_a_pair_is_packed_with_segments_and_padding(tokenizer: AlbertHubTokenizer) -> None:
    packed = tokenizer([("a bridge", "a river"), ("water", "ice")], padding=True)
    pieces = [tokenizer.convert_ids_to_tokens(ids) for ids in packed["input_ids"]]
    for row, segments, mask in zip(pieces, packed["token_type_ids"], packed["attention_mask"], strict=True):
        end = row.index("[SEP]")
        second_end = row.index("[SEP]", end + 1)
        assert row[0] == "[CLS]"
        assert set(row[second_end + 1 :]) <= {"<pad>"}
        assert segments == [0] * (end + 1) + [1] * (second_end - end) + [0] * (len(row) - second_end - 1)
        assert mask == [1] * (second_end + 1) + [0] * (len(row) - second_end - 1)
    assert tokenizer.model_input_names == ["input_ids", "token_type_ids", "attention_mask"]


def test_special_tokens_written_in_a_text_can_be_special_or_text(tokenizer: AlbertHubTokenizer) -> None:
    typed = "a [MASK] of <pad>"
    as_text = sentencepiece.SentencePieceProcessor(model_file=tokenizer.vocab_file).encode(typed)
    assert {tokenizer.mask_token_id, tokenizer.pad_token_id} < set(tokenizer(typed)["input_ids"])
    assert tokenizer(typed, split_special_tokens=True, add_special_tokens=False)["input_ids"] == as_text
    split = AlbertHubTokenizer(tokenizer.vocab_file, split_special_tokens=True)
    assert split(typed, add_special_tokens=False)["input_ids"] == as_text
    assert split(typed, split_special_tokens=False)["input_ids"] == tokenizer(typed)["input_ids"]
    assert tokenizer.decode(tokenizer("a bridge")["input_ids"], skip_special_tokens=True) == "a bridge"


def test_text_rules_come_first(vocabulary_file: Path) -> None:
    plain = AlbertHubTokenizer(str(vocabulary_file))
    uncased = AlbertHubTokenizer(str(vocabulary_file), replace_quotes=True, strip_accents=True, do_lower_case=True)
    assert uncased("À ``Bridge''")["input_ids"] == plain('a "bridge"')["input_ids"]
    assert plain("À ``Bridge''")["input_ids"] != plain('a "bridge"')["input_ids"]
    assert TextNormalization().name == "none"
    assert TextNormalization(True, True, True, True).name == "uncased"
    assert TextNormalization(lower_case=True).name == "lower_case"


def test_it_survives_saving_pickling_and_the_auto_class(tokenizer: AlbertHubTokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    AlbertHubConfig().save_pretrained(tmp_path)
    assert {"tokenizer.json", "tokenizer_config.json", "spiece.model"} <= {file.name for file in tmp_path.iterdir()}
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for copy in (loaded, pickle.loads(pickle.dumps(tokenizer))):
        assert type(copy) is AlbertHubTokenizer
        assert copy(LINES)["input_ids"] == tokenizer(LINES)["input_ids"]
    again = tmp_path / "again"
    loaded.save_pretrained(again)
    assert (again / "spiece.model").read_bytes() == Path(tokenizer.vocab_file).read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no pieces"),
        (b"\xff not a proto", "not a SentencePiece model"),
        (train_vocabulary(model_type="bpe", size=120), "expected a UNIGRAM model, found BPE"),
        (train_vocabulary(model_type="word", size=60), "expected a UNIGRAM model, found WORD"),
        (train_vocabulary(model_type="char", size=60), "expected a UNIGRAM model, found CHAR"),
        (train_vocabulary()[:1000], "not a SentencePiece model|are missing"),
        (train_vocabulary(control_symbols=["[SEP]"]), r"\[CLS\], \[MASK\] are missing"),
        (train_vocabulary(byte_fallback=True, size=500), "byte_fallback"),
        (train_vocabulary(treat_whitespace_as_suffix=True), "treat_whitespace_as_suffix"),
        (_set_charsmap(b"\x08\x00\x00\x00abc"), "charsmap does not parse"),
        (_set_charsmap(bytes(4)), "SentencePiece rejects the model: .*normalization rule is broken"),
        (_without_the_end_of_the_charsmap(), "charsmap"),
        (_set_type(1, "NORMAL"), "SentencePiece rejects the model: .*unk is not defined"),
        (_set_type(60, "UNKNOWN"), "SentencePiece rejects the model: .*unk is already defined"),
        (_set_type(60, "BYTE"), "SentencePiece rejects the model: .*byte piece"),
        (
            _changed(lambda m: setattr(m.pieces[60], "piece", m.pieces[61].piece)),
            "rejects the model: .*already defined",
        ),
        (_changed(lambda m: setattr(m.pieces[60], "piece", "")), "rejects the model: .*piece must not be empty"),
        (_changed(lambda m: setattr(m.pieces[60], "score", float("nan"))), "a score is not a number"),
        (_changed(lambda m: m.ClearField("normalizer_spec")), "ends after 184 pieces"),
        (
            train_vocabulary(unk_piece="[UNK]", user_defined_symbols=["<unk>"]),
            r"the unknown piece is \[UNK\], not <unk>",
        ),
    ],
)
def test_a_vocabulary_that_is_not_alberts_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.model"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        AlbertHubTokenizer(str(file))
    assert str(file) in str(error.value)


def test_a_vocabulary_that_was_cut_off_anywhere_is_refused(vocabulary: bytes) -> None:
    model = proto_types.ModelProto.FromString(vocabulary)
    ends = [0]
    for piece in model.pieces:  # a tag, a length of one byte, and the piece
        ends.append(ends[-1] + 2 + piece.ByteSize())
    ends.append(
        len(vocabulary) - len(proto_types.ModelProto(normalizer_spec=model.normalizer_spec).SerializeToString())
    )
    assert proto_types.ModelProto.FromString(vocabulary[: ends[-1]]).HasField("trainer_spec")
    for end in (*ends, *range(0, len(vocabulary), 97)):
        with pytest.raises(ValueError, match=r"was the file cut off|no pieces|not a SentencePiece model"):
            parse_vocabulary(vocabulary[:end])


def test_it_needs_a_file() -> None:
    with pytest.raises(ValueError, match="needs a vocab_file"):
        AlbertHubTokenizer()


RULES = {"replace_quotes": True, "strip_accents": True, "do_lower_case": True}


def _transformers(vocabulary: bytes, rules: TextNormalization, **options: Any) -> PreTrainedTokenizerFast:
    """Make transformers' own generic tokenizer, which is what a transformers repository is loaded with."""
    return PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(parse_vocabulary(vocabulary), rules),
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **{f"{name}_token": piece for name, piece in SPECIAL_PIECES.items()},
        **options,
    )


@pytest.fixture(scope="module", params=["sentencepiece", "rules", "tokenizer.json"])
def ours_and_theirs(
    request: pytest.FixtureRequest, vocabulary: bytes, vocabulary_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[AlbertHubTokenizer, PreTrainedTokenizerFast]:
    """The class in each of its three states, beside transformers."""
    if request.param == "rules":
        return AlbertHubTokenizer(str(vocabulary_file), **RULES), _transformers(
            vocabulary, NAMED_NORMALIZATIONS["uncased"]
        )
    tokenizer = AlbertHubTokenizer(str(vocabulary_file))
    if request.param == "tokenizer.json":
        folder = tmp_path_factory.mktemp("tokenizer")
        tokenizer.save_pretrained(folder)
        (folder / "spiece.model").unlink()
        tokenizer = AlbertHubTokenizer.from_pretrained(folder)
    return tokenizer, _transformers(vocabulary, TextNormalization())


Both = tuple[AlbertHubTokenizer, PreTrainedTokenizerFast]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": True},
        {"padding": "max_length", "max_length": 20, "truncation": True},
        {"padding": True, "padding_side": "left", "pad_to_multiple_of": 8},
        {"add_special_tokens": False},
        {"return_token_type_ids": False, "return_attention_mask": False, "return_length": True},
        {"return_offsets_mapping": True, "return_special_tokens_mask": True},
        {"return_offsets_mapping": True, "truncation": True, "max_length": 12},
        {"truncation": "only_first", "max_length": 80},
    ],
)
@pytest.mark.parametrize("pairs", [False, True])
def test_encodings_are_those_of_transformers(options: dict[str, Any], pairs: bool, ours_and_theirs: Both) -> None:
    texts = (
        [[*CORPUS[:5], "  the [MASK] [MASK] of  a\triver "], CORPUS[6:12]] if pairs else [[*CORPUS, "a [SEP]x [CLS]"]]
    )
    ours, theirs = (tokenizer(*map(list, texts), **options) for tokenizer in ours_and_theirs)
    assert ours.is_fast
    assert len(ours.data.pop("offset_mapping", [])) == len(theirs.data.pop("offset_mapping", []))  # compared below
    assert ours.data == theirs.data
    for row in range(len(texts[0])):
        for name in ("tokens", "word_ids", "sequence_ids"):
            assert getattr(ours, name)(row) == getattr(theirs, name)(row), name
        assert ours.encodings[row].special_tokens_mask == theirs.encodings[row].special_tokens_mask
        tokens = ours.tokens(row)
        for token, found, expected in zip(
            tokens, ours.encodings[row].offsets, theirs.encodings[row].offsets, strict=True
        ):
            # A space that stands alone has no place; the library gives it that of the character after it.
            assert found == ((expected[0], expected[0]) if token == "▁" else expected), (tokens, token)
        for token in range(len(tokens) + 2):
            for name in ("token_to_word", "token_to_sequence"):
                found, expected = (getattr(side.encodings[row], name)(token) for side in (ours, theirs))
                assert found == expected, name
            special = ours.encodings[row].token_to_sequence(token) is None
            assert ours.encodings[row].token_to_chars(token) == (
                None if special else ours.encodings[row].offsets[token]
            )
        for sequence in range(1 + pairs):
            for position in range(60):
                found, expected = (side.char_to_token(row, position, sequence) for side in (ours, theirs))
                if expected is not None and tokens[expected] == "▁":
                    continue
                assert found == expected
                words = [side.char_to_word(row, position, sequence) for side in (ours, theirs)]
                assert words[0] == words[1]
            for word in range(20):
                tokens_of_word = [side.encodings[row].word_to_tokens(word, sequence) for side in (ours, theirs)]
                assert tokens_of_word[0] == tokens_of_word[1]
                if tokens_of_word[0] is not None and tokens[tokens_of_word[0][1] - 1] == "▁":
                    continue  # the word was cut off after its space
                chars = [side.encodings[row].word_to_chars(word, sequence) for side in (ours, theirs)]
                assert chars[0] == chars[1]


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        (("a bridge",), {}),
        (("a bridge", "a river"), {}),
        (("",), {}),
        (("a bridge", ""), {}),
        (([("a bridge", "a river"), ("water", "ice")],), {}),
        (([["a bridge", "a river"], ["water", "ice"]],), {}),
        ((["a bridge", "water"], ["a river", ""]), {"return_special_tokens_mask": True}),
        ((["a", "(bridge)", "river"],), {"is_split_into_words": True, "return_offsets_mapping": True}),
        ((["a", "albert_hub"], ["a", "[MASK]"]), {"is_split_into_words": True}),
        (([["a", "albert_hub"], ["water"]], [["a"], ["ice", "ice"]]), {"is_split_into_words": True, "padding": True}),
        (([(["a"], ["albert_hub"]), (["a"], ["river", "b"])],), {"is_split_into_words": True}),
    ],
)
def test_every_form_of_texts_is_taken(texts: tuple[Any, ...], options: dict[str, Any], ours_and_theirs: Both) -> None:
    ours, theirs = (tokenizer(*texts, **options) for tokenizer in ours_and_theirs)
    assert ours.data.keys() == theirs.data.keys()
    assert {**ours.data, "offset_mapping": 0} == {**theirs.data, "offset_mapping": 0}
    for row in range(len(theirs.encodings)):
        assert ours.word_ids(row) == theirs.word_ids(row)
        assert ours.tokens(row) == theirs.tokens(row)


def test_one_text_has_no_batch_dimension(tokenizer: AlbertHubTokenizer) -> None:
    nothing = tokenizer("", return_offsets_mapping=True)
    assert (nothing.tokens(), nothing["offset_mapping"]) == (["[CLS]", "[SEP]"], [(0, 0), (0, 0)])
    assert tokenizer("a bridge", return_tensors="pt")["input_ids"].shape[0] == 1
    assert tokenizer.tokenize("a bridge") == tokenizer.convert_ids_to_tokens(tokenizer.encode("a bridge"))[1:-1]


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        ((3,), {}),
        ((None,), {}),
        ((["a", None],), {}),
        (([["a", "b", "c"]],), {}),
        ((["a"], "b"), {}),
        ((["a", "b"], ["c"]), {}),
        (("a b",), {"is_split_into_words": True}),
    ],
)
def test_what_is_no_text_is_refused(texts: tuple[Any, ...], options: Any, tokenizer: AlbertHubTokenizer) -> None:
    with pytest.raises(ValueError, match=r"text input must be of type|text_pair must be a list|You need to specify"):
        tokenizer(*texts, **options)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(("stride", "max_length"), [(0, 10), (2, 10), (5, 9), (0, 5)])
def test_what_overflows_is_what_transformers_says(
    stride: int, max_length: int, side: str, vocabulary: bytes, vocabulary_file: Path
) -> None:
    ours = AlbertHubTokenizer(str(vocabulary_file), truncation_side=side, truncate="round_robin")
    theirs = _transformers(vocabulary, TextNormalization(), truncation_side=side)
    options: dict[str, Any] = {"return_overflowing_tokens": True, "stride": stride, "max_length": max_length}
    for texts, truncation in (
        ((CORPUS[0],), True),
        ((list(CORPUS),), True),
        (("a a", CORPUS[0]), "only_second"),
        ((list(CORPUS), ["a"] * len(CORPUS)), "only_first"),
        ((CORPUS[0].split(),), True),
    ):
        options["is_split_into_words"] = texts == (CORPUS[0].split(),)
        options["max_length"] = max_length + 4 * (len(texts) > 1)
        found, expected = (side(*texts, truncation=truncation, **options) for side in (ours, theirs))
        assert found.data == expected.data
        for row in range(len(found["input_ids"])):
            assert found.word_ids(row) == expected.word_ids(row)
            assert found.tokens(row) == expected.tokens(row)
    with pytest.raises(ValueError, match="truncation must be 'only_first' or 'only_second'"):
        ours("a", "b", truncation=True, max_length=max_length, return_overflowing_tokens=True)
    with pytest.raises(ValueError, match="Windows of 8 pieces cannot share 8"):
        ours(CORPUS[0], truncation=True, max_length=10, stride=8, return_overflowing_tokens=True)


@pytest.mark.parametrize("rules", [{}, RULES])
@pytest.mark.parametrize("rule", ["round_robin", "waterfall"])
def test_pairs_are_cut_as_keras_hub_cuts_them(rule: str, rules: dict[str, bool], vocabulary_file: Path) -> None:
    from keras_hub.layers import MultiSegmentPacker

    tokenizer = AlbertHubTokenizer(str(vocabulary_file), truncate=rule, **rules)
    words = ["a", "river"]
    compared = 0
    for length in range(3, 18):
        packer = MultiSegmentPacker(length, start_value=2, end_value=3, sep_value=3, pad_value=0, truncate=rule)
        for counts in product(range(10), range(1, 10)):  # transformers takes an empty second text for none
            texts = [[word] * count for word, count in zip(words, counts, strict=True)]
            first, second = map(" ".join, texts)
            options: dict[str, Any] = {"truncation": True, "max_length": length, "padding": "max_length"}
            ours = [
                tokenizer(first, second, **options),
                tokenizer([[first, second]], **options),
                tokenizer(*texts, is_split_into_words=True, **options),
            ]
            segments = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (first, second)]
            ids, segment_ids = packer(tuple(np.array(row, dtype="int32") for row in segments))
            # KerasHub counts padding as segment 0 too, and [SEP] after the first text as the first.
            for name, row in (("input_ids", ids), ("token_type_ids", segment_ids)):
                expected = [np.asarray(row).tolist()] * 3
                assert [ours[0][name], *ours[1][name], ours[2][name]] == expected, (length, counts)
            compared += 1
    assert compared == 15 * 10 * 9


def test_pairs_are_cut_as_transformers_cuts_them(ours_and_theirs: Both) -> None:
    for strategy in ("longest_first", "only_first", "only_second"):
        for length, one, other in product(range(3, 16), range(10), range(1, 10)):
            texts = " ".join(["a"] * one), " ".join(["a"] * other)
            lost = one + other + 3 - length
            if (strategy == "only_first" and lost >= one) or (strategy == "only_second" and lost >= other):
                continue  # transformers refuses, or cuts to nothing
            ours, theirs = (side(*texts, truncation=strategy, max_length=length) for side in ours_and_theirs)
            assert ours.data == theirs.data, (strategy, length, one, other)
    tokenizer = ours_and_theirs[0]
    with pytest.raises(ValueError, match="only_first cannot truncate them to 5"):
        tokenizer("a a", "a a a a a a", truncation="only_first", max_length=8)
    with pytest.raises(ValueError, match="needs a second text"):
        tokenizer("a a a a a a", truncation="only_second", max_length=4)


def test_the_left_side_can_be_cut(vocabulary: bytes, vocabulary_file: Path) -> None:
    sides = (
        AlbertHubTokenizer(str(vocabulary_file), truncation_side="left"),
        _transformers(vocabulary, TextNormalization()),
    )
    sides[1].truncation_side = "left"
    ours, theirs = (side(CORPUS[0], truncation=True, max_length=10) for side in sides)
    assert ours.data == theirs.data
    assert (ours.tokens(), ours.word_ids()) == (theirs.tokens(), theirs.word_ids())


def test_a_batch_is_pickled_without_the_vocabulary(ours_and_theirs: Both) -> None:
    tokenizer = ours_and_theirs[0]
    batch = tokenizer(["a bridge", "the [MASK] of (a) river"], ["b", "c"], truncation=True, max_length=8, padding=True)
    pickled = pickle.dumps(batch)
    assert len(pickled) < 2000
    copy = pickle.loads(pickled)
    for row in range(2):
        for name in ("tokens", "word_ids", "sequence_ids"):
            assert getattr(copy, name)(row) == getattr(batch, name)(row)
        assert copy.encodings[row].offsets == batch.encodings[row].offsets
    assert copy.data == batch.data


def test_added_tokens_are_cut_out(vocabulary_file: Path, tmp_path: Path) -> None:
    tokenizer = AlbertHubTokenizer(str(vocabulary_file))
    assert tokenizer.tokenize("a foo bar") != ["▁a", "foo bar"]  # and what was prepared for this is not used below
    tokenizer.add_tokens(["foo bar"])
    tokenizer.add_special_tokens({"extra_special_tokens": ["<x>"]})
    tokenizer.save_pretrained(tmp_path)
    AlbertHubConfig().save_pretrained(tmp_path)
    for copy in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        found = copy("a foo bar <x> [MASK]b", return_offsets_mapping=True, add_special_tokens=False)
        assert found.tokens()[:4] == ["▁a", "foo bar", "<x>", "[MASK]"]
        assert found.word_ids()[:5] == [0, 1, 2, 3, 4]
        assert found["offset_mapping"][:4] == [(0, 1), (2, 9), (10, 13), (14, 20)]
        assert copy.convert_tokens_to_ids(["foo bar", "<x>"]) == [tokenizer.vocab_size, tokenizer.vocab_size + 1]
        packed = copy("a foo bar", split_special_tokens=True, return_offsets_mapping=True, add_special_tokens=False)
        assert packed["offset_mapping"] == [(0, 1), (2, 9)]


@pytest.mark.parametrize(
    "token",
    [
        AddedToken("river", single_word=True, normalized=False),
        AddedToken("<e>", lstrip=True, normalized=False),
        AddedToken("<e>", rstrip=True, normalized=False),
        AddedToken("<e>", lstrip=True, rstrip=True, normalized=False, special=True),
        AddedToken("ve", normalized=False),
        AddedToken("Bridge"),  # normalized, by default
    ],
    ids=str,
)
def test_added_tokens_are_found_where_transformers_finds_them(token: AddedToken, ours_and_theirs: Both) -> None:
    texts = ["a river, rivers river_ river.river", "a <e> b<e>  c\t<e>\n<e>", "a Bridge a bridge", "vevever"]
    for options in ({}, {"split_special_tokens": True}):
        sides = [pickle.loads(pickle.dumps(side)) for side in ours_and_theirs]
        for side in sides:
            side.add_tokens([token], special_tokens=token.special)
        ours, theirs = (side(texts, **options) for side in sides)
        for row, text in enumerate(texts):
            # transformers shows the white space around a token with it.
            tokens, expected = ([token.strip() for token in side.tokens(row)] for side in (ours, theirs))
            assert tokens == expected, text
            assert ours.word_ids(row) == theirs.word_ids(row), text
            assert ours.encodings[row].offsets[-2:] == theirs.encodings[row].offsets[-2:], text
        assert ours["input_ids"] == theirs["input_ids"]


def test_without_rules_added_tokens_are_found_as_they_are_typed(vocabulary_file: Path) -> None:
    tokenizer = AlbertHubTokenizer(str(vocabulary_file))
    tokenizer.add_tokens(["river"])
    assert tokenizer.tokenize("river")[-1] == "river"
    assert "river" not in tokenizer.tokenize("ｒｉｖｅｒ")
    uncased = AlbertHubTokenizer(str(vocabulary_file), **RULES)
    uncased.add_tokens(["River"])
    assert uncased("a RIVER")["input_ids"][2] == uncased.convert_tokens_to_ids("River")


def test_another_special_token_is_used_everywhere(vocabulary_file: Path) -> None:
    for rules in ({}, RULES):
        tokenizer = AlbertHubTokenizer(str(vocabulary_file), cls_token="[X]", **rules)
        found = tokenizer("a")
        assert found.tokens() == tokenizer.convert_ids_to_tokens(found["input_ids"]) == ["[X]", "▁a", "[SEP]"]
        tokenizer.add_special_tokens({"sep_token": "[Y]"})
        assert tokenizer("a").tokens() == ["[X]", "▁a", "[Y]"]


def test_a_text_that_is_too_long_is_warned_of(vocabulary_file: Path) -> None:
    tokenizer = AlbertHubTokenizer(str(vocabulary_file), model_max_length=8)
    with patch("transformers.tokenization_utils_base.logger.warning") as warning:
        tokenizer("a a a a a a")
        assert not warning.called
        tokenizer(["a", "a a a a a a a"])
        assert "(9 > 8)" in warning.call_args.args[0]
    assert len(tokenizer("a a a a a a a", truncation=True)["input_ids"]) == 8


def test_it_trains_no_vocabulary(tokenizer: AlbertHubTokenizer) -> None:
    with pytest.raises(NotImplementedError, match=r"Train a SentencePiece unigram model .* load it as vocab_file"):
        tokenizer.train_new_from_iterator([["a bridge"]], vocab_size=50)


def test_it_is_saved_when_its_source_is_gone(vocabulary: bytes, tmp_path: Path) -> None:
    (tmp_path / "source.model").write_bytes(vocabulary)
    for number, rules in enumerate(({}, RULES)):
        (tmp_path / "source.model").write_bytes(vocabulary)
        tokenizer = AlbertHubTokenizer(str(tmp_path / "source.model"), **rules)
        (tmp_path / "source.model").unlink()
        tokenizer.save_pretrained(tmp_path / str(number))
        assert (tmp_path / str(number) / "spiece.model").read_bytes() == vocabulary


def test_settings_that_are_asked_for_win_over_what_was_saved(vocabulary_file: Path, tmp_path: Path) -> None:
    AlbertHubTokenizer(str(vocabulary_file), truncate="waterfall").save_pretrained(tmp_path)
    AlbertHubConfig().save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).truncate == "waterfall"
    lower = AutoTokenizer.from_pretrained(tmp_path, do_lower_case=True, truncate="round_robin")
    assert lower.truncate == "round_robin"
    assert lower("A River")["input_ids"] == AutoTokenizer.from_pretrained(tmp_path)("a river")["input_ids"]
    with pytest.raises(ValueError, match="truncate must be one of round_robin, waterfall, longest_first, not 'x'"):
        AlbertHubTokenizer(str(vocabulary_file), truncate="x")


def test_only_tokenizer_json_is_enough_to_load(vocabulary_file: Path, tmp_path: Path) -> None:
    tokenizer = AlbertHubTokenizer(str(vocabulary_file))
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "spiece.model").unlink()
    loaded = AlbertHubTokenizer.from_pretrained(tmp_path)
    assert loaded(list(CORPUS))["input_ids"] == tokenizer(list(CORPUS))["input_ids"]
