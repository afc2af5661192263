"""`--allow-approximate-gelu`: KerasHub computes gelu by its tanh form, and everyone says how much that changes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AlbertConfig, AlbertForSequenceClassification, AutoTokenizer
from typer.testing import CliRunner

from albert_hub_bridge import convert, verify
from albert_hub_bridge.cli import app
from albert_hub_bridge.errors import ConfigurationError, TargetError
from albert_hub_bridge.verification.sample_texts import SAMPLE_TEXTS
from conversion.sample import SAMPLE_ARCHITECTURE
from tests.conftest import albert_arguments


@pytest.fixture
def folder(vocabulary: bytes, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = AlbertConfig(**albert_arguments(SAMPLE_ARCHITECTURE) | {"hidden_act": "gelu"}, num_labels=3)
    model = AlbertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "source")
    (tmp_path / "source" / "spiece.model").write_bytes(vocabulary)
    return tmp_path / "source"


def test_gelu_needs_the_option(folder: Path, tmp_path: Path) -> None:
    message = r"activation +expected 'gelu_pytorch_tanh', found 'gelu'.*\n.*--allow-approximate-gelu"
    with pytest.raises(ConfigurationError, match=message):
        convert(folder, tmp_path / "keras", to="keras")
    with pytest.raises(TargetError, match="Only KerasHub needs an approximate gelu"):
        convert(folder, tmp_path / "keras", to="transformers", allow_approximate_gelu=True)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"layer_norm_eps": 1e-6}))
    with pytest.raises(ConfigurationError, match=r"layer_norm_epsilon(?s:.)*which can hold it\.$"):
        convert(folder, tmp_path / "keras", to="keras", allow_approximate_gelu=True)


def test_the_difference_is_measured_and_said(folder: Path, tmp_path: Path) -> None:
    import keras_hub

    target = tmp_path / "keras"
    result = CliRunner().invoke(app, ["convert", str(folder), str(target), "--to", "keras", "--allow-approximate-gelu"])
    assert result.exit_code == 0, result.output
    record, card = json.loads((target / "conversion.json").read_text()), (target / "README.md").read_text()
    said = [
        re.search(r"by its tanh approximation.*head_output by up to (\S+?)\. ", text) for text in (result.stdout, card)
    ]
    found = {float(match[1]) for match in said if match is not None}
    assert len([match for match in said if match is not None]) == 2
    assert record["approximate_gelu"] is True
    assert "--allow-approximate-gelu" in record["command"]
    # What transformers computes with the one and with the other function.
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(list(SAMPLE_TEXTS), padding=True, truncation=True, max_length=64, return_tensors="pt")
    inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
    scores = []
    for activation in ("gelu", "gelu_pytorch_tanh"):
        model = AlbertForSequenceClassification.from_pretrained(folder, hidden_act=activation).eval()
        with torch.no_grad():
            scores.append(model(**inputs).logits.numpy())
    effect = np.abs(scores[0] - scores[1]).max()
    assert effect > 1e-5
    # The report uses other segments for every other text, so only the size agrees.
    assert found.pop() == pytest.approx(effect, rel=0.9)
    theirs = keras_hub.models.AlbertTextClassifier.from_preset(str(target), preprocessor=None)
    names = {"input_ids": "token_ids", "token_type_ids": "segment_ids", "attention_mask": "padding_mask"}
    arrays = {ours: inputs[name].numpy() for name, ours in names.items()}
    np.testing.assert_allclose(theirs.predict(arrays, verbose=0), scores[1], atol=1e-5, rtol=0)


def test_verify_compares_the_rest_and_says_the_difference(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "keras", to="keras", allow_approximate_gelu=True)
    report = verify(folder, tmp_path / "keras")
    assert report.passed, report.checks
    assert max(report.max_abs_difference.values()) < 1e-5
    note = next(note for note in report.notes if "tanh approximation" in note)
    said = re.findall(r"by up to (\S+?)[,.] ", note)
    assert len(said) == 3
    assert all(1e-5 < float(effect) < 1 for effect in said)
    # Without the record, it is a difference as any other.
    (tmp_path / "keras" / "conversion.json").unlink()
    report = verify(folder, tmp_path / "keras")
    assert report.different_fields == {"activation": ("gelu", "gelu_pytorch_tanh")}
    assert {"configuration", "engines", "texts"} <= set(report.failed_checks)
