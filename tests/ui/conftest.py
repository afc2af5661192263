"""A page in a process of its own, with hubs on 127.0.0.1. Nobody may use its owner's token, which it has too."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from albert_hub_bridge import convert
from conversion.sample import write_sample_preset
from tests.servers.hub_server import HubServer
from tests.servers.kaggle_server import KaggleServer
from tests.servers.local_server import client_environment
from tests.servers.modelscope_server import ModelScopeServer


CARD = "---\nlicense: apache-2.0\n---\n\n# A model\n\nBy its owner.\n"
OWNERS_TOKEN = "hf_token_of_the_owner_of_the_page"


def files_of(folder: Path) -> dict[str, bytes | str]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass(frozen=True)
class RunningPage:
    """A page that runs.

    Args:
        url: Its address.
        hub: The Hub that it uses.
        pid: Of its process.
        root: The folder of its temporary files.
        log: What it printed.
        models: Folders of models: `preset`, and `repository`, which is the preset for transformers.
    """

    url: str
    hub: HubServer
    pid: int
    root: Path
    log: Path
    models: Path

    def visits(self) -> list[Path]:
        """Return the folders of the visits."""
        return [path for path in self.root.glob("albert-hub-bridge-ui-*/visits/*") if path.name != "shared"]

    def workers(self) -> list[int]:
        """Return the processes that work for visits."""
        found = []
        for file in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = file.read_text().rpartition(")")[2].split()
                if int(fields[1]) == self.pid and fields[0] != "Z" and b"ui.jobs" in _command_line(file.parent):
                    found.append(int(file.parent.name))
            except OSError:
                continue
        return found


def _command_line(process: Path) -> bytes:
    return (process / "cmdline").read_bytes()


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds:.0f} s"
        time.sleep(0.1)


def write_models(parent: Path) -> Path:
    """Write a preset, a repository, and a zip of each."""
    write_sample_preset(parent / "preset")
    (parent / "preset" / "README.md").write_text(CARD)
    convert(parent / "preset", parent / "repository", to="transformers")
    for name in ("conversion.json", "README.md"):
        (parent / "repository" / name).unlink()
    for name in ("preset", "repository"):
        shutil.make_archive(str(parent / f"my-{name}"), "zip", parent, name)
    return parent


@contextmanager
def running_page(home: Path, models: Path) -> Iterator[RunningPage]:
    """Start the page, as the command does."""
    root = home / "temporary"
    root.mkdir()
    with HubServer() as hub, KaggleServer() as kaggle, ModelScopeServer() as modelscope:
        kaggle.add_model("user/albert/keras/tiny", files_of(models / "preset"))
        modelscope.add_model("user/albert", files_of(models / "repository"))
        hub.add_repo("user/preset", {**files_of(models / "preset"), "train.py": "import os", "notes.txt": "a note"})
        hub.add_repo("user/private", files_of(models / "repository"), private=True)
        environment = client_environment(home, hub, kaggle, modelscope) | {"HF_HUB_OFFLINE": "0", "TMPDIR": str(root)}
        environment |= {"HF_TOKEN": OWNERS_TOKEN, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
        environment |= {"GRADIO_HEARTBEAT_INTERVAL": "1"}  # a client that closes waits for the next one
        command = [sys.executable, "-m", "albert_hub_bridge", "ui", "--no-open"]
        with (home / "log").open("w") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=home)
        try:
            address = re.compile(r"http://127\.0\.0\.1:\d+/")
            wait_until(lambda: address.search((home / "log").read_text()) or process.poll() is not None, "the start")
            found = address.search((home / "log").read_text())
            assert found, (home / "log").read_text()
            yield RunningPage(found[0], hub, process.pid, root, home / "log", models)
            assert process.poll() is None, (home / "log").read_text()
        finally:
            process.terminate()
            process.wait(30)
        assert not list(root.iterdir()), "the page leaves its folders behind"
        for server in (hub, kaggle):
            assert not server.requests("CONNECT"), "the page wanted to leave the machine"
        assert hub.token not in (home / "log").read_text()
        for request in hub.requests():
            assert OWNERS_TOKEN not in request.headers.get("authorization", ""), "a visitor used the owner's token"
        assert not [each for each in kaggle.requests() if each.authorized], "a visitor used the owner's login at Kaggle"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def page(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPage]:
    if importlib.util.find_spec("keras_hub") is None:
        pytest.skip("KerasHub is not installed")
    with running_page(tmp_path_factory.mktemp("page"), models) as running:
        yield running
