"""Repositories for sentence-transformers: the files that its `save` writes, and the vectors that it computes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml
from transformers import AutoModel, AutoTokenizer
from typer.testing import CliRunner

from albert_hub_bridge import card, convert, inspect
from albert_hub_bridge.choices import LayoutName, Pooling
from albert_hub_bridge.cli import app
from albert_hub_bridge.errors import AlbertHubBridgeError, ConfigurationError, SourceError, TargetError
from albert_hub_bridge.layouts.hub.files import POOLING_FILES
from albert_hub_bridge.layouts.hub.repository import write_repository
from albert_hub_bridge.layouts.hub.spelling import RepositoryLayout
from albert_hub_bridge.mapping.heads import Head
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, train_vocabulary
from tests.conftest import TEXTS
from tests.layouts.hub.test_remote_code import ELSEWHERE
from tests.servers.hub_server import HubServer
from tests.servers.local_server import client_environment, run_client


sentence_transformers: Any = pytest.importorskip("sentence_transformers")

CLOSE = {"atol": 1e-5, "rtol": 0}
LAYOUTS: tuple[RepositoryLayout, ...] = ("albert_hub", "transformers")


def _pooled(folder: Path, pooling: Pooling) -> torch.Tensor:
    """Return one vector of each text, without sentence-transformers."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs).last_hidden_state
    if pooling == "cls":
        return states[:, 0]
    mask = inputs["attention_mask"][..., None]
    return (states * mask).sum(1) / mask.sum(1)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_files_are_those_that_the_library_saves(
    layout: RepositoryLayout, pooling: Pooling, preset: Path, tmp_path: Path
) -> None:
    report = convert(preset, tmp_path / "ours", to=layout, sentence_transformers=pooling)
    assert report.sentence_transformers == pooling
    model = sentence_transformers.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    found = model.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(found, _pooled(tmp_path / "ours", pooling), **CLOSE)

    model.save(str(tmp_path / "theirs"))
    for name in POOLING_FILES:
        ours, theirs = (json.loads((tmp_path / who / name).read_text()) for who in ("ours", "theirs"))
        if "__version__" in theirs:  # ours is that of the oldest version that reads it
            assert ours.pop("__version__").keys() <= theirs.pop("__version__").keys()
        assert ours == theirs, name
    folders = {path.name for path in (tmp_path / "theirs").iterdir() if path.is_dir()}
    assert folders == {path.name for path in (tmp_path / "ours").iterdir() if path.is_dir()} == {"1_Pooling"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_default_pooling_without_the_files(layout: RepositoryLayout, preset: Path, tmp_path: Path) -> None:
    assert convert(preset, tmp_path / "plain", to=layout).sentence_transformers is None
    assert not any((tmp_path / "plain" / name).exists() for name in POOLING_FILES)
    model = sentence_transformers.SentenceTransformer(str(tmp_path / "plain"), device="cpu")
    found = model.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(found, _pooled(tmp_path / "plain", "mean"), **CLOSE)


def test_record_and_card_mention_the_pooling(preset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    convert(preset, folder, to="albert_hub", sentence_transformers="cls")
    record = json.loads((folder / "conversion.json").read_text())
    assert set(record["target"]["files"]) >= set(POOLING_FILES)
    assert record["sentence_transformers"] == "cls"
    assert record["command"].endswith("--sentence-transformers cls")
    text = (folder / "README.md").read_text()
    metadata = yaml.safe_load(text.split("---")[1])
    assert metadata["library_name"] == "sentence-transformers"
    assert metadata["pipeline_tag"] == "sentence-similarity"
    assert {"sentence-transformers", "feature-extraction", "albert"} <= set(metadata["tags"])
    code = text.partition("```python\nimport albert_hub_bridge\nfrom sentence_transformers")[2].partition("```")[0]
    assert 'SentenceTransformer("mine").encode(' in code
    assert "the state of its first token" in text
    card(folder)
    assert (folder / "README.md").read_text() == text
    (folder / "1_Pooling" / "config.json").write_text("{}")
    assert "since then: 1_Pooling/config.json (changed)" in str(inspect(folder).made_by)
    convert(preset, folder, to="albert_hub", overwrite=True)
    assert not any((folder / name).exists() for name in POOLING_FILES)


def test_a_pooled_repository_loads_from_a_hub(preset: Path, hub: HubServer, tmp_path: Path) -> None:
    convert(preset, tmp_path / "mine", to="transformers", sentence_transformers="mean")
    code = """
        from albert_hub_bridge import convert, push
        push(folder, "hf://user/mine", verify=False)
        result = convert("hf://user/mine", back, to="keras").notes
    """
    folders = {"folder": str(tmp_path / "mine"), "back": str(tmp_path / "back")}
    notes = run_client(code, client_environment(tmp_path / "home", hub), **folders)
    files = hub.files("user/mine")
    assert {name: files.get(name) for name in POOLING_FILES} == {
        name: (tmp_path / "mine" / name).read_bytes() for name in POOLING_FILES
    }
    assert "(Transformer, Pooling, pooling mean)" in str(notes)


def test_a_pooled_repository_with_code(preset: Path, tmp_path: Path) -> None:
    convert(preset, tmp_path / "mine", to="albert_hub", include_code=True, sentence_transformers="mean")
    example = 'SentenceTransformer("mine", trust_remote_code=True).encode('
    assert example in (tmp_path / "mine" / "README.md").read_text()
    code = f"""import sys
{ELSEWHERE}
from sentence_transformers import SentenceTransformer
result = SentenceTransformer(folder, trust_remote_code=True, device="cpu").encode(texts).tolist()
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    environment["HF_MODULES_CACHE"] = str(tmp_path / "home" / "modules")
    found = run_client(code, environment, folder=str(tmp_path / "mine"), texts=TEXTS)
    torch.testing.assert_close(torch.tensor(found), _pooled(tmp_path / "mine", "mean"), **CLOSE)


# What is refused, and what is lost.


def _repository(folder: Path, head: Head | None = None, vocabulary: bool = True) -> Path:
    folder.mkdir()
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, train_vocabulary() if vocabulary else None, head=head)
    write_repository(checkpoint, folder, "transformers")
    return folder


@pytest.mark.parametrize(
    ("head", "vocabulary", "to", "error", "message"),
    [
        (None, True, "keras", TargetError, "sentence-transformers loads no KerasHub presets"),
        (
            None,
            False,
            "transformers",
            SourceError,
            "has no vocabulary that is read, and sentence-transformers takes texts",
        ),
        (
            Head(kind="masked_lm"),
            True,
            "transformers",
            SourceError,
            r"has a head \(masked-LM head\), and .*Pass --drop-head",
        ),
    ],
)
def test_presets_heads_and_missing_vocabularies_are_refused(
    head: Head | None,
    vocabulary: bool,
    to: Literal["keras", "transformers"],
    error: type[AlbertHubBridgeError],
    message: str,
    tmp_path: Path,
) -> None:
    source = _repository(tmp_path / "source", head, vocabulary)
    with pytest.raises(error, match=message):
        convert(source, tmp_path / "target", to=to, sentence_transformers="mean")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_unknown_pooling_is_refused(preset: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sentence_transformers must be one of None, mean, cls, not 'max'"):
        convert(preset, tmp_path / "target", to="transformers", sentence_transformers="max")  # type: ignore[arg-type]
    command = ["convert", str(preset), str(tmp_path / "target"), "--to", "keras", "--sentence-transformers", "mean"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "loads no KerasHub presets" in result.stderr
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["pretraining", "sequence_classification"])
def test_a_head_is_dropped_on_request(
    kind: Literal["pretraining", "sequence_classification"], layout: RepositoryLayout, tmp_path: Path
) -> None:
    source = _repository(tmp_path / "source", Head(kind=kind))
    report = convert(source, tmp_path / "target", to=layout, sentence_transformers="mean", drop_head=True)
    assert report.head is None
    assert {tensor.reason for tensor in report.dropped} == {"unsupported by sentence-transformers"}
    assert len(report.dropped) == (7 if kind == "pretraining" else 2)
    model = sentence_transformers.SentenceTransformer(str(tmp_path / "target"), device="cpu")
    found = model.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(found, _pooled(source, "mean"), **CLOSE)


_OLD_POOLING = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}


def _other_model(folder: Path, source: Path, *modules: Any) -> Any:
    """Save the model that sentence-transformers makes of a repository and more modules, and return it."""
    model = sentence_transformers.SentenceTransformer(str(source), device="cpu")
    for module in modules:
        model.append(module)
    model.max_seq_length = 9
    model.save(str(folder))
    return model


@pytest.mark.parametrize("to", ["albert_hub", "transformers"])
def test_modules_of_a_source_are_carried_over(to: LayoutName, preset: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    modules = sentence_transformers.sentence_transformer.modules
    convert(preset, tmp_path / "ours", to="transformers", sentence_transformers="mean")
    dense = modules.Dense(32, 8)
    model = _other_model(tmp_path / "theirs", tmp_path / "ours", dense, modules.Normalize())
    report = convert(tmp_path / "theirs", tmp_path / "target", to=to)
    assert report.sentence_transformers == "mean"
    description = "Transformer, Pooling, Dense, Normalize, pooling mean"
    assert f"It is a model for sentence-transformers ({description})." in report.notes
    found = sentence_transformers.SentenceTransformer(str(tmp_path / "target"), device="cpu")
    assert found.max_seq_length == 9
    torch.testing.assert_close(found.encode(TEXTS), model.encode(TEXTS), **CLOSE)
    assert found.encode(TEXTS).shape == (len(TEXTS), 8)

    report = convert(tmp_path / "theirs", tmp_path / "keras", to="keras")
    assert report.sentence_transformers is None
    assert "KerasHub is not for sentence-transformers" in str(report.notes)
    report = convert(tmp_path / "theirs", tmp_path / "cls", to=to, sentence_transformers="cls")
    assert report.sentence_transformers == "cls"
    assert not (tmp_path / "cls" / "2_Dense").exists()


@pytest.mark.parametrize(
    ("change", "obstacle"),
    [
        (lambda folder, rows: rows[1].update(type="their_code.Pooling"), "their_code.Pooling is code of the source"),
        (lambda folder, rows: rows[1].update(path="../1_Pooling"), "../1_Pooling is a module that this package does"),
        (
            lambda folder, rows: (folder / "1_Pooling" / "pytorch_model.bin").write_bytes(b"x"),
            "1_Pooling/pytorch_model.bin is a pickle",
        ),
    ],
)
def test_modules_that_are_not_carried_over_are_named(
    change: Callable[[Path, list[dict[str, Any]]], object], obstacle: str, preset: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "theirs"
    convert(preset, folder, to="transformers", sentence_transformers="mean")
    rows = json.loads((folder / "modules.json").read_text())
    change(folder, rows)
    (folder / "modules.json").write_text(json.dumps(rows))
    report = convert(folder, tmp_path / "target", to="transformers")
    assert f"were not converted, because {obstacle}" in str(report.notes)
    assert report.sentence_transformers is None
    assert not (tmp_path / "target" / "modules.json").exists()


_OLD_POOLING = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}


def test_the_pooling_of_a_source_has_a_note(preset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    convert(preset, folder, to="transformers", sentence_transformers="mean")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(_OLD_POOLING))
    assert "pooling cls_token)" in str(inspect(folder).notes)
    (folder / "modules.json").write_text('{"idx": 0}')
    with pytest.raises(ConfigurationError, match=r"unusable +modules.json +expected a list of modules"):
        inspect(folder)
