"""`complete`: a preset or a repository gets what the other library needs, and keeps what it has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import transformers
from typer.testing import CliRunner

from albert_hub_bridge import complete, convert
from albert_hub_bridge.cli import app
from albert_hub_bridge.errors import AlbertHubBridgeError, SourceError, TargetError
from albert_hub_bridge.layouts.registry import read_checkpoint, write_checkpoint
from albert_hub_bridge.mapping.heads import Head
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint
from tests.servers.hub_server import HubServer
from tests.servers.local_server import client_environment, run_client


CARD = "---\nlicense: apache-2.0\n---\n\n# A model\n\nBy its owner.\n"
COMPLETE = """
from huggingface_hub import HfApi
from albert_hub_bridge import complete
from albert_hub_bridge.errors import TargetError

def change(stage, done, total):
    if stage == "loading":
        HfApi().upload_file(path_or_fileobj=b"# Another card", path_in_repo="README.md", repo_id="user/changed")

reports, errors = [complete(f"hf://user/{name}").as_dict() for name in names], []
for name, progress in (("preset", change), ("changed", change)):
    try:
        complete(f"hf://user/{name}", progress=progress)
    except TargetError as error:
        errors.append(str(error))
result = reports, errors
"""


def _files(folder: Path) -> dict[str, bytes | str]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def folders(vocabulary: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preset and a repository of text classifiers, as their owners have them: with a card, and without a record."""
    parent = tmp_path_factory.mktemp("complete")
    head = Head(kind="sequence_classification", num_labels=3, activation="softmax")
    (parent / "preset").mkdir()
    write_checkpoint(random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary, head=head), parent / "preset", "keras")
    convert(parent / "preset", parent / "repository", to="transformers", normalize="uncased")
    for name in ("conversion.json", "tokenizer.json", "tokenizer_config.json"):
        (parent / "repository" / name).unlink()
    # transformers 5 saves no spiece.model, and cuts pieces such as `(` out of a text first.
    tokenizer = transformers.AlbertTokenizer.from_pretrained(parent / "repository")
    (parent / "repository" / "spiece.model").unlink()
    tokenizer.save_pretrained(parent / "repository")
    # KerasHub indents by 4.
    for name in ("config.json", "task.json"):
        file = parent / "preset" / name
        file.write_text(json.dumps(json.loads(file.read_text()), indent=4))
    for name in ("preset", "repository"):
        (parent / name / "README.md").write_text(CARD)
    return parent


ADDED = {
    "preset": {"model.safetensors", "spiece.model", "tokenizer.4.0.0.json", "tokenizer_config.json"},
    "repository": {
        "assets/tokenizer/vocabulary.spm",
        "keras_tokenizer.json",
        "metadata.json",
        "model.weights.h5",
        "preprocessor.json",
        "task.json",
        "task.weights.h5",
    },
}


@pytest.fixture(scope="module")
def completed(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both after `complete`."""
    parent = tmp_path_factory.mktemp("completed")
    for name in ADDED:
        shutil.copytree(folders / name, parent / name)
        assert complete(parent / name).verified is not None
    return parent


def test_pull_request_has_what_was_added(folders: Path, completed: Path, hub: HubServer, tmp_path: Path) -> None:
    """tests/layouts/universal loads such repositories with both libraries, in processes of their own."""
    for name, source in (*((name, name) for name in ADDED), ("changed", "preset")):
        hub.add_repo(f"user/{name}", _files(folders / source))
    environment = client_environment(tmp_path / "home", hub) | {"HF_HUB_OFFLINE": "0"}
    reports, errors = run_client(COMPLETE, environment, names=list(ADDED))
    for (name, added), report in zip(ADDED.items(), reports, strict=True):
        assert report["url"] == f"{hub.url}/user/{name}/discussions/1"
        assert set(report["added"]) == added
        before, after = hub.files(f"user/{name}"), hub.files(f"user/{name}", "refs/pr/1")
        assert before == _files(folders / name), "main has to be as it was"
        assert {file for file in after if after[file] != before.get(file)} == {*added, "config.json", "README.md"}
        expected = _files(completed / name)
        assert {**after, "README.md": b""} == {**expected, "README.md": b""}, "as in a folder"
        card = after["README.md"].decode()
        assert card.startswith(CARD)
        assert f'from_preset("hf://user/{name}")' in card or f'from_pretrained("user/{name}")' in card
    assert "begins a word after each" in reports[1]["notes"][0]
    again, meanwhile = errors
    assert f"has an open pull request with this title: {hub.url}/user/preset/discussions/1." in again
    assert "refs/pr/2" not in hub.repos["user/preset"].refs
    assert "received another commit meanwhile" in meanwhile
    assert set(hub.repos["user/changed"].refs) == {"refs/heads/main"}
    assert hub.files("user/changed") == {**_files(folders / "preset"), "README.md": b"# Another card"}


@pytest.mark.parametrize("name", ADDED)
def test_folder_keeps_its_files(name: str, folders: Path, completed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(folders / name, folder)
    before = _files(folder)
    report = complete(folder, dry_run=True)
    assert _files(folder) == before
    assert set(report.diffs) == {*ADDED[name], "config.json", "README.md"}
    removed = [
        line for line in report.diffs["config.json"].splitlines() if line.startswith("-") and "config" not in line
    ]
    assert len(removed) == 1, "the last line gets a comma, and nothing else changes"
    after = _files(completed / name)
    assert {file for file in after if after[file] != before.get(file)} == set(report.diffs)
    assert set(before) <= set(after)
    assert json.loads(after["config.json"]).items() >= json.loads(before["config.json"]).items()
    with read_checkpoint(completed / name) as checkpoint:
        assert checkpoint.layout == "universal"
    with pytest.raises(SourceError, match="has the files of both libraries already"):
        complete(completed / name)


def test_repository_without_a_pooler(vocabulary: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    whole = random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary, head=Head(kind="masked_lm"))
    rules = [rule for rule in whole.encoder_rules if rule.albert_hub.startswith("pooled_dense")]
    write_checkpoint(whole.without(rules, whole.head, "for this test"), folder, "transformers")
    before = _files(folder)
    assert complete(folder).verified is not None
    assert before["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    with read_checkpoint(folder) as checkpoint:
        assert checkpoint.layout == "universal"
        assert not checkpoint.has_pooler


def _albert_hub(source: Path, folder: Path) -> None:
    convert(source, folder, to="albert_hub")
    (folder / "conversion.json").unlink()


def _with(name: str) -> Callable[[Path, Path], None]:
    def make(source: Path, folder: Path) -> None:
        shutil.copytree(source.parent / "repository", folder)
        (folder / name).write_text("{}")

    return make


def _with_checkpoint(head: Head | None = None, **settings: str) -> Callable[[Path, Path], None]:
    def make(source: Path, folder: Path) -> None:
        folder.mkdir()
        architecture = replace(SAMPLE_ARCHITECTURE, **settings)
        write_checkpoint(random_checkpoint(architecture, head=head), folder, "transformers")

    return make


def _without_vocabulary(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder)
    (folder / "assets/tokenizer/vocabulary.spm").unlink()


REFUSED: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "of this package": (_albert_hub, "has the layout albert_hub"),
    "converted": (lambda source, folder: convert(source, folder, to="transformers"), "was made by convert"),
    "without its vocabulary": (
        _without_vocabulary,
        "expected assets/tokenizer/vocabulary.spm beside tokenizer.json, found none",
    ),
    "another head": (
        _with_checkpoint(head=Head(kind="token_classification", num_labels=2)),
        "head.*\n.*Make another one: albert-hub-bridge convert SOURCE TARGET --to universal --drop-head$",
    ),
    "another activation": (_with_checkpoint(activation="relu"), "relu.*\n.*nothing can be left out of it.$"),
    "names that are taken": (_with("metadata.json"), "has metadata.json already, which would be replaced"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_change_nothing(name: str, folders: Path, tmp_path: Path) -> None:
    make, message = REFUSED[name]
    make(folders / "preset", tmp_path / "folder")
    before = _files(tmp_path / "folder")
    with pytest.raises(AlbertHubBridgeError, match=message):
        complete(tmp_path / "folder")
    assert _files(tmp_path / "folder") == before


def _fail(file: Path, content: bytes) -> None:
    raise TargetError(f"{file} could not be written")


def _interrupt(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    if file.name == "config.json" and b"model_type" in content:  # the new one: a preset has no such key
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("name", "replace_file", "error"),
    [("repository", _fail, TargetError), ("preset", _interrupt, KeyboardInterrupt)],
    ids=["failed", "interrupted"],
)
def test_failed_write_leaves_the_folder_as_it_was(
    name: str,
    replace_file: Callable[[Path, bytes], None],
    error: type[BaseException],
    folders: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(folders / name, folder)
    before = _files(folder)
    monkeypatch.setattr("albert_hub_bridge.disk.additions.replace_file", replace_file)
    monkeypatch.setattr("albert_hub_bridge.commands.complete._verify", lambda *arguments: ("passed", ()))
    with pytest.raises(error):
        complete(folder)
    assert _files(folder) == before


def test_command_shows_the_diff(folders: Path) -> None:
    result = CliRunner().invoke(app, ["complete", str(folders / "preset"), "--dry-run"])
    assert result.exit_code == 0, result.output
    assert '+  "model_type": "albert"' in result.output.replace("    ", "  ")
    assert "new file model.safetensors:" in result.output
    assert "Nothing was written: --dry-run." in result.output


@pytest.mark.parametrize("source", ["kaggle://keras/albert/keras/name/1", "albert_base_en_uncased", "modelscope://a/b"])
def test_other_hubs_are_refused_before_anything_is_downloaded(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("albert_hub_bridge.commands.complete.pull", pytest.fail)
    with pytest.raises(SourceError, match="only folders and repositories on Hugging Face"):
        complete(source)


def test_file_that_was_changed_meanwhile_is_kept(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(folders / "preset", folder)
    before = _files(folder)

    def edit(*arguments: object) -> tuple[str, tuple[()]]:
        (folder / "README.md").write_text("# Edited")
        return "passed", ()

    monkeypatch.setattr("albert_hub_bridge.commands.complete._verify", edit)
    with pytest.raises(TargetError, match=r"README.md was changed meanwhile"):
        complete(folder)
    assert _files(folder) == {**before, "README.md": b"# Edited"}


@pytest.mark.parametrize("linked", ["config.json", "assets/tokenizer"])
def test_nothing_is_written_where_a_link_leads(linked: str, folders: Path, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    shutil.copytree(folders / "repository", folder)
    place = folder / linked
    if place.exists():
        place.rename(elsewhere)
        elsewhere.rename(folder / "moved.json")
        place.symlink_to("moved.json")
    else:
        elsewhere.mkdir()
        place.parent.mkdir()
        place.symlink_to(elsewhere)
    before = _files(folder)
    with pytest.raises(TargetError, match="is a link"):
        complete(folder)
    assert _files(folder) == before
    assert not elsewhere.exists() or not any(elsewhere.iterdir())
