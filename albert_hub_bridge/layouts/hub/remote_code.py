"""The code that a repository can carry: the files of `model/`, for `trust_remote_code=True`.

With them transformers loads an albert_hub repository where this package is not installed. Code of a source is neither
run nor converted.

Source:
    transformers/dynamic_module_utils.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from albert_hub_bridge import model
from albert_hub_bridge.mapping.heads import HEADS, HeadKind


_CONFIGURATION, _MODELING = "configuration_albert_hub", "modeling_albert_hub"
_TOKENIZATION = "tokenization_albert_hub"
_RELATIVE_IMPORT = re.compile(rb"^from \.(\w+) import", re.MULTILINE)

# `auto_map` of tokenizer_config.json. The second class would be for tokenizers with a name that ends in Fast.
TOKENIZER_AUTO_MAP: Mapping[str, Any] = {"AutoTokenizer": [f"{_TOKENIZATION}.AlbertHubTokenizer", None]}


@cache
def code_files() -> Mapping[str, bytes]:
    """Return every file that configuration, models and tokenizer need, by its name."""
    files: dict[str, bytes] = {}
    modules = [_CONFIGURATION, _MODELING, _TOKENIZATION]
    for module in modules:  # grows by the imported modules
        if f"{module}.py" not in files:
            content = Path(*model.__path__, f"{module}.py").read_bytes()
            files[f"{module}.py"] = content
            modules += [name.decode() for name in _RELATIVE_IMPORT.findall(content)]
    return files


def model_auto_map(head: HeadKind | None) -> dict[str, str]:
    """Return `auto_map` of `config.json`: which class each Auto class finds.

    Args:
        head: The head on the encoder.
    """
    classes = {"AutoConfig": f"{_CONFIGURATION}.AlbertHubConfig", "AutoModel": f"{_MODELING}.AlbertHubModel"}
    if head is not None:
        classes[HEADS[head].auto] = f"{_MODELING}.{HEADS[head].albert_hub}"
    return classes
