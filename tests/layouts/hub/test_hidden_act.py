"""`--hidden-act`: what `config.json` calls tanh GELU, for programs that know only one of its names."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import AlbertForSequenceClassification, AlbertModel, AutoTokenizer
from transformers.activations import NewGELUActivation
from typer.testing import CliRunner

from albert_hub_bridge import convert, verify
from albert_hub_bridge.choices import HiddenAct, LayoutName
from albert_hub_bridge.cli import app
from albert_hub_bridge.errors import SourceError, TargetError
from albert_hub_bridge.layouts.hub.repository import write_repository
from albert_hub_bridge.layouts.layout import WriteOptions
from albert_hub_bridge.layouts.registry import read_checkpoint, write_checkpoint
from albert_hub_bridge.mapping.configs import SAME_ACTIVATION
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint
from tests.conftest import TEXTS


CLOSE = {"atol": 1e-5, "rtol": 0}
LAYOUTS: tuple[LayoutName, ...] = ("transformers", "universal")


def _hidden_act(folder: Path) -> str:
    return str(json.loads((folder / "config.json").read_text())["hidden_act"])


def _outputs(model_class: Any, folder: Path) -> tuple[Any, torch.Tensor]:
    model = model_class.from_pretrained(folder).eval()
    with torch.no_grad():
        return model, model(**AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt"))[0]


def test_the_names_are_those_of_one_function() -> None:
    assert {SAME_ACTIVATION.get(name, name) for name in get_args(HiddenAct)} == {SAMPLE_ARCHITECTURE.activation}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_transformers_computes_the_same_with_both_names(layout: LayoutName, preset: Path, tmp_path: Path) -> None:
    convert(preset, tmp_path / "default", to=layout)
    convert(preset, tmp_path / "named", to=layout, hidden_act="gelu_pytorch_tanh")
    convert(preset, tmp_path / "new", to=layout, hidden_act="gelu_new")
    found = [_hidden_act(tmp_path / name) for name in ("default", "named", "new")]
    assert found == ["gelu_pytorch_tanh", "gelu_pytorch_tanh", "gelu_new"]
    default, expected = _outputs(AlbertModel, tmp_path / "default")
    model, outputs = _outputs(AlbertModel, tmp_path / "new")
    activations = [
        isinstance(each.encoder.albert_layer_groups[0].albert_layers[0].activation, NewGELUActivation)
        for each in (default, model)
    ]
    assert activations == [False, True]
    torch.testing.assert_close(outputs, expected, **CLOSE)
    # Nothing else differs but the records.
    for file in (tmp_path / "default").rglob("*"):
        if file.is_file() and file.name not in ("config.json", "conversion.json", "README.md"):
            assert file.read_bytes() == (tmp_path / "new" / file.relative_to(tmp_path / "default")).read_bytes()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_verified_and_recorded(layout: LayoutName, preset: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    command = ["convert", str(preset), str(target), "--to", layout, "--hidden-act", "GELU-New"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert _hidden_act(target) == "gelu_new"
    assert verify(preset, target).passed
    assert json.loads((target / "conversion.json").read_text())["command"].endswith("--hidden-act gelu_new")
    assert "--hidden-act gelu_new" in (target / "README.md").read_text()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_next_conversion_has_the_usual_name(layout: LayoutName, preset: Path, tmp_path: Path) -> None:
    convert(preset, tmp_path / "source", to=layout, hidden_act="gelu_new")
    with read_checkpoint(tmp_path / "source") as checkpoint:
        assert checkpoint.architecture == SAMPLE_ARCHITECTURE
    convert(tmp_path / "source", tmp_path / "transformers", to="transformers")
    assert _hidden_act(tmp_path / "transformers") == "gelu_pytorch_tanh"
    convert(tmp_path / "source", tmp_path / "keras", to="keras")
    assert (tmp_path / "keras" / "config.json").read_bytes() == (preset / "config.json").read_bytes()


def test_a_classifier_has_it_beside_other_options(classifier: Path, tmp_path: Path) -> None:
    convert(classifier, tmp_path / "default", to="transformers", labels="no,yes")
    convert(classifier, tmp_path / "target", to="transformers", labels="no,yes", hidden_act="gelu_new")
    _, expected = _outputs(AlbertForSequenceClassification, tmp_path / "default")
    model, scores = _outputs(AlbertForSequenceClassification, tmp_path / "target")
    torch.testing.assert_close(scores, expected, **CLOSE)
    assert (model.config.hidden_act, model.config.id2label) == ("gelu_new", {0: "no", 1: "yes"})


def test_kerashubs_importer_reads_it(preset: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    convert(preset, target, to="universal", no_duplicate_weights=True, hidden_act="gelu_new")
    assert _hidden_act(target) == "gelu_new"
    assert verify(preset, target).passed


def test_a_source_with_another_name_gets_it(vocabulary: bytes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    options = WriteOptions(hidden_act="gelu_new")
    write_repository(random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary), source, "transformers", options)
    convert(source, tmp_path / "target", to="transformers", hidden_act="gelu_new")
    assert (_hidden_act(source), _hidden_act(tmp_path / "target")) == ("gelu_new", "gelu_new")


# What is refused.


@pytest.mark.parametrize("layout", ["keras", "albert_hub"])
def test_other_layouts_are_refused(layout: LayoutName, preset: Path, tmp_path: Path) -> None:
    message = f"Only the layouts transformers and universal have hidden_act, and the target's layout is {layout}"
    with pytest.raises(TargetError, match=message):
        convert(preset, tmp_path / "target", to=layout, hidden_act="gelu_new")
    with (
        read_checkpoint(preset) as checkpoint,
        pytest.raises(ValueError, match=f"The {layout} layout does not support hidden_act"),
    ):
        write_checkpoint(checkpoint, tmp_path, layout, hidden_act="gelu_new")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", get_args(HiddenAct))
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_other_activations_are_refused(activation: str, name: HiddenAct, vocabulary: bytes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    architecture = replace(SAMPLE_ARCHITECTURE, activation=activation)
    write_repository(random_checkpoint(architecture, vocabulary), source, "transformers")
    for layout in LAYOUTS:
        with pytest.raises(SourceError, match=f"source is {activation}, and {name} is another function"):
            convert(source, tmp_path / "target", to=layout, hidden_act=name)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_approximated_gelu_can_have_it(vocabulary: bytes, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    architecture = replace(SAMPLE_ARCHITECTURE, activation="gelu")
    write_repository(random_checkpoint(architecture, vocabulary), source, "transformers")
    convert(source, tmp_path / "target", to="universal", allow_approximate_gelu=True, hidden_act="gelu_new")
    assert _hidden_act(tmp_path / "target") == "gelu_new"
    assert verify(source, tmp_path / "target").passed


def test_unknown_names_are_refused(preset: Path, tmp_path: Path) -> None:
    message = "hidden_act must be one of None, gelu_pytorch_tanh, gelu_new, not 'gelu'"
    with pytest.raises(ValueError, match=message):
        convert(preset, tmp_path / "target", to="transformers", hidden_act="gelu")  # type: ignore[arg-type]
    command = ["convert", str(preset), str(tmp_path / "target"), "--to", "keras", "--hidden-act"]
    for name, part in (("gelu_old", "must be one of"), ("gelu_new", "Only the layouts transformers and universal")):
        result = CliRunner().invoke(app, [*command, name])
        assert result.exit_code == 2
        assert part in result.stderr
    assert not [*tmp_path.iterdir()]
