"""White space that a vocabulary's own normalization leaves: the same ids as in the source, in every layout."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from transformers import AlbertConfig, AlbertModel, AlbertTokenizer

from albert_hub_bridge import convert, verify
from albert_hub_bridge.layouts.keras.preset import write_preset
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, train_vocabulary
from tests import corpus
from tests.conftest import albert_arguments, library_ids


# U+2581 is the space of pieces. AlbertTokenizer makes two pieces of two of them, and the others one space.
TEXTS = [text for text in corpus.white(1000) if "▁" not in text] + ["a\tb\nc\r\nd", "a \t\n b", "\ta\n", "a\x85b", ""]


@cache
def _proto(normalization: str) -> bytes:
    return train_vocabulary(normalization_rule_name=normalization)


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
    theirs = library_ids(source, TEXTS)
    assert theirs[-5][:2] == theirs[-4][:2] == theirs[-2][:2]
    folder = source
    for step, layout in enumerate(("keras", "transformers", "albert_hub", "keras", "albert_hub", "transformers")):
        target = tmp_path / f"{step}_{layout}"
        convert(folder, target, to=layout)  # type: ignore[arg-type]
        assert library_ids(target, TEXTS) == theirs
        folder = target
    assert verify(source, tmp_path / "0_keras").passed


@pytest.mark.parametrize("layout", ["transformers", "albert_hub"])
def test_preset_that_splits_at_spaces_keeps_its_ids(layout: str, tmp_path: Path) -> None:
    (tmp_path / "keras").mkdir()
    write_preset(random_checkpoint(SAMPLE_ARCHITECTURE, _proto("identity")), tmp_path / "keras")
    theirs = library_ids(tmp_path / "keras", TEXTS)
    assert 1 in theirs[-5]  # the tab is <unk>
    convert(tmp_path / "keras", tmp_path / layout, to=layout)  # type: ignore[arg-type]
    assert library_ids(tmp_path / layout, TEXTS) == theirs
    convert(tmp_path / layout, tmp_path / "again", to="keras")
    assert library_ids(tmp_path / "again", TEXTS) == theirs


def test_uncased_splits_at_all_white_space(tmp_path: Path) -> None:
    (tmp_path / "keras").mkdir()
    write_preset(random_checkpoint(SAMPLE_ARCHITECTURE, _proto("identity")), tmp_path / "keras")
    convert(tmp_path / "keras", tmp_path / "transformers", to="transformers", normalize="uncased")
    assert 1 in library_ids(tmp_path / "keras", TEXTS)[-5]
    assert 1 not in library_ids(tmp_path / "transformers", TEXTS)[-5]
