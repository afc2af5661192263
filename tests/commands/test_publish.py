"""From a source to a hub and back, with the real clients; what is refused; and the card."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from safetensors.numpy import load_file
from typer.testing import CliRunner

from albert_hub_bridge import card, check, convert, inspect, push, verify
from albert_hub_bridge.cli import app
from albert_hub_bridge.commands.recording import record_verification
from albert_hub_bridge.errors import ConfigurationError, TargetError
from albert_hub_bridge.layouts.hub.repository import write_repository
from albert_hub_bridge.layouts.keras.preset import write_preset
from albert_hub_bridge.mapping.heads import Head
from albert_hub_bridge.mapping.weights import POOLER
from albert_hub_bridge.provenance.model_card import BEGIN, END, render_card
from albert_hub_bridge.provenance.picture import draw_parity
from albert_hub_bridge.provenance.record import read_record
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, train_vocabulary, write_sample_preset
from tests.servers.hub_server import HubServer
from tests.servers.kaggle_server import KaggleServer
from tests.servers.local_server import client_environment, run_client


runner = CliRunner()


@pytest.fixture(scope="module")
def preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preset") / "sample"
    write_sample_preset(folder)
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


COMMAND = """
import io, contextlib
from albert_hub_bridge.cli import app
out, err = io.StringIO(), io.StringIO()
with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    result = []
    for arguments in commands:
        try:
            app(arguments)
        except SystemExit as stop:
            result.append(stop.code)
"""


def _converted(preset: Path, folder: Path, to: str = "transformers") -> Path:
    convert(preset, folder, to=to)  # type: ignore[arg-type]
    assert record_verification(folder, verify(preset, folder))
    return folder


def test_a_kaggle_preset_becomes_a_repository_that_transformers_loads(
    preset: Path, hub: HubServer, tmp_path: Path
) -> None:
    with KaggleServer() as kaggle:
        kaggle.add_model("keras/albert/keras/sample", _files(preset))
        environment = client_environment(tmp_path / "home", hub, kaggle)
        source = "kaggle://keras/albert/keras/sample"
        codes = run_client(
            COMMAND, environment, commands=[["convert", source, "hf://user/albert", "--to", "transformers"]]
        )
        assert codes == [0]
        assert not kaggle.requests("CONNECT")
    commits = hub.commits("user/albert")
    assert len(commits) == 2  # the repository, and ours
    files = hub.files("user/albert")
    assert set(files) - {".gitattributes"} == {
        *("config.json", "model.safetensors", "spiece.model", "tokenizer.json", "tokenizer_config.json"),
        *("README.md", "conversion.json", "parity.png"),
    }
    record = json.loads(files["conversion.json"])
    assert record["source"]["handle"] == source
    assert record["source"]["revision"] == "1"
    assert record["verification"]["passed"] is True
    text = files["README.md"].decode()
    assert 'AutoModel.from_pretrained("user/albert")' in text
    assert "values, compared bit for bit" in text
    found = run_client(
        """
        from transformers import AutoModel, AutoTokenizer, pipeline
        model, tokenizer = AutoModel.from_pretrained("user/albert"), AutoTokenizer.from_pretrained("user/albert")
        features = pipeline("feature-extraction", model="user/albert", tokenizer="user/albert")("a bridge joins")
        result = [type(model).__name__, features[0]]
        """,
        client_environment(tmp_path / "other home", hub),
    )
    assert found[0] == "AlbertModel"
    import keras_hub

    tokens = keras_hub.models.AlbertTokenizer.from_preset(str(preset))("a bridge joins")
    ids = np.array([[2, *(int(token) for token in tokens), 3]], dtype="int32")
    backbone = keras_hub.models.AlbertBackbone.from_preset(str(preset))
    inputs = {"token_ids": ids, "segment_ids": ids * 0, "padding_mask": ids * 0 + 1}
    expected = backbone.predict(inputs, verbose=0)["sequence_output"][0]
    np.testing.assert_allclose(np.array(found[1]), expected, atol=1e-5, rtol=0)


def test_a_repository_becomes_a_preset_that_kerashub_loads(
    hub: HubServer, environment: dict[str, str], tmp_path: Path
) -> None:
    head = Head(kind="sequence_classification", num_labels=3, labels=("a", "b", "c"))
    (tmp_path / "transformers").mkdir()
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, train_vocabulary(), head=head)
    write_repository(checkpoint, tmp_path / "transformers", "transformers")
    hub.add_repo("someone/classifier", _files(tmp_path / "transformers"))
    command = ["convert", "hf://someone/classifier", "hf://user/preset", "--to", "keras"]
    assert run_client(COMMAND, environment, commands=[command]) == [0]
    found = run_client(
        """
        import os
        os.environ["KERAS_BACKEND"] = "torch"
        import keras_hub
        classifier = keras_hub.models.TextClassifier.from_preset("hf://user/preset")
        result = classifier.predict(["a bridge joins two banks"], verbose=0).tolist()
        """,
        environment,
    )
    theirs = run_client(
        """
        from transformers import pipeline
        classify = pipeline("text-classification", "someone/classifier", function_to_apply="none", top_k=None)
        result = {row["label"]: row["score"] for row in classify(["a bridge joins two banks"])[0]}
        """,
        environment,
    )
    assert dict(zip("abc", found[0], strict=True)) == pytest.approx(theirs, abs=1e-5)


def test_pushing_again_keeps_what_others_did_and_commits_only_what_is_new(
    preset: Path, hub: HubServer, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = _converted(preset, tmp_path / "albert")
    once = ["push", str(folder), "hf://user/albert", "--private", "--message", "First"]
    assert run_client(COMMAND, environment, commands=[once, once]) == [0, 0]
    assert hub.repos["user/albert"].private
    assert [commit.title for commit in hub.commits("user/albert")] == ["First", "initial commit"]
    hub.add_commit("user/albert", {"notes.txt": "somebody else's"})
    more = [
        ["push", str(folder), "hf://user/albert", "--create-pr"],
        ["push", str(folder), "hf://user/albert", "--revision", "dev"],
    ]
    assert run_client(COMMAND, environment, commands=more) == [0, 0]
    assert hub.files("user/albert")["notes.txt"] == b"somebody else's"


def test_somebody_elses_commit_is_noticed_and_not_overwritten(
    preset: Path, hub: HubServer, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = _converted(preset, tmp_path / "albert")
    hub.add_repo("user/albert", {"config.json": "{}"})
    hub.fail("POST", "/preupload/", lambda: hub.add_commit("user/albert", {"config.json": '{"theirs": 1}'}))
    found = run_client(_PUSH, environment, folder=str(folder))
    assert "The repository received another commit meanwhile" in found[0]
    assert found[1].startswith("http")  # the next try, which knows of it, succeeds
    assert [b'{"theirs": 1}' in commit.files["config.json"].content for commit in hub.commits("user/albert")] == [
        False,
        True,
        False,
    ]
    assert json.loads(hub.files("user/albert")["config.json"])["model_type"] == "albert"


_PUSH = """
from albert_hub_bridge import push
from albert_hub_bridge.cli import app
from albert_hub_bridge.errors import TargetError
result = []
for _ in range(2):
    try:
        result.append(push(folder, "hf://user/albert"))
    except TargetError as error:
        result.append(str(error))
"""


# Who fails how while we push, and what is said of it. What the client tries again by itself ends well.
# fmt: off
HUGGING_FACE_FAULTS: tuple[tuple[str, str, str, Any, str], ...] = (
    ("broken",    "POST", "/commit/",          500,        "was not changed"),
    ("forbidden", "POST", "/commit/",          403,        "Your token has no write access"),
    ("gone",      "POST", "/commit/",          404,        "The repository or revision does not exist."),
    ("locked",    "POST", "/commit/",          409,        "Another commit is in progress."),
    ("busy",      "POST", "/commit/",          429,        "The Hub received too many requests."),
    ("dropping",  "POST", "/commit/",          "drop",     "The push to hf://user/dropping did not finish"),
    ("losing",    "POST", "/commit/",          "lose",     "The push to hf://user/losing did not finish"),
    ("strange",   "POST", "/api/repos/create", 401,        "You are not logged in"),
    ("stumbling", "POST", "/preupload/",       500,        "good"),
    ("cut",       "PUT",  "/storage/",         "truncate", "was not changed. Error while uploading"),
    ("damaged",   "PUT",  "/storage/",         "corrupt",  "was not changed. Error while uploading"),
)
KAGGLE_FAULTS: tuple[tuple[str, str, str, Any, str], ...] = (
    ("broken",    "POST", "CreateModelInstance$", 500,        "has no new version. Run the command again."),
    ("forbidden", "POST", "CreateModelInstance$", 403,        "You are not logged in (kaggle.com), or your token"),
    ("strange",   "POST", "GetModel$",            401,        "You are not logged in (kaggle.com), or your token"),
    ("busy",      "POST", "CreateModelInstance$", 429,        "Kaggle received too many requests."),
    ("dropping",  "POST", "CreateModelInstance$", "drop",     "has no new version. Run the command again."),
    ("cut",       "PUT",  "/storage/uploads/",    "truncate", "good"),
)
# fmt: on

PUSH_ALL = """
from albert_hub_bridge import push
from albert_hub_bridge.cli import app
from albert_hub_bridge.errors import TargetError
result = []
for target in targets:
    try:
        result.append("good" if push(folder, target).startswith("http") else "no address")
    except TargetError as error:
        result.append(str(error))
"""


def _push_all(environment: dict[str, str], folder: Path, targets: dict[str, str]) -> None:
    """Push to each target, compare what is said, and see to it that all the next tries end well."""
    found = run_client(PUSH_ALL, environment, folder=str(folder), targets=list(targets))
    for (target, message), said in zip(targets.items(), found, strict=True):
        assert message in said, (target, said)
    again = run_client(PUSH_ALL, environment, folder=str(folder), targets=list(targets))
    assert again == ["good"] * len(targets)


def test_a_hub_that_fails_leaves_no_half_and_the_next_try_finishes(
    preset: Path, hub: HubServer, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = _converted(preset, tmp_path / "albert")
    for name, method, path, how, _ in HUGGING_FACE_FAULTS:
        body = f'"{name}"' if path == "/api/repos/create" else ""
        hub.fail(method, path if body else f"user/{name}.*{path}|{path}user/{name}/", how, retry_after=0, body=body)
    _push_all(environment, folder, {f"hf://user/{row[0]}": row[-1] for row in HUGGING_FACE_FAULTS})
    for row in HUGGING_FACE_FAULTS:
        commits = [commit for commit in hub.commits(f"user/{row[0]}") if commit.title != "initial commit"]
        # Each push renders the card for its own repository, so that the last one's is what lies in the folder.
        sent = {name: content for name, content in hub.files(f"user/{row[0]}").items() if name != "README.md"}
        expected = {name: content for name, content in _files(folder).items() if name != "README.md"}
        assert (len(commits), {name: sent[name] for name in expected}) == (1, expected), row[0]


def test_kaggle_that_fails_leaves_no_half_and_the_next_try_finishes(preset: Path, tmp_path: Path) -> None:
    folder = _converted(preset, tmp_path / "keras", "keras")
    with KaggleServer() as kaggle:
        for name, method, path, how, _ in KAGGLE_FAULTS:
            kaggle.fail(method, path, how, retry_after=0, body=f'"{name}"' if method == "POST" else "")
        handles = {f"user/{row[0]}/keras/sample": row[-1] for row in KAGGLE_FAULTS}
        environment = client_environment(tmp_path / "home", kaggle)
        _push_all(environment, folder, {f"kaggle://{handle}": message for handle, message in handles.items()})
        for handle, message in handles.items():
            assert kaggle.versions(handle) == (2 if message == "good" else 1), handle
            assert set(kaggle.files(handle)) == set(_files(folder))


def test_a_preset_goes_to_kaggle(preset: Path, tmp_path: Path) -> None:
    folder = _converted(preset, tmp_path / "keras", "keras")
    (folder / "private.txt").write_text("stays here")
    with KaggleServer() as kaggle:
        environment = client_environment(tmp_path / "home", kaggle)
        command = ["push", str(folder), "kaggle://user/albert/keras/sample"]
        assert run_client(COMMAND, environment, commands=[command]) == [0]
        assert set(kaggle.files("user/albert/keras/sample")) == set(_files(folder)) - {"private.txt"}
        # Nobody said what the licence of this one is.
        assert "licenseName" not in kaggle.requests("POST", "CreateModelInstance$")[0].json()["body"]


# What is refused before anything is sent.


def test_only_what_was_verified_and_not_changed_is_pushed(preset: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"missing +conversion.json +expected the record of a conversion, found none"
    ):
        push(preset, "hf://user/albert")
    for target in ("user/albert", "gs://bucket", "kaggle://user/albert"):
        convert(preset, tmp_path / "transformers", to="transformers", overwrite=True)
        with pytest.raises(TargetError, match=r"should be hf://|was not compared with its source"):
            push(tmp_path / "transformers", target)
    with pytest.raises(TargetError, match=r"was not compared with its source.*albert-hub-bridge verify SOURCE"):
        push(tmp_path / "transformers", "hf://user/albert")
    (tmp_path / "transformers" / "config.json").write_text("{}")
    (tmp_path / "transformers" / "spiece.model").unlink()
    with pytest.raises(TargetError, match=r"config.json \(changed\), spiece.model \(missing\)"):
        push(tmp_path / "transformers", "hf://user/albert")
    assert not record_verification(tmp_path / "transformers", verify(preset, preset))


def test_what_was_left_out_on_purpose_is_no_difference(tmp_path: Path) -> None:
    (tmp_path / "transformers").mkdir()
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, train_vocabulary(), head=Head(kind="pretraining"))
    write_repository(checkpoint, tmp_path / "transformers", "transformers")
    convert(tmp_path / "transformers", tmp_path / "keras", to="keras", drop_head=True)
    report = verify(tmp_path / "transformers", tmp_path / "keras")
    assert report.passed
    assert "head_output" in report.max_abs_difference
    assert "Left out of the target, as its conversion.json says: sentence_order_classifier.bias" in report.notes[0]
    (tmp_path / "keras" / "conversion.json").unlink()  # then nobody says that it was on purpose
    assert verify(tmp_path / "transformers", tmp_path / "keras").different_tensors == [
        "sentence_order_classifier.bias",
        "sentence_order_classifier.weight",
    ]


def test_what_does_not_agree_is_not_pushed(preset: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_preset(random_checkpoint(SAMPLE_ARCHITECTURE, train_vocabulary(), seed=1), other)
    convert(preset, tmp_path / "transformers", to="transformers")
    record_verification(tmp_path / "transformers", verify(other, tmp_path / "transformers"))
    with pytest.raises(TargetError, match="differs from its source"):
        push(tmp_path / "transformers", "hf://user/albert")
    assert "**No**" in (tmp_path / "transformers" / "README.md").read_text()


# The card and the record.


def test_the_card_says_what_was_done_and_nothing_that_was_not_measured(preset: Path, tmp_path: Path) -> None:
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


def test_its_metadata_pass_the_hubs_own_check(
    preset: Path, hub: HubServer, environment: dict[str, str], tmp_path: Path
) -> None:
    cards = []
    for layout in ("keras", "albert_hub", "transformers"):
        _converted(preset, tmp_path / layout, layout)
        cards.append((tmp_path / layout / "README.md").read_text())
        data = ModelCard(cards[-1]).data
        assert data.library_name == ("keras-hub" if layout == "keras" else "transformers")
        assert [result.metric_type for result in data.eval_results or []] == ["max_abs_difference"] * 2
    run_client(
        "from huggingface_hub import ModelCard\nfor card in cards: ModelCard(card).validate()", environment, cards=cards
    )
    assert len(hub.requests("POST", "/api/validate-yaml")) == 3


def test_what_people_write_into_a_card_stays(preset: Path, tmp_path: Path) -> None:
    folder = _converted(preset, tmp_path / "transformers")
    file = folder / "README.md"
    file.write_text(file.read_text().replace(BEGIN, f"{BEGIN}\n## What I use it for\n\nCounting sheep."))
    file.write_text(file.read_text().replace("# transformers", "# Something else"))
    assert card(folder) == file
    assert "Counting sheep." in file.read_text()
    assert "# transformers" in file.read_text()
    convert(preset, folder, to="transformers", overwrite=True)
    text = file.read_text()
    assert "## What I use it for\n\nCounting sheep." in text
    assert text.index(BEGIN) < text.index("Counting sheep.") < text.index(END)
    assert "Not measured." in text


def test_a_card_shows_what_was_measured_of_every_layer(preset: Path, tmp_path: Path) -> None:
    folder = _converted(preset, tmp_path / "transformers")
    record = json.loads((folder / "conversion.json").read_text())
    layers = record["verification"]["layer_differences"]
    # The embeddings, and 2 layers of each of 2 groups, both run twice; the last is what comes out.
    assert len(layers) == 1 + SAMPLE_ARCHITECTURE.num_layers * SAMPLE_ARCHITECTURE.num_inner_repetitions
    assert layers[-1] == record["verification"]["max_abs_difference"]["sequence_output"] <= 1e-5
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


def test_a_layer_that_is_wrong_shows_where(preset: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, train_vocabulary())
    name = "transformer_layers.1.0.feedforward_output_dense.bias"
    weight = checkpoint.weights[name]
    changed = replace(weight, load=lambda: 2 * weight.read())
    write_preset(replace(checkpoint, weights={**checkpoint.weights, name: changed}), other)
    layers = verify(preset, other).layer_differences
    # Group 0 is right: the embeddings, and its 2 layers run twice.
    assert max(layers[:5]) <= 1e-5
    assert min(layers[5:]) > 1e-2


def test_no_picture_without_matplotlib_and_of_what_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = {"layer_differences": [1e-6, 0.0], "tolerance": 1e-5}
    assert (draw_parity(measured) or b"").startswith(b"\x89PNG")
    assert draw_parity({**measured, "layer_differences": [1e-6, None]}) is None
    assert draw_parity({**measured, "layer_differences": []}) is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert draw_parity(measured) is None


@pytest.mark.parametrize("layout", ["keras", "transformers", "albert_hub"])
def test_a_record_that_has_other_tensors_is_noticed(layout: str, preset: Path, tmp_path: Path) -> None:
    """Whoever writes the checksum of a changed file into the record as well has still changed a tensor."""
    convert(preset, tmp_path / "target", to=layout)  # type: ignore[arg-type]
    assert check(tmp_path / "target").passed
    file = tmp_path / "target" / "conversion.json"
    record = json.loads(file.read_text())
    name = "embeddings_projection.bias"
    record["target"]["tensors"][name] = record["target"]["tensors"]["pooled_dense.bias"]
    file.write_text(json.dumps(record))
    report = check(tmp_path / "target")
    assert (report.passed, report.changes, report.different_tensors) == (False, {}, [name])
    result = runner.invoke(app, ["verify", str(tmp_path / "target")])
    assert (result.exit_code, f"Changed tensors: {name}" in result.output) == (1, True)
    record["target"]["tensors"] = [1]
    file.write_text(json.dumps(record))
    with pytest.raises(ConfigurationError, match=r"wrong type +target.tensors +expected dict\[str, str\], found \[1\]"):
        check(tmp_path / "target")


def test_a_folder_is_checked_by_its_own_record(preset: Path, tmp_path: Path) -> None:
    def run(*options: str) -> tuple[int, str]:
        result = runner.invoke(app, ["verify", str(folder), *options])
        return result.exit_code, result.output

    folder = _converted(preset, tmp_path / "transformers")
    code, said = run()
    tensors = check(folder).tensors
    assert tensors == len(load_file(folder / "model.safetensors"))
    assert (code, f"PASSED: all 6 files and {tensors} tensors are unchanged." in said) == (0, True)
    (folder / "notes.txt").write_text("mine")
    (folder / ".gitattributes").write_text("the hub's")
    code, said = run()
    assert (code, "not part of a preset or repository: notes.txt" in said) == (0, True)
    (folder / "config.json").write_text("{}")
    (folder / "spiece.model").unlink()
    (folder / "task.json").write_text("{}")
    (folder / "parity.png").write_bytes(b"not ours")
    code, said = run("--json")
    report = json.loads(said)
    assert (code, report["passed"], report["files"]) == (1, False, 6)
    names = {"config.json": "changed", "parity.png": "changed", "spiece.model": "missing"}
    assert report["changes"] == {**names, "task.json": "new"}
    assert report["others"] == ["notes.txt"]
    code, said = run()
    assert (code, "FAILED: 4 files and 0 tensors were changed since the conversion." in said) == (1, True)
    assert check(folder).changes == report["changes"]
    assert report["different_tensors"] == []  # nothing can be read any more
    (folder / "conversion.json").unlink()
    code, said = run()
    assert (code, "expected the record of a conversion, found none" in said) == (2, True)


def test_what_was_pushed_is_checked_where_it_is(
    preset: Path, hub: HubServer, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = _converted(preset, tmp_path / "transformers")
    commands = [["push", str(folder), "hf://user/albert"], ["verify", "hf://user/albert"]]
    assert run_client(COMMAND, environment, commands=commands) == [0, 0]
    assert "parity.png" in hub.files("user/albert")
    hub.add_commit("user/albert", {"config.json": "{}", "notes.txt": "theirs"})
    assert run_client(COMMAND, environment, commands=commands[1:]) == [1]


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
def test_a_card_says_how_to_load_it_from_where_it_is(
    location: str, layout: str, expected: str, preset: Path, tmp_path: Path
) -> None:
    convert(preset, tmp_path / "a", to=layout)  # type: ignore[arg-type]
    record = read_record(tmp_path / "a")
    assert record is not None
    text = render_card(record, location)
    assert expected in text
    assert "\n# a\n" in text


def test_a_card_says_that_kerashub_reads_only_what_it_computes_rightly(tmp_path: Path) -> None:
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


def test_a_folder_tells_where_it_comes_from_and_what_happened_since(preset: Path, tmp_path: Path) -> None:
    folder = _converted(preset, tmp_path / "transformers")
    assert inspect(folder).made_by == "converted from sample, by albert-hub-bridge 0.1.0"
    (folder / "tokenizer_config.json").write_text("{}")
    assert "since then: {'tokenizer_config.json': 'changed'}" in str(inspect(folder).made_by)
    record = json.loads((folder / "conversion.json").read_text())
    for change, problem in (
        ({"tool": None}, "wrong type +tool"),
        ({"target": {"files": {"config.json": "abc"}}}, r"target\.files +expected dict\[str, FileDigest\], found"),
        ({"target": {"files": {}}}, r"missing key +target\.tensors +expected dict\[str, str\], found none"),
        ({"picture": {}}, r"missing key +picture\.sha256 +expected str, found none"),
        ({"more": 1}, "unknown key +more +expected no such key, found 1"),
        ({"head_kind": "tail"}, "wrong type +head_kind +expected one of masked_lm, .* or none, found 'tail'"),
        ({"verification": {"passed": 1}}, r"wrong type +verification\.passed +expected bool, found 1"),
        ({"verification": {}}, r"(?s)missing key +verification\.passed .*missing key +verification\.notes "),
    ):
        (folder / "conversion.json").write_text(json.dumps(record | change))
        with pytest.raises(ConfigurationError, match=problem):
            inspect(folder)
    (folder / "conversion.json").write_text('{"tool": "another", "source": {}, "target": {}}')
    with pytest.raises(ConfigurationError, match="not a record of albert-hub-bridge"):
        inspect(folder)
