"""The files of Google's release, and which of them are read: a download, a fine-tuned checkpoint, or a TF-Hub module.

A module of TF-Hub has the same variables as the download, and the same configuration and vocabulary as assets.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.formats.leveldb_table import MAX_NAMES
from albert_hub_bridge.layouts.files import FileRow
from albert_hub_bridge.text import first_few, one_line


VOCABULARY, BEST = "30k-clean.model", "model.ckpt-best.index"
_CONFIG, _CHECKPOINT = "albert_config.json", "checkpoint"
_ASSET_CONFIG, _ASSET_VOCABULARY = f"assets/{_CONFIG}", f"assets/{VOCABULARY}"
_MODULE, _GRAPH, _MODULE_INDEX = "tfhub_module.pb", "saved_model.pb", "variables/variables.index"
_MODULE_VALUES = "variables/variables.data-00000-of-00001"
_OTHER_CONFIG = "config.json"  # people rename albert_config.json
_OTHER_WEIGHTS = ("*.safetensors", "*.bin", "*.h5", "*.msgpack")
_MAX_CHECKPOINT_BYTES = 1 << 20
_DOWNLOAD = "https://storage.googleapis.com/albert_models/albert_base_v2.tar.gz"

# fmt: off
FILES = (
    FileRow(("albert_config*.json", _ASSET_CONFIG),  "settings",  written=False, downloaded=False),
    FileRow(("*.model", _ASSET_VOCABULARY),          "tokenizer", written=False, downloaded=False),
    FileRow(("*.index", "*.data-*", _MODULE_INDEX, _MODULE_VALUES),
            "weights", written=False, downloaded=False),
    FileRow((_CHECKPOINT, "*.meta", "*.vocab", "assets/30k-clean.vocab", _MODULE, _GRAPH),
            "record", written=False, downloaded=False),
)
# fmt: on


def is_release(source: SourceFolder) -> bool:
    """Return whether a folder has Google's files, and not those of another layout under `config.json`."""
    if _OTHER_CONFIG not in source:
        return bool(_configurations(source) or _indices(source)) or _MODULE in source or _GRAPH in source
    is_named = source.json(_OTHER_CONFIG).keys() & {"model_type", "class_name"}
    return bool(_indices(source)) and not is_named and not any(map(source.matching, _OTHER_WEIGHTS))


def find_configuration(source: SourceFolder) -> str:
    """Return the name of the configuration.

    Raises:
        SourceError: There is none, or there are several.
    """
    found = _configurations(source)
    if _CONFIG in found:
        return _CONFIG
    if len(found) > 1:
        raise SourceError(
            f"{source.folder} has several configurations: {_listed(found)}. Rename the right one to {_CONFIG}."
        )
    if found:
        return found[0]
    for name in (_ASSET_CONFIG, _OTHER_CONFIG):
        if name in source:
            return name
    raise SourceError(
        f"{source.folder} has no {_CONFIG}, which says what the variables of {_listed(_indices(source))} are. Put the "
        f"file of the same model into the folder. It is in Google's downloads, such as {_DOWNLOAD}."
    )


def find_index(source: SourceFolder) -> tuple[Path, list[str]]:
    """Return the index of the checkpoint to read, and notes for the report.

    Of several checkpoints, it is Google's `model.ckpt-best`, or else the one that TensorFlow's file `checkpoint` names.

    Raises:
        SourceError: There is no checkpoint, or several and nothing says which one.
    """
    indices = _indices(source)
    if len(indices) == 1:
        return source.path(indices[0]), []
    if BEST in indices:
        chosen, reason = BEST, "the best one, by its name"
    elif (latest := _latest(source)) in indices:
        chosen, reason = latest, f"which the file {_CHECKPOINT} names"
    elif indices:
        raise SourceError(
            f"{source.folder} has several checkpoints: {_listed(indices)}. Leave the files of one, or name it in the "
            f'file {_CHECKPOINT}, as TensorFlow does: model_checkpoint_path: "{indices[-1].removesuffix(".index")}"'
        )
    else:
        values = source.matching("*.data-*")
        expected = f"{values[0].partition('.data-')[0]}.index" if values else f"{BEST} or another .index"
        found = f"found {_listed(values)} alone" if values else "found none"
        raise SourceError(f"{source.folder} has to have a TensorFlow checkpoint: expected {expected}, {found}.")
    return source.path(chosen), [f"Of {len(indices)} checkpoints, {chosen} was read, {reason}."]


def find_vocabulary(source: SourceFolder) -> tuple[str | None, list[str]]:
    """Return the name of the SentencePiece model, or None and a note for the report."""
    names = source.matching("*.model")
    if VOCABULARY in names:
        return VOCABULARY, []
    if len(names) == 1:
        return names[0], []
    if not names and _ASSET_VOCABULARY in source:
        return _ASSET_VOCABULARY, []
    if not names and (word_pieces := source.matching("vocab*.txt")):
        return None, [
            f"Google's Chinese ALBERTs have BERT's vocabulary, here {_listed(word_pieces)}, which is not converted: no "
            "tokenizer. Copy it into the result as vocab.txt, and load it by transformers' BertTokenizer."
        ]
    found = _listed(names or source.matching("*.vocab"))
    return None, [f"Expected one SentencePiece model, such as {VOCABULARY}, found {found}: no tokenizer."]


def mark_values_as_read(source: SourceFolder, index: Path) -> None:
    """Note that the files of values beside an index were read."""
    for name in source.matching(f"{index.stem}.data-*"):
        source.path(name)
    if index == source.folder / _MODULE_INDEX:
        source.path(_MODULE_VALUES)


def max_files(index: Path) -> int:
    """Return the largest number of files of values: one for a module, whose folder was not listed."""
    return 1 if index.parent.name == "variables" else MAX_NAMES


def object_based(index: Path) -> SourceError:
    """Return the refusal of a checkpoint of TensorFlow 2, whose variables are attributes of Keras' objects."""
    return SourceError(
        f"{index} is an object-based checkpoint of TensorFlow 2, as those of TensorFlow's model garden are. Only "
        f"checkpoints of Google's own ALBERT are read: convert the download of the same model, such as {_DOWNLOAD}, or "
        "KerasHub's preset albert_base_en_uncased."
    )


def _configurations(source: SourceFolder) -> list[str]:
    return source.matching("albert_config*.json")


def _indices(source: SourceFolder) -> list[str]:
    return source.matching("*.index") or ([_MODULE_INDEX] if _MODULE_INDEX in source else [])


def _latest(source: SourceFolder) -> str:
    """Return the index that TensorFlow's file `checkpoint` names; its folder may be one of another machine."""
    if _CHECKPOINT not in source:
        return ""
    content = source.read(_CHECKPOINT, _MAX_CHECKPOINT_BYTES).decode(errors="replace")
    found = re.search(r'^model_checkpoint_path: "(.*)"$', content, re.MULTILINE)
    return f"{PurePosixPath(found[1].replace(chr(92), '/')).name}.index" if found else ""


def _listed(names: list[str]) -> str:
    return first_few([one_line(name, 80) for name in names], 5) or "none"
