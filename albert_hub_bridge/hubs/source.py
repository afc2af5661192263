"""Resolve a source: a local folder, or a model on Hugging Face, Kaggle or ModelScope.

Each hub's own client downloads into its own cache, with the token that its own login saved.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from albert_hub_bridge.choices import did_you_mean
from albert_hub_bridge.errors import SourceError, SourceNotFoundError
from albert_hub_bridge.hubs.huggingface import pull_from_hugging_face
from albert_hub_bridge.hubs.kaggle import pull_from_kaggle
from albert_hub_bridge.hubs.local_source import LocalSource
from albert_hub_bridge.hubs.modelscope import pull_from_modelscope
from albert_hub_bridge.hubs.published import PUBLISHED_PRESETS


_PULL = {"hf": pull_from_hugging_face, "kaggle": pull_from_kaggle, "modelscope": pull_from_modelscope}
_REPO_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def pull_source(source: str | Path, needed: Callable[[Iterable[str]], list[str]]) -> LocalSource:
    """Return the local folder of a source, after a download if it is on a hub.

    Args:
        source: One of: a folder; the name of a preset that KerasHub publishes;
            `kaggle://org/model/keras/name[/version]`; `hf://user/repo[@revision]`; `modelscope://user/repo`; or
            `user/repo`, which means Hugging Face if no such folder exists. A `Path`, and a text that can only be a
            path (`./name`, `/name`, `~/name`, `name/`, or with a backslash), is always a folder.
        needed: Selects the needed files from the names of all files of a repository.

    Raises:
        SourceError: The folder does not exist, or the download failed.
    """
    path = Path(os.path.expanduser(source))
    if path.is_dir():
        return LocalSource(path, str(source))
    if _is_path(source) and not path.exists():
        raise SourceNotFoundError(
            f"The folder {source} does not exist. A model on a hub is hf://user/repo, without a path."
        )
    if (handle := find_handle(source)) is not None:
        scheme, _, name = handle.partition("://")
        return _PULL[scheme](name, needed)
    if path.suffix == ".keras" and path.is_file():
        raise SourceError(
            f"{source} is an archive of Keras. Load it with keras.saving.load_model, write a preset with the model's "
            "save_to_preset, and pass the folder of that."
        )
    if path.exists():
        raise SourceError(f"{source} is a file. {_advice_for_file(path)}")
    raise SourceNotFoundError(
        f"The folder {source} does not exist. {source} is also neither a preset that KerasHub publishes nor a model on "
        "a hub (hf://user/repo, kaggle://org/model/keras/name, modelscope://user/repo)."
        f"{did_you_mean(str(source), _published_names())}"
    )


def find_handle(source: str | Path) -> str | None:
    """Return the handle of a source on a hub, such as `hf://user/repo`; None if it is a path.

    Args:
        source: As for `pull_source`. Nothing is downloaded.

    Raises:
        SourceError: It names another hub.
    """
    path, handle = Path(os.path.expanduser(source)), str(source)
    if path.is_dir() or _is_path(source):
        return None
    if handle in PUBLISHED_PRESETS:
        return f"kaggle://{PUBLISHED_PRESETS[handle].kaggle}"
    if "://" not in handle and not path.exists() and _REPO_ID.fullmatch(handle.partition("@")[0]):
        return f"hf://{handle}"
    scheme, separator, name = handle.partition("://")
    if not separator:
        return None
    if scheme.lower() not in _PULL:
        raise SourceError(f"{source} begins with {scheme}://. Use hf://, kaggle:// or modelscope://.")
    return f"{scheme.lower()}://{name}"


def _advice_for_file(file: Path) -> str:
    if file.name.endswith(".lora.h5") or file.name.startswith("adapter_"):
        return (
            "For a LoRA adapter, run: albert-hub-bridge convert-adapter ADAPTER TARGET --base MODEL --to LAYOUT. "
            "An adapter of PEFT is a folder."
        )
    if file.suffix == ".keras":
        return "Save the model as a preset: model.save_to_preset(FOLDER)."
    return "Pass the folder of a preset or repository."


def _published_names() -> dict[str, str]:
    """Return the sources of the published checkpoints, by the names under which people know them."""
    repositories = [preset.hugging_face for preset in PUBLISHED_PRESETS.values()]
    by_model = {name.rpartition("/")[2]: f"hf://{name}" for name in repositories}
    return {**{name: name for name in PUBLISHED_PRESETS}, **by_model}


def _is_path(source: str | Path) -> bool:
    """Return whether a source can only be a folder, so that a missing folder is never looked up on a hub."""
    if isinstance(source, Path):
        return True
    return source.startswith((".", "/", "~")) or source.endswith("/") or "\\" in source
