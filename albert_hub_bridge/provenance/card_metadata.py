"""The metadata at the top of a model card that a conversion keeps: license, language, datasets and base model.

Source:
    https://huggingface.co/docs/hub/model-cards#model-card-metadata.
"""

# No `from __future__ import annotations`: values are checked against annotations that are types, not strings.

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from albert_hub_bridge.disk.regular_files import read_bytes
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.errors import FileError
from albert_hub_bridge.layouts.files import RECORD_FILES
from albert_hub_bridge.text import split_names


_CARD = RECORD_FILES[1]
_MAX_CARD_BYTES = 1_000_000
_MAX_LENGTH, _MAX_VALUES = 200, 100  # of one value, and of a list

METADATA_BLOCK = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")  # an identifier of the Hub, such as apache-2.0
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|multilingual|code")  # ISO 639, such as en or pt-BR


@dataclass
class CardMetadata:
    """Metadata of a model card.

    Args:
        license: Identifier of the license, such as `apache-2.0`; `other` for one with a name and a link.
        license_name: Of another license.
        license_link: Of another license.
        language: Codes of the languages, such as `en`.
        datasets: Names of the datasets on the Hub.
        base_model: Names of the models on the Hub that it comes from.
    """

    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    language: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    base_model: list[str] = field(default_factory=list)


def card_metadata(card_keys: Mapping[str, Any] | None) -> CardMetadata:
    """Return what a model card says of a model, given what `read_card_keys` returns."""
    keys = card_keys or {}
    return CardMetadata(
        license=_first(keys.get("license")),
        license_name=_first(keys.get("license_name")),
        license_link=_first(keys.get("license_link")),
        language=_texts(keys.get("language")),
        datasets=_texts(keys.get("datasets")),
        base_model=_texts(keys.get("base_model")),
    )


def note_on_card(card_keys: Mapping[str, Any] | None) -> str | None:
    """Return a note if `read_card_keys` found metadata that cannot be read; None otherwise."""
    if card_keys is not None:
        return None
    return (
        f"The metadata of the source's {_CARD} cannot be read, because it is no YAML object between two lines of three "
        "hyphens: the new card has no license, language, datasets and base model from it. --license and --language "
        "(license=..., language=...) name two of them."
    )


def read_card_keys(source: SourceFolder) -> dict[str, Any] | None:
    """Return the metadata of a source's model card, empty if it has none; None if it cannot be read.

    A card is for people, so one that cannot be read is no error.
    """
    import yaml

    if _CARD not in source.names:
        return {}
    try:
        text = read_bytes(source.folder / _CARD, _MAX_CARD_BYTES).decode("utf-8")
        if not text.lstrip().startswith("---"):
            return {}
        block = METADATA_BLOCK.match(text)
        # BaseLoader makes texts, lists and dictionaries only: it is safe, and Norwegian ("no") does not become False.
        found = (yaml.load(block[1], Loader=yaml.BaseLoader) or {}) if block is not None else None  # noqa: S506
    except FileError as error:
        return {} if error.problems[0].kind == "empty" else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _texts(value: Any) -> list[str]:
    """Return the texts of a value that is one text or a list of texts. Others are left out."""
    texts = value if isinstance(value, list) else [value]
    stripped = [text.strip() for text in texts[:_MAX_VALUES] if isinstance(text, str)]
    return [text for text in stripped if text and text.isprintable() and len(text) <= _MAX_LENGTH]


def _first(value: Any) -> str | None:
    return next(iter(_texts(value)), None)


def parse_license(name: str) -> str:
    """Return the identifier of a license.

    Raises:
        ValueError: It does not look like one of the Hub's.
    """
    if _LICENSE.fullmatch(lowered := name.strip().lower()) is None:
        raise ValueError(f"license should be an identifier of the Hub such as apache-2.0, mit or other, not {name!r}.")
    return lowered


def parse_languages(languages: str | Sequence[str]) -> tuple[str, ...]:
    """Return codes of languages.

    Args:
        languages: The codes, or a text such as `"en,fr"`.

    Raises:
        ValueError: There is none, or one does not look like a code.
    """
    codes = tuple(split_names(languages) if isinstance(languages, str) else languages)
    if not codes or not all(isinstance(code, str) and _LANGUAGE.fullmatch(code) for code in codes):
        raise ValueError(f"language should be codes such as en or pt-BR, separated by commas, not {languages!r}.")
    return codes
