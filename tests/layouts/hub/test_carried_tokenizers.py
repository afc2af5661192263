"""Tokenizers that are more than a SentencePiece model: repositories keep them, and KerasHub refuses them.

The real transformers and tokenizers write each of them, and transformers says what its ids are.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AlbertTokenizer, AutoTokenizer

from albert_hub_bridge import convert, inspect, verify
from albert_hub_bridge.choices import LayoutName
from albert_hub_bridge.errors import CheckpointError, ConfigurationError, SourceError, VocabularyError
from albert_hub_bridge.layouts.hub.files import TOKENIZER_FILES
from albert_hub_bridge.layouts.hub.repository import write_repository
from albert_hub_bridge.layouts.registry import read_checkpoint
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, train_vocabulary
from tests.conftest import TEXTS
from tests.layouts.hub import tokenizer_kinds as kinds


LAYOUTS: tuple[LayoutName, ...] = ("transformers", "albert_hub")
ARCHITECTURE = replace(SAMPLE_ARCHITECTURE, vocabulary_size=kinds.MAX_TOKENS)
MORE_TEXTS = [*TEXTS, "  two  ferries ", "water is [MASK] .", "a tab\tand\na line", "[E1] skype [/E1] 9.15", ""]
PAIRS = ["a first text", "bread, tea"], ["the second one", "and a much longer second text " * 4]


# fmt: off
KINDS: dict[str, tuple[Callable[[Path], None], str, bool]] = {
    # kind: how it is written, what the refusal for KerasHub names, whether a SentencePiece vocabulary is left
    "word pieces":              (kinds.word_pieces,                 "a BertTokenizer",                     False),
    "class in config.json":     (kinds.word_pieces_named_in_config, "a BertTokenizer",                     False),
    "saved word pieces":        (kinds.saved_word_pieces,           "a BertTokenizer",                     False),
    "byte pairs":               (kinds.byte_pairs,                  "a BPE model instead of a Unigram",    False),
    "pipeline":                 (kinds.pipeline,                    "steps that SentencePiece does not",   False),
    "cased pipeline":           (kinds.cased_pipeline,              "a space at the end of a text",        True),
    "cut out":                  (kinds.cut_out,                     "cut out of a text first: (",          True),
    "added":                    (kinds.added,                       "tokens beyond its vocabulary",        True),
    "added beside a model":     (kinds.added_beside_a_model,        "tokens beyond its vocabulary",        True),
}
# fmt: on


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare") / "repository"
    folder.mkdir()
    write_repository(random_checkpoint(ARCHITECTURE), folder, "transformers")
    return folder


def _source(kind: str, bare: Path, folder: Path) -> Path:
    shutil.copytree(bare, folder)
    KINDS[kind][0](folder)
    return folder


def _packed(folder: Path) -> tuple[Any, ...]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = tokenizer(*PAIRS, padding="max_length", truncation=True, max_length=16)
    ids = [tokenizer(text, **options)["input_ids"] for text in MORE_TEXTS for options in ({}, {"padding": True})]
    return type(tokenizer), ids, dict(pairs), tokenizer.model_max_length, tokenizer.padding_side


@pytest.mark.parametrize("kind", KINDS)
def test_repositories_keep_any_tokenizer(kind: str, bare: Path, tmp_path: Path) -> None:
    source = _source(kind, bare, tmp_path / "source")
    expected = _packed(source)
    for to in LAYOUTS:
        report = convert(source, tmp_path / to, to=to)
        assert (report.tokenizer is not None, report.changed_texts) == (True, 0)
        assert _packed(tmp_path / to) == expected
        for name in (name for name in TOKENIZER_FILES if (source / name).exists()):
            same = (tmp_path / to / name).read_bytes() == (source / name).read_bytes()
            assert same or name == "tokenizer_config.json", name
        lost = {key.key for key in report.ignored} & set(json.loads((source / "tokenizer_config.json").read_text()))
        assert lost <= set(json.loads((source / "config.json").read_text()))
    report = verify(source, tmp_path / "albert_hub", texts=MORE_TEXTS)
    assert report.passed, report
    convert(tmp_path / "albert_hub", tmp_path / "back", to="transformers")
    assert _packed(tmp_path / "back") == expected


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cut out"])
def test_keras_hub_refuses_them_with_one_reason_and_one_option(kind: str, bare: Path, tmp_path: Path) -> None:
    _, named, has_rest = KINDS[kind]
    source = _source(kind, bare, tmp_path / "source")
    with pytest.raises(ConfigurationError) as error:
        convert(source, tmp_path / "keras", to="keras")
    assert len(error.value.problems) == 1
    assert named in str(error.value)
    assert "pass --drop-tokenizer (drop_tokenizer=True) to" in str(error.value)
    assert not (tmp_path / "keras").exists()
    report = convert(source, tmp_path / "keras", to="keras", drop_tokenizer=True)
    assert "Because of --drop-tokenizer, " in str(report.notes)
    assert (report.changed_texts is not None) == (tmp_path / "keras" / "assets").exists() == has_rest
    if kind in ("added", "pipeline"):  # the two ways to compare what is left
        verified = verify(source, tmp_path / "keras")
        assert verified.different_ids == (report.changed_texts or 0)
        assert verified.passed == (verified.different_ids == 0)
        assert "Left out of the target's tokenizer" in " ".join(verified.notes)


def test_changed_files_of_a_carried_tokenizer_are_found(bare: Path, tmp_path: Path) -> None:
    source = _source("added", bare, tmp_path / "source")
    convert(source, tmp_path / "target", to="transformers")
    content = (tmp_path / "target" / "tokenizer.json").read_text()
    (tmp_path / "target" / "tokenizer.json").write_text(content.replace("covid19", "covid20"))
    report = verify(source, tmp_path / "target", texts=["covid19"])
    assert "tokenizer.json" in str(report.failed_checks) or "tokenizer.json" in report.different_fields
    assert report.different_ids == 1


def test_normalization_of_a_carried_tokenizer_cannot_be_changed(bare: Path, tmp_path: Path) -> None:
    source = _source("added", bare, tmp_path / "source")
    with pytest.raises(SourceError, match=r"is carried over as it is .*--drop-tokenizer .*to keep the SentencePiece"):
        convert(source, tmp_path / "target", to="transformers", normalize="none")
    report = convert(source, tmp_path / "target", to="transformers", normalize="none", drop_tokenizer=True)
    assert (report.tokenizer, report.text_normalization) == (None, "none")


def test_code_that_a_tokenizer_names_is_not_carried_over(bare: Path, tmp_path: Path) -> None:
    source = _source("pipeline", bare, tmp_path / "source")
    file = source / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "auto_map": {"AutoTokenizer": [None, "hostile.Tokenizer"]}}))
    convert(source, tmp_path / "target", to="transformers")
    assert json.loads((tmp_path / "target" / "tokenizer_config.json").read_text()) == settings


WRONG: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "more words than rows": (
        "word pieces",
        lambda folder: (folder / "vocab.txt").write_text("".join(f"word{n}\n" for n in range(451))),
        "451 tokens, and the token embedding has 450 rows",
    ),
    "long words": (
        "word pieces",
        lambda folder: (folder / "vocab.txt").write_text("".join(f"{n}" * 999 + "\n" for n in range(99))),
        "bytes of tokens, and the limit is",
    ),
    "no text": ("word pieces", lambda folder: (folder / "vocab.txt").write_bytes(b"\xff\xfe"), "codec can't decode"),
    "a token with another id": (
        "word pieces",
        lambda folder: (folder / "added_tokens.json").write_text('{"new": 3}'),
        "'new' has 3 instead of",
    ),
    "a pattern that takes forever": (
        "pipeline",
        lambda folder: _edit(folder, lambda steps: steps.append(_replace("(a+)+$"))),
        "regular expressions that may take forever",
    ),
    "a long pattern that takes forever": (
        "pipeline",
        lambda folder: _edit(folder, lambda steps: steps.append(_replace(".*.*.*.*x"))),
        "regular expressions that may take forever",
    ),
    "an unknown step": (
        "pipeline",
        lambda folder: _edit(folder, lambda steps: steps.append({"type": "Unknown"})),
        "not a file for the tokenizers library",
    ),
}


def _replace(pattern: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": ""}


def _edit(folder: Path, change: Callable[[list[Any]], object]) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    change(content["normalizer"]["normalizers"])
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize("what", WRONG)
def test_wrong_files_are_refused(what: str, bare: Path, tmp_path: Path) -> None:
    kind, change, message = WRONG[what]
    source = _source(kind, bare, tmp_path / "source")
    change(source)
    with pytest.raises(VocabularyError) as error:
        read_checkpoint(source)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["no class", 7, ["BertTokenizer"]])
def test_a_class_that_is_no_name_is_refused(name: Any, bare: Path, tmp_path: Path) -> None:
    source = _source("word pieces", bare, tmp_path / "source")
    (source / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    with pytest.raises(CheckpointError, match=r"tokenizer_class +expected a class, found"):
        inspect(source)


@pytest.mark.parametrize("to", LAYOUTS)
def test_sides_and_lengths_are_kept(to: LayoutName, bare: Path, tmp_path: Path) -> None:
    shutil.copytree(bare, tmp_path / "source")
    proto = train_vocabulary(user_defined_symbols=[])
    (tmp_path / "source" / "spiece.model").write_bytes(proto)
    options: dict[str, Any] = {"padding_side": "left", "truncation_side": "left", "model_max_length": 16}
    AlbertTokenizer.from_pretrained(tmp_path / "source", **options).save_pretrained(tmp_path / "source")
    report = convert(tmp_path / "source", tmp_path / "target", to=to)
    assert report.changed_texts == 0
    before, after = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("source", "target"))
    arguments: dict[str, Any] = {"padding": "max_length", "truncation": True}
    for name in ("input_ids", "attention_mask"):
        assert after(*PAIRS, **arguments)[name] == before(*PAIRS, **arguments)[name]
        assert after(MORE_TEXTS, **arguments)[name] == before(MORE_TEXTS, **arguments)[name]
    # transformers 5 gives no segment ids with AlbertTokenizer; the report says so
    assert ("token_type_ids" in after(*PAIRS)) == (to == "albert_hub")
    assert "transformers 4 gives them" in str(report.notes)
    report = convert(tmp_path / "source", tmp_path / "keras", to="keras")
    assert "The source pads on the left" in str(report.notes)
    assert "the source keeps the end, and KerasHub the beginning" in str(report.notes)
    assert verify(tmp_path / "source", tmp_path / "target").passed


# BertJapaneseTokenizer needs MeCab: `pip install fugashi ipadic`.
HAS_MECAB = all(importlib.util.find_spec(name) is not None for name in ("fugashi", "ipadic"))
JAPANESE_TEXTS = ["東京都に行く", "bread and water", "東京"]


@pytest.mark.parametrize("subwords", ["wordpiece", "sentencepiece"])
def test_a_japanese_tokenizer_is_carried_over(subwords: str, bare: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(bare, tmp_path / "source"))
    kinds.japanese(source, subwords)
    files = [name for name in TOKENIZER_FILES if (source / name).exists()]
    for to in LAYOUTS:
        report = convert(source, tmp_path / to, to=to)
        assert report.tokenizer == "BertJapaneseTokenizer"
        assert [(tmp_path / to / name).read_bytes() for name in files] == [
            (source / name).read_bytes() for name in files
        ]
        if not HAS_MECAB:
            (note,) = [note for note in report.notes if "The ids were not compared" in note]
            assert "You need to install fugashi" in note
            assert report.changed_texts is None
            continue
        assert report.changed_texts == 0
        tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (source, tmp_path / to)]
        assert [type(each).__name__ for each in tokenizers] == ["BertJapaneseTokenizer"] * 2
        ids = [[each(text)["input_ids"] for text in JAPANESE_TEXTS] for each in tokenizers]
        assert ids[0] == ids[1]
        assert verify(source, tmp_path / to, texts=JAPANESE_TEXTS).passed


@pytest.mark.parametrize("subwords", ["wordpiece", "sentencepiece"])
def test_keras_hub_refuses_a_japanese_tokenizer(subwords: str, bare: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(bare, tmp_path / "source"))
    kinds.japanese(source, subwords)
    with pytest.raises(
        ConfigurationError, match=r"1 problem .*\n.*a BertJapaneseTokenizer\n.*--drop-tokenizer"
    ) as error:
        convert(source, tmp_path / "keras", to="keras")
    assert len(error.value.problems) == 1
    report = convert(source, tmp_path / "keras", to="keras", drop_tokenizer=True)
    assert not (tmp_path / "keras" / "assets").exists()
    assert "Because of --drop-tokenizer, it is left out." in report.notes
