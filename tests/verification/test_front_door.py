"""Texts and pairs as users encode them: what differs for a reason is a note, and anything else is a failure."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from albert_hub_bridge import convert
from albert_hub_bridge.commands.verify import verify_and_record
from albert_hub_bridge.layouts.registry import read_checkpoint
from albert_hub_bridge.verification.engines.albert_hub import AlbertHubEngine
from albert_hub_bridge.verification.engines.registry import open_engine
from albert_hub_bridge.verification.front_door import FrontDoor, check_front_door
from albert_hub_bridge.verification.side import Side
from conversion.sample import write_sample_preset


TEXTS = ["a bridge of", "the river rose by two feet overnight, and nobody slept", "a", "tea is best somewhere between"]
PAIRS = [("a", "water"), (TEXTS[1], TEXTS[3]), (TEXTS[3], TEXTS[1]), (TEXTS[0], "of")]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parent = tmp_path_factory.mktemp("front")
    write_sample_preset(parent / "preset")
    for layout in ("albert_hub", "transformers"):
        convert(parent / "preset", parent / layout, to=layout)  # type: ignore[arg-type]
    return parent


def open_side(folder: Path, own: bool = False) -> Side:
    with read_checkpoint(folder) as checkpoint:
        engine: Any = AlbertHubEngine(checkpoint) if own else open_engine(checkpoint)
        return Side(checkpoint, engine)


@pytest.fixture(scope="module")
def preset(folders: Path) -> Side:
    return open_side(folders / "preset")


def compare(source: Side, target: Side, pairs: Any = PAIRS) -> FrontDoor:
    return check_front_door(source, target, TEXTS, pairs, 2e-6, comparable=True)


def changed(folders: Path, layout: str, tmp_path: Path, name: str, change: Callable[[Any], Any]) -> Side:
    """Return a target whose file was changed."""
    target = Path(shutil.copytree(folders / layout, tmp_path / "target"))
    content = json.loads((target / name).read_text())
    change(content)
    (target / name).write_text(json.dumps(content))
    return open_side(target)


def test_check_front_door_finds_nothing_in_a_right_conversion(folders: Path, preset: Side) -> None:
    found = compare(preset, open_side(folders / "albert_hub"))
    assert (found.failures, found.notes) == ([], [])
    assert found.features is not None
    assert found.features.passes
    assert found.features.row.endswith("in a batch, as users compute it")


def test_check_front_door_names_how_the_libraries_cut_pairs(folders: Path, preset: Side) -> None:
    found = compare(preset, open_side(folders / "transformers"))
    assert found.failures == []
    (note,) = found.notes
    assert "of the pairs that are too long lose other tokens: " in note
    assert note.endswith("the source's library cuts a pair by round_robin, the target's by longest_first.")
    assert compare(preset, open_side(folders / "transformers"), pairs=[PAIRS[0]]).notes == []  # not cut


def test_own_encoding_is_that_of_keras_hub(folders: Path, preset: Side) -> None:
    own = open_side(folders / "preset", own=True)
    for length in (5, 9, 10, 64):
        for second in (None, [second for _, second in PAIRS]):
            first = TEXTS if second is None else [first for first, _ in PAIRS]
            encoded = [side.engine.encode(first, second, length) for side in (preset, own)]
            for name in ("token_ids", "segment_ids", "padding_mask"):
                np.testing.assert_array_equal(*(getattr(each, name) for each in encoded))
    features = [side.engine.features(TEXTS, 64) for side in (preset, own)]
    for one, other in zip(*features, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=0)


def without_second_segment(content: Any) -> None:
    for item in content["post_processor"]["pair"]:
        next(iter(item.values()))["type_id"] = 0


def without_last_mark(content: Any) -> None:
    content["post_processor"]["single"].pop()


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        (
            without_second_segment,
            "4 of 4 pairs of at most 64 tokens have other token_type_ids, the first is ('a', 'water')",
        ),
        (without_last_mark, "4 of 4 texts of at most 64 tokens have other ids with special tokens, the first is"),
    ],
)
def test_check_front_door_fails_for_a_wrong_post_processor(
    change: Any, failure: str, folders: Path, preset: Side, tmp_path: Path
) -> None:
    target = changed(folders, "transformers", tmp_path, "tokenizer.json", change)
    assert any(found.startswith(failure) for found in compare(preset, target).failures)


@pytest.mark.parametrize(
    ("setting", "note"),
    [
        (
            {"padding_side": "left"},
            "of the texts have other outputs in a batch: they are padded on the right in the source",
        ),
        (
            {"truncation_side": "left"},
            "of the texts that are too long lose other tokens: they are cut on the right in the source",
        ),
        (
            {"model_input_names": ["input_ids", "attention_mask"]},
            "of the pairs have other token_type_ids: the tokenizer of",
        ),
    ],
)
def test_settings_of_a_tokenizer_that_keras_hub_lacks_are_notes(
    setting: dict[str, Any], note: str, folders: Path, preset: Side, tmp_path: Path
) -> None:
    target = changed(
        folders, "transformers", tmp_path, "tokenizer_config.json", lambda content: content.update(setting)
    )
    found = compare(preset, target)
    assert found.failures == []
    assert any(note in each for each in found.notes)


@pytest.mark.parametrize(("setting", "what"), [("padding_side", "padded"), ("truncation_side", "cut")])
def test_sides_must_be_equal_in_two_repositories(setting: str, what: str, folders: Path, tmp_path: Path) -> None:
    target = changed(
        folders, "transformers", tmp_path, "tokenizer_config.json", lambda content: content.update({setting: "left"})
    )
    found = compare(open_side(folders / "transformers"), target)
    assert any(f"are {what} otherwise" in failure for failure in found.failures)


def pad_on_the_left(content: Any) -> None:
    content["padding_side"] = "left"


def lengths_of_features(source: Side, target: Side, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Compare two sides, and return the lengths to which their states were asked to be padded."""
    lengths = []
    for side in (source, target):

        def record(texts: Any, length: int, features: Any = side.engine.features) -> Any:
            lengths.append(length)
            return features(texts, length)

        monkeypatch.setattr(side.engine, "features", record)
    assert compare(source, target).features is not None
    return lengths


def test_states_have_padding_beyond_the_longest_text(
    folders: Path, preset: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = open_side(folders / "transformers")
    longest = max(len(ids) for ids in repository.engine.tokenize(TEXTS) or []) + 2  # [CLS] and [SEP]
    assert longest + 5 < preset.max_length
    assert lengths_of_features(preset, repository, monkeypatch) == [longest + 5] * 2
    # On the left, padding changes the positions, and the pipeline pads to the longest text.
    sides = [
        changed(folders, "transformers", tmp_path / name, "tokenizer_config.json", pad_on_the_left)
        for name in ("source", "target")
    ]
    assert lengths_of_features(*sides, monkeypatch) == [longest] * 2


def test_file_of_texts_has_pairs(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a bridge\tof a river\nalone\n\t\n")
    report, _ = verify_and_record(folders / "preset", folders / "albert_hub", texts_file=tmp_path / "texts.txt")
    assert report.passed
    assert report.checks["texts"].summary == "on 4 texts and 1 pairs, all with the same ids"
