"""The fingerprint of a model: two models share it only if they give the same vectors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


_CONFIG = "tokenizer_config.json"
_OF_THE_WRITER = ("transformers_version", "name_or_path")  # say who wrote the file, not how it tokenizes


def fingerprint(encoder: Any, tokenizer: Any) -> str:
    """Return the SHA-256 of the weights, the settings and the tokenizer of a model.

    Args:
        encoder: A model of this package.
        tokenizer: A tokenizer of transformers.
    """
    digest = hashlib.sha256(encoder.config.to_json_string().encode())
    _add_tokenizer(digest, tokenizer)
    for name, weight in encoder.state_dict().items():
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(weight.contiguous().numpy())
    return digest.hexdigest()


def _add_tokenizer(digest: Any, tokenizer: Any) -> None:
    if hasattr(tokenizer, "backend_tokenizer"):
        digest.update(tokenizer.backend_tokenizer.to_str().encode())
        digest.update(repr((tokenizer.truncation_side, getattr(tokenizer, "truncate", None))).encode())
        return
    # One in Python, such as BertJapaneseTokenizer: its class and the files that it saves.
    digest.update(f"{type(tokenizer).__name__} {tokenizer.truncation_side}".encode())
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        for file in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            digest.update(file.relative_to(folder).as_posix().encode())
            digest.update(_settings(file) if file.name == _CONFIG else file.read_bytes())


def _settings(file: Path) -> bytes:
    found = json.loads(file.read_bytes())
    kept = {name: value for name, value in found.items() if name not in _OF_THE_WRITER}
    return json.dumps(kept, sort_keys=True).encode()
