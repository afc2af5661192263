"""The page by its API: what `gradio_client` does is what the browser does."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from albert_hub_bridge import verify
from tests.ui.conftest import CARD, OWNERS_TOKEN, RunningPage, wait_until


gradio_client = pytest.importorskip("gradio_client", reason="gradio_client is not installed")

AS_IN_SOURCE = "as in the source"
Ask = Callable[..., Any]


@contextmanager
def client(page: RunningPage, downloads: Path) -> Iterator[Any]:
    connected = gradio_client.Client(page.url, verbose=False, download_files=downloads, analytics_enabled=False)
    try:
        yield connected
    finally:
        connected.close()


@pytest.fixture
def connected(page: RunningPage, tmp_path: Path) -> Iterator[Any]:
    """A visitor, who leaves at the end of the test."""
    with client(page, tmp_path / "downloads") as each:
        yield each
    wait_until(lambda: not page.visits() and not page.workers(), "the end of the visit")


@pytest.fixture
def ask(connected: Any) -> Ask:
    """Return the data that an action gives."""

    def predict(name: str, **arguments: Any) -> Any:
        shown, data, *others = connected.submit(api_name=f"/{name}", **arguments).result(timeout=120)
        assert ("error" in data) == ('role="alert"' in shown)
        return (data, *others) if others else data

    return predict


def test_whole_way(page: RunningPage, connected: Any, ask: Ask, tmp_path: Path) -> None:
    token = page.hub.token
    found = ask("inspect", source="user/preset")
    assert found["architecture"]["hidden_dim"] == 32
    assert found["head"] is None
    assert found["vocabulary"]["text_normalization"] == "none"
    assert found["not_downloaded"] == ["notes.txt", "train.py"]

    result = ask("convert", layout="transformers")
    assert "error" not in result, result
    assert result["verification"]["passed"], result
    assert {name: check["outcome"] for name, check in result["verification"]["checks"].items()} == dict.fromkeys(
        ("configuration", "tensors", "reference", "engines", "texts"), "passed"
    )
    assert len(result["verification"]["relative_layer_differences"]) == 9
    assert str(page.root) not in json.dumps(result), "a path of the machine is shown"

    looked = ask("look", texts="The bridge joins\na river\na bridge")
    assert [view["same"] for view in looked["texts"]] == [True] * 3
    assert looked["texts"][1]["rows"][0]["source"] == {
        "piece": "▁a",
        "id": looked["texts"][1]["rows"][0]["target"]["id"],
    }
    assert looked["largest_difference"] < 1e-6
    assert all(abs(looked["source_similarity"][index][index] - 1) < 1e-9 for index in range(3))

    data, button = ask("download")
    archive = Path(button["value"] if isinstance(button, dict) else button)
    assert archive.stat().st_size == data["bytes"]
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "unpacked")
    assert verify(page.models / "preset", tmp_path / "unpacked" / "preset-transformers").passed

    assert "needs your token" in ask("plan_push", repository="user/new")["error"]
    assert "dry run" in ask("push", repository="user/new", token=token)["error"]
    plan = ask("plan_push", repository="user/new", token=token)
    assert not plan["exists"]
    assert {file["outcome"] for file in plan["files"].values()} == {"new"}
    assert 'from_pretrained("user/new")' in plan["card_diff"]
    assert "dry run" in ask("push", repository="user/another", token=token)["error"]
    assert "user/new" not in page.hub.repos
    url = ask("push", repository="user/new", token=token)["url"]
    assert url.startswith(f"{page.hub.url}/user/new/commit/")
    assert set(page.hub.files("user/new")) == {*plan["files"], ".gitattributes"}
    again = ask("plan_push", repository="user/new", token=token)
    assert {file["outcome"] for file in again["files"].values()} == {"unchanged"}
    assert again["card_diff"] == ""

    planned = ask("plan_complete", repository="")
    assert planned["library"] == "transformers"
    assert planned["diffs"]["README.md"].startswith("--- a/README.md")
    assert "refs/pr/1" not in page.hub.repos["user/preset"].refs
    completed = ask("complete", repository="", token=token)
    assert completed["url"] == f"{page.hub.url}/user/preset/discussions/1"
    proposed = page.hub.files("user/preset", "refs/pr/1")
    assert set(planned["added"]) <= set(proposed)
    assert page.hub.files("user/preset")["README.md"].decode() == CARD

    _check_token_is_nowhere(page, token)


def _check_token_is_nowhere(page: RunningPage, token: str) -> None:
    """Neither the process that used it has it in its arguments or environment, nor does any file have it."""
    (worker,) = page.workers()
    for process in (worker, page.pid):
        for name in ("cmdline", "environ"):
            content = Path(f"/proc/{process}/{name}").read_bytes()
            assert token.encode() not in content
            assert (OWNERS_TOKEN.encode() in content) == (process == page.pid and name == "environ")
    for file in page.root.rglob("*"):
        if file.is_file() and not file.is_symlink():
            assert token.encode() not in file.read_bytes(), file


def test_upload_and_differences(page: RunningPage, ask: Ask, models: Path) -> None:
    found, _ = ask("inspect_upload", upload=gradio_client.handle_file(models / "my-repository.zip"))
    assert found["source"] == "my-repository (uploaded)"
    assert found["layout"] == "transformers"
    result = ask("convert", layout="albert_hub", normalize="uncased", dtype="bfloat16")
    checks = {name: check["outcome"] for name, check in result["verification"]["checks"].items()}
    assert (checks["configuration"], checks["tensors"], checks["texts"]) == ("failed", "passed", "failed")
    assert result["conversion"]["dtype"] == "bfloat16"
    first = result["different"]["texts"][0]
    assert first["text"] == result["verification"]["first_difference"]["text"]
    assert any(not row["same"] and row["source"] != row["target"] for row in first["rows"])
    refused = ask("plan_push", repository="user/failed", token=page.hub.token)["error"]
    assert "differs from its source" in refused
    plan = ask("plan_push", repository="user/failed", token=page.hub.token, unverified=True)
    assert plan["files"]["model.safetensors"]["outcome"] == "new"


def test_what_is_refused_says_why(page: RunningPage, ask: Ask, models: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ({"source": str(models / "preset")}, "Type user/repo"),
        ({"source": "user/private"}, "does not exist, or it is private"),
        ({"source": "user/missing"}, "does not exist, or it is private"),
        ({}, "Type user/repo"),
    ):
        assert message in ask("inspect", **arguments)["error"]
    found = ask("inspect", source="user/private", token=page.hub.token)
    assert found["layout"] == "transformers", "with the visitor's token"
    assert "Did you mean" not in ask("inspect", source="user/missing")["error"]
    with zipfile.ZipFile(tmp_path / "pickle.zip", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("pytorch_model.bin", b"\x80\x02.")
    upload = gradio_client.handle_file(tmp_path / "pickle.zip")
    assert "is a pickle" in ask("inspect_upload", upload=upload)[0]["error"]
    shutil.make_archive(str(tmp_path / "broken"), "zip", models, "repository/tokenizer.json")
    upload = gradio_client.handle_file(tmp_path / "broken.zip")
    message = ask("inspect_upload", upload=upload)[0]["error"]
    assert "no config.json" in message
    assert str(page.root) not in message
    assert "Convert a source first" in ask("look", texts="a")["error"]
    assert not list(page.root.glob("albert-hub-bridge-ui-*/served/[!v]*/*")), "uploads stay"


@pytest.mark.parametrize(
    ("package", "source", "layout"),
    [
        ("kagglehub", "kaggle://user/albert/keras/tiny", "keras"),
        ("modelscope", "modelscope://user/albert", "transformers"),
    ],
)
def test_other_hubs(ask: Ask, package: str, source: str, layout: str) -> None:
    """They are asked without any login: the owner's is not the visitor's."""
    pytest.importorskip(package, reason=f"{package} is not installed")
    found = ask("inspect", source=source)
    assert "error" not in found, found
    assert (found["source"], found["layout"]) == (source, layout)
    assert found["architecture"]["hidden_dim"] == 32
    assert "does not exist" in ask("inspect", source=source.replace("albert", "missing"))["error"]


def test_two_visitors_at_once(page: RunningPage, tmp_path: Path) -> None:
    """Each gets their own conversion, one after the other."""
    with client(page, tmp_path / "one") as one, client(page, tmp_path / "other") as other:
        one.predict(source="user/preset", api_name="/inspect")
        other.predict(source="user/private", token=page.hub.token, api_name="/inspect")
        assert len(page.visits()) == 2
        jobs = [
            one.submit(layout="albert_hub", api_name="/convert"),
            other.submit(layout="albert_hub", token=page.hub.token, api_name="/convert"),
        ]
        results = [job.result(timeout=180)[1] for job in jobs]
        assert [each["conversion"]["source"]["source"] for each in results] == ["hf://user/preset", "hf://user/private"]
        assert all(each["verification"]["passed"] for each in results)
        assert len(page.workers()) == 1, "the one that waits for nothing gave its memory back"
    wait_until(lambda: not page.visits() and not page.workers(), "the end of both visits")


def test_visitor_who_leaves_ends_the_work(page: RunningPage, tmp_path: Path) -> None:
    with client(page, tmp_path) as visitor:
        visitor.predict(source="user/preset", api_name="/inspect")
        visitor.submit(layout="transformers", api_name="/convert")
        wait_until(lambda: [*page.root.glob("albert-hub-bridge-ui-*/visits/*/converted")], "the conversion")
        assert page.workers()
    wait_until(lambda: not page.visits() and not page.workers(), "the end of the visit")
    with client(page, tmp_path) as next_visitor:
        shown, _ = next_visitor.predict(source="user/preset", api_name="/inspect")
        assert "a KerasHub preset" in shown, "the page works for others"
    wait_until(lambda: not page.visits(), "the end of the next visit")


def test_stop(page: RunningPage, connected: Any, ask: Ask) -> None:
    ask("inspect", source="user/preset")
    job = connected.submit(layout="transformers", api_name="/convert")
    wait_until(lambda: [*page.root.glob("albert-hub-bridge-ui-*/visits/*/converted")], "the conversion")
    connected.predict(api_name="/stop")
    assert job.result(timeout=60)[1] == {"error": "Stopped. Nothing was changed."}
    assert ask("inspect", source="user/preset")["layout"] == "keras"
