"""The files of the Space: they install what the tests run with, and ask for what the page needs."""

from __future__ import annotations

from pathlib import Path

import yaml
from packaging.requirements import Requirement

from albert_hub_bridge import __version__


ROOT = Path(__file__).parents[2]
SPACE = ROOT / "space"


def _requirements(file: Path) -> dict[str, Requirement]:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith(("#", "-"))]
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


def test_requirements_are_the_versions_of_the_tests() -> None:
    pinned, tested = _requirements(SPACE / "requirements.txt"), _requirements(ROOT / "constraints.txt")
    ours = pinned.pop("albert-hub-bridge")
    assert str(ours) == f"albert-hub-bridge[ui]=={__version__}"
    assert {name: str(each.specifier) for name, each in pinned.items()} == {
        name: str(tested[name].specifier) for name in pinned
    }


def test_metadata_of_the_space() -> None:
    _, head, _ = (SPACE / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(head)
    assert (metadata["sdk"], SPACE / metadata["app_file"]) == ("gradio", SPACE / "app.py")
    assert str(_requirements(SPACE / "requirements.txt")["gradio"].specifier) == f"=={metadata['sdk_version']}"
    assert metadata["hf_oauth"] is True
    assert "write-repos" in metadata["hf_oauth_scopes"]
