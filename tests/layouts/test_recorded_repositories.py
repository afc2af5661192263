"""Repositories with random choices, written by transformers 4.46, with what it computed of them.

`tests/fixtures/write_transformers_4_random.py` wrote them.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import keras_hub
import numpy as np
import pytest
import torch
import transformers

from albert_hub_bridge.choices import PRESET_LAYOUTS, REPOSITORY_LAYOUTS, LayoutName
from tests.conftest import FIXTURES
from tests.layouts.test_generated_repositories import check_conversion


ARCHIVE = FIXTURES / "random" / "transformers_4.zip"
NUMBERS = range(14)
REFUSED = {12}  # gelu, another epsilon and a question-answering head, for KerasHub
LAYOUTS = get_args(LayoutName)
Encode = Callable[..., list[tuple[list[int], list[int]]]]  # of texts, or of first and second texts

# spiece.model alone, without a map of characters. The fast tokenizer of transformers 4 gives <unk> for a tab. Its slow
# one does not, and neither does transformers 5: the target has their ids.
UNKNOWN_TABS = {3}


def unpack(number: int, folder: Path) -> tuple[Path, Mapping[str, Any]]:
    """Unpack a repository, and return its folder and the answers of transformers 4.46."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith(f"{number}/")])
    source = folder / str(number)
    answers: Mapping[str, Any] = json.loads((source / "answers.json").read_text("utf-8"))
    (source / "answers.json").unlink()
    return source, answers


@pytest.mark.parametrize("number", NUMBERS)
def test_recorded_repositories(number: int, tmp_path: Path) -> None:
    source, answers = unpack(number, tmp_path)
    to: LayoutName = LAYOUTS[number % len(LAYOUTS)]
    target = tmp_path / "target"
    report = check_conversion(source, target, to)
    assert (report is None) == (number in REFUSED)
    if report is not None and not report.dropped_tokenizer:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        ids = [tokenizer(text).input_ids for text in answers["texts"]]
        changed = sum(map(list.__ne__, ids, answers["ids"]))
        files = {path.name for path in source.iterdir()}
        notes = " ".join(report.notes)
        if "tokenizer.json" in files:
            said = f"{changed} of {len(ids)} sample texts have other ids in transformers 4, which runs tokenizer.json"
        elif "added_tokens.json" in files:
            said = "version 4 may find other ids than"
        else:
            changed -= number in UNKNOWN_TABS
            said = f"{changed} of {len(ids)} texts have other ids there"
        assert (said in notes) == bool(changed), (changed, notes)
        _check_pairs(target, to, answers)
    np.testing.assert_allclose(
        _output(target if to == "transformers" else source, answers), answers["output"], atol=1e-5
    )


def _check_pairs(target: Path, to: LayoutName, answers: Mapping[str, Any]) -> None:
    """Compare the ids and segments of each pair whose two texts alone have the ids that transformers 4 gave them."""
    alone = dict(zip(answers["texts"], answers["ids"], strict=True))
    for encode in _encoders(target, to):
        same = {text for text, (ids, _) in zip(alone, encode(list(alone)), strict=True) if ids == alone[text]}
        recorded = zip(answers["pairs"], answers["pair_ids"], answers["pair_segments"], strict=True)
        expected = {tuple(pair): (ids, segments) for pair, ids, segments in recorded if same.issuperset(pair)}
        assert expected
        assert encode(*map(list, zip(*expected, strict=True))) == list(expected.values())


def _encoders(folder: Path, to: LayoutName) -> Iterator[Encode]:
    """Return what encodes texts or pairs without padding: KerasHub for a preset, transformers for a repository."""
    if to in PRESET_LAYOUTS:
        preprocessor = keras_hub.models.AlbertTextClassifierPreprocessor.from_preset(str(folder), sequence_length=512)

        def encode_as_keras_hub(*texts: list[str]) -> list[tuple[list[int], list[int]]]:
            packed = preprocessor(texts if len(texts) > 1 else texts[0], y=None)
            names = ("token_ids", "segment_ids", "padding_mask")
            rows = zip(*(np.asarray(packed[name]) for name in names), strict=True)
            return [(ids[mask].tolist(), segments[mask].tolist()) for ids, segments, mask in rows]

        yield encode_as_keras_hub
    if to in REPOSITORY_LAYOUTS:
        repository = transformers.AutoTokenizer.from_pretrained(folder)

        def encode_as_transformers(*texts: list[str]) -> list[tuple[list[int], list[int]]]:
            # Unasked, transformers 5 gives no segments with some classes, and transformers 4 always did.
            batch = repository(*texts, return_token_type_ids=True)
            return list(zip(batch["input_ids"], batch["token_type_ids"], strict=True))

        yield encode_as_transformers


def _output(folder: Path, answers: Mapping[str, Any]) -> torch.Tensor:
    """Return the first output of today's transformers, for the inputs of the writer."""
    (name,) = json.loads((folder / "config.json").read_text())["architectures"]
    model = getattr(transformers, name).from_pretrained(folder)
    ids = torch.tensor(answers["input_ids"])
    attended = torch.ones_like(ids).view(-1, ids.shape[-1])
    attended[-1, -3:] = 0
    with torch.no_grad():
        output: torch.Tensor = model(ids, attention_mask=attended.view_as(ids), token_type_ids=ids % 2)[0]
    return output
