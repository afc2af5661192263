from __future__ import annotations

import pickle
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2 as proto_types
from transformers import AutoTokenizer

from albert_hub_bridge import AlbertHubConfig, AlbertHubTokenizer
from albert_hub_bridge.model.sentencepiece_unigram import TextRules, build_tokenizer, parse_vocabulary
from conversion.sample import CORPUS, train_vocabulary
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


def _broken_charsmap() -> bytes:
    model = proto_types.ModelProto()
    model.ParseFromString(train_vocabulary())
    model.normalizer_spec.precompiled_charsmap = b"\x08\x00\x00\x00abc"
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def tokenizer(vocabulary_file: Path) -> AlbertHubTokenizer:
    return AlbertHubTokenizer(str(vocabulary_file))


@pytest.mark.parametrize("normalization", ["nmt_nfkc", "nmt_nfkc_cf", "identity"])
def test_ids_are_those_of_sentencepiece(normalization: str) -> None:
    proto = train_vocabulary(normalization_rule_name=normalization)
    pipeline = build_tokenizer(parse_vocabulary(proto), TextRules())
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto)
    for line in LINES:
        assert pipeline.encode(line, add_special_tokens=False).ids == processor.encode(line), line


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=60))
def test_any_text_has_sentencepieces_ids_and_offsets_within_it(text: str, tokenizer: AlbertHubTokenizer) -> None:
    assert tokenizer._processor is not None
    found = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
    assert found["input_ids"] == tokenizer._processor.encode(text)
    places = [position for place in found["offset_mapping"] for position in place]
    assert places == sorted(places)
    assert all(0 <= position <= len(text) for position in places)
    assert len(found.tokens()) == len(found["input_ids"])


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
    assert tokenizer.mask_token_id in tokenizer("a [MASK] of a river")["input_ids"]
    assert tokenizer.decode(tokenizer("a bridge")["input_ids"], skip_special_tokens=True) == "a bridge"


def test_text_rules_come_first(vocabulary_file: Path) -> None:
    plain = AlbertHubTokenizer(str(vocabulary_file))
    uncased = AlbertHubTokenizer(str(vocabulary_file), replace_quotes=True, strip_accents=True, do_lower_case=True)
    assert uncased("À ``Bridge''")["input_ids"] == plain('a "bridge"')["input_ids"]
    assert plain("À ``Bridge''")["input_ids"] != plain('a "bridge"')["input_ids"]
    assert TextRules().name == "sentencepiece"
    assert TextRules(True, True, True).name == "uncased"
    assert TextRules(lower_case=True).name == "lower_case"


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
        (_broken_charsmap(), "charsmap does not parse"),
    ],
    ids=["empty", "garbage", "bpe", "word", "char", "truncated", "no special pieces", "bytes", "suffix", "charsmap"],
)
def test_a_vocabulary_that_is_not_alberts_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.model"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        AlbertHubTokenizer(str(file))
    assert str(file) in str(error.value)


def test_it_needs_a_file() -> None:
    with pytest.raises(ValueError, match="needs a vocab_file"):
        AlbertHubTokenizer()


def _both(tokenizer: AlbertHubTokenizer, *texts: Any, **options: Any) -> tuple[Any, Any]:
    """Encode with SentencePiece, and with the `tokenizers` pipeline that the class falls back to."""
    ours = tokenizer(*texts, **options)
    processor, tokenizer._processor = tokenizer._processor, None
    try:
        return ours, tokenizer(*texts, **options)
    finally:
        tokenizer._processor = processor


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
        {"truncation": "only_first", "max_length": 80},
    ],
)
@pytest.mark.parametrize("pairs", [False, True])
def test_encodings_are_those_of_the_tokenizers_library(
    options: dict[str, Any], pairs: bool, tokenizer: AlbertHubTokenizer
) -> None:
    texts = [CORPUS[:6], CORPUS[6:12]] if pairs else [CORPUS]
    ours, theirs = _both(tokenizer, *map(list, texts), **options)
    placed, expected_places = (dict(side.data).pop("offset_mapping", []) for side in (ours, theirs))
    assert len(placed) == len(expected_places)  # and each is compared below
    for side in (ours, theirs):
        side.data.pop("offset_mapping", None)
    assert ours.data == theirs.data
    assert ours.is_fast
    for row in range(len(texts[0])):
        for name in ("tokens", "word_ids", "sequence_ids"):
            assert getattr(ours, name)(row) == getattr(theirs, name)(row), name
        offsets = zip(ours.encodings[row].offsets, theirs.encodings[row].offsets, ours.tokens(row), strict=True)
        for found, expected, token in offsets:
            # A space that was never typed has no place in the text; tokenizers gives it the first character's.
            assert found == expected or (token == "▁" and (found, expected) == ((0, 0), (0, 1)))
        assert ours.encodings[row].special_tokens_mask == theirs.encodings[row].special_tokens_mask
        for token in range(len(ours.tokens(row))):
            for name in ("token_to_word", "token_to_sequence"):
                assert getattr(ours, name)(row, token) == getattr(theirs, name)(row, token), name
            span = ours.encodings[row].token_to_chars(token)
            assert span == (None if ours.sequence_ids(row)[token] is None else ours.encodings[row].offsets[token])
        for sequence in range(1 + pairs):
            for position in range(1, 60, 7):
                for name in ("char_to_token", "char_to_word"):
                    found, expected = (getattr(side, name)(row, position, sequence) for side in (ours, theirs))
                    assert found == expected, name
            for word in (0, 1, 2, 50):
                for name in ("word_to_tokens", "word_to_chars"):
                    found, expected = (getattr(side.encodings[row], name)(word, sequence) for side in (ours, theirs))
                    assert found == expected, name


def test_one_text_has_no_batch_dimension(tokenizer: AlbertHubTokenizer) -> None:
    for texts in (("a bridge",), ("a bridge", "a river"), ("",)):
        ours, theirs = _both(tokenizer, *texts)
        assert ours.data == theirs.data
    nothing = tokenizer("", return_offsets_mapping=True)
    assert (nothing.tokens(), nothing["offset_mapping"]) == (["[CLS]", "[SEP]"], [(0, 0), (0, 0)])
    assert tokenizer("a bridge", return_tensors="pt")["input_ids"].shape[0] == 1
    assert tokenizer.tokenize("a bridge") == tokenizer.convert_ids_to_tokens(tokenizer.encode("a bridge"))[1:-1]
    ours, theirs = _both(tokenizer, [("a bridge", "a river"), ("water", "ice")])
    assert ours.data == theirs.data


def test_forms_that_sentencepiece_does_not_take_go_through_the_pipeline(tokenizer: AlbertHubTokenizer) -> None:
    words = tokenizer(["a", "bridge"], is_split_into_words=True)
    assert words.word_ids() == [None, 0, *[1] * (len(words["input_ids"]) - 3), None]
    cut = tokenizer(CORPUS[0], truncation=True, max_length=10, stride=2, return_overflowing_tokens=True)
    assert len(cut["input_ids"]) > 1
    with pytest.raises(ValueError, match="text input must be of type"):
        tokenizer(3)


@pytest.mark.parametrize("rule", ["round_robin", "waterfall"])
def test_pairs_are_cut_as_keras_hub_cuts_them(rule: str, vocabulary_file: Path) -> None:
    from keras_hub.layers import MultiSegmentPacker

    tokenizer = AlbertHubTokenizer(str(vocabulary_file), truncate=rule)
    words = ["a", "river"]
    compared = 0
    for length in range(3, 18):
        packer = MultiSegmentPacker(length, start_value=2, end_value=3, sep_value=3, pad_value=0, truncate=rule)
        for counts in product(range(10), range(1, 10)):  # transformers takes an empty second text for none
            texts = [" ".join([word] * count) for word, count in zip(words, counts, strict=True)]
            ours = tokenizer(*texts, truncation=True, max_length=length, padding="max_length")
            segments = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
            ids, segment_ids = packer(tuple(np.array(row, dtype="int32") for row in segments))
            assert ours["input_ids"] == np.asarray(ids).tolist(), (length, counts)
            # KerasHub counts padding as segment 0 too, and [SEP] after the first text as the first.
            assert ours["token_type_ids"] == np.asarray(segment_ids).tolist(), (length, counts)
            compared += 1
    assert compared == 15 * 10 * 9


def test_pairs_are_cut_as_transformers_cuts_them(tokenizer: AlbertHubTokenizer) -> None:
    for strategy in ("longest_first", "only_first", "only_second"):
        for length, one, other in product(range(3, 16), range(10), range(1, 10)):
            texts = " ".join(["a"] * one), " ".join(["a"] * other)
            lost = one + other + 3 - length
            if (strategy == "only_first" and lost >= one) or (strategy == "only_second" and lost >= other):
                continue  # transformers refuses, or cuts to nothing
            ours, theirs = _both(tokenizer, *texts, truncation=strategy, max_length=length)
            assert ours.data == theirs.data, (strategy, length, one, other)
    with pytest.raises(ValueError, match="only_first cannot cut them to 5"):
        tokenizer("a a", "a a a a a a", truncation="only_first", max_length=8)


def test_the_left_side_can_be_cut(vocabulary_file: Path) -> None:
    tokenizer = AlbertHubTokenizer(str(vocabulary_file), truncation_side="left")
    ours, theirs = _both(tokenizer, CORPUS[0], truncation=True, max_length=10)
    assert ours.data == theirs.data
    assert ours.tokens() == theirs.tokens()


def test_added_tokens_are_cut_out(vocabulary_file: Path, tmp_path: Path) -> None:
    tokenizer = AlbertHubTokenizer(str(vocabulary_file))
    tokenizer.add_tokens(["foo bar"])
    tokenizer.add_special_tokens({"extra_special_tokens": ["<x>"]})
    tokenizer.save_pretrained(tmp_path)
    AlbertHubConfig().save_pretrained(tmp_path)
    for copy in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert [token for token in copy.tokenize("a foo bar <x> [MASK]") if token != "▁"] == [
            "▁a",
            "foo bar",
            "<x>",
            "[MASK]",
        ]
        assert copy.convert_tokens_to_ids(["foo bar", "<x>"]) == [tokenizer.vocab_size, tokenizer.vocab_size + 1]
        packed = copy("a foo bar", split_special_tokens=True, return_offsets_mapping=True, add_special_tokens=False)
        assert packed["offset_mapping"] == [(0, 1), (2, 9)]
        spelled = copy("[MASK]", split_special_tokens=True, add_special_tokens=False)["input_ids"]
        assert copy.mask_token_id not in spelled


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
