"""What the pages find when they run: the folder that `make demo` leaves, and hubs on 127.0.0.1.

The published names hold the sample model there: random weights, so no number on a page comes from them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from albert_hub_bridge import convert
from conversion.sample import write_sample_preset
from tests.docs.blocks import ROOT
from tests.servers.hub_server import HubServer
from tests.servers.kaggle_server import KaggleServer
from tests.servers.local_server import client_environment
from tests.servers.modelscope_server import ModelScopeServer


# The width, in columns, at which the pages show output.
WIDTH = 100


class PageRunner:
    """Runs pages, each in a fresh copy of the folder that `make demo` leaves.

    Args:
        driver: The process that runs them.
        parent: Folder for the copies; it has the original, `demo`.
    """

    def __init__(self, driver: subprocess.Popen[str], parent: Path) -> None:
        self._driver, self._parent, self._runs = driver, parent, 0

    def run(self, page: Path) -> list[dict[str, Any]]:
        """Run a page, and return the results of its blocks."""
        self._runs += 1
        folder = self._parent / f"page-{self._runs}"
        shutil.copytree(self._parent / "demo", folder / "demo")
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        print(json.dumps({"page": str(page), "folder": str(folder)}), file=self._driver.stdin, flush=True)
        answer = self._driver.stdout.readline()
        if answer.strip() in ("", "null"):
            raise AssertionError(f"the process that ran {page} ended\n{(self._parent / 'messages.txt').read_text()}")
        return list(json.loads(answer))


@contextmanager
def page_runner(parent: Path) -> Iterator[PageRunner]:
    """Start the hubs and the process that runs pages.

    Args:
        parent: An empty folder.
    """
    _write_demo(parent / "demo")
    with (
        HubServer() as hub,
        KaggleServer() as kaggle,
        ModelScopeServer() as modelscope,
        (parent / "messages.txt").open("w") as messages,  # of the libraries
    ):
        for _ in range(5):  # the published version is the fifth
            kaggle.add_model("keras/albert/keras/albert_base_en_uncased", _files(parent / "demo" / "preset"))
        hub.add_repo("albert/albert-base-v2", _files(parent / "uncased"))
        modelscope.add_model("user/albert-base", _files(parent / "uncased"))
        environment = client_environment(parent / "home", hub, kaggle, modelscope) | {
            "COLUMNS": str(WIDTH),
            "CUDA_VISIBLE_DEVICES": "",
            "KERAS_BACKEND": "torch",
            "MPLBACKEND": "agg",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "TOKENIZERS_PARALLELISM": "false",
        }
        driver = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.docs.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            env=environment,
        )
        with driver:
            yield PageRunner(driver, parent)
            assert driver.stdin is not None
            driver.stdin.close()
        assert not [request for server in (hub, kaggle, modelscope) for request in server.requests("CONNECT")]


def _write_demo(demo: Path) -> None:
    demo.mkdir()
    write_sample_preset(demo / "preset")
    convert(demo / "preset", demo / "repository", to="albert_hub")
    convert(demo / "preset", demo / "transformers", to="transformers")
    convert(demo / "repository", demo / "preset-again", to="keras")
    convert(demo / "preset", demo.parent / "uncased", to="transformers", normalize="uncased")


def _files(folder: Path) -> dict[str, bytes | str]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
