"""The addresses that a visitor may type: of a source, and of a repository to push to."""

from __future__ import annotations

import re

from albert_hub_bridge.choices import did_you_mean
from albert_hub_bridge.errors import SourceError, TargetError
from albert_hub_bridge.hubs.published import PUBLISHED_PRESETS


_NAME = r"[A-Za-z0-9_][\w.-]*"
_REPOSITORY = rf"{_NAME}/{_NAME}"
_SOURCES = (
    re.compile(rf"hf://{_REPOSITORY}(@[\w./-]+)?", re.ASCII),
    re.compile(rf"kaggle://{_NAME}(/{_NAME}){{3}}(/\d+)?", re.ASCII),
    re.compile(rf"modelscope://{_REPOSITORY}", re.ASCII),
)
_PAGE = re.compile(
    r"https://(huggingface\.co|www\.kaggle\.com/models|kaggle\.com/models)/(.+?)(?:/tree/main)?/?", re.ASCII
)
_SCHEMES = {"huggingface.co": "hf", "www.kaggle.com/models": "kaggle", "kaggle.com/models": "kaggle"}
_MAX_LENGTH = 300


def parse_source(text: str, *, local_folders: bool = False) -> str:
    """Return the address of a source, as the commands take it.

    Args:
        text: As the visitor typed it: an address, `user/repo`, the name of a published preset, or the address of a
            model's page.
        local_folders: Whether a folder of this machine is a source too. Otherwise no text is taken for a path.

    Raises:
        SourceError: It is none of these.
    """
    text = text.strip()
    if local_folders and text.startswith(("/", "./", "../", "~")):
        return text
    if text in PUBLISHED_PRESETS:
        return f"kaggle://{PUBLISHED_PRESETS[text].kaggle}"
    page = _PAGE.fullmatch(text)
    address = text if page is None else f"{_SCHEMES[page[1]]}://{page[2]}"
    if re.fullmatch(rf"{_REPOSITORY}(@[\w./-]+)?", address, re.ASCII):
        address = f"hf://{address}"
    if len(address) <= _MAX_LENGTH and any(pattern.fullmatch(address) for pattern in _SOURCES):
        return address
    raise SourceError(
        "Type user/repo or hf://user/repo for a repository on Hugging Face, kaggle://org/model/keras/name for a preset "
        f"on Kaggle, modelscope://user/repo, or one of {', '.join(PUBLISHED_PRESETS)}; or upload a zip."
        + did_you_mean(text, {name: name for name in PUBLISHED_PRESETS})
    )


def parse_repository(text: str) -> str:
    """Return `hf://user/repo` for the name of a repository on Hugging Face.

    Raises:
        TargetError: It is no such name.
    """
    name = text.strip().removeprefix("https://huggingface.co/").removeprefix("hf://").rstrip("/")
    if not re.fullmatch(_REPOSITORY, name, re.ASCII) or len(name) > _MAX_LENGTH:
        raise TargetError("Type the repository on Hugging Face as user/repo.")
    return f"hf://{name}"


def name_of_source(address: str) -> str:
    """Return a name for the model at an address: the last part that is no version."""
    parts = [part for part in address.partition("://")[2].partition("@")[0].split("/") if part]
    return next((part for part in reversed(parts) if not part.isdigit()), "model")
