from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import sentencepiece
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
        (train_vocabulary(control_symbols=["[SEP]"]), r"\[CLS\], \[MASK\] are missing"),
        (train_vocabulary(byte_fallback=True, size=500), "byte_fallback"),
        (train_vocabulary(treat_whitespace_as_suffix=True), "treat_whitespace_as_suffix"),
        (_broken_charsmap(), "charsmap does not parse"),
    ],
    ids=["empty", "garbage", "bpe", "no special pieces", "bytes", "suffix", "charsmap"],
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
