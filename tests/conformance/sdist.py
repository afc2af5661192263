"""transformers' own common tests: where they come from, and how they are made importable.

Wheels carry no tests, so they are taken from the source distribution of the installed version, by pip, into a cache
outside the repository. pip compares it with the hash that the index names, as it did with the installed wheel. Some
modules that the tests import are not in it: `stand_ins/` has small ones of our own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from importlib import metadata
from pathlib import Path


PACKAGE = "transformers_tests"  # one package with two homes: the cache, and the stand-ins
STAND_INS = Path(__file__).with_name("stand_ins")


class UnavailableError(Exception):
    """The common tests cannot be had here; the message says why."""


def make_importable() -> None:
    """Put the common tests on the path, as the package `transformers_tests`.

    `sys.path` is what processes started by the tests inherit, so they find them as well.

    Raises:
        UnavailableError: The sources of transformers cannot be had.
    """
    for home in (cached(metadata.version("transformers")), STAND_INS):
        if str(home) not in sys.path:
            sys.path.append(str(home))


def cached(version: str) -> Path:
    """Return the folder that holds the common tests of a version; fetch them if it is not there.

    Raises:
        UnavailableError: They cannot be had.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "albert-hub-bridge"
    home = base / f"transformers-{version}"
    if not home.is_dir():
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=base) as draft:
            unpack(download(version, Path(draft)), Path(draft) / "tests")
            try:
                (Path(draft) / "tests").rename(home)  # whole or not at all
            except OSError:  # another run was faster
                if not home.is_dir():
                    raise
    return home


def download(version: str, folder: Path) -> Path:
    """Let pip fetch the source distribution of a version.

    Raises:
        UnavailableError: pip cannot have it.
    """
    options = ["--no-deps", "--no-binary", "transformers", "--disable-pip-version-check", "--retries", "1"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), f"transformers=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), "no reason")
        raise UnavailableError(f"pip cannot download the sources of transformers {version}: {reason}")
    return folder / f"transformers-{version}.tar.gz"


def unpack(archive: Path, home: Path) -> None:
    """Lay the tests out as a package that other folders on the path can add to."""
    prefix = f"{archive.name.removesuffix('.tar.gz')}/tests/"
    package = home / PACKAGE
    package.mkdir(parents=True)
    with tarfile.open(archive) as members:
        for member in members:
            name = member.name.removeprefix(prefix)
            if member.isfile() and member.name.startswith(prefix) and "/" not in name and name.endswith(".py"):
                content = members.extractfile(member)
                assert content is not None
                (package / name).write_bytes(content.read())
    (package / "__init__.py").write_text("__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n")
