"""Where sources come from: folders, and Hugging Face, Kaggle and ModelScope by their own clients and into their caches.

Tokens are the clients' own affair: they find them where their `login` put them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.hubs.common import Source
from albert_hub_bridge.hubs.huggingface import pull_from_hugging_face
from albert_hub_bridge.hubs.kaggle import pull_from_kaggle
from albert_hub_bridge.hubs.modelscope import pull_from_modelscope
from albert_hub_bridge.hubs.published import PUBLISHED_PRESETS


_REPO_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def pull_source(source: str | Path, needed: Callable[[Iterable[str]], list[str]]) -> Source:
    """Return a source's folder, after its hub's client has downloaded what is needed of it.

    Args:
        source: A folder; the name of a preset that KerasHub publishes; `kaggle://org/model/keras/name[/version]`;
            `hf://user/repo[@revision]`; `modelscope://user/repo`; or `user/repo`, which is on Hugging Face unless there
            is such a folder.
        needed: Tells which of a repository's files are needed.

    Raises:
        SourceError: There is no such folder, or the hub does not give it; the message says what was tried.
    """
    path = Path(os.path.expanduser(source))
    if path.is_dir():
        return Source(path, str(source))
    handle = str(source)
    if handle in PUBLISHED_PRESETS:
        handle = f"kaggle://{PUBLISHED_PRESETS[handle].kaggle}"
    scheme, mark, name = handle.partition("://")
    if not mark and not path.exists() and _REPO_ID.fullmatch(handle.partition("@")[0]):
        scheme, mark, name = "hf", "://", handle
    if mark:
        pull = {"hf": pull_from_hugging_face, "kaggle": pull_from_kaggle, "modelscope": pull_from_modelscope}.get(
            scheme.lower()
        )
        if pull is None:
            raise SourceError(f"{source} begins with {scheme}://, and hf://, kaggle:// and modelscope:// are known.")
        return pull(name, needed)
    if path.exists():
        raise SourceError(f"{source} is a file. Pass the folder of a preset or repository.")
    raise SourceError(
        f"The folder {source} does not exist, and it is neither a preset that KerasHub publishes nor the name of "
        "something on a hub (hf://user/repo, kaggle://org/model/keras/name, modelscope://user/repo)."
    )
