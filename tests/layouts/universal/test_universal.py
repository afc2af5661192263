"""Universal folders: unmodified transformers and unmodified KerasHub load one repository, and compute the same."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from sentencepiece import sentencepiece_model_pb2

from albert_hub_bridge import check, complete, convert, inspect, push, verify
from albert_hub_bridge.errors import CheckpointError, ConfigurationError, TargetError
from albert_hub_bridge.layouts.hub.tokenizer_files import different_files
from albert_hub_bridge.layouts.registry import needed_files, open_source, read_checkpoint, write_checkpoint
from albert_hub_bridge.layouts.universal.completion import write_other_half
from albert_hub_bridge.mapping.heads import Head
from albert_hub_bridge.mapping.weights import POOLER
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, train_vocabulary
from tests.conftest import TEXTS
from tests.servers.hub_server import HubServer
from tests.servers.local_server import client_environment, run_client


@dataclass(frozen=True)
class Kind:
    """A checkpoint, and how it is converted."""

    head: Head | None = None
    options: tuple[tuple[str, Any], ...] = ()
    saved: bool = False  # from a repository with the tokenizer that transformers 5 saves, instead of a preset
    completed: bool = False  # keeps the files of its source, as after `complete`


def _classifier(activation: Any, **settings: Any) -> Head:
    return Head(kind="sequence_classification", num_labels=3, activation=activation, **settings)


KINDS = {
    "encoder": Kind(),
    "uncased": Kind(options=(("normalize", "uncased"),)),
    "saved": Kind(saved=True),
    "imported": Kind(options=(("normalize", "uncased"), ("no_duplicate_weights", True))),
    "softmax": Kind(_classifier("softmax", labels=("no", "maybe", "yes")), (("max_shard_size", 30_000),)),
    "sigmoid": Kind(_classifier("sigmoid"), (("dtype", "bfloat16"), ("max_shard_size", 20_000))),
    "linear": Kind(_classifier(None, dropout=0.3), (("dtype", "bfloat16"), ("normalize", "uncased"))),
    "masked_lm": Kind(Head(kind="masked_lm"), (("normalize", "uncased"),)),
    "completed_preset": Kind(_classifier(None), completed=True),
    "completed_repository": Kind(_classifier(None), saved=True, completed=True),
}
# Both sides pad to 64 tokens, the positions of the sample.
IN_TRANSFORMERS = """
import numpy as np, torch, transformers
from transformers import AutoModel, AutoTokenizer
found, result = {}, {}
for kind, auto in kinds.items():
    name = f"user/{kind}"
    tokenizer = AutoTokenizer.from_pretrained(name)
    batch = tokenizer(texts, padding="max_length", truncation=True, max_length=64, return_tensors="pt")
    model = getattr(transformers, auto).from_pretrained(name, dtype=torch.float32).eval()
    encoder = AutoModel.from_pretrained(name, dtype=torch.float32).eval()
    if kind == "masked_lm":  # KerasHub's head has another epsilon, and no configuration has both
        model.predictions.LayerNorm.eps = 1e-5
    with torch.no_grad():
        states, outputs = encoder(**batch), model(**batch)
    found[f"{kind} ids"] = batch["input_ids"].numpy()
    found[f"{kind} sequence"] = states.last_hidden_state.numpy()
    found[f"{kind} pooled"] = states.pooler_output.numpy()
    if "logits" in outputs:
        activation = {"softmax": lambda x: x.softmax(-1), "sigmoid": torch.sigmoid}.get(kind, lambda x: x)
        found[f"{kind} head"] = activation(outputs.logits).numpy()
        result[kind] = [model.config.id2label[index] for index in range(len(model.config.id2label))]
np.savez(file, **found)
import sys
assert "albert_hub_bridge" not in sys.modules and "keras" not in sys.modules
"""
IN_KERAS_HUB = """
import numpy as np, keras_hub
from keras import ops
models = keras_hub.models
found = {}
for kind in kinds:
    name = f"hf://user/{kind}"
    if kind == "masked_lm":
        task = models.MaskedLM.from_preset(name, dtype="float32")
        assert type(task.preprocessor).__name__ == "AlbertMaskedLMPreprocessor"
        preprocessor = models.AlbertTextClassifierPreprocessor(task.preprocessor.tokenizer, sequence_length=64)
    else:
        preprocessor = models.TextClassifierPreprocessor.from_preset(name, sequence_length=64)
        if kind not in encoders:
            task = models.TextClassifier.from_preset(name, dtype="float32")
    batch = {key: ops.convert_to_numpy(value) for key, value in preprocessor(texts).items()}
    backbone = models.Backbone.from_preset(name, dtype="float32")
    assert type(backbone).__name__ == "AlbertBackbone"
    states = backbone.predict(batch, verbose=0)
    found[f"{kind} ids"] = batch["token_ids"]
    found[f"{kind} sequence"], found[f"{kind} pooled"] = states["sequence_output"], states["pooled_output"]
    if kind == "masked_lm":
        positions = np.broadcast_to(np.arange(64), batch["token_ids"].shape)
        task.preprocessor = None
        found[f"{kind} head"] = task.predict({**batch, "mask_positions": positions}, verbose=0)
    elif kind not in encoders:
        found[f"{kind} head"] = task.predict(texts, verbose=0)  # from raw text
    file_of_its_own = {} if kind in own_names else {"config_file": "keras_tokenizer.json"}
    alone = models.Tokenizer.from_preset(name, **file_of_its_own)
    assert all(list(alone(text)) == list(preprocessor.tokenizer(text)) for text in texts)
np.savez(file, **{key: ops.convert_to_numpy(value) for key, value in found.items()})
import sys
assert "albert_hub_bridge" not in sys.modules
"""
ENCODERS = [name for name, kind in KINDS.items() if kind.head is None]
AUTO = {**dict.fromkeys(ENCODERS, "AutoModel"), "masked_lm": "AutoModelForMaskedLM"}


def _save_as_transformers_5(folder: Path) -> None:
    """Replace the tokenizer of a repository by what transformers 5 makes of its `spiece.model`, and saves."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    tokenizer = transformers.AlbertTokenizer.from_pretrained(folder)
    (folder / "spiece.model").unlink()
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(vocabulary: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source of each kind, `NAME-source`, and the universal folder made of it, `NAME`."""
    parent = tmp_path_factory.mktemp("universal")
    for seed, (name, kind) in enumerate(KINDS.items()):
        source, checkpoint = (
            parent / f"{name}-source",
            random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary, seed=seed, head=kind.head),
        )
        source.mkdir()
        write_checkpoint(checkpoint, source, "transformers" if kind.saved else "keras")
        if kind.saved:
            _save_as_transformers_5(source)
        if kind.completed:
            _complete(source, parent / name)
            continue
        report = convert(source, parent / name, to="universal", **dict(kind.options))
        assert report.layout == ("transformers" if name == "imported" else "universal")
    return parent


def _complete(source: Path, folder: Path) -> None:
    """Do what `complete` does, without a verification and without the card."""
    shutil.copytree(source, folder)
    half = folder / "half"
    half.mkdir()
    opened = open_source(source)
    with read_checkpoint(opened) as checkpoint:
        write_other_half(checkpoint, opened, half)
    shutil.copytree(half, folder, dirs_exist_ok=True)
    shutil.rmtree(half)


def _files(folder: Path) -> dict[str, bytes | str]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_both_libraries_load_one_name(folders: Path, hub: HubServer, tmp_path: Path) -> None:
    for name in KINDS:
        hub.add_repo(f"user/{name}", _files(folders / name))
    autos = {name: AUTO.get(name, "AutoModelForSequenceClassification") for name in KINDS}
    found = []
    for library, code in (("transformers", IN_TRANSFORMERS), ("keras_hub", IN_KERAS_HUB)):
        environment = client_environment(tmp_path / library, hub) | {"HF_HUB_OFFLINE": "0"}
        file = tmp_path / f"{library}.npz"
        values = {"kinds": autos, "encoders": ENCODERS, "own_names": ["completed_preset", "imported"], "texts": TEXTS}
        labels = run_client(code, environment, **values, file=str(file))
        found.append(dict(np.load(file)))
        if library == "transformers":
            assert labels["softmax"] == ["no", "maybe", "yes"]
    ours, theirs = found
    assert set(ours) == set(theirs)
    assert len(ours) == 4 * len(KINDS) - len(ENCODERS), "ids, states, the pooled output, and scores"
    for name, expected in theirs.items():
        if name.endswith(" ids"):
            np.testing.assert_array_equal(ours[name], expected, err_msg=name)
    for name, expected in theirs.items():
        if name.endswith(" ids"):
            continue
        mask = theirs[f"{name.split()[0]} ids"] > 0 if expected.ndim == 3 else ...
        np.testing.assert_allclose(ours[name][mask], expected[mask], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", ["softmax", "linear", "masked_lm"])
def test_every_layout_is_made_of_it_again(name: str, folders: Path, tmp_path: Path) -> None:
    with read_checkpoint(folders / name) as expected:
        tensors = {key: weight.read().tobytes() for key, weight in expected.weights.items()}
        for to in ("keras", "transformers", "albert_hub"):
            convert(folders / name, tmp_path / to, to=to)  # type: ignore[arg-type]
            with read_checkpoint(tmp_path / to) as found:
                assert {key: weight.read().tobytes() for key, weight in found.weights.items()} == tensors
                assert found.head is None or (expected.head and found.head.labels == expected.head.labels)
    shards = {key: value for key, value in KINDS[name].options if key == "max_shard_size"}
    convert(tmp_path / "transformers", tmp_path / "again", to="universal", **shards)
    before, after = _files(folders / name), _files(tmp_path / "again")
    for files in (before, after):
        for record in ("conversion.json", "README.md"):
            files.pop(record)
    assert after == before


def test_source_without_pooler_and_with_the_files_of_a_tokenizer(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    whole = random_checkpoint(SAMPLE_ARCHITECTURE, train_vocabulary(user_defined_symbols=[]))
    rules = [rule for rule in whole.encoder_rules if rule.albert_hub in POOLER]
    write_checkpoint(whole.without(rules, None, "for this test"), source, "transformers")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (source / name).unlink()
    transformers.AlbertTokenizer.from_pretrained(source).save_pretrained(source)
    report = convert(source, target, to="universal")
    assert report.tokenizer == "AlbertTokenizer"
    assert (target / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert any("pooled_output will be zeros" in note for note in report.notes)
    with read_checkpoint(target) as checkpoint:
        assert checkpoint.layout == "universal"
        assert checkpoint.has_pooler
    assert verify(source, target).passed
    assert "a KerasHub preset and a Hub repository" in str(inspect(target))
    assert check(target).passed


def test_tokenizer_of_transformers_5_is_carried_over(folders: Path, tmp_path: Path) -> None:
    """It cuts pieces out of a text first, and KerasHub's half gives the same ids."""
    source, folder = folders / "saved-source", tmp_path / "folder"
    report = convert(source, folder, to="universal")
    assert report.changed_texts == 1, "the old quotes"
    assert any("out of a text first, and begins a word after each" in note for note in report.notes)
    assert (folder / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    texts = ["hello. (see a-b) 3.0", "Bread: 2.50 £"]
    assert verify(source, folder, texts=texts).passed
    assert verify(source, folder, texts=["``Old quotes''"]).failed_checks == ["texts (KerasHub)"]
    file = folder / "assets/tokenizer/vocabulary.spm"
    content = file.read_bytes()
    cut = sentencepiece_model_pb2.ModelProto.FromString(content)
    for edit, message in (
        (lambda piece: setattr(piece, "type", piece.NORMAL), "expected the type USER_DEFINED, .* found NORMAL"),
        (
            lambda piece: setattr(piece, "piece", piece.piece.lstrip("▁")),
            r"expected \('▁\(', 0.0\) as tokenizer.json has",
        ),
    ):
        changed = type(cut)()
        changed.CopyFrom(cut)
        for piece in changed.pieces:
            if piece.type == piece.USER_DEFINED and piece.piece.startswith("▁"):
                edit(piece)
        file.write_bytes(changed.SerializeToString())
        with pytest.raises(CheckpointError, match=message):
            read_checkpoint(folder)
    file.write_bytes(content)
    convert(folder, tmp_path / "preset", to="keras")
    assert (tmp_path / "preset/assets/tokenizer/vocabulary.spm").read_bytes() == content


def test_verify_computes_both_halves(folders: Path, tmp_path: Path) -> None:
    report = verify(folders / "softmax-source", folders / "softmax")
    assert report.passed, report
    assert list(report.checks)[-2:] == ["engines (KerasHub)", "texts (KerasHub)"]
    assert report.target_engine.startswith("transformers")
    assert report.checks["engines"].not_measured[0].startswith("rows with only padding")
    json.dumps(report.as_dict())


def test_verify_finds_what_only_keras_hub_computes_otherwise(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A preset that was changed behind the check of the halves."""
    target = tmp_path / "target"
    shutil.copytree(folders / "encoder", target)
    shutil.copyfile(folders / "uncased" / "assets/tokenizer/vocabulary.spm", target / "assets/tokenizer/vocabulary.spm")
    monkeypatch.setattr("albert_hub_bridge.layouts.universal.folder.check_halves", lambda *halves: None)
    report = verify(folders / "encoder-source", target)
    assert report.failed_checks == ["texts (KerasHub)"]


def test_verified_folder_is_pushed_in_one_commit_and_loaded(folders: Path, hub: HubServer, tmp_path: Path) -> None:
    target = tmp_path / "target"
    shutil.copytree(folders / "encoder", target)
    with pytest.raises(TargetError, match="was not compared"):
        push(target, "hf://user/model")
    assert verify(folders / "encoder-source", target, record=True)
    card = (target / "README.md").read_text()
    assert "| outputs for generated tokens, computed by KerasHub | equal" in card
    code = """
    from albert_hub_bridge import inspect, push
    push(folder, "hf://user/model", message="Both")
    result = inspect("hf://user/model").as_dict()["layout"]
    """
    environment = client_environment(tmp_path / "home", hub) | {"HF_HUB_OFFLINE": "0"}
    assert run_client(code, environment, folder=str(target)) == "universal"
    assert [commit.title for commit in hub.commits("user/model")] == ["Both", "initial commit"]
    pushed = hub.files("user/model")
    assert set(_files(target)) <= set(pushed)
    card = pushed["README.md"].decode()
    assert 'AutoModel.from_pretrained("user/model")' in card
    assert 'keras_hub.models.AlbertBackbone.from_preset("hf://user/model")' in card
    assert 'config_file="keras_tokenizer.json"' in card


def test_everything_of_a_universal_repository_is_downloaded(folders: Path) -> None:
    names = list(_files(folders / "softmax"))
    assert set(needed_files([*names, "pytorch_model.bin", "other.txt"])) == set(names)
    assert needed_files(["config.json", "pytorch_model.bin", "tf_model.h5"]) == ["config.json", "pytorch_model.bin"]


@pytest.mark.parametrize(
    ("arguments", "head", "message"),
    [
        ({"activation": "gelu"}, None, "--allow-approximate-gelu"),
        ({"activation": "relu"}, None, "KerasHub computes nothing else"),
        ({}, Head(kind="token_classification", num_labels=2), "--drop-head"),
        ({}, Head(kind="question_answering"), "--drop-head"),
    ],
)
def test_what_keras_hub_cannot_compute_is_refused(
    arguments: dict[str, str], head: Head | None, message: str, vocabulary: bytes, tmp_path: Path
) -> None:
    architecture = replace(SAMPLE_ARCHITECTURE, **arguments)
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    write_checkpoint(random_checkpoint(architecture, vocabulary, head=head), source, "transformers")
    with pytest.raises(CheckpointError, match=message):
        convert(source, target, to="universal")
    assert not target.exists()
    if "--" in message:
        convert(source, target, to="universal", drop_head=True, allow_approximate_gelu="gelu" in message)
        with read_checkpoint(target) as checkpoint:
            assert checkpoint.layout == "universal"


def test_weights_are_not_written_twice(folders: Path, tmp_path: Path) -> None:
    names = set(_files(folders / "imported"))
    assert {"model.safetensors", "spiece.model", "tokenizer.json"} < names
    assert not names & {"model.weights.h5", "keras_tokenizer.json", "preprocessor.json"}
    convert(folders / "uncased", tmp_path / "one", to="universal", no_duplicate_weights=True)
    assert verify(folders / "uncased", tmp_path / "one").passed
    for name, options, message in (
        ("softmax", {}, r"found a text classifier of 3 classes \(softmax\): the importer reads no head"),
        ("encoder", {"dtype": "bfloat16"}, "found 'bfloat16': the importer makes every model in float32"),
        ("saved", {}, "cut out of a text first"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            convert(
                folders / f"{name}-source", tmp_path / "target", to="universal", no_duplicate_weights=True, **options
            )
    with pytest.raises(TargetError, match="Only a universal folder has two files of weights"):
        convert(folders / "encoder-source", tmp_path / "target", to="keras", no_duplicate_weights=True)
    assert not (tmp_path / "target").exists()


def test_what_is_left_out_for_the_importer(vocabulary: bytes, folders: Path, tmp_path: Path) -> None:
    """The options that refusals name help, and the notes for KerasHub are given."""
    (tmp_path / "source").mkdir()
    head = Head(kind="question_answering", num_labels=2)
    whole = random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary, head=head)
    rules = [rule for rule in whole.encoder_rules if rule.albert_hub.startswith("pooled_dense")]
    write_checkpoint(whole.without(rules, head, "for this test"), tmp_path / "source", "transformers")
    options: dict[str, Any] = {"to": "universal", "no_duplicate_weights": True}
    with pytest.raises(ConfigurationError, match="--drop-head"):
        convert(tmp_path / "source", tmp_path / "target", **options)
    report = convert(tmp_path / "source", tmp_path / "target", drop_head=True, **options)
    assert report.head is None
    assert any("pooled_output will be zeros" in note for note in report.notes)
    with pytest.raises(ConfigurationError, match="--drop-tokenizer"):
        convert(folders / "saved-source", tmp_path / "other", **options)
    report = convert(folders / "saved-source", tmp_path / "other", drop_tokenizer=True, **options)
    assert any("--drop-tokenizer" in note for note in report.notes)


def _edit_json(name: str, edit: Callable[[dict[str, Any]], object]) -> Callable[[Path, Path], None]:
    def change(folder: Path, other: Path) -> None:
        content = json.loads((folder / name).read_text())
        edit(content)
        (folder / name).write_text(json.dumps(content))

    return change


def _copy(*names: str) -> Callable[[Path, Path], None]:
    def change(folder: Path, other: Path) -> None:
        for name in names:
            shutil.copyfile(other / name, folder / name)

    return change


CONTRADICTIONS: dict[str, tuple[Callable[[Path, Path], None], str, str]] = {
    "other heads": (
        _edit_json("config.json", lambda c: c.update(num_attention_heads=2)),
        "config.json",
        "num_heads  expected 2 as the keys of transformers say, found 4",
    ),
    "another activation": (
        _edit_json("config.json", lambda c: c.update(hidden_act="gelu")),
        "config.json",
        "activation  expected 'gelu' as the keys of transformers say, found 'gelu_pytorch_tanh'",
    ),
    "other weights": (
        _copy("model.weights.h5"),
        "model.weights.h5",
        "layers/dense/vars/0 .*the values of albert.encoder.embedding_hidden_mapping_in.weight in model.safetensors",
    ),
    "weights of another head": (_copy("task.weights.h5"), "model.weights.h5", "expected the values of classifier"),
    "another activation of the head": (
        _edit_json("task.json", lambda c: c["config"].update(activation="sigmoid")),
        "task.json",
        "activation  expected 'softmax' as the keys of transformers say, found 'sigmoid'",
    ),
    "other labels": (
        _edit_json("task.json", lambda c: c.update(labels=["yes", "maybe", "no"])),
        "task.json",
        "labels  expected",
    ),
    "another rule for texts": (
        _copy("assets/tokenizer/vocabulary.spm"),
        "vocabulary.spm",
        "text normalization",
    ),
    "another length": (
        _edit_json("preprocessor.json", lambda c: c["config"].update(sequence_length=32)),
        "task.json|preprocessor.json",
        "sequence_length",
    ),
    "no tokenizer of KerasHub": (
        lambda folder, other: (folder / "assets/tokenizer/vocabulary.spm").unlink(),
        "vocabulary.spm",
        "expected one for KerasHub beside a transformers tokenizer, found none",
    ),
}


@pytest.fixture(scope="module")
def whole_folders(vocabulary: bytes, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two universal folders with other weights and other rules for texts, without shards."""
    parent = tmp_path_factory.mktemp("whole")
    head = _classifier("softmax", labels=("no", "maybe", "yes"))
    for seed, (name, normalize) in enumerate((("one", "keep"), ("other", "uncased"))):
        source = parent / f"{name}-source"
        source.mkdir()
        write_checkpoint(random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary, seed=seed, head=head), source, "keras")
        convert(source, parent / name, to="universal", normalize=normalize)  # type: ignore[arg-type]
    return parent / "one", parent / "other"


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions_are_refused(name: str, whole_folders: tuple[Path, Path], tmp_path: Path) -> None:
    change, file, message = CONTRADICTIONS[name]
    folder, other = tmp_path / "folder", whole_folders[1]
    shutil.copytree(whole_folders[0], folder)
    with read_checkpoint(folder):
        pass
    change(folder, other)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(folder)
    assert re.search(message, str(caught.value)), str(caught.value)
    assert re.search(file, str(caught.value.where)), str(caught.value)


def test_model_for_sentence_transformers_is_read_again(vocabulary: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary)
    write_checkpoint(checkpoint, folder, "universal", sentence_transformers="mean")
    with read_checkpoint(folder) as found:
        assert found.layout == "universal"
        assert found.modules is not None
        assert found.modules.pooling == "mean"


def test_keys_that_both_libraries_would_read_are_refused(folders: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    convert(folders / "encoder", source, to="transformers")
    _edit_json("config.json", lambda c: c.update(config={"a": 1}, weights=None, module="m", name="n"))(source, source)
    (source / "conversion.json").unlink()
    before = _files(source)
    for run in (lambda: convert(source, target, to="universal"), lambda: complete(source)):
        with pytest.raises(ConfigurationError) as caught:
            run()
        assert [problem.where for problem in caught.value.problems] == ["config", "weights", "module"]
        assert "for a universal folder" in str(caught.value)
        assert _files(source) == before
        assert not target.exists()


def test_tokenizer_of_a_completed_preset_is_carried_over(tmp_path: Path) -> None:
    """Its tokenizer.json has another name there, which a target does not have."""
    source, folder, half, target = (tmp_path / name for name in ("source", "folder", "half", "target"))
    for each in (source, folder, half, target):
        each.mkdir()
    write_checkpoint(
        random_checkpoint(SAMPLE_ARCHITECTURE, train_vocabulary(user_defined_symbols=[])), source, "transformers"
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (source / name).unlink()
    tokenizer = transformers.AlbertTokenizer.from_pretrained(source)
    tokenizer.save_pretrained(source)
    with read_checkpoint(source) as checkpoint:
        write_checkpoint(checkpoint, folder, "keras")
    opened = open_source(folder)
    with read_checkpoint(opened) as checkpoint:
        write_other_half(checkpoint, opened, half)
    shutil.copytree(half, folder, dirs_exist_ok=True)
    # As transformers saves it, where it takes another file than tokenizer.json.
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.4.0.0.json")
    settings = json.loads((source / "tokenizer_config.json").read_text())
    settings["fast_tokenizer_files"] = ["tokenizer.4.0.0.json"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with read_checkpoint(folder) as checkpoint:
        assert checkpoint.layout == "universal"
        assert checkpoint.tokenizer_files is not None
        write_checkpoint(checkpoint, target, "transformers")
    assert "fast_tokenizer_files" not in json.loads((target / "tokenizer_config.json").read_text())
    assert transformers.AutoTokenizer.from_pretrained(target)(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    with read_checkpoint(folder) as checkpoint, read_checkpoint(target) as written:
        assert checkpoint.tokenizer_files is not None
        assert written.tokenizer_files is not None
        assert different_files(checkpoint.tokenizer_files, written.tokenizer_files) == []


def test_keras_tokenizer_file_is_not_the_tokenizers_librarys(folders: Path) -> None:
    """The tokenizers library refuses other keys, so one file cannot serve both. If that changes, this test says so."""
    from tokenizers import Tokenizer

    content = json.loads((folders / "encoder" / "tokenizer.json").read_text())
    Tokenizer.from_str(json.dumps(content))
    keras = json.loads((folders / "encoder" / "keras_tokenizer.json").read_text())
    with pytest.raises(Exception, match="expected"):
        Tokenizer.from_str(json.dumps({**content, **keras}))
