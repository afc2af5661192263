"""White space that a vocabulary's own normalization leaves: the same ids as in the source, in every layout."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import keras_hub
import pytest
from transformers import AlbertConfig, AlbertModel, AlbertTokenizer, AutoTokenizer

from albert_hub_bridge import convert, verify
from albert_hub_bridge.layouts.keras.preset import write_preset
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, train_vocabulary
from tests import corpus
from tests.conftest import albert_arguments


# U+2581 is the space of pieces. AlbertTokenizer makes two pieces of two of them, and the others one space.
TEXTS = [text for text in corpus.white(1000) if "▁" not in text] + ["a\tb\nc\r\nd", "a \t\n b", "\ta\n", "a\x85b", ""]


@cache
def _proto(normalization: str) -> bytes:
    return train_vocabulary(normalization_rule_name=normalization)


def _ids(folder: Path) -> list[list[int]]:
    """Return the ids that the library of a folder computes."""
    if (folder / "assets").is_dir():
        keras = keras_hub.models.AlbertTokenizer.from_preset(str(folder))
        return [[int(index) for index in row] for row in keras(TEXTS)]
    rows = AutoTokenizer.from_pretrained(folder)(TEXTS, add_special_tokens=False, split_special_tokens=True)
    return [list(row) for row in rows["input_ids"]]


@pytest.mark.parametrize("lower_case", [True, False])
@pytest.mark.parametrize("normalization", ["identity", "nmt_nfkc"])
def test_repository_of_albert_tokenizer_splits_at_all_white_space(
    normalization: str, lower_case: bool, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    AlbertModel(AlbertConfig(**albert_arguments(SAMPLE_ARCHITECTURE))).save_pretrained(source)
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, _proto(normalization))
    assert checkpoint.tokenizer is not None
    vocabulary = checkpoint.tokenizer.vocabulary
    AlbertTokenizer(
        vocab=list(vocabulary.pieces),
        _spm_precompiled_charsmap=vocabulary.charsmap or None,
        do_lower_case=lower_case,
        keep_accents=not lower_case,
    ).save_pretrained(source)
    (source / "spiece.model").write_bytes(_proto(normalization))
    theirs = _ids(source)
    assert theirs[-5][:2] == theirs[-4][:2] == theirs[-2][:2]
    folder = source
    for step, layout in enumerate(("keras", "transformers", "albert_hub", "keras", "albert_hub", "transformers")):
        target = tmp_path / f"{step}_{layout}"
        convert(folder, target, to=layout)  # type: ignore[arg-type]
        assert _ids(target) == theirs
        folder = target
    assert verify(source, tmp_path / "0_keras").passed


@pytest.mark.parametrize("layout", ["transformers", "albert_hub"])
def test_preset_that_splits_at_spaces_keeps_its_ids(layout: str, tmp_path: Path) -> None:
    (tmp_path / "keras").mkdir()
    write_preset(random_checkpoint(SAMPLE_ARCHITECTURE, _proto("identity")), tmp_path / "keras")
    theirs = _ids(tmp_path / "keras")
    assert 1 in theirs[-5]  # the tab is <unk>
    convert(tmp_path / "keras", tmp_path / layout, to=layout)  # type: ignore[arg-type]
    assert _ids(tmp_path / layout) == theirs
    convert(tmp_path / layout, tmp_path / "again", to="keras")
    assert _ids(tmp_path / "again") == theirs


def test_uncased_splits_at_all_white_space(tmp_path: Path) -> None:
    (tmp_path / "keras").mkdir()
    write_preset(random_checkpoint(SAMPLE_ARCHITECTURE, _proto("identity")), tmp_path / "keras")
    convert(tmp_path / "keras", tmp_path / "transformers", to="transformers", normalize="uncased")
    assert 1 in _ids(tmp_path / "keras")[-5]
    assert 1 not in _ids(tmp_path / "transformers")[-5]
