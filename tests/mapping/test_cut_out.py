"""Characters that transformers cuts out of a text: a preset gives its ids, with the real transformers and KerasHub."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras_hub
import pytest
import transformers

from albert_hub_bridge import convert, verify
from albert_hub_bridge.choices import LayoutName
from albert_hub_bridge.errors import ConfigurationError
from albert_hub_bridge.layouts.hub.repository import write_repository
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, train_vocabulary
from tests.corpus import documentation, unicode
from tests.layouts.hub.tokenizer_kinds import MAX_TOKENS


SYMBOLS = ["(", ")", '"', "-", ".", "£", "–"]
HARD = [
    "",
    "(",
    "((",
    "a",
    ". .",
    "3.0",
    "a (b) c",
    "(see a-b).c",
    "...",
    "  ( a )  ",
    "a\t(\nb",
    "£3.50–4",
    "(\u0301a",
]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare") / "repository"
    folder.mkdir()
    write_repository(
        random_checkpoint(replace(SAMPLE_ARCHITECTURE, vocabulary_size=MAX_TOKENS)), folder, "transformers"
    )
    return folder


def _saved(bare: Path, folder: Path, **settings: Any) -> Path:
    """Return a repository with the tokenizer that transformers 5 makes of a SentencePiece model and saves."""
    shutil.copytree(bare, folder)
    rule = settings.pop("rule", "nmt_nfkc")
    (folder / "spiece.model").write_bytes(train_vocabulary(user_defined_symbols=SYMBOLS, normalization_rule_name=rule))
    transformers.AlbertTokenizer.from_pretrained(folder, **settings).save_pretrained(folder)
    return folder


def _in_another_way(text: str) -> bool:
    """Return whether a character that is cut out is written in another way: with two quotes, or to be normalized."""
    plain = unicodedata.normalize("NFKC", text.replace("``", '"').replace("''", '"'))
    plain = unicodedata.normalize("NFKD", plain)
    return [text.count(each) for each in SYMBOLS] != [plain.count(each) for each in SYMBOLS]


@pytest.mark.parametrize(
    "settings",
    [{}, {"do_lower_case": False}, {"keep_accents": True, "do_lower_case": False}, {"rule": "identity"}],
    ids=["uncased", "cased", "no normalization", "identity"],
)
def test_a_preset_has_the_ids_of_transformers(settings: dict[str, Any], bare: Path, tmp_path: Path) -> None:
    source = _saved(bare, tmp_path / "source", **settings)
    report = convert(source, tmp_path / "preset", to="keras")
    (note,) = [note for note in report.notes if "out of a text first, and begins a word after each" in note]
    assert note.startswith(f"transformers cuts {' '.join(SYMBOLS)} out")
    theirs = transformers.AutoTokenizer.from_pretrained(source)
    ours = keras_hub.models.AlbertTokenizer.from_preset(str(tmp_path / "preset"))
    texts = [text for text in [*HARD, *documentation(1500), *unicode(500, 0.8)] if not _in_another_way(text)]
    assert len(texts) > 1500
    expected = theirs(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    found = [[int(index) for index in row] for row in ours(texts)]
    rows = zip(texts, expected, found, strict=True)
    different = [text for text, ids, others in rows if ids != others and "▁" not in text]
    assert len(different) <= 3, different  # ties and control pieces that are spelled out


def test_convert_counts_what_verify_counts(bare: Path, tmp_path: Path) -> None:
    report = convert(_saved(bare, tmp_path / "source"), tmp_path / "preset", to="keras")
    assert report.changed_texts == 1  # the old quotes
    assert not report.dropped_tokenizer
    verified = verify(tmp_path / "source", tmp_path / "preset")
    assert (verified.different_ids, verified.failed_checks) == (1, ["texts"])
    assert verify(tmp_path / "source", tmp_path / "preset", texts=["hello. (see a-b) 3.0", "a"]).passed


@pytest.mark.parametrize("to", ["transformers", "albert_hub"])
def test_the_way_back_keeps_the_ids(to: LayoutName, bare: Path, tmp_path: Path) -> None:
    convert(_saved(bare, tmp_path / "source"), tmp_path / "preset", to="keras")
    assert convert(tmp_path / "preset", tmp_path / "back", to=to).changed_texts == 0
    assert verify(tmp_path / "preset", tmp_path / "back", texts=[text for text in HARD if text]).passed
    tokenizers = [transformers.AutoTokenizer.from_pretrained(tmp_path / name) for name in ("source", "back")]
    for text in HARD:
        ids = [each(text, add_special_tokens=False)["input_ids"] for each in tokenizers]
        assert ids[0] == ids[1], text


def test_the_option_keeps_the_vocabulary_alone(bare: Path, tmp_path: Path) -> None:
    report = convert(_saved(bare, tmp_path / "source"), tmp_path / "preset", to="keras", drop_tokenizer=True)
    assert "Because of --drop-tokenizer, the SentencePiece vocabulary alone is converted." in report.notes
    assert report.changed_texts is not None
    assert report.changed_texts > 1
    assert verify(tmp_path / "source", tmp_path / "preset").different_ids == report.changed_texts


def _with(**flags: bool) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content["added_tokens"][-1].update(flags)

    return change


def _with_word(content: dict[str, Any]) -> None:
    index, (piece, _) = next(
        row for row in enumerate(content["model"]["vocab"]) if row[1][0].isalpha() and len(row[1][0]) > 1
    )
    content["added_tokens"].append({**content["added_tokens"][-1], "id": index, "content": piece})


@pytest.mark.parametrize("change", [_with(lstrip=True), _with(single_word=True), _with(special=True), _with_word])
def test_anything_else_is_refused(change: Callable[[dict[str, Any]], None], bare: Path, tmp_path: Path) -> None:
    source = _saved(bare, tmp_path / "source")
    content = json.loads((source / "tokenizer.json").read_text())
    change(content)
    (source / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match=r"1 problem .*\n.*cut out of a text first.*\n.*--drop-tokenizer"):
        convert(source, tmp_path / "preset", to="keras")
