"""ALBERT's rule for numbers with a comma, in every layout, against transformers, KerasHub and Google's function."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto_types
from tokenizers import Tokenizer
from transformers import AlbertConfig, AlbertModel, AutoTokenizer
from transformers.convert_slow_tokenizer import AlbertConverter

from albert_hub_bridge import convert, inspect, verify
from albert_hub_bridge.errors import ConfigurationError
from albert_hub_bridge.layouts.keras.preset import write_preset
from albert_hub_bridge.mapping.number_commas import is_number_comma, split_number_commas, splits_number_commas
from albert_hub_bridge.mapping.vocabulary import bake_normalization
from albert_hub_bridge.model.sentencepiece_unigram import NAMED_NORMALIZATIONS, parse_vocabulary
from albert_hub_bridge.provenance.record import CARD
from conversion.sample import CORPUS, SAMPLE_ARCHITECTURE, random_checkpoint, train_vocabulary
from tests import corpus
from tests.conftest import albert_arguments, library_ids


ENGLISH = Path(__file__).parents[3] / "shared" / "vocab" / "albert-english-30k.model"
TEXTS = ["In 1984, 2001, and on May 7, 2010, things changed.", "I paid 5, he paid 6,", "1,234,567 of 31,424", "a"]


@cache
def _proto(name: str = "trained") -> bytes:
    """Return a vocabulary that has numbers with a comma, and not the rule."""
    if name == "trained":
        return train_vocabulary(SAMPLE_ARCHITECTURE.vocabulary_size, [*CORPUS, *corpus.numbers(400)])
    if not ENGLISH.is_file():
        pytest.skip("the folder shared/vocab is not here")
    return ENGLISH.read_bytes()


def _pieces(proto: bytes) -> list[tuple[str, float]]:
    model: Any = proto_types.ModelProto.FromString(proto)  # type: ignore[attr-defined]
    return [(piece.piece, piece.score) for piece in model.pieces]


def _as_transformers_4_saves_it(proto: bytes, folder: Path) -> None:
    """Write a tokenizer as version 4 saved it: `spiece.model`, and the `tokenizer.json` of its converter.

    Version 4 made no added tokens of user-defined pieces before 4.40. Nor does this.
    """
    (folder / "spiece.model").write_bytes(proto)
    ids = {piece: index for index, (piece, _) in enumerate(_pieces(proto))}
    slow = SimpleNamespace(
        vocab_file=str(folder / "spiece.model"),
        keep_accents=False,
        do_lower_case=True,
        convert_tokens_to_ids=ids.__getitem__,
    )
    converter = AlbertConverter(slow)
    for piece in converter.proto.pieces:
        if piece.type == piece.USER_DEFINED:
            piece.type = piece.NORMAL
    converter.special_tokens = set()
    tokenizer: Tokenizer = converter.converted()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "AlbertTokenizer"}')


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of transformers whose `tokenizer.json` has lowered scores, and whose `spiece.model` has not."""
    folder = tmp_path_factory.mktemp("repository") / "albert"
    AlbertModel(AlbertConfig(**albert_arguments(SAMPLE_ARCHITECTURE))).save_pretrained(folder)
    _as_transformers_4_saves_it(_proto(), folder)
    return folder


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preset of KerasHub, which never had the rule."""
    folder = tmp_path_factory.mktemp("preset") / "albert"
    folder.mkdir()
    write_preset(random_checkpoint(SAMPLE_ARCHITECTURE, _proto()), folder)
    return folder


def _by_google(proto: bytes) -> Callable[[str], list[int]]:
    """Return what Google's `preprocess_text` and `encode_pieces` compute, said again in other words.

    Source:
        https://github.com/google-research/albert/blob/master/tokenization.py
    """
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto)

    def encode(text: str) -> list[int]:
        text = " ".join(text.split()).replace("``", '"').replace("''", '"')
        text = "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))
        found: list[str] = []
        for piece in processor.encode(text.lower(), out_type=str):
            if not is_number_comma(piece):
                found.append(piece)
                continue
            number = processor.encode(piece[:-1].replace("▁", ""), out_type=str)
            if not piece.startswith("▁") and number[0].startswith("▁"):
                number[0] = number[0][1:]  # the space that SentencePiece puts in front
            found += [*filter(None, number), ","]
        return [processor.piece_to_id(piece) for piece in found]

    return encode


@pytest.mark.parametrize("name", ["trained", "english"])
def test_scores_are_lowered_as_transformers_does(name: str) -> None:
    proto = _proto(name)
    pieces = _pieces(proto)
    numbers = [piece for piece, _ in pieces if is_number_comma(piece)]
    assert len(numbers) == (141 if name == "english" else 36)
    assert splits_number_commas(pieces) is False
    lowered = split_number_commas(proto)
    theirs = AlbertConverter.vocab(None, proto_types.ModelProto.FromString(proto))  # type: ignore[attr-defined, arg-type]
    # SentencePiece stores float32: of -110, five decimals.
    assert [piece for piece, _ in theirs] == [piece for piece, _ in _pieces(lowered)]
    assert [score for _, score in _pieces(lowered)] == pytest.approx([score for _, score in theirs], abs=5e-6)
    assert splits_number_commas(_pieces(lowered)) is True
    assert split_number_commas(lowered) is lowered


def test_rule_needs_numbers_with_a_comma(vocabulary: bytes) -> None:
    assert splits_number_commas(_pieces(vocabulary)) is None
    assert split_number_commas(vocabulary) is vocabulary


def test_repository_keeps_its_ids_in_every_layout_and_back(repository: Path, tmp_path: Path) -> None:
    theirs = library_ids(repository, TEXTS)
    pieces = AutoTokenizer.from_pretrained(repository).convert_ids_to_tokens(theirs[1])
    assert pieces.count(",") == 2
    source = repository
    for step, layout in enumerate(("keras", "transformers", "albert_hub", "keras", "albert_hub", "transformers")):
        target = tmp_path / f"{step}_{layout}"
        report = convert(source, target, to=layout)  # type: ignore[arg-type]
        assert report.changed_texts == 0
        assert not any("numbers with a comma" in note for note in report.notes)
        assert library_ids(target, TEXTS) == theirs
        assert inspect(target).vocabulary.splits_numbers is True  # type: ignore[union-attr]
        source = target
    assert verify(repository, tmp_path / "0_keras").passed
    assert "(`1984,` is `1984` and `,`), as in Google's ALBERT" in (source / CARD).read_text()


def test_repository_with_only_spiece_model_has_the_rule(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository, tmp_path / "source")
    (tmp_path / "source" / "tokenizer.json").unlink()
    report = convert(tmp_path / "source", tmp_path / "keras", to="keras")
    assert (
        library_ids(tmp_path / "keras", TEXTS)
        == library_ids(repository, TEXTS)
        != library_ids(tmp_path / "source", TEXTS)
    )
    (note,) = [note for note in report.notes if "does not split numbers from commas" in note]
    assert 'cuts (, ), ", -, . and 3 more out of a text first: ' in note
    verification = verify(tmp_path / "source", tmp_path / "keras")
    assert verification.passed
    assert note in verification.notes
    verification = verify(tmp_path / "source", tmp_path / "keras", texts=["I paid 3, he paid 4", "a"])
    assert verification.passed
    assert "1 of 2 texts have other ids there" in verification.notes[0]
    assert verify(tmp_path / "source", tmp_path / "keras", texts=["a bridge joins"]).notes == ()


def test_tokenizer_json_alone_has_its_own_scores(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository, tmp_path / "source")
    (tmp_path / "source" / "spiece.model").unlink()
    convert(tmp_path / "source", tmp_path / "keras", to="keras")
    assert library_ids(tmp_path / "keras", TEXTS) == library_ids(repository, TEXTS)


@pytest.mark.parametrize("layout", ["transformers", "albert_hub"])
def test_preset_without_the_rule_keeps_its_ids(layout: str, preset: Path, tmp_path: Path) -> None:
    report = convert(preset, tmp_path / "target", to=layout)  # type: ignore[arg-type]
    assert report.changed_texts == 0
    (note,) = [note for note in report.notes if "numbers with a comma" in note]
    assert note.startswith("36 pieces are numbers with a comma, such as '")
    assert "and texts become them, as in the source" in note
    ids = library_ids(preset, TEXTS)
    assert library_ids(tmp_path / "target", TEXTS) == ids
    assert "can be one piece, as in the source" in (tmp_path / "target" / CARD).read_text()
    assert verify(preset, tmp_path / "target").passed
    convert(tmp_path / "target", tmp_path / "keras", to="keras")
    assert library_ids(tmp_path / "keras", TEXTS) == ids


def test_uncased_adds_the_rule_and_says_what_it_changes(preset: Path, tmp_path: Path) -> None:
    report = convert(preset, tmp_path / "target", to="transformers", normalize="uncased")
    (note,) = [note for note in report.notes if "numbers with a comma" in note]
    assert "but not in the source: this alone changes 1 of 9 sample texts" in note
    _as_transformers_4_saves_it(_proto(), tmp_path)
    assert library_ids(tmp_path / "target", TEXTS) == library_ids(tmp_path, TEXTS) != library_ids(preset, TEXTS)
    again = convert(tmp_path / "target", tmp_path / "none", to="keras", normalize="none")
    assert "--normalize does not change that" in "".join(again.notes)
    assert inspect(tmp_path / "none").vocabulary.splits_numbers is True  # type: ignore[union-attr]


def test_other_scores_of_tokenizer_json_are_kept(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(repository, tmp_path / "source")
    tokenizer = json.loads((tmp_path / "source" / "tokenizer.json").read_text())
    row = next(row for row in tokenizer["model"]["vocab"] if row[0] == "▁a")
    row[1] = -7.0
    (tmp_path / "source" / "tokenizer.json").write_text(json.dumps(tokenizer))
    report = convert(tmp_path / "source", tmp_path / "keras", to="keras")
    assert report.source.notes[0].startswith("1 pieces have another score in spiece.model than in tokenizer.json")
    assert dict(_pieces((tmp_path / "keras" / "assets/tokenizer/vocabulary.spm").read_bytes()))["▁a"] == -7
    assert library_ids(tmp_path / "keras", TEXTS) == library_ids(tmp_path / "source", TEXTS)
    row[1] = -1e300
    (tmp_path / "source" / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json with a score is not a number"):
        convert(tmp_path / "source", tmp_path / "other", to="keras")


def test_release_of_google_has_the_rule(unpacked: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(unpacked("google_pretraining"), tmp_path / "release")
    proto, texts = train_vocabulary(160, [*corpus.numbers(400)]), [TEXTS[0], TEXTS[1], "a"]
    assert splits_number_commas(_pieces(proto)) is False
    (model,) = (tmp_path / "release").glob("*.model")
    model.write_bytes(proto)
    google = [_by_google(proto)(text) for text in texts]
    for layout in ("keras", "transformers", "albert_hub"):
        report = convert(tmp_path / "release", tmp_path / layout, to=layout, drop_head=True)  # type: ignore[arg-type]
        assert report.changed_texts == 0
        assert library_ids(tmp_path / layout, texts) == google


def test_scores_give_almost_the_ids_of_google() -> None:
    """Google splits pieces of the best segmentation; scores choose the best segmentation without such pieces.

    They differ where the comma fits into another piece: `31,424` is `▁31` `,` `4` `24` or `▁3` `1,4` `24`.
    """
    proto, texts = _proto("english"), corpus.numbers(20_000)
    baked = bake_normalization(split_number_commas(proto), NAMED_NORMALIZATIONS["uncased"])
    ours = sentencepiece.SentencePieceProcessor(model_proto=baked).encode(texts)
    google, plain = _by_google(proto), sentencepiece.SentencePieceProcessor(model_proto=proto)
    assert sum(ids != google(text) for text, ids in zip(texts, ours, strict=True)) <= 20
    assert sum(plain.encode(text.lower()) != google(text) for text in texts) > 5000  # without the rule


@pytest.mark.parametrize("name", ["trained", "english"])
def test_keras_hub_gives_the_ids_of_transformers_for_numbers(name: str, tmp_path: Path) -> None:
    proto, texts = _proto(name), corpus.numbers(20_000)
    lowered, normalization = split_number_commas(proto), NAMED_NORMALIZATIONS["uncased"]
    checkpoint = random_checkpoint(replace(SAMPLE_ARCHITECTURE, vocabulary_size=parse_vocabulary(proto).size), lowered)
    assert checkpoint.tokenizer is not None
    (tmp_path / "keras").mkdir()
    write_preset(
        replace(checkpoint, tokenizer=replace(checkpoint.tokenizer, normalization=normalization)), tmp_path / "keras"
    )
    (tmp_path / "transformers").mkdir()
    _as_transformers_4_saves_it(proto, tmp_path / "transformers")
    scores = dict(enumerate(score for _, score in _pieces(proto)))
    rows = zip(library_ids(tmp_path / "keras", texts), library_ids(tmp_path / "transformers", texts), strict=True)
    different = [(ours, theirs) for ours, theirs in rows if ours != theirs]
    # A tie is a text with two segmentations of the same score: see test_vocabulary.py.
    gaps = [abs(sum(scores[i] for i in ours) - sum(scores[i] for i in theirs)) for ours, theirs in different]
    assert [gap for gap in gaps if gap > 1e-4] == []
    assert len(gaps) <= len(texts) / 200
