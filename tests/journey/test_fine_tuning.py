"""The way of a fine-tuned model: from Keras to transformers, trained on there, back to Keras, and to a hub.

Each step is done with the real library, from raw texts, and each command as a user types it. The preset's folder has
the name of a published preset, which must never be taken for it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from albert_hub_bridge.model.architecture import Architecture
from conversion.sample import SAMPLE_ARCHITECTURE
from tests.forked import run_module
from tests.servers.hub_server import HubServer
from tests.servers.local_server import client_environment, run_client


PRESET = "albert_base_en_uncased"
TEXTS = ["a bridge joins two banks", "bread costs two coins", "nothing is lost", "the river rises"] * 2
LABELS = [1, 0, 1, 0] * 2
TOLERANCE = 1e-5  # of probabilities in float32, between two libraries


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(*arguments: str, environment: dict[str, str] | None = None) -> str:
    done = run_module("albert_hub_bridge", arguments, environment)
    assert done.code == 0, done.stdout + done.stderr
    return done.stdout


def _backbone() -> Any:
    import keras_hub

    architecture = Architecture(**{**asdict(SAMPLE_ARCHITECTURE), "dropout": 0.0})
    backbone = keras_hub.models.AlbertBackbone(**architecture.keras_arguments)
    random = np.random.default_rng(11)
    for weight in backbone.weights:
        weight.assign(weight.numpy() + 0.05 * random.standard_normal(weight.shape))
    return backbone


def _examples(tokenizer: Any, labels: list[Any]) -> list[dict[str, Any]]:
    columns = {**tokenizer(TEXTS, padding=True), "labels": labels}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _train(model: Any, dataset: list[dict[str, Any]], folder: Path) -> None:
    """Train a model of transformers for two steps, and save it with its tokenizer as users do."""
    arguments = transformers.TrainingArguments(
        str(folder / "steps"),
        max_steps=2,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    transformers.Trainer(model=model, args=arguments, train_dataset=dataset).train()
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.save_pretrained(folder)


def test_classifier(workplace: Path, vocabulary: bytes, hub: HubServer) -> None:
    import keras
    import keras_hub

    keras.utils.set_random_seed(1)
    preprocessor = keras_hub.models.AlbertTextClassifierPreprocessor(
        keras_hub.models.AlbertTokenizer(vocabulary), sequence_length=24
    )
    classifier = keras_hub.models.AlbertTextClassifier(
        _backbone(), num_classes=2, activation="softmax", preprocessor=preprocessor
    )
    classifier.compile(optimizer=keras.optimizers.Adam(0.01), loss="sparse_categorical_crossentropy", jit_compile=False)
    classifier.fit(np.array(TEXTS), np.array(LABELS), batch_size=4, epochs=4, shuffle=False, verbose=0)
    classifier.save_to_preset(PRESET)

    labels = ["--labels", "negative,positive", "--license", "apache-2.0", "--language", "en"]
    told = _run("convert", PRESET, "reviews", "--to", "transformers", *labels)
    assert f"albert-hub-bridge verify {PRESET} reviews" in told
    assert "PASSED" in _run("verify", PRESET, "reviews")
    assert np.ptp(classifier.predict(np.array(TEXTS), verbose=0)[:, 0]) > 0.1  # it has learned to tell texts apart
    _equal_probabilities(classifier, workplace / "reviews")

    tokenizer = transformers.AutoTokenizer.from_pretrained("reviews")
    model = transformers.AutoModelForSequenceClassification.from_pretrained("reviews")
    _train(model, _examples(tokenizer, LABELS), workplace / "trained")
    tokenizer.save_pretrained("trained")

    _run("convert", "trained", "back", "--to", "keras")
    assert "PASSED" in _run("verify", "trained", "back")
    again = keras_hub.models.TextClassifier.from_preset(str(workplace / "back"))
    assert type(again).__name__ == "AlbertTextClassifier"
    _equal_probabilities(again, workplace / "trained")
    named = json.loads((workplace / "back" / "task.json").read_text())["labels"]
    assert named == ["negative", "positive"]

    environment = client_environment(workplace / "home", hub)
    _run("push", "reviews", "hf://user/reviews", environment=environment)
    card = hub.files("user/reviews")["README.md"].decode()
    assert "license: apache-2.0" in card
    assert "language: en" in card
    assert "negative" in card.partition("## Is it the same model?")[0]
    loaded = run_client(
        """
        from transformers import pipeline
        result = pipeline("text-classification", "user/reviews", top_k=None)([text])[0]
        """,
        environment,
        text=TEXTS[0],
    )
    found = {answer["label"]: answer["score"] for answer in loaded}
    expected = classifier.predict(np.array(TEXTS[:1]), verbose=0)[0]
    assert np.abs([found["negative"], found["positive"]] - expected).max() < TOLERANCE


def _equal_probabilities(classifier: Any, repository: Path) -> None:
    """Assert that KerasHub and transformers' pipeline give the same probabilities for raw texts."""
    answers = transformers.pipeline("text-classification", str(repository), top_k=None)(TEXTS[:4])
    by_name = [{answer["label"]: answer["score"] for answer in each} for each in answers]
    scores = classifier.predict(np.array(TEXTS[:4]), verbose=0)
    if classifier.get_config()["activation"] in (None, "linear"):
        scores = torch.tensor(scores).softmax(-1).numpy()
    expected = np.array(scores)
    assert np.abs(np.array([[each["negative"], each["positive"]] for each in by_name]) - expected).max() < TOLERANCE


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables .'pooled_dense")  # the head has no use for it
def test_masked_lm(workplace: Path, vocabulary: bytes) -> None:
    import keras_hub

    tokenizer = keras_hub.models.AlbertTokenizer(vocabulary)
    preprocessor = keras_hub.models.AlbertMaskedLMPreprocessor(tokenizer, sequence_length=24, mask_selection_length=4)
    masked_lm = keras_hub.models.AlbertMaskedLM(_backbone(), preprocessor=preprocessor)
    masked_lm.compile(optimizer="adam", loss="sparse_categorical_crossentropy", jit_compile=False)
    masked_lm.fit(np.array(TEXTS), batch_size=4, epochs=1, shuffle=False, verbose=0)
    masked_lm.save_to_preset(PRESET)

    _run("convert", PRESET, "filler", "--to", "transformers")
    assert "PASSED" in _run("verify", PRESET, "filler")
    fast = transformers.AutoTokenizer.from_pretrained("filler")
    model = transformers.AutoModelForMaskedLM.from_pretrained("filler").eval()
    text = f"a bridge {fast.mask_token} two banks"
    filled = transformers.pipeline("fill-mask", model=model, tokenizer=fast)(text, top_k=5)
    assert [answer["token"] for answer in filled] == _best_of_keras(masked_lm, fast, text)

    _train(model, _examples(fast, fast(TEXTS, padding=True)["input_ids"]), workplace / "trained")
    fast.save_pretrained("trained")
    _run("convert", "trained", "back", "--to", "keras")
    assert "PASSED" in _run("verify", "trained", "back")
    again = keras_hub.models.MaskedLM.from_preset(str(workplace / "back"))
    filled = transformers.pipeline("fill-mask", "trained")(text, top_k=5)
    assert [answer["token"] for answer in filled] == _best_of_keras(again, fast, text)


def _best_of_keras(masked_lm: Any, tokenizer: Any, text: str) -> list[int]:
    """Return the five best ids that KerasHub's masked LM gives for the one mask of a text."""
    import keras

    encoded = tokenizer(text)
    ids = np.array([encoded["input_ids"]], dtype="int32")
    inputs = {
        "token_ids": ids,
        "segment_ids": np.array([encoded["token_type_ids"]], dtype="int32"),
        "padding_mask": np.ones_like(ids),
        "mask_positions": np.argwhere(ids[0] == tokenizer.mask_token_id).T.astype("int32"),
    }
    scores = keras.ops.convert_to_numpy(masked_lm(inputs))[0, 0]
    return [int(index) for index in np.argsort(-scores)[:5]]
