"""Addresses: no text that a visitor types is taken for a path of the machine."""

from __future__ import annotations

import pytest

from albert_hub_bridge.errors import SourceError, TargetError
from albert_hub_bridge.hubs.published import PUBLISHED_PRESETS
from albert_hub_bridge.ui.addresses import name_of_source, parse_repository, parse_source


# fmt: off
SOURCES = {
    "user/repo":                                      ("hf://user/repo", "repo"),
    " hf://user/my.repo-2@v1.0 ":                     ("hf://user/my.repo-2@v1.0", "my.repo-2"),
    "hf://user/repo@refs/pr/1":                       ("hf://user/repo@refs/pr/1", "repo"),
    "https://huggingface.co/user/repo":               ("hf://user/repo", "repo"),
    "kaggle://keras/albert/keras/albert_base/5":      ("kaggle://keras/albert/keras/albert_base/5", "albert_base"),
    "https://www.kaggle.com/models/a/b/keras/c/":     ("kaggle://a/b/keras/c", "c"),
    "modelscope://user/repo":                         ("modelscope://user/repo", "repo"),
    "albert_base_en_uncased": (
        f"kaggle://{PUBLISHED_PRESETS['albert_base_en_uncased'].kaggle}", "albert_base_en_uncased"
    ),
}
# fmt: on


@pytest.mark.parametrize("text", SOURCES)
def test_sources(text: str) -> None:
    address, name = SOURCES[text]
    assert parse_source(text) == address
    assert name_of_source(address) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "/etc",
        "./preset",
        "~/preset",
        "../a/b",
        "a/..",
        "demo",
        "a/b/c",
        "hf://../..",
        "hf://a/b/../../c",
        "kaggle://a/b/keras/..",
        "kaggle://a/b",
        "file:///etc/passwd",
        "http://169.254.169.254/latest",
        "https://huggingface.co/../../x",
        "user/repo\n/etc",
        "C:\\models",
        "a/" + "b" * 400,
    ],
)
def test_paths_and_other_texts_are_refused(text: str) -> None:
    with pytest.raises(SourceError, match="Type user/repo"):
        parse_source(text)


def test_misspelled_preset_gets_a_suggestion() -> None:
    with pytest.raises(SourceError, match=r"Did you mean albert_base_en_uncased\?"):
        parse_source("albert_base_en_uncase")


def test_local_folders_need_the_flag() -> None:
    assert parse_source("./preset", local_folders=True) == "./preset"
    assert parse_source("user/repo", local_folders=True) == "hf://user/repo"


def test_repositories() -> None:
    assert {parse_repository(text) for text in ("user/a", " hf://user/a", "https://huggingface.co/user/a/")} == {
        "hf://user/a"
    }
    for text in ("", "a", "a/b/c", "../a", "kaggle://a/b", "a/b?c"):
        with pytest.raises(TargetError, match="as user/repo"):
            parse_repository(text)
