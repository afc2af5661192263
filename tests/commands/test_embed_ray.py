"""`embed` on a real cluster of Ray with two actors, and the recipe of the guide for pipelines of Ray Data."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest
import torch

from albert_hub_bridge import Embedder, embed
from albert_hub_bridge.errors import AlbertHubBridgeError, SourceError
from albert_hub_bridge.runtime.ray_cluster import Cluster, connected, room
from albert_hub_bridge.runtime.ray_embedding import _Actor, _Failure, _Model, ray_embedder
from conversion.sample import CORPUS
from tests.docs.blocks import DOCS, ROOT, read_blocks


ray = pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("pyarrow", reason="embed needs the extra 'embed'")

TEXTS: list[str | None] = [CORPUS[n % len(CORPUS)][: 5 + n] for n in range(60)]
TEXTS[33] = None
OPTIONS: dict[str, Any] = {"part_rows": 5, "skip_invalid": True, "device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Start a cluster on this machine as `embed` does, and return its address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 3}')
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
        with connected(None):
            yield ray.get_runtime_context().gcs_address


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(f"{json.dumps({'text': text})}\n" for text in TEXTS))
    return file


@pytest.fixture
def local(preset: Path, corpus: Path, tmp_path: Path) -> dict[str, bytes]:
    """Return the files that a run without Ray writes."""
    threads = torch.get_num_threads()
    embed(preset, corpus, tmp_path / "local", **OPTIONS)
    torch.set_num_threads(threads)
    return contents(tmp_path / "local")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def actor_processes() -> set[int]:
    """Return the processes of the actors of this module's cluster."""
    psutil = pytest.importorskip("psutil")
    found = set()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # also a zombie
            if " ".join(child.cmdline()).startswith("ray::_Actor"):
                found.add(child.pid)
    return found


def test_the_command_writes_the_parts_of_a_local_run(
    preset: Path, corpus: Path, local: dict[str, bytes], cluster: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "albert_hub_bridge", "embed", str(preset), str(corpus), str(tmp_path / "out")]
    command += [
        "--part-rows",
        "5",
        "--skip-invalid",
        "--engine",
        "ray",
        "--address",
        cluster,
        "--actors",
        "2",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["rows"], len(report["invalid"])) == (60, 1)
    assert report["tokens"] == json.loads(local["_embedding.json"])["complete"]["tokens"]
    assert contents(tmp_path / "out") == local


def test_a_killed_actor_is_replaced(
    preset: Path, corpus: Path, local: dict[str, bytes], cluster: str, tmp_path: Path
) -> None:
    """The run also continues one that was stopped without Ray."""

    def stop(_: Any) -> None:
        if (tmp_path / "out" / "part-000000.parquet").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(preset, corpus, tmp_path / "out", progress=stop, **OPTIONS)
    before: set[int] = set()

    def kill(_: Any) -> None:
        if not before:
            before.update(actor_processes())
            os.kill(min(before), signal.SIGKILL)
        seen.update(actor_processes())

    seen: set[int] = set()
    report = embed(preset, corpus, tmp_path / "out", engine="ray", actors=2, progress=kill, **OPTIONS)
    assert report.continued_from == 5
    assert contents(tmp_path / "out") == local
    assert len(before) == 2
    assert seen - before  # the actor in the place of the killed one
    deadline = time.monotonic() + 30  # Ray ends a process some time after it was told to
    while actor_processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not actor_processes()


def test_a_model_that_cannot_be_loaded_is_one_error(corpus: Path, cluster: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"An actor on .* cannot load the model .*empty: .*empty") as refused:
        embed(tmp_path / "empty", corpus, tmp_path / "out", engine="ray", actors=1)
    assert "Traceback" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_options_of_the_cluster_are_checked(
    preset: Path, corpus: Path, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for options, message in (
        ({"actors": 2}, r"address, actors and gpus_per_actor are for the engine ray"),
        ({"engine": "spark"}, r"engine must be one of local, ray, not 'spark'"),
        ({"engine": "ray", "actors": 0}, "actors must be at least 1, not 0"),
        ({"engine": "ray", "gpus_per_actor": -1}, "gpus_per_actor must be at least 0, not -1"),
        ({"engine": "ray", "threads": 0}, "threads must be at least 1, not 0"),
        ({"engine": "ray", "device": "cuda"}, "With gpus_per_actor 0, the device is cpu, not cuda"),
        ({"engine": "ray", "gpus_per_actor": 0.5, "device": "cpu"}, "With gpus_per_actor 0.5, the device is cuda"),
        ({"engine": "ray", "address": "127.0.0.1:1"}, "is connected to a cluster of Ray. Leave out address"),
    ):
        with pytest.raises(ValueError, match=message):
            embed(preset, corpus, tmp_path / "out", **options)  # type: ignore[arg-type]
    for options, message in (
        ({"actors": 4}, r"3 CPUs and 0 GPUs, room for 3 actors of 1 CPUs and 0 GPUs\. Expected room for 4\."),
        ({"gpus_per_actor": 1}, r"room for 0 actors of 1 CPUs and 1 GPUs\. Expected room for 1\."),
    ):
        with pytest.raises(AlbertHubBridgeError, match=message):
            embed(preset, corpus, tmp_path / "out", engine="ray", **options)  # type: ignore[arg-type]
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with (
        pytest.raises(AlbertHubBridgeError, match=r"pip install 'albert-hub-bridge\[ray\]'"),
        ray_embedder(preset, Cluster()),
    ):
        pass
    assert sorted(os.listdir(tmp_path)) == ["corpus.jsonl"]


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}"])
def test_a_cluster_that_does_not_answer(
    preset: Path, corpus: Path, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("Ray would try for minutes"))
    with socket.socket() as taken:  # bound, and not listening
        taken.bind(("127.0.0.1", 0))
        address = address.format(port=taken.getsockname()[1])
        message = rf"Ray cannot connect to {address}: .*refused\. Correct the address, or start the cluster\."
        with pytest.raises(AlbertHubBridgeError, match=message):
            embed(preset, corpus, tmp_path / "out", engine="ray", address=address)
    assert not (tmp_path / "out").exists()


def test_usage_statistics_are_off(cluster: str) -> None:
    from ray._common.usage.usage_lib import usage_stats_enabled

    assert not usage_stats_enabled()


def test_an_actor_says_what_is_wrong(preset: Path) -> None:
    _, failure = _Actor(str(preset), {"max_length": 1000, "device": "cpu"}).model()
    assert isinstance(failure, _Failure)
    assert failure.is_wrong_option
    assert "max_length is at most 64" in failure.message
    actor = _Actor(str(preset), {"device": "cpu"})
    _, model = actor.model()
    assert isinstance(model, _Model)
    assert len(actor.embed(["a text"], model).vectors) == 1
    for other in (replace(model, fingerprint="0"), replace(model, settings=replace(model.settings, pooling="cls"))):
        with pytest.raises(SourceError, match=r"has another model than the others\. It was changed during the run"):
            actor.embed(["a text"], other)


def test_an_actor_tokenizes_one_chunk_at_a_time(preset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer of transformers sets truncation on itself, and then tokenizes."""
    actor = _Actor(str(preset), {"device": "cpu"})
    _, model = actor.model()
    tokenize, busy = actor._embedder.tokenize, Lock()

    def slow(texts: Any) -> Any:
        assert busy.acquire(blocking=False), "two at once"
        time.sleep(0.05)
        busy.release()
        return tokenize(texts)

    monkeypatch.setattr(actor._embedder, "tokenize", slow)
    with ThreadPoolExecutor(2) as threads:
        chunks = [threads.submit(actor.embed, ["a text"], model) for _ in range(4)]  # type: ignore[arg-type]
        assert [len(chunk.result().vectors) for chunk in chunks] == [1] * 4


def test_chunks_before_an_unreadable_one_are_returned(preset: Path, cluster: str) -> None:
    def chunks() -> Iterator[list[str]]:
        yield ["a"]
        yield ["b", "c"]
        raise SourceError("line 4 is broken")

    found: list[int] = []
    with ray_embedder(preset, Cluster(actors=1)) as embedder, pytest.raises(SourceError, match="line 4 is broken"):
        found.extend(len(each.vectors) for each in embedder.encode_chunks(chunks()))
    assert found == [1, 2]


@pytest.mark.parametrize(
    ("machines", "gpus", "cpus", "expected"),
    [
        ([{"CPU": 8}] * 4, 0, 16, 0),
        ([{"CPU": 4}] * 3, 0, 3, 3),
        ([{"CPU": 64, "GPU": 2}], 0.6, 1, 2),
        ([{"CPU": 64, "GPU": 2}], 0.5, 1, 4),
        ([{"CPU": 64, "GPU": 4}, {"CPU": 64}], 2, 1, 2),
    ],
)
def test_room_is_counted_by_machine(
    machines: list[dict[str, float]], gpus: float, cpus: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [{"Alive": True, "Resources": each} for each in machines] + [{"Alive": False, "Resources": {"CPU": 99}}]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    assert room(Cluster(gpus_per_actor=gpus), cpus) == expected


def test_a_cluster_that_others_use_is_refused(preset: Path, cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("albert_hub_bridge.runtime.ray_cluster._PATIENCE", 0.0)
    monkeypatch.setattr("ray.available_resources", lambda: {"CPU": 1.0})
    with (
        pytest.raises(AlbertHubBridgeError, match=r"Others use the cluster: it has room for 1 more actors of 1 CPUs"),
        ray_embedder(preset, Cluster(actors=2)),
    ):
        pass


def test_machines_that_leave_are_noticed(preset: Path, cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An actor that has no machine would wait for one forever."""
    monkeypatch.setattr("albert_hub_bridge.runtime.ray_embedding._computed", lambda *_: [])
    message = r"Machines left the cluster: it has room for 0 of 2 actors\. The parts"
    with ray_embedder(preset, Cluster(actors=2)) as embedder:
        monkeypatch.setattr("ray.nodes", lambda: [{"Alive": False, "Resources": {"CPU": 3}}])
        with pytest.raises(AlbertHubBridgeError, match=message):
            next(embedder.encode_chunks([["a"]]))


def test_the_recipe_for_ray_data_gives_the_vectors_of_one_process(preset: Path, cluster: str, tmp_path: Path) -> None:
    from pyarrow import parquet

    page = DOCS / "guides" / "embed-a-corpus.md"
    (recipe,) = (block.code for block in read_blocks(page.read_text()) if "import ray" in block.code)
    places = {"demo/preset": preset, "corpus.jsonl": tmp_path / "corpus.jsonl", "vectors-of-ray": tmp_path / "vectors"}
    for name, place in places.items():  # Ray's workers have a working directory of their own
        assert f'"{name}"' in recipe
        recipe = recipe.replace(f'"{name}"', f'"{place}"')
    rows = [{"id": number, "text": text} for number, text in enumerate(CORPUS)]
    (tmp_path / "corpus.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with warnings.catch_warnings(action="ignore"):  # of Ray Data itself
        exec(recipe, {"__name__": "recipe"})
    found = parquet.read_table(tmp_path / "vectors").sort_by("id")
    assert found.column("text").to_pylist() == list(CORPUS)
    vectors = np.asarray(found.column("embedding").to_pylist(), np.float32).reshape(len(CORPUS), -1)
    expected = np.asarray(Embedder(preset, device="cpu").encode(CORPUS))
    assert np.abs(vectors - expected).max() <= 1e-5 * np.abs(expected).max()
