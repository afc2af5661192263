"""Reports, cards and `inspect` say what is lost, and not what no model needs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from albert_hub_bridge.cli import app
from conversion.sample import SAMPLE_ARCHITECTURE


@pytest.fixture(scope="module")
def trained(vocabulary: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a classifier that the real keras_hub trained for a step, with the state of its optimizer."""
    import keras
    import keras_hub

    backbone = keras_hub.models.AlbertBackbone(**SAMPLE_ARCHITECTURE.keras_arguments)
    tokenizer = keras_hub.models.AlbertTokenizer(vocabulary)
    preprocessor = keras_hub.models.AlbertTextClassifierPreprocessor(tokenizer, sequence_length=16)
    model = keras_hub.models.AlbertTextClassifier(backbone, num_classes=3, preprocessor=preprocessor)
    model.compile(keras.optimizers.Adam(1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(["a bridge", "bread"], np.array([0, 2]), shuffle=False, verbose=0)
    folder = tmp_path_factory.mktemp("trained") / "preset"
    model.save_to_preset(str(folder))
    return folder


def test_the_state_of_an_optimizer_is_one_line(trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    commands = (["inspect", str(trained)], ["convert", str(trained), str(target), "--to", "albert_hub"])
    outputs = [CliRunner().invoke(app, command).stdout for command in commands]
    record = json.loads((target / "conversion.json").read_text())
    count = sum(each["name"].startswith("task.weights.h5:optimizer/") for each in record["dropped"])
    assert count == len(record["dropped"]) > 100
    card = (target / "README.md").read_text()
    for output in outputs:
        assert output.count("the optimizer's state") == 1
        assert f"Tensors that no model needs: the optimizer's state ({count})." in output
        assert "were not converted" not in output
        assert "trainable" not in output
    assert card.count("the optimizer's state") == 1
    assert f"the optimizer's state ({count})" in card
    assert "trainable" not in card


def test_only_masking_rates_that_are_not_the_default_are_lost(vocabulary: bytes, tmp_path: Path) -> None:
    import keras_hub

    backbone = keras_hub.models.AlbertBackbone(**SAMPLE_ARCHITECTURE.keras_arguments)
    tokenizer = keras_hub.models.AlbertTokenizer(vocabulary)
    for name, rates, lost in (("plain", {}, ""), ("own", {"mask_selection_rate": 0.3}, "mask_selection_rate")):
        preprocessor = keras_hub.models.AlbertMaskedLMPreprocessor(tokenizer, sequence_length=16, **rates)
        keras_hub.models.AlbertMaskedLM(backbone, preprocessor=preprocessor).save_to_preset(str(tmp_path / name))
        output = CliRunner().invoke(app, ["inspect", str(tmp_path / name)]).stdout
        line = f"Settings that were not converted (--json shows the reasons): {lost}.\n"
        assert ("Settings" in output) is bool(lost)
        assert (line in output) is bool(lost)


def test_names_of_labels_are_not_lost_twice(tmp_path: Path, trained: Path) -> None:
    convert = ["convert", str(trained), str(tmp_path / "target"), "--to", "transformers"]
    assert CliRunner().invoke(app, convert).exit_code == 0
    assert "label2id" in json.loads((tmp_path / "target" / "config.json").read_text())
    assert "label2id" not in CliRunner().invoke(app, ["inspect", str(tmp_path / "target")]).stdout
