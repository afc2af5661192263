"""Processes that never import the plugin: what makes an `albert_hub` repository load there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

import albert_hub_bridge
from albert_hub_bridge import AlbertHubConfig, convert


def load(folder: str) -> str:
    """Load a repository in a worker, as code of somebody else does."""
    from transformers import AutoModel

    return type(AutoModel.from_pretrained(folder)).__module__


@pytest.fixture
def repository(preset: Path, tmp_path: Path) -> Path:
    convert(preset, tmp_path / "repository", to="albert_hub")
    return tmp_path / "repository"


def test_a_spawned_worker_loads_it_with_the_initializer(repository: Path) -> None:
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=albert_hub_bridge.register) as pool:
        assert pool.submit(load, str(repository)).result() == "albert_hub_bridge.model.modeling_albert_hub"


def test_a_process_without_the_package_loads_the_included_code(preset: Path, tmp_path: Path) -> None:
    convert(preset, tmp_path / "repository", to="albert_hub", include_code=True)
    program = (
        "import sys; from transformers import AutoModel\n"
        "model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "assert 'albert_hub_bridge' not in sys.modules\n"
        "print(type(model).__name__, list(model.config.auto_map))"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(tmp_path / "repository")]
    environment = {"HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert run.stdout.splitlines()[-1:] == ["AlbertHubModel ['AutoConfig', 'AutoModel']"], run.stderr[-2000:]


@pytest.mark.parametrize("kind", ["AlbertHubModel", "AlbertHubForMaskedLM", "AlbertHubForSequenceClassification"])
def test_mlflow_finds_the_auto_class(kind: str, tmp_path: Path) -> None:
    """MLflow looks for the class of `architectures` in `auto_map`, and loads with that Auto class."""
    config = AlbertHubConfig(architectures=[kind])
    (auto,) = [auto for auto, module in config.auto_map.items() if module.split(".")[-1] == kind]
    assert auto == kind.replace("AlbertHubModel", "AutoModel").replace("AlbertHub", "AutoModel")
    config.save_pretrained(tmp_path)
    assert "auto_map" not in (tmp_path / "config.json").read_text()
    assert "AutoModel" in AlbertHubConfig().auto_map


@pytest.fixture
def ray() -> Iterator[object]:
    module = pytest.importorskip("ray", reason="ray is not installed")
    module.init(num_cpus=1, runtime_env={"worker_process_setup_hook": "albert_hub_bridge.register"})
    yield module
    module.shutdown()


def test_a_ray_worker_loads_it_with_the_setup_hook(repository: Path, ray: object) -> None:
    found = ray.get(ray.remote(load).remote(str(repository)))  # type: ignore[attr-defined]
    assert found == "albert_hub_bridge.model.modeling_albert_hub"
