"""From a source to a hub and back, with the real clients; what is refused; and the card."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from albert_hub_bridge import card, convert, inspect, push, verify
from albert_hub_bridge.errors import ConfigurationError, TargetError
from albert_hub_bridge.mapping.heads import Head
from albert_hub_bridge.model_card import BEGIN, END
from albert_hub_bridge.publish import record_verification
from albert_hub_bridge.stores.hf_repository import write_repository
from albert_hub_bridge.stores.keras_preset import write_preset
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, train_vocabulary, write_sample_preset
from tests.hub_server import HubServer
from tests.kaggle_server import KaggleServer
from tests.local_server import client_environment, run_client


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


def _converted(preset: Path, folder: Path, to: str = "stock") -> Path:
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
        codes = run_client(COMMAND, environment, commands=[["convert", source, "hf://user/albert", "--to", "stock"]])
        assert codes == [0]
        assert not kaggle.requests("CONNECT")
    commits = hub.commits("user/albert")
    assert len(commits) == 2  # the repository, and ours
    files = hub.files("user/albert")
    assert set(files) - {".gitattributes"} == {
        *("config.json", "model.safetensors", "spiece.model", "tokenizer.json", "tokenizer_config.json"),
        *("README.md", "conversion.json"),
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
    (tmp_path / "stock").mkdir()
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, train_vocabulary(), head=head)
    write_repository(checkpoint, tmp_path / "stock", "stock")
    hub.add_repo("someone/classifier", _files(tmp_path / "stock"))
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
    assert "Somebody else committed to it meanwhile" in found[0]
    assert found[1].startswith("http")  # the next try, which knows of it, succeeds
    assert [b'{"theirs": 1}' in commit.files["config.json"].content for commit in hub.commits("user/albert")] == [
        False,
        True,
        False,
    ]
    assert json.loads(hub.files("user/albert")["config.json"])["model_type"] == "albert"


_PUSH = """
from albert_hub_bridge import push
from albert_hub_bridge.errors import TargetError
result = []
for _ in range(2):
    try:
        result.append(push(folder, "hf://user/albert"))
    except TargetError as error:
        result.append(str(error))
"""


@pytest.mark.parametrize(
    ("method", "path", "how", "message"),
    [
        ("POST", "/commit/", 500, "was not changed"),
        ("POST", "/commit/", 403, "Your token may not write there"),
        ("POST", "/commit/", 429, "The Hub wants fewer requests"),
        ("POST", "/commit/", "drop", "The connection to hf://user/albert broke"),
        ("POST", "/commit/", "lose", "The connection to hf://user/albert broke"),
        ("POST", "/api/repos/create", 401, "You are not logged in"),
    ],
)
def test_a_hub_that_fails_leaves_no_half_and_the_next_try_finishes(
    method: str,
    path: str,
    how: int | str,
    message: str,
    preset: Path,
    hub: HubServer,
    environment: dict[str, str],
    tmp_path: Path,
) -> None:
    folder = _converted(preset, tmp_path / "albert")
    hub.fail(method, path, how)  # type: ignore[arg-type]
    found = run_client(_PUSH, environment, folder=str(folder))
    assert message in found[0]
    assert found[1].startswith("http")
    assert len([commit for commit in hub.commits("user/albert") if commit.title != "initial commit"]) == 1
    assert set(_files(folder)) <= set(hub.files("user/albert"))


def test_a_preset_goes_to_kaggle(preset: Path, tmp_path: Path) -> None:
    folder = _converted(preset, tmp_path / "keras", "keras")
    (folder / "private.txt").write_text("stays here")
    with KaggleServer() as kaggle:
        environment = client_environment(tmp_path / "home", kaggle)
        command = ["push", str(folder), "kaggle://user/albert/keras/sample"]
        assert run_client(COMMAND, environment, commands=[command]) == [0]
        assert set(kaggle.files("user/albert/keras/sample")) == set(_files(folder)) - {"private.txt"}


# What is refused before anything is sent.


def test_only_what_was_verified_and_not_changed_is_pushed(preset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing +conversion.json +only what `convert` made has one"):
        push(preset, "hf://user/albert")
    for target in ("user/albert", "gs://bucket", "kaggle://user/albert"):
        convert(preset, tmp_path / "stock", to="stock", overwrite=True)
        with pytest.raises(TargetError, match=r"should be hf://|was not compared with its source"):
            push(tmp_path / "stock", target)
    with pytest.raises(TargetError, match=r"was not compared with its source.*albert-hub-bridge verify SOURCE"):
        push(tmp_path / "stock", "hf://user/albert")
    (tmp_path / "stock" / "config.json").write_text("{}")
    (tmp_path / "stock" / "spiece.model").unlink()
    with pytest.raises(TargetError, match=r"config.json \(changed\), spiece.model \(missing\)"):
        push(tmp_path / "stock", "hf://user/albert")
    assert not record_verification(tmp_path / "stock", verify(preset, preset))


def test_what_does_not_agree_is_not_pushed(preset: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_preset(random_checkpoint(SAMPLE_ARCHITECTURE, train_vocabulary(), seed=1), other)
    convert(preset, tmp_path / "stock", to="stock")
    record_verification(tmp_path / "stock", verify(other, tmp_path / "stock"))
    with pytest.raises(TargetError, match="did not agree with its source"):
        push(tmp_path / "stock", "hf://user/albert")
    assert "**No**" in (tmp_path / "stock" / "README.md").read_text()


# The card and the record.


def test_the_card_says_what_was_done_and_nothing_that_was_not_measured(preset: Path, tmp_path: Path) -> None:
    convert(preset, tmp_path / "stock", to="stock", dtype="bfloat16", text_rules="uncased")
    text = (tmp_path / "stock" / "README.md").read_text()
    assert "Not measured." in text
    assert "The weights were float32, and are bfloat16, rounded." in text
    assert "not lower-cased" not in text
    assert "Its tokenizer does not apply" in text or "its tokenizer does not apply" in text
    metadata = yaml.safe_load(text.split("---")[1])
    assert metadata == {
        "library_name": "transformers",
        "pipeline_tag": "feature-extraction",
        "tags": ["albert", "albert-hub-bridge", "pytorch"],
    }
    assert str(tmp_path) not in text
    assert str(tmp_path) not in (tmp_path / "stock" / "conversion.json").read_text()
    convert(preset, tmp_path / "bridge", to="bridge")
    text = (tmp_path / "bridge" / "README.md").read_text()
    assert "**Texts are not lower-cased.**" in text
    assert "import albert_hub_bridge" in text


def test_its_metadata_pass_the_hubs_own_check(
    preset: Path, hub: HubServer, environment: dict[str, str], tmp_path: Path
) -> None:
    cards = []
    for layout in ("keras", "bridge", "stock"):
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
    folder = _converted(preset, tmp_path / "stock")
    file = folder / "README.md"
    file.write_text(file.read_text().replace(BEGIN, f"{BEGIN}\n## What I use it for\n\nCounting sheep."))
    file.write_text(file.read_text().replace("# stock", "# Something else"))
    assert card(folder) == file
    assert "Counting sheep." in file.read_text()
    assert "# stock" in file.read_text()
    convert(preset, folder, to="stock", overwrite=True)
    text = file.read_text()
    assert "## What I use it for\n\nCounting sheep." in text
    assert text.index(BEGIN) < text.index("Counting sheep.") < text.index(END)
    assert "Not measured." in text


def test_a_folder_tells_where_it_comes_from_and_what_happened_since(preset: Path, tmp_path: Path) -> None:
    folder = _converted(preset, tmp_path / "stock")
    assert inspect(folder).made_by == "converted from sample, by albert-hub-bridge 0.1.0"
    (folder / "tokenizer_config.json").write_text("{}")
    assert "since then: {'tokenizer_config.json': 'changed'}" in str(inspect(folder).made_by)
    (folder / "conversion.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="not a record of albert-hub-bridge"):
        inspect(folder)
