"""KerasHub predicts from raw text with every converted task, as transformers does with the source."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoTokenizer

from albert_hub_bridge import convert
from albert_hub_bridge.layouts.hub.repository import write_repository
from albert_hub_bridge.mapping.heads import HEADS, Head
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint


TEXTS = [
    "a bridge joins two banks of a river",
    "bread at the market",
    "a",
    "the river " * 400,  # is cut
]
# Positions of the model, `model_max_length` of the tokenizer, and the length of KerasHub's inputs.
LENGTHS = [(16, None, 16), (128, None, 128), (64, 40, 40), (64, 1000, 64), (600, None, 512), (600, 600, 600)]
HEAD_OPTIONS: dict[str, Head | None] = {
    "encoder": None,
    "classifier": Head(kind="sequence_classification", num_labels=3, labels=("bad", "so so", "good")),
    "classifier with softmax": Head(kind="sequence_classification", num_labels=4, activation="softmax"),
    "regression": Head(kind="sequence_classification", num_labels=1, problem_type="regression"),
    "masked LM": Head(kind="masked_lm", layer_norm_epsilon=1e-5),
}


def _converted(head: Head | None, positions: int, max_length: int | None, vocabulary: bytes, folder: Path) -> Path:
    """Write a repository, set its `model_max_length`, and convert it to a preset. Return the repository."""
    architecture = replace(SAMPLE_ARCHITECTURE, max_sequence_length=positions)
    source = folder / "source"
    source.mkdir()
    write_repository(random_checkpoint(architecture, vocabulary, head=head), source, "albert_hub")
    file = source / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps(settings | {"model_max_length": max_length or int(1e30)}))
    convert(source, folder / "keras", to="keras")
    return source


def _expected(source: Path, head: Head | None, length: int) -> np.ndarray:
    """Return the outputs of transformers for the texts."""
    auto = getattr(transformers, HEADS[head.kind].auto if head is not None else "AutoModel")
    inputs = AutoTokenizer.from_pretrained(source)(
        TEXTS, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    with torch.no_grad():
        outputs = auto.from_pretrained(source).eval()(**inputs)
    if head is None:
        return np.asarray(outputs.pooler_output)
    return np.asarray(outputs.logits.softmax(-1) if head.activation == "softmax" else outputs.logits)


@pytest.mark.parametrize(("positions", "max_length", "length"), LENGTHS)
def test_a_classifier_of_any_length(
    positions: int, max_length: int | None, length: int, vocabulary: bytes, tmp_path: Path
) -> None:
    import keras_hub

    head = HEAD_OPTIONS["classifier"]
    source = _converted(head, positions, max_length, vocabulary, tmp_path)
    model = keras_hub.models.AlbertTextClassifier.from_preset(str(tmp_path / "keras"))
    assert model.preprocessor.sequence_length == length
    np.testing.assert_allclose(model.predict(TEXTS, verbose=0), _expected(source, head, length), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [name for name in HEAD_OPTIONS if "class" in name or name == "regression"])
def test_every_classifier(name: str, vocabulary: bytes, tmp_path: Path) -> None:
    import keras_hub

    source = _converted(HEAD_OPTIONS[name], 32, None, vocabulary, tmp_path)
    model = keras_hub.models.AlbertTextClassifier.from_preset(str(tmp_path / "keras"))
    expected = _expected(source, HEAD_OPTIONS[name], 32)
    np.testing.assert_allclose(model.predict(TEXTS, verbose=0), expected, atol=1e-5, rtol=0)


def test_a_new_task_on_a_converted_encoder(vocabulary: bytes, tmp_path: Path) -> None:
    """Without `preprocessor.json`, KerasHub would pack 512 tokens for 16 positions."""
    import keras_hub

    source = _converted(None, 16, None, vocabulary, tmp_path)
    model = keras_hub.models.AlbertTextClassifier.from_preset(str(tmp_path / "keras"), num_classes=2)
    assert model.predict(TEXTS, verbose=0).shape == (len(TEXTS), 2)
    pooled = model.backbone.predict(model.preprocessor(TEXTS), verbose=0)["pooled_output"]
    np.testing.assert_allclose(pooled, _expected(source, None, 16), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("positions", "length"), [(16, 16), (128, 128)])
def test_a_masked_lm(positions: int, length: int, vocabulary: bytes, tmp_path: Path) -> None:
    import keras_hub

    source = _converted(HEAD_OPTIONS["masked LM"], positions, None, vocabulary, tmp_path)
    model = keras_hub.models.AlbertMaskedLM.from_preset(str(tmp_path / "keras"))
    assert model.preprocessor.sequence_length == length
    model.preprocessor.mask_selection_length = length
    inputs, *_ = model.preprocessor(TEXTS)  # masks other tokens in each call
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in inputs.items()}
    assert model.predict(TEXTS, verbose=0).shape == (
        *arrays["mask_positions"].shape,
        SAMPLE_ARCHITECTURE.vocabulary_size,
    )
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(source).eval()
    names = {"input_ids": "token_ids", "token_type_ids": "segment_ids", "attention_mask": "padding_mask"}
    with torch.no_grad():
        scores = theirs(**{name: torch.from_numpy(arrays[ours]).long() for name, ours in names.items()}).logits.numpy()
    expected = np.take_along_axis(scores, arrays["mask_positions"][..., None].astype(int), axis=1)
    without = keras_hub.models.AlbertMaskedLM.from_preset(str(tmp_path / "keras"), preprocessor=None)
    np.testing.assert_allclose(without.predict(arrays, verbose=0), expected, atol=1e-5, rtol=0)
