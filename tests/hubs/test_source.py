"""Sources on hubs, pulled by the hubs' own clients from servers on 127.0.0.1."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from albert_hub_bridge import convert
from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.hubs.source import pull_source
from albert_hub_bridge.layouts.hub.repository import write_repository
from albert_hub_bridge.mapping.heads import Head
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, write_sample_preset
from tests.servers.hub_server import HubServer
from tests.servers.kaggle_server import KaggleServer
from tests.servers.local_server import client_environment, run_client
from tests.servers.modelscope_server import ModelScopeServer


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def albert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a transformers repository with a classifier."""
    parent = tmp_path_factory.mktemp("transformers")
    write_sample_preset(parent / "preset")
    convert(parent / "preset", parent / "transformers", to="transformers")
    return parent / "transformers"


INSPECT = """
from albert_hub_bridge import inspect
from albert_hub_bridge.errors import SourceError
result = []
for source in sources:
    try:
        report = inspect(source)
        result.append([report.layout, report.tensors, list(report.notes)])
    except SourceError as error:
        result.append(str(error))
"""


def _inspect(environment: dict[str, str], *sources: str) -> list[Any]:
    found: list[Any] = run_client(INSPECT, environment, sources=sources)
    return found


def test_only_needed_files_are_downloaded(hub: HubServer, environment: dict[str, str], albert_folder: Path) -> None:
    others = {"tf_model.h5": b"other", "onnx/model.onnx": b"other", "pytorch_model.bin": b"other", "README.md": "# Hi"}
    sha = hub.add_repo("someone/albert", {**_files(albert_folder), **others})
    found = _inspect(environment, "hf://someone/albert", "someone/albert", f"someone/albert@{sha}")
    assert [row[:2] for row in found] == [["transformers", 73]] * 3
    asked_for = {request.path.rpartition("/")[2] for request in hub.requests("HEAD", "/resolve/")}
    assert asked_for == set(_files(albert_folder))  # the card too, for its metadata
    assert len(hub.requests("GET", "/resolve/.*/config.json")) == 1  # then it is in the cache
    assert len(hub.requests("GET", "/storage/")) == 2


def test_a_revision_is_pulled(hub: HubServer, environment: dict[str, str], albert_folder: Path, tmp_path: Path) -> None:
    old = hub.add_repo("someone/albert", _files(albert_folder))
    (tmp_path / "masked").mkdir()
    write_repository(
        random_checkpoint(SAMPLE_ARCHITECTURE, head=Head(kind="masked_lm")), tmp_path / "masked", "albert_hub"
    )
    hub.add_commit("someone/albert", _files(tmp_path / "masked"))
    newest, oldest, none = _inspect(environment, *(f"someone/albert{at}" for at in ("", f"@{old}", "@nothing")))
    assert newest[:2] == ["albert_hub", 78]
    assert oldest[:2] == ["transformers", 73]
    assert "hf://someone/albert@nothing could not be downloaded from Hugging Face. The revision does not exist." in none


def test_shards_are_pulled_with_their_index(
    hub: HubServer, environment: dict[str, str], albert_folder: Path, tmp_path: Path
) -> None:
    for layout, number in (("transformers", 73), ("keras", 73)):
        convert(albert_folder, tmp_path / layout, to=layout, max_shard_size="40KB")  # type: ignore[arg-type]
        hub.add_repo(f"someone/{layout}", _files(tmp_path / layout))
        assert _inspect(environment, f"hf://someone/{layout}")[0][:2] == [layout, number]


def test_refused_downloads_raise_source_errors(
    hub: HubServer, environment: dict[str, str], albert_folder: Path
) -> None:
    hub.add_repo("someone/private", _files(albert_folder), private=True)
    hub.add_repo("someone/gated", _files(albert_folder), gated=True)
    hub.add_repo("someone/empty", {"README.md": "# Nothing here"})
    private, gated, empty, missing = _inspect(
        environment, *(f"someone/{name}" for name in ("private", "gated", "empty", "missing"))
    )
    assert "The repository does not exist, or it is private and you are not logged in" in private
    assert "The repository does not exist" in missing
    assert "The repository is gated. Accept the terms on its page" in gated
    assert "hf://someone/empty has no config.json: it is neither a KerasHub preset nor an ALBERT repository." in empty
    assert hub.token not in str((private, gated, empty, missing))


def test_damaged_download_is_refused_and_the_next_one_succeeds(
    hub: HubServer, environment: dict[str, str], albert_folder: Path
) -> None:
    hub.add_repo("someone/albert", _files(albert_folder))
    hub.fail("GET", "model.safetensors|/storage/", "corrupt")
    hub.fail("GET", "spiece.model|/storage/", "corrupt")
    damaged = _inspect(environment, "someone/albert")[0]
    assert "was damaged during the download: expected the checksum" in damaged
    for _ in range(2):
        again = _inspect(environment, "someone/albert")[0]
        if not isinstance(again, str):
            break
    assert again[:2] == ["transformers", 73]


def test_offline_sources_come_from_the_cache(hub: HubServer, environment: dict[str, str], albert_folder: Path) -> None:
    hub.add_repo("someone/albert", _files(albert_folder))
    hub.add_repo("someone/other", _files(albert_folder))
    _inspect(environment, "someone/albert")
    cached, absent = _inspect({**environment, "HF_HUB_OFFLINE": "1"}, "someone/albert", "someone/other")
    assert cached[:2] == ["transformers", 73]
    assert (
        "hf://someone/other could not be downloaded from Hugging Face. HF_HUB_OFFLINE is set, and the repository is not"
        in absent
    )


def test_kaggle_presets_are_pulled_by_name_and_by_handle(tmp_path: Path) -> None:
    write_sample_preset(tmp_path / "preset")
    with KaggleServer() as kaggle:
        for _ in range(5):
            version = kaggle.add_model("keras/albert/keras/albert_base_en_uncased", _files(tmp_path / "preset"))
        assert version == 5
        environment = client_environment(tmp_path / "home", kaggle)
        builtin, handle, missing = _inspect(
            environment,
            "albert_base_en_uncased",
            "kaggle://keras/albert/keras/albert_base_en_uncased",
            "kaggle://keras/albert/keras/nothing",
        )
        assert builtin[:2] == handle[:2] == ["keras", 73]
        assert "could not be downloaded from Kaggle. The model does not exist, or it is private" in missing
        assert not kaggle.requests("CONNECT")


def test_progress_of_kagglehub_is_not_on_standard_output(tmp_path: Path) -> None:
    write_sample_preset(tmp_path / "preset")
    with KaggleServer() as kaggle:
        kaggle.add_model("someone/albert/keras/sample", _files(tmp_path / "preset"))
        command = [
            sys.executable,
            "-m",
            "albert_hub_bridge",
            "inspect",
            "kaggle://someone/albert/keras/sample",
            "--json",
        ]
        environment = client_environment(tmp_path / "home", kaggle)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["source"] == "kaggle://someone/albert/keras/sample"
    assert "Downloading" in done.stderr


def test_every_from_preset_accepts_the_same_sources(
    hub: HubServer, environment: dict[str, str], albert_folder: Path, tmp_path: Path
) -> None:
    hub.add_repo("someone/albert", _files(albert_folder))
    hub.add_repo(
        "someone/bert", {"config.json": '{"class_name": "BertBackbone", "config": {}, "registered_name": "x"}'}
    )
    found = run_client(
        """
        import torch
        from albert_hub_bridge import AlbertBackbone, AlbertHubForMaskedLM, AlbertHubModel
        from albert_hub_bridge.errors import AlbertHubBridgeError
        ids = torch.tensor([[2, 7, 9, 3]])
        with torch.no_grad():
            model = AlbertHubModel.from_preset("hf://someone/albert")
            backbone = AlbertBackbone.from_preset("someone/albert")
            inputs = {"token_ids": ids, "segment_ids": ids * 0, "padding_mask": ids * 0 + 1}
            difference = (model(ids).pooler_output - backbone(inputs)["pooled_output"]).abs().max().item()
            half = str(AlbertHubModel.from_preset("hf://someone/albert", dtype="bfloat16").dtype)
        result = [difference, half]
        for load, name in ((AlbertHubModel, "hf://someone/bert"), (AlbertHubForMaskedLM, "someone/albert")):
            try:
                load.from_preset(name)
            except AlbertHubBridgeError as error:
                result.append(str(error))
        """,
        environment,
    )
    assert found[:2] == [0.0, "torch.bfloat16"]
    assert "expected an AlbertBackbone, found 'BertBackbone'" in found[2]
    assert "expected that of AlbertHubForMaskedLM, found that of AlbertHubModel" in found[3]


# Repository, faulty request, fault, and the expected message; "good" if the client itself retries with success.
# fmt: off
HUGGING_FACE_FAULTS: tuple[tuple[str, str, str, Any, str], ...] = (
    ("broken",    "GET",  "/api/models/someone/broken",       500,        "The hub failed."),
    ("stumbling", "HEAD", "someone/stumbling/.*config.json",  500,        "good"),
    ("dropping",  "GET",  "someone/dropping/.*config.json",   "drop",     "good"),
    ("cut",       "GET",  "/storage/someone/cut/",            "truncate", "good"),
    ("damaged",   "GET",  "/storage/someone/damaged/",        "corrupt",  "was damaged during the download: expected"),
    ("strange",   "GET",  "/api/models/someone/strange",      401,        "private or gated and you are not logged in"),
    ("forbidden", "GET",  "/api/models/someone/forbidden",    403,        "private or gated and you are not logged in"),
    ("lost",      "HEAD", "someone/lost/.*model.safetensors", 404,        "someone/lost could not be downloaded"),
    ("patient",   "GET",  "someone/patient/.*config.json",    429,        "good"),
    ("busy",      "GET",  "/api/models/someone/busy",         429,        "The hub received too many requests."),
)
KAGGLE_FAULTS: tuple[tuple[str, str, str, Any, str], ...] = (
    ("broken",    "POST", "ListModelInstanceVersionFiles$",  500,        "The hub failed."),
    ("dropping",  "GET",  "models/.*/dropping/.*weights.h5", "drop",     "could not be downloaded from Kaggle"),
    ("cut",       "GET",  "models/.*/cut/.*weights.h5",      "truncate", "damaged or incomplete. Run the"),
    ("damaged",   "GET",  "models/.*/damaged/.*weights.h5",  "corrupt",  "damaged or incomplete. Run the"),
    ("strange",   "POST", "GetModelInstance$",               401,        "private or gated and you are not logged"),
    ("forbidden", "POST", "GetModelInstance$",               403,        "private or gated and you are not logged"),
    ("busy",      "POST", "ListModelInstanceVersionFiles$",  429,        "The hub received too many requests."),
)
MODELSCOPE_FAULTS: tuple[tuple[str, str, str, Any, str], ...] = (
    ("stumbling", "GET", "someone/stumbling/repo$",       500,        "good"),
    ("dropping",  "GET", "someone/dropping/repo$",        "drop",     "good"),
    ("cut",       "GET", "someone/cut/repo$",             "truncate", "good"),
    ("damaged",   "GET", "someone/damaged/repo$",         "corrupt",  "good"),
    ("strange",   "GET", "someone/strange/repo/files",    401,        "private or gated and you are not logged in"),
    ("forbidden", "GET", "someone/forbidden/repo/files",  403,        "private or gated and you are not logged in"),
    ("gone",      "GET", "someone/gone/repo/files",       404,        "private or gated and you are not logged in"),
    ("busy",      "GET", "someone/busy/repo/files",       429,        "good"),
)
# fmt: on


def _check_messages(
    environment: dict[str, str], sources: list[str], expected: list[str], permanent: Sequence[str] = ()
) -> None:
    """Check the message for each source, and that the next try of every temporary failure succeeds."""
    found = ["good" if isinstance(row, list) else row for row in _inspect(environment, *sources)]
    for source, result, message in zip(sources, found, expected, strict=True):
        assert message in result, (source, result)
    failed = [
        source for source, result in zip(sources, found, strict=True) if result != "good" and source not in permanent
    ]
    assert [row[1] for row in _inspect(environment, *failed)] == [73] * len(failed)


def test_faults_of_hugging_face_raise_source_errors(
    hub: HubServer, environment: dict[str, str], albert_folder: Path
) -> None:
    for name, method, path, how, _ in HUGGING_FACE_FAULTS:
        hub.add_repo(f"someone/{name}", _files(albert_folder))
        hub.fail(method, path, how, retry_after=0)
    _check_messages(
        environment, [f"someone/{row[0]}" for row in HUGGING_FACE_FAULTS], [row[-1] for row in HUGGING_FACE_FAULTS]
    )


def test_faults_of_kaggle_raise_source_errors(tmp_path: Path) -> None:
    write_sample_preset(tmp_path / "preset")
    with KaggleServer() as kaggle:
        for name, method, path, how, _ in KAGGLE_FAULTS:
            kaggle.add_model(f"keras/albert/keras/{name}", _files(tmp_path / "preset"))
            kaggle.fail(method, path, how, retry_after=0, body=f'"{name}"' if method == "POST" else "")
        sources = [f"kaggle://keras/albert/keras/{row[0]}" for row in KAGGLE_FAULTS]
        _check_messages(client_environment(tmp_path / "home", kaggle), sources, [row[-1] for row in KAGGLE_FAULTS])


def test_modelscope_is_pulled_and_its_faults_raise_source_errors(albert_folder: Path, tmp_path: Path) -> None:
    with ModelScopeServer() as modelscope:
        modelscope.add_model("someone/albert", {**_files(albert_folder), "tf_model.h5": b"other", "README.md": "# Hi"})
        modelscope.add_model("someone/albert", {"README.md": "# Nothing here"}, "empty")
        for name, method, path, how, _ in MODELSCOPE_FAULTS:
            modelscope.add_model(f"someone/{name}", _files(albert_folder))
            modelscope.fail(method, path, how, retry_after=0)
        environment = client_environment(tmp_path / "home", modelscope)
        faulty = [f"modelscope://someone/{row[0]}" for row in MODELSCOPE_FAULTS]
        named = [f"modelscope://someone/albert{at}" for at in ("", "@master", "@empty", "@none")]
        no_config, no_revision = (
            "has no config.json: it is neither",
            "albert@none could not be downloaded from ModelScope.",
        )
        expected = [row[-1] for row in MODELSCOPE_FAULTS] + ["good", "good", no_config, no_revision]
        _check_messages(environment, [*faulty, *named], expected, permanent=named)
        asked_for = {request.query["FilePath"] for request in modelscope.requests("GET", "someone/albert/repo$")}
        assert asked_for == set(_files(albert_folder))  # the card too, for its metadata
        assert not modelscope.requests("CONNECT")


def test_an_archive_of_keras_gets_the_way_to_a_preset(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"PK")
    with pytest.raises(SourceError, match=r"model\.keras is an archive of Keras\. .*load_model.*save_to_preset"):
        pull_source(tmp_path / "model.keras", list)
