"""Complete a folder: make the files that turn a preset or a repository into a universal folder.

The folder keeps its files. Only `config.json` gets more keys, after its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.disk.strict_json import json_bytes, parse_object
from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.layouts.hub.files import TOKENIZER_CONFIG
from albert_hub_bridge.layouts.hub.repository import write_repository
from albert_hub_bridge.layouts.keras.compatibility import with_cut_out_pieces
from albert_hub_bridge.layouts.keras.files import CONFIG, TOKENIZER, VOCABULARY
from albert_hub_bridge.layouts.keras.preset import backbone_object, check_supported, write_preset
from albert_hub_bridge.layouts.universal.halves import VERSIONED_TOKENIZER, VERSIONED_TOKENIZERS, check_keys


def write_other_half(checkpoint: Checkpoint, source: SourceFolder, folder: Path) -> None:
    """Write what a preset or a repository lacks, with the `config.json` of both, into an empty folder.

    Args:
        checkpoint: What was read, in the layout `keras` or `transformers`.
        source: Its folder.
        folder: The folder to write into.

    Raises:
        SourceError: It has another layout, or cannot be completed.
        ConfigurationError: KerasHub cannot compute the checkpoint, or `config.json` has a key of both libraries; all
            reasons are listed.
        OSError: The system did not write a file, which it names.
    """
    _check(checkpoint, source)
    if checkpoint.layout == "keras":
        write_repository(checkpoint, folder, "transformers")
        if TOKENIZER in source:
            (folder / TOKENIZER).rename(folder / VERSIONED_TOKENIZER)
            settings = parse_object((folder / TOKENIZER_CONFIG).read_bytes())
            settings[VERSIONED_TOKENIZERS] = [VERSIONED_TOKENIZER]
            (folder / TOKENIZER_CONFIG).write_bytes(json_bytes(settings))
        added: dict[str, Any] = parse_object((folder / CONFIG).read_bytes())
    else:
        preset = with_cut_out_pieces(checkpoint)
        check_supported(preset, keeps_files=True)
        write_preset(preset, folder, beside_repository=True)
        added = backbone_object(checkpoint.architecture, checkpoint.dtype)
    (folder / CONFIG).write_bytes(_merged(source.path(CONFIG).read_bytes(), added))


def _merged(content: bytes, added: Mapping[str, Any]) -> bytes:
    """Return a JSON object with more keys at its end, indented as it was: KerasHub indents by 4, transformers by 2."""
    indent = re.match(r"\{\r?\n( +)", content.decode())
    merged = {**parse_object(content), **added}
    return f"{json.dumps(merged, indent=len(indent[1]) if indent else 2, ensure_ascii=False)}\n".encode()


def _check(checkpoint: Checkpoint, source: SourceFolder) -> None:
    folder, layout = checkpoint.folder, checkpoint.layout
    if layout == "universal":
        raise SourceError(f"{folder} has the files of both libraries already. Nothing is missing.")
    if layout not in ("keras", "transformers"):
        raise SourceError(
            f"{folder} has the layout {layout}: expected a KerasHub preset or a transformers repository, which the "
            "other library's files can be added to. Convert it: albert-hub-bridge convert SOURCE TARGET --to universal"
        )
    config = source.json(CONFIG)
    if layout == "keras" and (config.get("class_name") != "AlbertBackbone" or checkpoint.int8):
        found = "int8 weights" if checkpoint.int8 else f"{config.get('class_name')} in {CONFIG}"
        raise SourceError(
            f"{folder} cannot be completed: expected a preset of an AlbertBackbone with weights of a float type, found "
            f"{found}. Convert it: albert-hub-bridge convert SOURCE TARGET --to universal"
        )
    if layout == "keras" and TOKENIZER in source and not checkpoint.has_tokenizer:
        raise SourceError(
            f"{folder} cannot be completed: expected {VOCABULARY} beside {TOKENIZER}, found none. Add the vocabulary, "
            f"or remove {TOKENIZER} to complete the preset without a tokenizer."
        )
    if layout == "transformers":
        if "model_type" not in config:
            raise SourceError(
                f"{folder / CONFIG} has no model_type, which transformers 5 needs. Convert the repository."
            )
        check_keys(folder / CONFIG, config)
