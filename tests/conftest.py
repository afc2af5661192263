"""Fixtures: a vocabulary, presets that the real keras_hub wrote, and what keras_hub computes with them."""

from __future__ import annotations

import os


os.environ.setdefault("KERAS_BACKEND", "torch")  # before anything imports keras
if "PYTEST_XDIST_WORKER" in os.environ:  # a worker for each core: more threads would only wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each process would compile all modules of this package again
os.environ["HF_HUB_OFFLINE"] = "1"  # no test goes past 127.0.0.1; those that speak to a server there say so

import importlib.util


if importlib.util.find_spec("triton") is not None:  # torch for CUDA brings it
    importlib.import_module("triton")  # imported after TensorFlow, it ends the process

import gc
import json
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albert_hub_bridge import AlbertHubConfig, convert, verify
from albert_hub_bridge.commands.recording import record_verification
from albert_hub_bridge.layouts.registry import write_checkpoint
from albert_hub_bridge.mapping.heads import Head
from albert_hub_bridge.model.architecture import Architecture
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, train_vocabulary, write_sample_preset
from tests.servers.hub_server import HubServer
from tests.servers.local_server import client_environment


FIXTURES = Path(__file__).parent / "fixtures"

TEXTS = [
    "a bridge joins two banks of a river",
    "Nothing that crosses it is lost!",
    "bread costs 2.50 £ at the market (or 3 €)",
    "Crème brûlée   and  日本語 🙂",
    "a",
]


def quantize(model: Any) -> None:
    """Quantize a model of Keras to int8. Keras collects garbage for each layer, so what exists is left out of that."""
    gc.freeze()
    model.quantize("int8")
    gc.unfreeze()


@dataclass(frozen=True)
class KerasPreset:
    """A preset of the real keras_hub, with packed inputs and what keras_hub computes for them."""

    folder: Path
    architecture: Architecture
    backbone: Any
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


def albert_arguments(architecture: Architecture) -> dict[str, Any]:
    """Return the arguments of transformers' `AlbertConfig` for an architecture."""
    ours = AlbertHubConfig(**asdict(architecture))
    aliases = {name: getattr(ours, name) for name in AlbertHubConfig.attribute_map}
    return {**aliases, "attention_probs_dropout_prob": architecture.dropout}


def converted(preset: Path, folder: Path, to: str = "transformers") -> Path:
    """Convert a preset, verify the result, and record that in its `conversion.json`. Return the folder."""
    convert(preset, folder, to=to)  # type: ignore[arg-type]
    assert record_verification(folder, verify(preset, folder), preset) == "recorded"
    return folder


def library_ids(folder: Path, texts: list[str]) -> list[list[int]]:
    """Return the ids that the library of a folder computes: the real KerasHub or transformers."""
    if (folder / "assets").is_dir():
        import keras_hub

        keras = keras_hub.models.AlbertTokenizer.from_preset(str(folder))
        return [[int(index) for index in row] for row in keras(texts)]
    from transformers import AutoTokenizer

    rows = AutoTokenizer.from_pretrained(folder)(texts, add_special_tokens=False, split_special_tokens=True)
    return [list(row) for row in rows["input_ids"]]


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample preset of `conversion/`. Modules that need another one define their own `preset`."""
    folder = tmp_path_factory.mktemp("preset") / "sample"
    write_sample_preset(folder)
    return folder


@contextmanager
def _skipped_without_keras_hub() -> Iterator[None]:
    """Skip what imports KerasHub where it cannot be installed, as on Python 3.14."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("keras", "keras_hub"):
            pytest.skip("KerasHub is not installed")
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, None, None]:
    with _skipped_without_keras_hub():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    with _skipped_without_keras_hub():
        yield


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preset of a text classifier, as KerasHub saves it: without names of labels."""
    folder = tmp_path_factory.mktemp("labels") / "classifier"
    folder.mkdir()
    head = Head(kind="sequence_classification", num_labels=2)
    write_checkpoint(random_checkpoint(SAMPLE_ARCHITECTURE, train_vocabulary(), head=head), folder, "keras")
    assert "labels" not in json.loads((folder / "task.json").read_text())
    return folder


@pytest.fixture(scope="session")
def vocabulary() -> bytes:
    return train_vocabulary()


@pytest.fixture(scope="session")
def vocabulary_file(vocabulary: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("vocabulary") / "spiece.model"
    file.write_bytes(vocabulary)
    return file


@pytest.fixture(scope="session")
def keras_preset(vocabulary: bytes, tmp_path_factory: pytest.TempPathFactory) -> KerasPreset:
    import keras_hub

    architecture = Architecture(**{**asdict(SAMPLE_ARCHITECTURE), "dropout": 0.1})
    backbone = keras_hub.models.AlbertBackbone(**architecture.keras_arguments)
    random = np.random.default_rng(7)
    for weight in backbone.weights:  # biases and layer norms too, so that a lost one shows
        # KerasHub's own values are random in every run, so they are replaced: around 1 in a gamma, around 0 elsewhere.
        weight.assign(weight.path.endswith("gamma") + 0.3 * random.standard_normal(weight.shape))
    tokenizer = keras_hub.models.AlbertTokenizer(vocabulary)
    preprocessor = keras_hub.models.AlbertTextClassifierPreprocessor(tokenizer, sequence_length=40)
    inputs = {name: np.asarray(value) for name, value in preprocessor(TEXTS).items()}
    folder = tmp_path_factory.mktemp("keras") / "preset"
    backbone.save_to_preset(str(folder))
    tokenizer.save_to_preset(str(folder))
    outputs = {name: np.asarray(value) for name, value in backbone.predict(inputs, verbose=0).items()}
    return KerasPreset(folder, architecture, backbone, inputs, outputs)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """Start a Hub, and see to it that nothing was asked of any other."""
    with HubServer() as server:
        yield server
    assert not server.requests("CONNECT"), "a client wanted to leave the machine"


@pytest.fixture
def environment(hub: HubServer, tmp_path: Path) -> dict[str, str]:
    return client_environment(tmp_path / "home", hub)


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what unpacks a fixture, once, and returns its folder."""
    parent = tmp_path_factory.mktemp("fixtures")

    def unpack(name: str) -> Path:
        if not (parent / name).is_dir():
            with zipfile.ZipFile(FIXTURES / f"{name}.zip") as archive:
                archive.extractall(parent / name)
        return parent / name

    return unpack
