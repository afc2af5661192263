"""The local Hub works with the real clients.

The test with keras_hub is in test_kaggle_server.py, because it uses both hubs and keras_hub takes long to start.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.servers.hub_server import HubServer, needs_hub_for_cards
from tests.servers.hub_store import card_problems
from tests.servers.local_server import client_environment, run_client


WEIGHTS = bytes(range(256)) * 1000
FILES = {"config.json": b'{"model_type": "albert"}\n', "model.safetensors": WEIGHTS, "onnx/é x.txt": b"text\n"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        file = tmp_path / "folder" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path / "folder"


def test_upload_folder_and_snapshot_download(hub: HubServer, environment: dict[str, str], folder: Path) -> None:
    uploaded = run_client(
        """
        from huggingface_hub import HfApi
        api = HfApi()
        first, again = api.create_repo("model", private=True), api.create_repo("user/model", exist_ok=True)
        try:
            api.create_repo("user/model")
        except Exception as error:
            conflict = error.response.status_code
        commit = api.upload_folder(repo_id="user/model", folder_path=folder, commit_message="All of it")
        unchanged = api.upload_folder(repo_id="user/model", folder_path=folder)
        result = [first.repo_id, again.repo_id, conflict, commit.oid, unchanged.oid, api.whoami()["name"]]
        """,
        environment,
        folder=str(folder),
    )
    newest, initial = hub.commits("user/model")
    assert uploaded == ["user/model", "user/model", 409, newest.sha, newest.sha, "user"]
    assert (newest.title, newest.parent, list(initial.files)) == ("All of it", initial.sha, [".gitattributes"])
    found = hub.files("user/model")
    assert found.pop(".gitattributes")
    assert found == FILES
    assert [path for path, file in newest.files.items() if file.lfs] == ["model.safetensors"]
    (put,) = hub.requests("PUT")
    assert put.storage
    assert not put.authorized

    downloaded = run_client(
        """
        from huggingface_hub import HfApi, snapshot_download
        from pathlib import Path
        some = Path(snapshot_download("user/model", allow_patterns=["*.json", "onnx/*"]))
        names = sorted(path.relative_to(some).as_posix() for path in some.rglob("*") if path.is_file())
        whole = snapshot_download("user/model", local_dir=target)
        checked = HfApi().verify_repo_checksums("user/model", local_dir=target)
        result = [some.name, names, checked.checked_count, len(checked.mismatches) + len(checked.missing_paths)]
        """,
        environment,
        target=str(folder.parent / "target"),
    )
    assert downloaded == [newest.sha, ["config.json", "onnx/é x.txt"], 4, 0]
    assert (folder.parent / "target" / "model.safetensors").read_bytes() == WEIGHTS
    gets = hub.requests("GET", "/storage/")
    assert len(gets) == 1
    assert not gets[0].authorized
    assert all(request.authorized for request in hub.requests("GET", "/resolve/"))


def test_commit_with_a_wrong_parent_is_refused(hub: HubServer, environment: dict[str, str]) -> None:
    parent = hub.add_repo("user/model", {"a.txt": "1", "old/b.txt": "2", "old/c.txt": "3", "d.txt": "4"})
    result = run_client(
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
        def commit(parent, **options):
            operations = [CommitOperationAdd("a.txt", b"new"), CommitOperationAdd("w.bin", b"weights")]
            operations += [CommitOperationDelete("old/"), CommitOperationDelete("d.txt")]
            return HfApi().create_commit("user/model", operations, commit_message="m", parent_commit=parent, **options)
        pull = commit(parent, create_pr=True)
        done = commit(parent)
        try:
            commit(parent, commit_description="too late")
        except Exception as error:
            refused = [type(error).__name__, error.response.status_code, str(error)]
        result = [pull.pr_revision, pull.oid, done.oid, *refused]
        """,
        environment,
        parent=parent,
    )
    pulled, head = (hub.commits("user/model", revision)[0].sha for revision in ("refs/pr/1", "main"))
    assert result[:5] == ["refs/pr/1", pulled, head, "HfHubHTTPError", 412]
    assert "A commit has happened since" in result[5]
    for revision in ("main", "refs/pr/1"):
        assert hub.files("user/model", revision) == {"a.txt": b"new", "w.bin": b"weights"}
        assert len(hub.commits("user/model", revision)) == 2


def test_commit_after_another_commit_is_refused(hub: HubServer, environment: dict[str, str]) -> None:
    parent = hub.add_repo("user/model", {"a.txt": "1"})
    hub.fail("POST", "/commit/", lambda: hub.add_commit("user/model", {"a.txt": "theirs"}))
    status = run_client(
        """
        from huggingface_hub import CommitOperationAdd, HfApi
        try:
            add = [CommitOperationAdd("a.txt", b"ours")]
            HfApi().create_commit("user/model", add, commit_message="m", parent_commit=parent)
        except Exception as error:
            result = error.response.status_code
        """,
        environment,
        parent=parent,
    )
    assert status == 412
    assert hub.files("user/model") == {"a.txt": b"theirs"}


def test_large_files_are_uploaded_in_parts(environment: dict[str, str], tmp_path: Path) -> None:
    with HubServer(part_size=100_000) as hub:
        hub.add_repo("user/model", {})
        run_client(
            """
            from huggingface_hub import upload_file
            upload_file(path_or_fileobj=bytes(range(256)) * 1000, path_in_repo="w.h5", repo_id="user/model")
            """,
            client_environment(tmp_path, hub),
        )
        assert [len(request.body) for request in hub.requests("PUT")] == [100_000, 100_000, 56_000]
        assert hub.files("user/model") == {"w.h5": WEIGHTS}


def test_metadata_of_a_repository(hub: HubServer, environment: dict[str, str]) -> None:
    card = "---\nlicense: apache-2.0\npipeline_tag: feature-extraction\ntags: [albert]\n---\n# Hello\n"
    sha = hub.add_repo("user/model", {"README.md": card, **FILES})
    answers = run_client(
        """
        from huggingface_hub import HfApi
        api = HfApi()
        api.create_branch("user/model", branch="dev")
        api.create_tag("user/model", tag="v1.0")
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x.txt", repo_id="user/model", revision="dev")
        refs = api.list_repo_refs("user/model", include_pull_requests=True)
        info = api.model_info("user/model", revision="v1.0", files_metadata=True)
        result = {
            "refs": [[ref.ref for ref in refs.branches], [ref.ref for ref in refs.tags], refs.pull_requests],
            "info": [info.sha, info.private, info.pipeline_tag, info.tags, info.card_data.license],
            "sizes": {file.rfilename: [file.size, file.lfs and file.lfs.sha256] for file in info.siblings},
            "top": [entry.path for entry in api.list_repo_tree("user/model")],
            "inner": [entry.path for entry in api.list_repo_tree("user/model", "onnx")],
            "all": api.list_repo_files("user/model", revision="dev"),
            "paths": [entry.blob_id for entry in api.get_paths_info("user/model", ["config.json", "no.json"])],
            "exists": [api.file_exists("user/model", name, revision="dev") for name in ("x.txt", "y.txt")],
            "commits": [commit.title for commit in api.list_repo_commits("user/model", revision="dev")],
        }
        """,
        environment,
    )
    files = hub.commits("user/model")[0].files
    names = ["README.md", "config.json", "model.safetensors", "onnx/é x.txt"]
    assert answers["refs"] == [["refs/heads/main", "refs/heads/dev"], ["refs/tags/v1.0"], []]
    assert answers["info"] == [sha, False, "feature-extraction", ["albert"], "apache-2.0"]
    assert sorted(answers["sizes"]) == names
    assert answers["sizes"]["model.safetensors"] == [len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest()]
    assert answers["sizes"]["config.json"] == [len(FILES["config.json"]), None]
    assert answers["top"] == [*names[:3], "onnx"]
    assert answers["inner"] == ["onnx/é x.txt"]
    assert answers["all"] == [*names, "x.txt"]
    assert answers["paths"] == [files["config.json"].oid]
    assert answers["exists"] == [True, False]
    assert answers["commits"] == ["Upload x.txt with huggingface_hub", "initial commit"]


def test_missing_and_forbidden_repositories_raise_the_real_errors(hub: HubServer, environment: dict[str, str]) -> None:
    hub.add_repo("user/private", {"a.txt": "1"}, private=True)
    hub.add_repo("other/private", {"a.txt": "1"}, private=True)
    hub.add_repo("other/gated", {"a.txt": "1"}, gated=True)
    hub.add_repo("other/public", {"a.txt": "1"})
    found = run_client(
        """
        from huggingface_hub import auth_check, create_repo, hf_hub_download, upload_file
        def name(call, *arguments, **options):
            try:
                call(*arguments, **options)
            except Exception as error:
                told = error.__cause__ if "force_download" in options else error
                return f"{type(told).__name__} {told.response.status_code}"
        up = {"path_or_fileobj": b"x", "path_in_repo": "a.txt"}
        result = [
            name(hf_hub_download, "user/private", "a.txt"),
            name(hf_hub_download, "user/private", "a.txt", token=False, force_download=True),
            name(hf_hub_download, "user/private", "a.txt", token="hf_wrong", force_download=True),
            name(hf_hub_download, "user/private", "b.txt"),
            name(hf_hub_download, "user/private", "a.txt", revision="v2"),
            name(hf_hub_download, "user/nothing", "a.txt"),
            name(hf_hub_download, "other/private", "a.txt"),
            name(hf_hub_download, "other/gated", "a.txt"),
            name(hf_hub_download, "other/gated", "a.txt", token=False),
            name(upload_file, repo_id="other/public", **up),
            name(upload_file, repo_id="user/nothing", **up),
            name(upload_file, repo_id="user/private", revision="nothing", **up),
            name(create_repo, "other/new"),
            name(auth_check, "other/public"),
            name(auth_check, "other/public", write=True),
        ]
        """,
        environment,
    )
    assert found == [
        None,
        "RepositoryNotFoundError 401",
        "HfHubHTTPError 401",
        "RemoteEntryNotFoundError 404",
        "RevisionNotFoundError 404",
        "RepositoryNotFoundError 404",
        "RepositoryNotFoundError 404",
        "GatedRepoError 403",
        "GatedRepoError 401",
        "HfHubHTTPError 403",
        "RepositoryNotFoundError 404",
        "RevisionNotFoundError 404",
        "HfHubHTTPError 403",
        None,
        "HfHubHTTPError 403",
    ]


@needs_hub_for_cards
def test_model_cards_are_validated(hub: HubServer, environment: dict[str, str]) -> None:
    hub.add_repo("user/model", {})
    pushed = run_client(
        """
        from huggingface_hub import EvalResult, ModelCard, ModelCardData
        score = EvalResult(task_type="feature-extraction", dataset_type="texts", dataset_name="Texts",
                           metric_type="max_abs_difference", metric_value=1e-6)
        data = ModelCardData(license="apache-2.0", language="en", base_model="user/base", library_name="transformers",
                             pipeline_tag="feature-extraction", tags=["albert"], model_name="m", eval_results=[score])
        card = ModelCard(f"---\\n{data.to_yaml()}\\n---\\n# A model\\n")
        card.push_to_hub("user/model")
        card.data.license = "free beer"
        try:
            card.push_to_hub("user/model")
        except ValueError as error:
            result = [str(card.load("user/model").data.eval_results[0].metric_value), str(error)]
        """,
        environment,
    )
    assert pushed[0] == "1e-06"
    assert '"license" must be one of' in pushed[1]
    assert len(hub.commits("user/model")) == 2


def test_card_problems() -> None:
    assert card_problems("# no metadata") == []
    assert card_problems("---\na: [\n---\n")[0].startswith("YAML parsing error")
    assert card_problems("---\nlicense: other\ntags: x\n---\n") == [
        '"license_name" is required',
        '"tags" must be an array',
    ]
    index = "---\nmodel-index:\n- name: m\n  results:\n  - task: {type: t}\n    metrics:\n    - type: m\n---\n"
    assert card_problems(index) == [
        '"model-index[0].results[0].dataset.name" is required',
        '"model-index[0].results[0].dataset.type" is required',
        '"model-index[0].results[0].metrics[0].value" is required',
    ]


def test_faults_while_downloading(hub: HubServer, environment: dict[str, str]) -> None:
    large = WEIGHTS * 100  # huggingface_hub resumes in steps of 10 MB
    hub.add_repo("user/model", {**FILES, "model.safetensors": large})
    hub.fail("GET", "/storage/", "truncate")
    hub.fail("GET", "/resolve/.*config.json", 429, retry_after=0)
    hub.fail("HEAD", "onnx", 503)
    sizes = run_client(
        """
        from huggingface_hub import hf_hub_download
        from pathlib import Path
        result = [Path(hf_hub_download("user/model", name)).stat().st_size for name in names]
        """,
        environment,
        names=["model.safetensors", "config.json", "onnx/é x.txt"],
    )
    assert sizes == [len(large), len(FILES["config.json"]), len(FILES["onnx/é x.txt"])]
    first, second = hub.requests("GET", "/storage/")
    assert "range" not in first.headers
    assert second.headers["range"] == "bytes=10485760-"
    assert len(hub.requests("GET", "/resolve/.*config.json")) == len(hub.requests("HEAD", "onnx")) == 2

    hub.fail("GET", "/storage/", "corrupt")
    spoiled = run_client(
        """
        import hashlib
        from huggingface_hub import hf_hub_download
        file = hf_hub_download("user/model", "model.safetensors", force_download=True)
        result = hashlib.sha256(open(file, "rb").read()).hexdigest()
        """,
        environment,
    )
    assert spoiled != hashlib.sha256(large).hexdigest()  # huggingface_hub compares sizes only


def test_faults_while_uploading(hub: HubServer, environment: dict[str, str], folder: Path) -> None:
    hub.add_repo("user/model", {})
    hub.fail("POST", "/preupload/", 500)
    hub.fail("POST", "/objects/batch", "drop")
    hub.fail("PUT", "/storage/", "corrupt")
    upload = """
        from huggingface_hub import upload_folder
        try:
            upload_folder(repo_id="user/model", folder_path=folder)
        except Exception as error:
            cause = error.__cause__
            result = [type(error).__name__, str(error), str(cause)]
    """
    kind, message, cause = run_client(upload, environment, folder=str(folder))
    assert (kind, message) == ("RuntimeError", "Error while uploading 'model.safetensors' to the Hub.")
    assert "does not have the sha256" in cause
    assert hub.files("user/model") == {}
    assert len(hub.requests("POST", "/preupload/")) == len(hub.requests("POST", "/objects/batch")) == 2

    hub.fail("POST", "/commit/", "lose")
    kind, _, _ = run_client(upload, environment, folder=str(folder))
    assert kind == "RemoteProtocolError"
    assert len(hub.commits("user/model")) == 2  # the commit exists; only the response was lost
    assert run_client(upload, environment, folder=str(folder)) is None
    assert len(hub.commits("user/model")) == 2
    assert hub.files("user/model")["model.safetensors"] == WEIGHTS


def test_transformers(hub: HubServer, environment: dict[str, str], vocabulary_file: Path) -> None:
    found = run_client(
        """
        import torch, transformers
        from transformers import AlbertConfig, AlbertModel, AlbertTokenizer, AutoModel, AutoTokenizer, pipeline
        torch.manual_seed(0)
        config = AlbertConfig(
            vocab_size=400, embedding_size=8, hidden_size=16, num_hidden_layers=4, num_hidden_groups=2,
            num_attention_heads=2, intermediate_size=24, max_position_embeddings=32,
        )
        model, tokenizer = AlbertModel(config).eval(), AlbertTokenizer.from_pretrained(vocabulary)
        model.push_to_hub("user/albert", private=True)
        tokenizer.push_to_hub("user/albert")
        inputs = tokenizer(["a bridge joins two banks", "lost"], padding=True, return_tensors="pt")
        again, words = AutoModel.from_pretrained("user/albert").eval(), AutoTokenizer.from_pretrained("user/albert")
        with torch.no_grad():
            one, two = (m(**inputs).last_hidden_state for m in (model, again))
        piped = pipeline("feature-extraction", model="user/albert")("lost")
        ids = [one("a bridge")["input_ids"] for one in (tokenizer, words)]
        result = [type(again).__name__, torch.equal(one, two), ids[0] == ids[1], len(piped[0][0])]
        """,
        environment,
        vocabulary=str(vocabulary_file),
    )
    assert found == ["AlbertModel", True, True, 16]
    assert [commit.title for commit in hub.commits("user/albert")] == [
        "Upload tokenizer",
        "Upload model",
        "initial commit",
    ]
    assert hub.repos["user/albert"].private
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(hub.files("user/albert"))
