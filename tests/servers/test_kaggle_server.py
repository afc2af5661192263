"""The local Kaggle works with the real clients."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.hub_server import HubServer
from tests.servers.kaggle_server import KaggleServer
from tests.servers.local_server import client_environment, run_client


HANDLE = "user/albert/keras/tiny"
WEIGHTS = bytes(range(256)) * 1000
FILES = {"config.json": b"{}", "model.weights.h5": WEIGHTS, "assets/tokenizer/vocabulary.spm": b"\0pieces"}


@pytest.fixture
def kaggle() -> Iterator[KaggleServer]:
    with KaggleServer() as server:
        yield server
    assert not server.requests("CONNECT"), "a client tried to reach another host"


@pytest.fixture
def environment(kaggle: KaggleServer, tmp_path: Path) -> dict[str, str]:
    return client_environment(tmp_path / "home", kaggle)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        file = tmp_path / "folder" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path / "folder"


def test_upload_creates_a_model_then_versions(kaggle: KaggleServer, environment: dict[str, str], folder: Path) -> None:
    upload = (
        "import kagglehub; kagglehub.model_upload(handle, folder, 'Apache 2.0', notes); result = kagglehub.whoami()"
    )
    who = run_client(upload, environment, handle=HANDLE, folder=str(folder), notes="")
    assert who == {"username": "user"}
    assert kaggle.models["user/albert"].private  # the default of kagglehub
    assert kaggle.files(HANDLE) == dict(sorted(FILES.items()))
    (folder / "config.json").write_text("{'new': 1}")
    run_client(upload, environment, handle=HANDLE, folder=str(folder), notes="better")
    assert kaggle.versions(HANDLE) == 2
    assert kaggle.files(HANDLE, 1)["config.json"] == b"{}"
    assert kaggle.files(HANDLE)["config.json"] == b"{'new': 1}"
    assert len(kaggle.requests("PUT", "/storage/uploads/")) == 6
    assert [r.authorized for r in kaggle.log] == [not r.storage for r in kaggle.log]


def test_download_by_version_latest_and_path(kaggle: KaggleServer, environment: dict[str, str]) -> None:
    kaggle.add_model("other/albert/keras/tiny", {"config.json": "old"})
    kaggle.add_model("other/albert/keras/tiny", FILES)
    found = run_client(
        """
        import kagglehub
        from pathlib import Path
        def read(handle, path=None):
            folder = Path(kagglehub.model_download(handle, path))
            files = [folder] if path else [file for file in folder.rglob("*") if file.is_file()]
            return {file.name: file.stat().st_size for file in files}
        handle = "other/albert/keras/tiny"
        one = read(handle, "assets/tokenizer/vocabulary.spm")
        try:
            read(handle, "task.json")
        except Exception as error:
            missing = str(error)
        result = [one, missing, read(f"{handle}/1"), read(handle), read(handle)]
        """,
        environment,
    )
    every = {"config.json": 2, "model.weights.h5": len(WEIGHTS), "vocabulary.spm": 7}
    assert found[0] == {"vocabulary.spm": 7}
    assert "404 Client Error" in found[1]
    assert found[2:] == [{"config.json": 3}, every, every]
    gets = kaggle.requests("GET")
    assert all(get.storage and not get.authorized for get in gets)
    assert len(gets) == 1 + 1 + 3  # cached files are not requested again


def test_many_files_are_downloaded_as_a_bundle(kaggle: KaggleServer, environment: dict[str, str]) -> None:
    files = {f"shards/{number}.bin": bytes([number]) * 1000 for number in range(30)}
    kaggle.add_model(HANDLE, files)
    count = run_client(
        """
        import kagglehub
        from pathlib import Path
        folder = Path(kagglehub.model_download(handle))
        result = [sum(file.stat().st_size for file in folder.rglob("*.bin")), len(list(folder.rglob("*")))]
        """,
        environment,
        handle=HANDLE,
    )
    assert count == [30_000, 31]
    assert len(kaggle.requests("GET")) == 1


def test_permissions(kaggle: KaggleServer, environment: dict[str, str], folder: Path) -> None:
    kaggle.add_model("user/albert/keras/tiny", FILES, private=True)
    kaggle.add_model("other/secret/keras/tiny", FILES, private=True)
    look = """
        import kagglehub
        def look(call, *arguments):
            try:
                call(*arguments)
            except Exception as error:
                return f"{type(error).__name__} {error.response.status_code}"
        result = [
            look(kagglehub.model_download, "user/albert/keras/tiny", "config.json"),
            look(kagglehub.model_download, "other/secret/keras/tiny", "config.json"),
            look(kagglehub.model_download, "user/albert/keras/none", "config.json"),
            look(kagglehub.model_upload, "other/new/keras/tiny", folder),
        ]
    """
    anonymous = {name: value for name, value in environment.items() if name != "KAGGLE_API_TOKEN"}
    password = {**anonymous, "KAGGLE_USERNAME": "user", "KAGGLE_KEY": kaggle.token}
    wrong = {**environment, "KAGGLE_API_TOKEN": "KGAT_wrong"}
    known = [None, "KaggleApiHTTPError 403", "KaggleApiHTTPError 404", "HTTPError 403"]
    unknown = ["KaggleApiHTTPError 401"] * 4
    for whose, variables, expected in (
        ("token", environment, known),
        ("password", password, known),
        ("anonymous", anonymous, unknown),
        ("wrong", wrong, unknown),
    ):
        cache = {"KAGGLEHUB_CACHE": str(folder.parent / whose)}
        assert run_client(look, {**variables, **cache}, folder=str(folder)) == expected, whose


def test_faults_while_downloading(kaggle: KaggleServer, environment: dict[str, str]) -> None:
    large = WEIGHTS * 12  # kagglehub resumes in steps of 1 MB
    kaggle.add_model(HANDLE, {"model.weights.h5": large})
    kaggle.fail("GET", "model.weights.h5", "truncate")
    kaggle.fail("GET", "model.weights.h5", "corrupt", after=2)
    kaggle.fail("POST", "GetModelInstance$", 500, after=1)
    found = run_client(
        """
        import hashlib, kagglehub
        def download(**options):
            try:
                file = kagglehub.model_download(handle, "model.weights.h5", **options)
                return hashlib.sha256(open(file, "rb").read()).hexdigest()
            except Exception as error:
                return type(error).__name__
        result = [download(), download(), download(), download(force_download=True), download()]
        """,
        environment,
        handle=HANDLE,
    )
    good = hashlib.sha256(large).hexdigest()
    assert found == ["ChunkedEncodingError", "KaggleApiHTTPError", good, "DataCorruptionError", good]
    ranges = [get.headers.get("range") for get in kaggle.requests("GET")]
    assert ranges == [None, None, "bytes=1048576-", None, None]


def test_faults_while_uploading(kaggle: KaggleServer, environment: dict[str, str], folder: Path) -> None:
    kaggle.fail("PUT", "/storage/uploads/", "truncate", after=2)
    kaggle.fail("PUT", "/storage/uploads/", "lose")
    upload = """
        import kagglehub
        try:
            kagglehub.model_upload(handle, folder)
        except Exception as error:
            result = [type(error).__name__, str(error)]
    """
    assert run_client(upload, environment, handle=HANDLE, folder=str(folder)) is None
    assert kaggle.files(HANDLE) == dict(sorted(FILES.items()))
    kaggle.fail("POST", "CreateModelInstance$", 503, message="Try again later.")
    kind, message = run_client(upload, environment, handle=HANDLE, folder=str(folder))
    assert (kind, "Try again later." in message) == ("HTTPError", True)
    assert kaggle.versions(HANDLE) == 1


def test_keras_hub(kaggle: KaggleServer, vocabulary_file: Path, tmp_path: Path) -> None:
    with HubServer() as hub:
        equal = run_client(
            """
            import keras_hub
            import numpy as np
            backbone = keras_hub.models.AlbertBackbone(
                vocabulary_size=400, num_layers=4, num_heads=2, embedding_dim=8, hidden_dim=16, intermediate_dim=24,
                num_groups=2, num_inner_repetitions=2, max_sequence_length=32,
            )
            backbone.save_to_preset(preset)
            keras_hub.models.AlbertTokenizer(vocabulary).save_to_preset(preset)
            result = []
            for address in ("kaggle://user/albert/keras/tiny", "hf://user/tiny"):
                keras_hub.upload_preset(address, preset)
                again = keras_hub.models.AlbertBackbone.from_preset(address)
                tokenizer = keras_hub.models.AlbertTokenizer.from_preset(address)
                pairs = zip(backbone.get_weights(), again.get_weights(), strict=True)
                result += [[np.array_equal(one, two) for one, two in pairs], len(tokenizer("a bridge")) > 0]
            """,
            {**client_environment(tmp_path, kaggle, hub), "KERAS_BACKEND": "torch"},
            preset=str(tmp_path / "preset"),
            vocabulary=str(vocabulary_file),
        )
        from_hub = hub.files("user/tiny")
    assert len(equal[0]) > 40
    assert all(equal[0])
    assert equal == [equal[0], True] * 2
    files = kaggle.files(HANDLE)
    assert sorted(files) == [
        "assets/tokenizer/vocabulary.spm",
        "config.json",
        "metadata.json",
        "model.weights.h5",
        "tokenizer.json",
    ]
    assert from_hub.pop("README.md").startswith(b"---\nlibrary_name: keras-hub\n")
    del from_hub[".gitattributes"]
    assert from_hub == files
