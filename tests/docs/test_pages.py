"""What the pages say about the code is true: generated parts, names, files, links, and the public API."""

from __future__ import annotations

import importlib
import re
import zipfile
from pathlib import Path

import pytest
import yaml

import albert_hub_bridge
from albert_hub_bridge import convert
from conversion.sample import write_sample_preset
from tests.conftest import FIXTURES
from tests.docs.blocks import DOCS, ROOT, page_name, pages
from tests.docs.tables import GENERATED, PACKAGE, PROJECT, generated_part


# CHANGELOG.md tells of the past.
DOCUMENTS = {
    page_name(page): page for page in (*pages(), *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md")))
}


# Coverage converts every fixture: tests/recipes compares it.
@pytest.mark.parametrize("name", sorted(set(GENERATED) - {"coverage"}))
def test_generated_parts_are_what_the_code_says(name: str) -> None:
    _, render = GENERATED[name]
    assert generated_part(name) == render(), "run: python -m tests.docs.rewrite"


def test_the_reference_has_every_public_name() -> None:
    shown = re.findall(r"^::: albert_hub_bridge\.(\w+)$", (DOCS / "reference" / "api.md").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted([*albert_hub_bridge.__all__, "errors"])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_modules_and_folders_that_a_page_names_exist(name: str) -> None:
    rooms = "|".join(path.name for path in PACKAGE.iterdir() if path.is_dir())
    text = DOCUMENTS[name].read_text(encoding="utf-8")
    inside = re.findall(rf"`(?:albert_hub_bridge/)?((?:{rooms})/[\w./]*)`", text)
    outside = re.findall(r"`((?:tests|conversion|benchmarks|model_cards|docs)/[\w./]*)`", text)
    assert not [path for path in inside if not (PACKAGE / path).exists()]
    assert not [path for path in outside if not (ROOT / path).exists()]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_between_files_lead_somewhere(name: str) -> None:
    page = DOCUMENTS[name]
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


def test_pictures_are_small_and_each_is_shown_with_its_description() -> None:
    shown = {
        (page.parent / path).resolve()
        for page in pages()
        for _, path in re.findall(r"!\[([^\]]{20,})\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    pictures = set((DOCS / "pictures").iterdir())
    assert pictures == shown
    assert [path.name for path in pictures if path.stat().st_size > 150_000] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_and_extras_that_a_page_names_exist(name: str) -> None:
    text = DOCUMENTS[name].read_text(encoding="utf-8")
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE)) <= set(targets)
    extras = re.findall(r"'\.\[([a-z,]+)\]'|extra `([a-z]+)`", text)
    assert {extra for pair in extras for extra in pair if extra} <= set(PROJECT["project"]["optional-dependencies"])


def test_every_file_of_every_layout_is_named(tmp_path: Path) -> None:
    patterns = [
        re.compile(re.escape(name).replace(r"\#", "[0-9]").replace(r"\*", "[^/]*"))
        for name in re.findall(
            r"`([^`\s]+\.[^`\s]+|checkpoint)`", (DOCS / "reference" / "files.md").read_text(encoding="utf-8")
        )
    ]
    write_sample_preset(tmp_path / "preset")
    convert(tmp_path / "preset", tmp_path / "keras", to="keras", max_shard_size="40KB")
    convert(tmp_path / "preset", tmp_path / "albert_hub", to="albert_hub")
    convert(
        tmp_path / "preset",
        tmp_path / "transformers",
        to="transformers",
        max_shard_size="40KB",
        sentence_transformers="mean",
    )
    folders = [path for path in tmp_path.iterdir() if path.is_dir()]
    names = {path.relative_to(folder).as_posix() for folder in folders for path in folder.rglob("*") if path.is_file()}
    for fixture in FIXTURES.glob("*.zip"):
        with zipfile.ZipFile(fixture) as archive:
            files = [name for name in archive.namelist() if not name.endswith("/")]
        names |= {re.sub(r"^(base|adapter)/", "", name) for name in files}
    assert not sorted(name for name in names if not any(pattern.fullmatch(name) for pattern in patterns))


def test_every_row_of_the_layouts_is_named() -> None:
    text = (DOCS / "reference" / "files.md").read_text(encoding="utf-8")
    for layout in ("keras", "hub", "google"):
        module = importlib.import_module(f"albert_hub_bridge.layouts.{layout}.files")
        assert not [name for row in module.FILES for name in row.names if f"`{name}`" not in text]


def test_the_site_loads_nothing_from_elsewhere() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert site["strict"] is True
    assert site["theme"]["font"] is False
    assert {plugin if isinstance(plugin, str) else next(iter(plugin)) for plugin in site["plugins"]} == {
        "mkdocstrings",
        "search",
    }
    assert not {"extra_css", "extra_javascript", "hooks", "extra"} & set(site)


def test_the_site_has_every_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r": ([\w/-]+\.md)$", text, re.MULTILINE))
    assert named == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}


def test_the_extra_is_pinned() -> None:
    pinned = re.findall(r"^([\w-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    wanted = {re.split(r"[\[>]", requirement)[0] for requirement in PROJECT["project"]["optional-dependencies"]["docs"]}
    assert wanted <= set(pinned)
