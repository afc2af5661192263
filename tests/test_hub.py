"""Sources on hubs, pulled by the hubs' own clients from servers on 127.0.0.1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from albert_hub_bridge import convert
from albert_hub_bridge.mapping.heads import Head
from albert_hub_bridge.stores.hf_repository import write_repository
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint, write_sample_preset
from tests.hub_server import HubServer
from tests.kaggle_server import KaggleServer
from tests.local_server import client_environment, run_client


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a stock repository with a classifier."""
    parent = tmp_path_factory.mktemp("stock")
    write_sample_preset(parent / "preset")
    convert(parent / "preset", parent / "stock", to="stock")
    return parent / "stock"


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


def test_only_what_is_needed_is_downloaded(hub: HubServer, environment: dict[str, str], stock: Path) -> None:
    others = {"tf_model.h5": b"other", "onnx/model.onnx": b"other", "pytorch_model.bin": b"other", "README.md": "# Hi"}
    sha = hub.add_repo("someone/albert", {**_files(stock), **others})
    found = _inspect(environment, "hf://someone/albert", "someone/albert", f"someone/albert@{sha}")
    assert [row[:2] for row in found] == [["stock", 73]] * 3
    asked_for = {request.path.rpartition("/")[2] for request in hub.requests("HEAD", "/resolve/")}
    assert asked_for == set(_files(stock)) - {"README.md"}
    assert len(hub.requests("GET", "/resolve/.*/config.json")) == 1  # then it is in the cache
    assert len(hub.requests("GET", "/storage/")) == 2


def test_a_revision_can_be_asked_for(hub: HubServer, environment: dict[str, str], stock: Path, tmp_path: Path) -> None:
    old = hub.add_repo("someone/albert", _files(stock))
    (tmp_path / "masked").mkdir()
    write_repository(random_checkpoint(SAMPLE_ARCHITECTURE, head=Head(kind="masked_lm")), tmp_path / "masked", "bridge")
    hub.add_commit("someone/albert", _files(tmp_path / "masked"))
    newest, oldest, none = _inspect(environment, *(f"someone/albert{at}" for at in ("", f"@{old}", "@nothing")))
    assert newest[:2] == ["bridge", 78]
    assert oldest[:2] == ["stock", 73]
    assert "hf://someone/albert@nothing could not be downloaded from Hugging Face. There is no such revision." in none


def test_shards_are_pulled_with_their_index(
    hub: HubServer, environment: dict[str, str], stock: Path, tmp_path: Path
) -> None:
    for layout, number in (("stock", 73), ("keras", 73)):
        convert(stock, tmp_path / layout, to=layout, max_shard_size="40KB")  # type: ignore[arg-type]
        hub.add_repo(f"someone/{layout}", _files(tmp_path / layout))
        assert _inspect(environment, f"hf://someone/{layout}")[0][:2] == [layout, number]


def test_what_a_hub_refuses_is_said_in_one_message(hub: HubServer, environment: dict[str, str], stock: Path) -> None:
    hub.add_repo("someone/private", _files(stock), private=True)
    hub.add_repo("someone/gated", _files(stock), gated=True)
    hub.add_repo("someone/empty", {"README.md": "# Nothing here"})
    private, gated, empty, missing = _inspect(
        environment, *(f"someone/{name}" for name in ("private", "gated", "empty", "missing"))
    )
    assert "There is no such repository, or it is private and you are not logged in" in private
    assert "There is no such repository" in missing
    assert "accept the terms on its page" in gated
    assert "hf://someone/empty has no config.json: it is neither a KerasHub preset nor an ALBERT repository." in empty
    assert hub.token not in str((private, gated, empty, missing))


def test_a_damaged_download_is_refused_and_the_next_try_succeeds(
    hub: HubServer, environment: dict[str, str], stock: Path
) -> None:
    hub.add_repo("someone/albert", _files(stock))
    hub.fail("GET", "model.safetensors|/storage/", "corrupt")
    hub.fail("GET", "spiece.model|/storage/", "corrupt")
    damaged = _inspect(environment, "someone/albert")[0]
    assert "was damaged on its way: expected the checksum" in damaged
    for _ in range(2):
        again = _inspect(environment, "someone/albert")[0]
        if not isinstance(again, str):
            break
    assert again[:2] == ["stock", 73]


def test_without_a_network_the_cache_serves_and_the_rest_is_said(
    hub: HubServer, environment: dict[str, str], stock: Path
) -> None:
    hub.add_repo("someone/albert", _files(stock))
    hub.add_repo("someone/other", _files(stock))
    _inspect(environment, "someone/albert")
    cached, absent = _inspect({**environment, "HF_HUB_OFFLINE": "1"}, "someone/albert", "someone/other")
    assert cached[:2] == ["stock", 73]
    assert (
        "hf://someone/other could not be downloaded from Hugging Face. HF_HUB_OFFLINE is set, and it is not" in absent
    )


def test_presets_of_kaggle_are_pulled_by_name_and_by_handle(tmp_path: Path) -> None:
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
        assert "could not be downloaded from Kaggle. There is no such model, or it is private" in missing
        assert not kaggle.requests("CONNECT")


def test_every_from_preset_takes_the_same_sources(
    hub: HubServer, environment: dict[str, str], stock: Path, tmp_path: Path
) -> None:
    hub.add_repo("someone/albert", _files(stock))
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
    assert "describes BertBackbone, not an AlbertBackbone" in found[2]
    assert "expected that of AlbertHubForMaskedLM, found that of AlbertHubModel" in found[3]
