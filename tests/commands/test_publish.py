"""From a source to a hub and back, with the hubs' own clients; and what is not pushed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from albert_hub_bridge import convert, push, verify
from albert_hub_bridge.cli import app
from albert_hub_bridge.commands.recording import record_verification
from albert_hub_bridge.errors import SourceError, TargetError
from albert_hub_bridge.layouts.hub.repository import write_repository
from albert_hub_bridge.layouts.keras.preset import write_preset
from albert_hub_bridge.mapping.heads import Head
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, train_vocabulary
from tests.conftest import converted
from tests.forked import run_module
from tests.servers.hub_server import HubServer
from tests.servers.kaggle_server import KaggleServer
from tests.servers.local_server import client_environment, run_client


runner = CliRunner()


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _without_card(files: dict[str, bytes]) -> dict[str, Any]:
    """Return files without the card, which says where it was pushed to, and without its lines in the record."""
    record = {**json.loads(files["conversion.json"]), "card": None}
    return {**files, "README.md": None, "conversion.json": record}


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


def test_kaggle_preset_becomes_a_repository_on_the_hub(preset: Path, hub: HubServer, tmp_path: Path) -> None:
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


def test_repository_becomes_a_preset_on_the_hub(hub: HubServer, environment: dict[str, str], tmp_path: Path) -> None:
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


def test_second_push_keeps_other_commits(
    preset: Path, hub: HubServer, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = converted(preset, tmp_path / "albert")
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


def test_the_title_of_a_commit_says_what_it_changes(
    preset: Path, hub: HubServer, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = converted(preset, tmp_path / "albert")
    command = ["push", str(folder), "hf://user/albert"]
    assert run_client(COMMAND, environment, commands=[command]) == [0]
    (folder / "README.md").write_text((folder / "README.md").read_text().replace("# albert", "# My model"))
    assert run_client(COMMAND, environment, commands=[command]) == [0]
    hub.add_commit("user/albert", {"spiece.model": b"theirs", "model.safetensors": b"theirs", "config.json": "{}"})
    assert run_client(COMMAND, environment, commands=[command]) == [0]
    assert [commit.title for commit in hub.commits("user/albert") if commit.title != "Commit of another user"] == [
        "Update config.json, model.safetensors, spiece.model",
        "Update README.md",
        "Add the model, converted from sample",
        "initial commit",
    ]


def test_convert_to_a_hub_takes_the_options_of_push(preset: Path, hub: HubServer, environment: dict[str, str]) -> None:
    command = ["convert", str(preset), "hf://user/albert", "--to", "transformers"]
    push_options = ["--private", "--revision", "dev", "--message", "Mine"]
    assert run_client(COMMAND, environment, commands=[[*command, *push_options]]) == [0]
    assert hub.repos["user/albert"].private is True
    assert hub.commits("user/albert", "dev")[0].title == "Mine"
    assert [commit.title for commit in hub.commits("user/albert")] == ["initial commit"]


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("kaggle://user/albert/keras/sample", ["--revision", "dev"], "Kaggle has neither branches"),
        ("kaggle://user/albert/keras/sample", ["--create-pr"], "Kaggle has neither branches"),
        ("FOLDER/new", ["--private"], "are for a target on a hub"),
        ("FOLDER/new", ["--message", "Mine"], "are for a target on a hub"),
        ("gs://bucket", [], "should be hf://user/repo"),
    ],
)
def test_options_that_the_target_lacks_are_refused(
    target: str, options: list[str], message: str, preset: Path, tmp_path: Path
) -> None:
    target = target.replace("FOLDER", str(tmp_path))
    result = runner.invoke(app, ["convert", str(preset), target, "--to", "keras", *options])
    assert result.exit_code == 2
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_push_and_card_print_json(preset: Path, hub: HubServer, environment: dict[str, str], tmp_path: Path) -> None:
    folder = converted(preset, tmp_path / "albert")
    result = runner.invoke(app, ["card", str(folder), "--json"])
    assert json.loads(result.stdout) == {"card": str(folder / "README.md")}
    pushed = run_module("albert_hub_bridge", ["push", str(folder), "hf://user/albert", "--json"], environment)
    assert pushed.code == 0, pushed.stderr
    assert json.loads(pushed.stdout)["url"].startswith(f"{hub.url}/user/albert/commit/")


def test_concurrent_commit_is_not_overwritten(
    preset: Path, hub: HubServer, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = converted(preset, tmp_path / "albert")
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


# Which request fails how during a push, and the message. The client itself repeats some requests with success.
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


def test_failed_push_to_hugging_face_can_be_repeated(
    preset: Path, hub: HubServer, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = converted(preset, tmp_path / "albert")
    before = _files(folder)
    for name, method, path, how, _ in HUGGING_FACE_FAULTS:
        body = f'"{name}"' if path == "/api/repos/create" else ""
        hub.fail(method, path if body else f"user/{name}.*{path}|{path}user/{name}/", how, retry_after=0, body=body)
    _push_all(environment, folder, {f"hf://user/{row[0]}": row[-1] for row in HUGGING_FACE_FAULTS})
    for row in HUGGING_FACE_FAULTS:
        commits = [commit for commit in hub.commits(f"user/{row[0]}") if commit.title != "initial commit"]
        sent = hub.files(f"user/{row[0]}")
        assert f'from_pretrained("user/{row[0]}")' in sent["README.md"].decode()
        assert (len(commits), _without_card({name: sent[name] for name in before})) == (1, _without_card(before)), row[
            0
        ]
    assert _files(folder) == before  # the card for its place on the hub is not written into the folder


def test_failed_push_to_kaggle_can_be_repeated(preset: Path, tmp_path: Path) -> None:
    folder = converted(preset, tmp_path / "keras", "keras")
    before = _files(folder)
    with KaggleServer() as kaggle:
        for name, method, path, how, _ in KAGGLE_FAULTS:
            kaggle.fail(method, path, how, retry_after=0, body=f'"{name}"' if method == "POST" else "")
        handles = {f"user/{row[0]}/keras/sample": row[-1] for row in KAGGLE_FAULTS}
        environment = client_environment(tmp_path / "home", kaggle)
        _push_all(environment, folder, {f"kaggle://{handle}": message for handle, message in handles.items()})
        for handle, message in handles.items():
            assert kaggle.versions(handle) == (2 if message == "good" else 1), handle
            sent = kaggle.files(handle)
            assert f'from_preset("kaggle://{handle}")' in sent["README.md"].decode()
            assert _without_card(sent) == _without_card(before)
    assert _files(folder) == before


def test_push_to_kaggle(preset: Path, tmp_path: Path) -> None:
    folder = converted(preset, tmp_path / "keras", "keras")
    (folder / "private.txt").write_text("stays here")
    with KaggleServer() as kaggle:
        environment = client_environment(tmp_path / "home", kaggle)
        command = ["push", str(folder), "kaggle://user/albert/keras/sample"]
        assert run_client(COMMAND, environment, commands=[command]) == [0]
        assert set(kaggle.files("user/albert/keras/sample")) == set(_files(folder)) - {"private.txt"}
        # Nobody said what the licence of this one is.
        assert "licenseName" not in kaggle.requests("POST", "CreateModelInstance$")[0].json()["body"]


# What is refused before anything is sent.


def test_unverified_or_changed_folder_is_not_pushed(preset: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no conversion\.json\. Convert it first: albert-hub-bridge convert"):
        push(preset, "hf://user/albert")
    with pytest.raises(SourceError, match="does not exist"):
        push(tmp_path / "nowhere", "hf://user/albert")
    with pytest.raises(TargetError, match="pulled from ModelScope, and not pushed to it"):
        push(preset, "modelscope://user/albert")
    for target in ("user/albert", "gs://bucket", "kaggle://user/albert"):
        convert(preset, tmp_path / "transformers", to="transformers", overwrite=True)
        with pytest.raises(TargetError, match=r"should be hf://|was not compared with its source"):
            push(tmp_path / "transformers", target)
    with pytest.raises(TargetError, match=r"was not compared with its source.*albert-hub-bridge verify sample"):
        push(tmp_path / "transformers", "hf://user/albert")
    (tmp_path / "transformers" / "config.json").write_text("{}")
    (tmp_path / "transformers" / "spiece.model").unlink()
    with pytest.raises(TargetError, match=r"config.json \(changed\), spiece.model \(missing\)"):
        push(tmp_path / "transformers", "hf://user/albert")
    assert record_verification(tmp_path / "transformers", verify(preset, preset), preset) == "changed"


def test_folder_that_differs_is_not_pushed(preset: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_preset(random_checkpoint(SAMPLE_ARCHITECTURE, train_vocabulary(), seed=1), other)
    convert(preset, tmp_path / "transformers", to="transformers")
    record_verification(tmp_path / "transformers", verify(other, tmp_path / "transformers"), preset)
    with pytest.raises(TargetError, match="differs from its source"):
        push(tmp_path / "transformers", "hf://user/albert")
    assert "**No**" in (tmp_path / "transformers" / "README.md").read_text()


def test_pushed_repository_is_checked_on_the_hub(
    preset: Path, hub: HubServer, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = converted(preset, tmp_path / "transformers")
    commands = [["push", str(folder), "hf://user/albert"], ["verify", "hf://user/albert"]]
    assert run_client(COMMAND, environment, commands=commands) == [0, 0]
    assert "parity.png" in hub.files("user/albert")
    hub.add_commit("user/albert", {"config.json": "{}", "notes.txt": "theirs"})
    assert run_client(COMMAND, environment, commands=commands[1:]) == [1]
