"""KerasHub presets: a folder of `config.json`, `model.weights.h5` and `assets/tokenizer/vocabulary.spm`.

Read and written with h5py alone. Source of the format: keras_hub/src/utils/preset_utils.py and
keras/src/saving/saving_lib.py.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from albert_hub_bridge.errors import ConfigurationError, Problem, SourceError, WeightsError
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.mapping.configs import KERAS, KERAS_TOKENIZER, PREPROCESSOR, IgnoredKey, write_keys
from albert_hub_bridge.mapping.vocabulary import bake_rules
from albert_hub_bridge.mapping.weights import parameter_count
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.model.sentencepiece_unigram import TextRules
from albert_hub_bridge.stores.checkpoint import (
    DTYPES,
    Checkpoint,
    DroppedTensor,
    Progress,
    Text,
    Weight,
    fitting_vocabulary,
    match_weights,
)
from albert_hub_bridge.stores.configurations import read_architecture, read_fields, read_json, read_object, write_json
from albert_hub_bridge.stores.tensors import map_tensor, write_weights


CONFIG, METADATA, PREPROCESSING, TASK = "config.json", "metadata.json", "preprocessor.json", "task.json"
WEIGHTS, TASK_WEIGHTS = "model.weights.h5", "task.weights.h5"
TOKENIZER, VOCABULARY = "tokenizer.json", "assets/tokenizer/vocabulary.spm"
KNOWN_FILES = frozenset({CONFIG, METADATA, PREPROCESSING, TASK, WEIGHTS, TASK_WEIGHTS, TOKENIZER, VOCABULARY})

_MODULES = "keras_hub.src.models.albert"
# The versions whose format is written; `metadata.json` is where KerasHub looks for them.
_FORMAT = {"keras_version": "3.15.1", "keras_hub_version": "0.32.0"}


def read_preset(folder: Path) -> Checkpoint:
    """Read a preset. The weights stay on disk until they are asked for.

    Args:
        folder: A folder that has a `config.json` with KerasHub's `class_name`.

    Raises:
        SourceError: The preset is of another architecture.
        ConfigurationError, WeightsError, VocabularyError: The preset is wrong; all problems are listed.
    """
    architecture, ignored = read_config(folder)
    resources = ExitStack()
    try:
        found = _open_weights(folder / WEIGHTS, resources)
        weights, dtype = match_weights(folder / WEIGHTS, found, architecture, "keras")
        head, dropped = _read_head(folder, resources)
        text, text_ignored, notes = _read_text(folder, architecture)
    except BaseException:
        resources.close()
        raise
    return Checkpoint(
        layout="keras",
        folder=folder,
        architecture=architecture,
        weights=weights,
        dtype=dtype,
        text=text,
        head=head,
        dropped=dropped,
        ignored=[*ignored, *text_ignored],
        notes=notes,
        resources=resources,
    )


def read_config(folder: Path) -> tuple[Architecture, list[IgnoredKey]]:
    """Read what a preset's `config.json` says of the architecture, and the keys that it says besides.

    Raises:
        SourceError: The preset is of another architecture.
        ConfigurationError: The configuration is wrong; all problems are listed.
    """
    file = folder / CONFIG
    found = read_json(file).get("class_name")
    if found != "AlbertBackbone":
        raise SourceError(f"{file} describes {found}, not an AlbertBackbone. This package only converts ALBERT.")
    keys = read_object(file, "config")
    policy = keys.get("dtype")
    if isinstance(policy, dict) and policy.get("class_name") != "DTypePolicy":
        detail = f"expected a DTypePolicy, found {policy.get('class_name')}: quantized presets are not read"
        raise ConfigurationError(file, "configuration", [Problem("refused value", "dtype", detail)])
    return read_architecture(file, KERAS, keys)


def _open_weights(file: Path, resources: ExitStack) -> dict[str, Weight]:
    """Open an HDF5 file and return every dataset in it, unread."""
    if not file.is_file():
        present = ", ".join(sorted(path.name for path in file.parent.glob("*.weights.*"))) or "no weights at all"
        raise WeightsError(file, "weights", [Problem("missing", file.name, f"found {present}")])
    datasets: dict[str, Weight] = {}

    def collect(name: str | bytes, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            datasets[name if isinstance(name, str) else name.decode(errors="backslashreplace")] = _as_weight(item, file)

    try:
        resources.enter_context(h5py.File(file, "r")).visititems(collect)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:  # what h5py raises on damaged files
        raise WeightsError(file, "weights", [Problem("not HDF5", file.name, str(error))]) from error
    return datasets


def _as_weight(dataset: h5py.Dataset, file: Path) -> Weight:
    if dataset.external or dataset.is_virtual:  # its values are in another file, which is nobody's weights
        return Weight(dataset.shape, "values in another file", dataset.__array__)
    # HDF5 has no bfloat16: Keras stores two opaque bytes and says so in an attribute.
    if dataset.dtype == np.dtype("V2") and str(dataset.attrs.get("dtype")) == "bfloat16":
        name, dtype = "bfloat16", DTYPES["bfloat16"]
    else:
        name, dtype = dataset.dtype.name, dataset.dtype
    offset = dataset.id.get_offset() if dtype.isnative and not dataset.file.userblock_size else None
    if offset is not None:  # the values lie in the file as they are, in one run
        return Weight(dataset.shape, name, partial(map_tensor, file, offset, dataset.shape, dtype))

    def read() -> np.ndarray:
        values: np.ndarray = dataset[()]
        return values.view(dtype) if name == "bfloat16" else values.astype(dtype.newbyteorder("="), copy=False)

    return Weight(dataset.shape, name, read)


def _read_head(folder: Path, resources: ExitStack) -> tuple[str | None, list[DroppedTensor]]:
    if not (folder / TASK).is_file():
        return None, []
    head = str(read_json(folder / TASK).get("class_name", "unknown task"))
    if not (folder / TASK_WEIGHTS).is_file():
        return head, []
    tensors = _open_weights(folder / TASK_WEIGHTS, resources)
    reasons = {True: "the optimizer's state", False: f"the head of {head} is not converted yet"}
    return head, [
        DroppedTensor(f"{TASK_WEIGHTS}:{name}", weight.shape, reasons[name.startswith("optimizer/")])
        for name, weight in tensors.items()
    ]


def _read_text(folder: Path, architecture: Architecture) -> tuple[Text | None, list[IgnoredKey], list[str]]:
    if not (folder / VOCABULARY).is_file():
        return None, [], [f"The preset has no {VOCABULARY}: the result has no tokenizer."]
    proto = (folder / VOCABULARY).read_bytes()
    vocabulary = fitting_vocabulary(folder / VOCABULARY, proto, architecture)
    if (file := folder / TOKENIZER).is_file():
        read_fields(file, KERAS_TOKENIZER, read_object(file, "config"))
    packing: dict[str, Any] = {}
    ignored: list[IgnoredKey] = []
    if (file := folder / PREPROCESSING).is_file():
        packing, ignored = read_fields(file, PREPROCESSOR, read_object(file, "config"))
        ignored = [key for key in ignored if key.key != "tokenizer"]  # nested, long, and no news
    return Text(proto, vocabulary, TextRules(), **packing), ignored, []


def write_preset(checkpoint: Checkpoint, folder: Path, progress: Progress | None = None) -> None:
    """Write a checkpoint as a preset that `keras_hub.models.Backbone.from_preset` loads.

    Args:
        checkpoint: What to write.
        folder: An existing, empty folder.
        progress: Called after every tensor.
    """
    architecture = checkpoint.architecture
    config = {"name": "albert_backbone", "trainable": True, "dtype": _policy(checkpoint.dtype)}
    config |= write_keys(KERAS, architecture)
    write_json(folder / CONFIG, _serialized("albert_backbone", "AlbertBackbone", config))
    metadata = {**_FORMAT, "parameter_count": parameter_count(architecture), "tasks": ["MaskedLM", "TextClassifier"]}
    write_json(folder / METADATA, metadata)
    if checkpoint.text is not None:
        _write_text(checkpoint.text, folder)
    write_weights(checkpoint, folder / WEIGHTS, "keras", _lay_out(checkpoint, folder / WEIGHTS), progress)


def _lay_out(checkpoint: Checkpoint, file: Path) -> dict[str, int]:
    """Make an HDF5 file that has every dataset, and return where the values of each begin; they are not written yet."""
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    bfloat16 = checkpoint.dtype == "bfloat16"
    dtype = np.dtype("V2") if bfloat16 else DTYPES[checkpoint.dtype].newbyteorder("<")
    sizes = axis_sizes(checkpoint.architecture)
    offsets = {}
    with h5py.File(file, "w") as h5:
        for rule in checkpoint.rules:
            dataset = h5.create_dataset(rule.keras, rule.shape("keras", sizes), dtype, dcpl=early)
            if bfloat16:
                dataset.attrs["dtype"] = "bfloat16"
            offsets[rule.keras] = dataset.id.get_offset()
    return offsets


def _write_text(text: Text, folder: Path) -> None:
    tokenizer_config = {"name": "albert_tokenizer", "trainable": True, "dtype": _policy("int32")}
    tokenizer_config |= {"config_file": TOKENIZER, "proto": None, "sequence_length": None}
    tokenizer_config |= {"add_bos": False, "add_eos": False}
    tokenizer = _serialized("albert_tokenizer", "AlbertTokenizer", tokenizer_config)
    write_json(folder / TOKENIZER, tokenizer)
    (folder / VOCABULARY).parent.mkdir(parents=True)
    (folder / VOCABULARY).write_bytes(bake_rules(text.proto, text.rules))
    # KerasHub makes a preprocessor with its defaults where a preset has none; write one only to say something else.
    # `longest_first` is not among what it can say; `round_robin` comes nearest.
    truncate = "waterfall" if text.truncate == "waterfall" else "round_robin"
    if text.sequence_length not in (None, 512) or truncate != "round_robin":
        name = "albert_text_classifier_preprocessor"
        config = {"name": name, "trainable": True, "dtype": _policy("float32"), "tokenizer": tokenizer}
        config |= {"config_file": PREPROCESSING, "sequence_length": text.sequence_length or 512}
        config |= {"truncate": truncate}
        write_json(folder / PREPROCESSING, _serialized(name, "AlbertTextClassifierPreprocessor", config))


def _serialized(module: str, class_name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Lay out a config as Keras serializes an object."""
    return {
        "module": f"{_MODULES}.{module}",
        "class_name": class_name,
        "config": config,
        "registered_name": f"keras_hub>{class_name}",
    }


def _policy(name: str) -> dict[str, Any]:
    return {"module": "keras", "class_name": "DTypePolicy", "config": {"name": name}, "registered_name": None}
