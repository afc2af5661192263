from __future__ import annotations

import ast
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from albert_hub_bridge import card, convert
from albert_hub_bridge.layouts.hub.repository import write_repository
from albert_hub_bridge.mapping.heads import Head
from albert_hub_bridge.mapping.weights import POOLER
from albert_hub_bridge.provenance.model_card import EXAMPLE_TEXT, render_card
from albert_hub_bridge.provenance.picture import draw_parity
from albert_hub_bridge.provenance.record import DroppedTensorRecord, read_record
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, train_vocabulary
from tests.conftest import converted
from tests.servers.hub_server import HubServer, needs_hub_for_cards
from tests.servers.local_server import run_client


def test_card_of_an_unverified_folder(preset: Path, tmp_path: Path) -> None:
    convert(preset, tmp_path / "transformers", to="transformers", dtype="bfloat16", normalize="uncased")
    text = (tmp_path / "transformers" / "README.md").read_text()
    assert "Not measured." in text
    assert "The weights were converted from float32 to bfloat16, and rounded." in text
    assert "not lower-cased" not in text
    assert "its tokenizer does not apply" in text
    metadata = yaml.safe_load(text.split("---")[1])
    assert metadata == {
        "library_name": "transformers",
        "pipeline_tag": "feature-extraction",
        "tags": ["albert", "albert-hub-bridge", "pytorch"],
    }
    assert str(tmp_path) not in text
    assert str(tmp_path) not in (tmp_path / "transformers" / "conversion.json").read_text()
    convert(preset, tmp_path / "albert_hub", to="albert_hub")
    text = (tmp_path / "albert_hub" / "README.md").read_text()
    assert "**Texts are not lower-cased.**" in text
    assert "import albert_hub_bridge" in text


@needs_hub_for_cards
def test_metadata_pass_the_check_of_the_hub(
    preset: Path, hub: HubServer, environment: dict[str, str], tmp_path: Path
) -> None:
    cards = []
    for layout in ("keras", "albert_hub", "transformers"):
        converted(preset, tmp_path / layout, layout)
        cards.append((tmp_path / layout / "README.md").read_text())
        data = ModelCard(cards[-1]).data
        assert data.library_name == ("keras-hub" if layout == "keras" else "transformers")
        assert [result.metric_type for result in data.eval_results or []] == ["max_abs_difference"] * 2
    run_client(
        "from huggingface_hub import ModelCard\nfor card in cards: ModelCard(card).validate()", environment, cards=cards
    )
    assert len(hub.requests("POST", "/api/validate-yaml")) == 3


def test_card_shows_the_picture(preset: Path, tmp_path: Path) -> None:
    folder = converted(preset, tmp_path / "transformers")
    record = json.loads((folder / "conversion.json").read_text())
    measured = record["verification"]
    layers, relative = measured["layer_differences"], measured["relative_layer_differences"]
    # The embeddings, and 2 layers of each of 2 groups, both run twice; the last is what comes out.
    assert len(layers) == 1 + SAMPLE_ARCHITECTURE.num_layers * SAMPLE_ARCHITECTURE.num_inner_repetitions
    assert 0 < layers[-1] <= measured["max_abs_difference"]["sequence_output"] <= 1e-5
    assert 0 < relative[-1] <= layers[-1]
    assert 0 < measured["max_relative_difference"]["sequence_output"] <= 2e-6
    picture = (folder / "parity.png").read_bytes()
    assert picture == draw_parity(record["verification"])
    assert record["picture"] == {"bytes": len(picture), "sha256": hashlib.sha256(picture).hexdigest()}
    assert "](parity.png)" in (folder / "README.md").read_text()
    # Only where it was measured, and only that which was.
    convert(preset, tmp_path / "albert_hub", to="albert_hub")
    assert "](parity.png)" not in (tmp_path / "albert_hub" / "README.md").read_text()
    (folder / "parity.png").write_bytes(b"something else")
    card(folder)
    assert (folder / "parity.png").read_bytes() == picture
    convert(preset, folder, to="transformers", overwrite=True)
    assert not (folder / "parity.png").exists()


def test_no_picture_without_matplotlib_or_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {"relative_layer_differences": [1e-6, 0.0], "tolerance": 1e-5}
    assert (draw_parity(measured) or b"").startswith(b"\x89PNG")
    assert draw_parity({**measured, "relative_layer_differences": [1e-6, None]}) is None
    assert draw_parity({**measured, "relative_layer_differences": []}) is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert draw_parity(measured) is None


# What users see in the card of a classifier.


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier") / "classifier"
    folder.mkdir()
    head = Head(kind="sequence_classification", num_labels=3, labels=("bad", "so-so", "a `good` <one>"))
    write_repository(random_checkpoint(SAMPLE_ARCHITECTURE, train_vocabulary(), head=head), folder, "transformers")
    return folder


def test_card_of_a_classifier_shows_labels_and_what_the_pipeline_prints(classifier: Path, tmp_path: Path) -> None:
    folder = converted(classifier, tmp_path / "albert_hub", "albert_hub")
    text = (folder / "README.md").read_text()
    assert "\nThis is an ALBERT text classifier, converted from `classifier`.\n" in text
    assert "Its labels are `bad`, `so-so`, `a 'good' &lt;one>`." in text
    block = text.partition("It classifies texts:\n\n```python\n")[2].partition("```")[0]
    code, _, output = block.partition("# ")
    namespace: dict[str, Any] = {}
    call = code.strip().splitlines()[-1]
    exec(code.replace('"albert_hub"', repr(str(folder))).replace(call, f"found = {call}"), namespace)
    ((shown,), (found,)) = ast.literal_eval(output), namespace["found"]
    assert shown["label"] == found["label"] in ("bad", "so-so", "a `good` <one>")
    assert abs(shown["score"] - found["score"]) <= 5e-5 + 1e-6  # the card rounds


def test_card_of_a_preset_shows_what_predict_prints(classifier: Path, tmp_path: Path) -> None:
    import keras_hub

    folder = converted(classifier, tmp_path / "preset", "keras")
    text = (folder / "README.md").read_text()
    assert 'classifier = keras_hub.models.AlbertTextClassifier.from_preset("preset")' in text
    shown = ast.literal_eval(text.partition("classifier.predict([")[2].partition("# ")[2].partition("\n")[0])
    classifier_of_keras = keras_hub.models.AlbertTextClassifier.from_preset(str(folder))
    found = np.asarray(classifier_of_keras.predict([EXAMPLE_TEXT], verbose=0))
    np.testing.assert_allclose(shown, found, rtol=0, atol=6e-5)


def test_card_lists_each_setting_once_and_shapes_as_python_does(unpacked: Any, tmp_path: Path) -> None:
    convert(unpacked("keras_hub_classifier"), tmp_path / "target", to="transformers")
    text = (tmp_path / "target" / "README.md").read_text()
    record = read_record(tmp_path / "target")
    assert record is not None
    dropped = [DroppedTensorRecord("head.weight", [768, 2], "not supported")]
    assert "- `head.weight` `(768, 2)`: not supported" in render_card(replace(record, dropped=dropped), "target")
    rows = text.partition("## What was converted")[2].partition("## How it was made")[0].splitlines()
    rows = [row for row in rows if row.startswith("- `")]
    assert len(rows) == len(set(rows))
    assert not [row for row in rows if "`name`" in row or "`dtype`" in row]


def test_an_unmeasured_card_says_so_in_one_line(classifier: Path, tmp_path: Path) -> None:
    convert(classifier, tmp_path / "target", to="albert_hub")
    text = (tmp_path / "target" / "README.md").read_text()
    assert text.lower().count("not measured") == 1
    assert "| check | result |" not in text
    assert "pypi.org" not in text
    assert "pip install albert-hub-bridge" not in text  # which holds after a release only


@pytest.mark.parametrize(
    ("location", "layout", "expected"),
    [
        ("kaggle://user/albert/keras/a", "keras", 'AlbertBackbone.from_preset("kaggle://user/albert/keras/a")'),
        (
            "kaggle://user/albert/transformers/a",
            "transformers",
            'kagglehub.model_download("user/albert/transformers/a")',
        ),
        ("hf://user/a", "transformers", 'AutoModel.from_pretrained("user/a")'),
        ("hf://user/a", "keras", 'AlbertBackbone.from_preset("hf://user/a")'),
        ("a", "albert_hub", 'AutoModel.from_pretrained("a")'),
    ],
)
def test_card_shows_how_to_load_from_its_location(
    location: str, layout: str, expected: str, preset: Path, tmp_path: Path
) -> None:
    convert(preset, tmp_path / "a", to=layout)  # type: ignore[arg-type]
    record = read_record(tmp_path / "a")
    assert record is not None
    text = render_card(record, location)
    assert expected in text
    assert "\n# a\n" in text


def test_card_mentions_kerashub_only_if_it_computes_the_same(tmp_path: Path) -> None:
    # fmt: off
    for name, settings, head, reads in (
        ("plain",     {},                     None,                                           True),
        ("gelu",      {"activation": "gelu"}, None,                                           False),
        ("no-pooler", {},                     Head(kind="token_classification", num_labels=2), False),
    ):
        # fmt: on
        checkpoint = random_checkpoint(replace(SAMPLE_ARCHITECTURE, **settings), train_vocabulary(), head=head)
        if head is not None:
            encoder = {name: weight for name, weight in checkpoint.weights.items() if name not in POOLER}
            checkpoint = replace(checkpoint, weights=encoder)
        (tmp_path / name).mkdir()
        write_repository(checkpoint, tmp_path / name, "albert_hub")
        convert(tmp_path / name, tmp_path / f"{name}-transformers", to="transformers")
        assert ("KerasHub reads" in (tmp_path / f"{name}-transformers" / "README.md").read_text()) is reads, name
