"""The code that a repository can carry: the files of `model/` as they are, flat, for `trust_remote_code=True`.

With them transformers loads an albert_hub repository where this package is not installed. Source:
transformers/dynamic_module_utils.py. Code of a source is neither run here nor carried over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from albert_hub_bridge import model
from albert_hub_bridge.disk.durable import write_file
from albert_hub_bridge.disk.json_files import read_json, write_json
from albert_hub_bridge.layouts.hub.repository import CONFIG
from albert_hub_bridge.layouts.hub.tokenizer import TOKENIZER_CONFIG
from albert_hub_bridge.mapping.heads import HEADS, HeadKind


_CONFIGURATION, _MODELING = "configuration_albert_hub", "modeling_albert_hub"
_TOKENIZATION = "tokenization_albert_hub"
_RELATIVE_IMPORT = re.compile(rb"^from \.(\w+) import", re.MULTILINE)


@cache
def code_files() -> Mapping[str, bytes]:
    """Return the content of every file that the configuration, the models and the tokenizer need, by its name."""
    files: dict[str, bytes] = {}
    modules = [_CONFIGURATION, _MODELING, _TOKENIZATION]
    for module in modules:  # which grows by what is imported
        if f"{module}.py" not in files:
            content = Path(*model.__path__, f"{module}.py").read_bytes()
            files[f"{module}.py"] = content
            modules += [name.decode() for name in _RELATIVE_IMPORT.findall(content)]
    return files


def add_code(folder: Path, head: HeadKind | None) -> None:
    """Add the code to a repository in the albert_hub layout, and say in its configurations which Auto class finds what.

    Args:
        folder: Of the repository, which is not in its place yet.
        head: What is on its encoder.
    """
    for name, content in code_files().items():
        write_file(folder / name, content)
    classes = {"AutoConfig": f"{_CONFIGURATION}.AlbertHubConfig", "AutoModel": f"{_MODELING}.AlbertHubModel"}
    if head is not None:
        classes[HEADS[head].auto] = f"{_MODELING}.{HEADS[head].albert_hub}"
    _add_keys(folder / CONFIG, {"auto_map": classes})
    if (folder / TOKENIZER_CONFIG).is_file():
        # Two classes, the second for tokenizers whose name ends in Fast: as transformers itself writes it.
        tokenizer = {"AutoTokenizer": [f"{_TOKENIZATION}.AlbertHubTokenizer", None]}
        _add_keys(folder / TOKENIZER_CONFIG, {"auto_map": tokenizer})


def _add_keys(file: Path, keys: Mapping[str, Any]) -> None:
    content = {**read_json(file), **keys}
    file.unlink()
    write_json(file, content)
