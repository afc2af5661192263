"""What is released: the two distributions, their metadata, and the files that name the version."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import pytest
import yaml
from packaging.metadata import Metadata

from albert_hub_bridge import __version__
from hatch_build import VARIABLE, with_absolute_links
from tests.docs.tables import PROJECT
from tests.matrix import PYTHONS


ROOT = Path(__file__).parents[1]
HOME = "https://git.example/owner/albert-hub-bridge"
NAME = f"albert_hub_bridge-{__version__}"

# What git tracks and a source distribution leaves out: it is for the hosts of the repository.
HOSTS_ONLY = (".ci/", ".github/", ".pre-commit-config.yaml")


def _build(kind: str, source: Path, folder: Path, address: str | None) -> Path:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    environment |= {VARIABLE: address} if address else {}
    subprocess.run(command, check=True, cwd=source, capture_output=True, env=environment)
    (built,) = folder.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return built


def _unpacked(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as members:
        members.extractall(folder, filter="data")
    return folder / NAME


def _metadata(wheel: Path) -> Metadata:
    with zipfile.ZipFile(wheel) as archive:
        return Metadata.from_email(archive.read(f"{NAME}.dist-info/METADATA"), validate=True)


@pytest.fixture(scope="module", params=[None, HOME], ids=["nowhere", "published"])
def released(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str | None, Path, Path]:
    """Return an address, the unpacked source distribution, and the wheel that is built from it without the address."""
    folder = tmp_path_factory.mktemp("released")
    source = _unpacked(_build("sdist", ROOT, folder / "sdist", request.param), folder)
    return request.param, source, _build("wheel", source, folder / "wheel", None)


def test_the_source_distribution_has_all_that_git_tracks(released: tuple[str | None, Path, Path]) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout of git")
    tracked = {
        name for name in listed.stdout.splitlines() if not name.startswith(HOSTS_ONLY) and (ROOT / name).exists()
    }
    found = {path.relative_to(released[1]).as_posix() for path in released[1].rglob("*") if path.is_file()}
    assert tracked <= found
    assert not {name for name in found if name.startswith(HOSTS_ONLY)}


def test_links_of_the_description_lead_somewhere(released: tuple[str | None, Path, Path]) -> None:
    address, _, wheel = released
    metadata = _metadata(wheel)
    links = re.findall(r"\]\(([^)]+)\)", str(metadata.description))
    assert metadata.description_content_type == "text/markdown"
    assert all(link.startswith("https://") for link in links)
    tree = f"{address}/blob/v{__version__}/"
    ours = [link.removeprefix(tree) for link in links if link.startswith(tree)]
    assert bool(ours) == bool(address)
    assert not [link for link in ours if not (ROOT / link.partition("#")[0]).is_file()]


def test_urls_are_those_of_the_repository_that_builds(released: tuple[str | None, Path, Path]) -> None:
    address, _, wheel = released
    urls = _metadata(wheel).project_urls or {}
    assert set(urls) == ({"Source", "Documentation", "Changelog", "Issues"} if address else set())
    assert all(url.startswith(str(address)) for url in urls.values())


@pytest.mark.parametrize(
    ("link", "published", "unpublished"),
    [
        ("[a](docs/a.md#b)", "[a](https://x/docs/a.md#b)", "a (`docs/a.md`)"),
        ("[a\nb](LICENSE)", "[a\nb](https://x/LICENSE)", "a\nb (`LICENSE`)"),
        ("[a](https://b/c.md)", "[a](https://b/c.md)", "[a](https://b/c.md)"),
        ("[a](#b) and [c](mailto:d)", "[a](#b) and [c](mailto:d)", "[a](#b) and [c](mailto:d)"),
    ],
)
def test_links_to_files_become_absolute_or_text(link: str, published: str, unpublished: str) -> None:
    assert with_absolute_links(link, "https://x") == published
    assert with_absolute_links(link, None) == unpublished


def test_every_file_names_the_same_version_and_date() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert released[0] == f"{__version__} - {citation['date-released']}"
    assert str(date.fromisoformat(citation["date-released"])) == citation["date-released"]
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert [author["name"] for author in citation["authors"]] == [
        author["name"] for author in PROJECT["project"]["authors"]
    ]


def _workflow(name: str) -> Mapping[str, object]:
    file = ROOT / ".github" / "workflows" / name
    if not file.is_file():
        pytest.skip("workflows are in the repository only")
    content: Mapping[str, object] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content


def test_ci_runs_every_python_that_the_classifiers_name() -> None:
    jobs: dict = _workflow("ci.yml")["jobs"]  # type: ignore[assignment, type-arg]
    assert tuple(jobs["test"]["strategy"]["matrix"]["python"]) == PYTHONS
    assert PROJECT["project"]["requires-python"] == f">={PYTHONS[0]}"
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{PYTHONS[0].replace('.', '')}"


@pytest.mark.parametrize("name", ["ci.yml", "docs.yml", "release.yml"])
def test_workflows_call_targets_of_the_makefile(name: str) -> None:
    jobs: dict = _workflow(name)["jobs"]  # type: ignore[assignment, type-arg]
    called = {word for job in jobs.values() for step in job["steps"] for word in _made(step.get("run", ""))}
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert called
    assert called <= set(targets)


def _made(command: str) -> list[str]:
    return re.findall(r"^make ([a-z]+)", command, re.MULTILINE)
