"""What a converted card takes from the card of its source."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from albert_hub_bridge import convert
from albert_hub_bridge.layouts.registry import open_source
from albert_hub_bridge.provenance.card_metadata import (
    CardMetadata,
    card_metadata,
    note_on_card,
    parse_languages,
    parse_license,
    read_card_keys,
)


@pytest.fixture
def source(preset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(preset, tmp_path / "source"))


def _metadata(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---")[1])
    return {key: content[key] for key in ("license", "language", "datasets", "base_model") if key in content}


def test_card_keeps_the_metadata_of_the_source(source: Path, tmp_path: Path) -> None:
    (source / "README.md").write_text(
        "---\nlicense: mit\nlanguage: [no, en]\ndatasets: imdb\nbase_model:\n- albert/albert-base-v2\n---\n# Mine\n"
    )
    convert(source, tmp_path / "kept", to="transformers")
    expected = {"license": "mit", "language": ["no", "en"], "datasets": "imdb", "base_model": "albert/albert-base-v2"}
    assert _metadata(tmp_path / "kept") == expected  # YAML 1.1 takes an unquoted "no" for False
    convert(tmp_path / "kept", tmp_path / "again", to="keras")
    assert card_metadata(read_card_keys(open_source(tmp_path / "again"))) == card_metadata(
        read_card_keys(open_source(source))
    )


def test_options_come_first(source: Path, tmp_path: Path) -> None:
    (source / "README.md").write_text("---\nlicense: other\nlicense_name: mine\nlanguage: en\n---\n")
    convert(source, tmp_path / "target", to="transformers", license="Apache-2.0", language="de,fr")
    assert _metadata(tmp_path / "target") == {"license": "apache-2.0", "language": ["de", "fr"]}
    assert "license_name" not in (tmp_path / "target" / "README.md").read_text()


@pytest.mark.parametrize(
    ("card", "is_readable"),
    [
        (b"", True),
        (b"# No metadata\n", True),
        (b"---\n\n---\n", True),
        (b"---\nlicense: [\n---\n", False),
        (b"---\n- a list\n---\n", False),
        (b"---\nlicense: mit\n", False),
        (b"---\nlicense: {a: b}\nlanguage: [[en]]\ndatasets: ''\n---\n", True),
        (b'---\nlicense: "\\x1b[31m"\n---\n', True),
        (b"---\nlicense: " + b"m" * 1000 + b"\n---\n", True),
        (b"---\nlicense: \xff\n---\n", False),
        (b"---\n" + b"[" * 20_000 + b"\n---\n", False),
        (b"---\nlicense: mit\n---\n" + b" " * 2_000_000, False),
        (b"---\nlicense: !!python/object/apply:os.getcwd []\n---\n", True),
    ],
    ids=range(13),
)
def test_a_card_that_says_nothing_usable_is_no_error(card: bytes, is_readable: bool, source: Path) -> None:
    (source / "README.md").write_bytes(card)
    assert card_metadata(read_card_keys(open_source(source))) == CardMetadata()
    assert (note_on_card(read_card_keys(open_source(source))) is None) == is_readable


def test_metadata_that_cannot_be_read_is_noted(source: Path, tmp_path: Path) -> None:
    (source / "README.md").write_text("---\nlicense: mit: x\n---\n# Mine\n")
    (note,) = [each for each in convert(source, tmp_path / "target", to="transformers").notes if "metadata" in each]
    assert note.startswith("The metadata of the source's README.md cannot be read")
    assert _metadata(tmp_path / "target") == {}


def test_names_of_licenses_and_languages() -> None:
    assert parse_license(" Apache-2.0 ") == "apache-2.0"
    assert parse_languages("en, pt-BR") == ("en", "pt-BR")
    assert parse_languages(["multilingual"]) == ("multilingual",)
    for license_name in ("", "a b", "MIT\n---"):
        with pytest.raises(ValueError, match="license should be an identifier"):
            parse_license(license_name)
    for languages in ("", "english text", "en,,de", [], [1]):
        with pytest.raises(ValueError, match="language should be codes"):
            parse_languages(languages)  # type: ignore[arg-type]
