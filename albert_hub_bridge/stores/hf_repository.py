"""Hub repositories: `config.json`, `model.safetensors` and a tokenizer, in two layouts.

*bridge* (`model_type: albert_hub`) is loaded by this package's classes, *stock* (`model_type: albert`) by transformers
alone. Source of the stock layout: transformers/models/albert, and keras_hub/src/utils/transformers/convert_albert.py
for what KerasHub's own importer needs: names that begin with `albert.`, a pooler, and `spiece.model`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError

from albert_hub_bridge.errors import Problem, VocabularyError, WeightsError
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.mapping.configs import ALBERT, BRIDGE, IgnoredKey, write_keys
from albert_hub_bridge.mapping.configs import TOKENIZER_CONFIG as TOKENIZER_CONFIG_KEYS
from albert_hub_bridge.mapping.vocabulary import proto_from_tokenizer
from albert_hub_bridge.mapping.weights import Dialect
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.model.sentencepiece_unigram import SPECIAL_PIECES, TextRules, build_tokenizer
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
from albert_hub_bridge.stores.configurations import read_architecture, read_fields, read_json, write_json
from albert_hub_bridge.stores.safetensors_file import lay_out, read_header
from albert_hub_bridge.stores.tensors import map_tensor, write_weights


CONFIG, WEIGHTS = "config.json", "model.safetensors"
TOKENIZER, TOKENIZER_CONFIG, VOCABULARY = "tokenizer.json", "tokenizer_config.json", "spiece.model"
KNOWN_FILES = frozenset({CONFIG, WEIGHTS, TOKENIZER, TOKENIZER_CONFIG, VOCABULARY, "special_tokens_map.json"})

RepositoryLayout = Literal["bridge", "stock"]

# layout -> dialect of its weights, what the names begin with, table of its configuration
_DIALECTS: dict[RepositoryLayout, Dialect] = {"bridge": "bridge", "stock": "albert"}
_PREFIXES = {"bridge": "backbone.", "stock": "albert."}
_TABLES = {"bridge": BRIDGE, "stock": ALBERT}
_CLASSES = {"bridge": ("albert_hub", "AlbertHubModel"), "stock": ("albert", "AlbertModel")}

# Modules beside the encoder in the saves of transformers' ALBERT heads.
_HEADS = {
    "predictions": "masked-LM head",
    "sop_classifier": "sentence-order head",
    "classifier": "classification head",
    "qa_outputs": "question-answering head",
}
_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")


def read_repository(folder: Path, layout: RepositoryLayout) -> Checkpoint:
    """Read a repository. The weights stay on disk until they are asked for.

    Args:
        folder: A folder that has a `config.json` with the layout's `model_type`.
        layout: `bridge` or `stock`.

    Raises:
        ConfigurationError, WeightsError, VocabularyError: The repository is wrong; all problems are listed.
    """
    architecture, ignored = read_config(folder, layout)
    encoder, dropped, prefix = _split_head(_read_weights(folder / WEIGHTS), layout)
    weights, dtype = match_weights(folder / WEIGHTS, encoder, architecture, _DIALECTS[layout], prefix)
    text, text_ignored, notes = _read_text(folder, layout, architecture)
    heads = sorted({reason for reason in (_HEADS.get(tensor.name.split(".")[0]) for tensor in dropped) if reason})
    return Checkpoint(
        layout=layout,
        folder=folder,
        architecture=architecture,
        weights=weights,
        dtype=dtype,
        text=text,
        head=" and ".join(heads) or None,
        dropped=dropped,
        ignored=[*ignored, *text_ignored],
        notes=notes,
    )


def read_config(folder: Path, layout: RepositoryLayout) -> tuple[Architecture, list[IgnoredKey]]:
    """Read what a repository's `config.json` says of the architecture, and the keys that it says besides.

    Raises:
        ConfigurationError: The configuration is wrong; all problems are listed.
    """
    return read_architecture(folder / CONFIG, _TABLES[layout], read_json(folder / CONFIG))


def _read_weights(file: Path) -> dict[str, Weight]:
    """Return every tensor of a safetensors file, unread."""
    if not file.is_file():
        kinds = ("*.safetensors*", "*.bin*", "*.h5", "*.msgpack")
        present = ", ".join(sorted(path.name for kind in kinds for path in file.parent.glob(kind))) or "no weights"
        raise WeightsError(file, "weights", [Problem("missing", file.name, f"found {present}")])
    try:
        header = read_header(file)
    except (SafetensorError, OSError) as error:
        raise WeightsError(file, "weights", [Problem("not safetensors", file.name, str(error))]) from error
    weights = {}
    for name, (dtype, shape, offset) in header.items():
        values = DTYPES.get(dtype, np.dtype("V"))  # another dtype is refused by its name before anything is read
        weights[name] = Weight(shape, dtype, partial(map_tensor, file, offset, shape, values))
    return weights


def _split_head(
    found: dict[str, Weight], layout: RepositoryLayout
) -> tuple[dict[str, Weight], list[DroppedTensor], str]:
    """Tell the encoder's tensors from a head's, and whether the encoder's names have a prefix."""
    prefix = _PREFIXES[layout] if any(name.startswith(_PREFIXES[layout]) for name in found) else ""
    encoder, dropped = {}, []
    for name, weight in found.items():
        if layout == "stock" and name.split(".")[0] in _HEADS:
            reason = f"the {_HEADS[name.split('.')[0]]} is not converted yet"
        elif layout == "stock" and name.removeprefix(prefix) in _BUFFERS:
            reason = "a buffer, not a parameter: counts 0, 1, 2, ..."
        else:
            encoder[name] = weight
            continue
        dropped.append(DroppedTensor(name, weight.shape, reason))
    return encoder, dropped, prefix


def _read_text(
    folder: Path, layout: RepositoryLayout, architecture: Architecture
) -> tuple[Text | None, list[IgnoredKey], list[str]]:
    notes, found_rules = [], None
    if (folder / VOCABULARY).is_file():
        proto = (folder / VOCABULARY).read_bytes()
        vocabulary = fitting_vocabulary(folder / VOCABULARY, proto, architecture)
    elif (folder / TOKENIZER).is_file():
        try:
            proto, found_rules = proto_from_tokenizer(read_json(folder / TOKENIZER))
        except ValueError as error:
            problem = Problem("unusable", TOKENIZER, str(error))
            raise VocabularyError(folder / TOKENIZER, "vocabulary", [problem]) from error
        vocabulary = fitting_vocabulary(folder / TOKENIZER, proto, architecture)
        notes.append(f"The repository has no {VOCABULARY}: the vocabulary was made from {TOKENIZER}.")
    else:
        return None, [], [f"The repository has no {VOCABULARY}: the result has no tokenizer."]
    file = folder / TOKENIZER_CONFIG
    keys = read_json(file) if file.is_file() else {}
    # A special token is written as its text, or as an object that has it.
    keys = {
        key: value["content"] if isinstance(value, dict) and "content" in value else value
        for key, value in keys.items()
    }
    fields, _ = read_fields(
        file, TOKENIZER_CONFIG_KEYS, {key: keys[key] for key in keys if key in TOKENIZER_CONFIG_KEYS}
    )
    reason = "a setting of the tokenizer that changes no ids, or that nothing is known about"
    ignored = [IgnoredKey(key, value, reason) for key, value in keys.items() if key not in TOKENIZER_CONFIG_KEYS]
    length = fields["sequence_length"]
    sequence_length = int(length) if length is not None and 1 <= length < _NO_LIMIT else None
    rules = found_rules if found_rules is not None else _text_rules(fields, layout)
    return Text(proto, vocabulary, rules, sequence_length, fields["truncate"]), ignored, notes


_NO_LIMIT = 1 << 31  # transformers writes 1e30 where a tokenizer has none


def _text_rules(fields: dict[str, Any], layout: RepositoryLayout) -> TextRules:
    """Tell from tokenizer_config.json what happens to a text before the vocabulary."""
    lower_case, strip_accents = fields["lower_case"], fields["strip_accents"]
    if layout == "bridge" or fields["replace_quotes"] is not None:  # written by this package, where absent means no
        return TextRules(bool(fields["replace_quotes"]), bool(strip_accents), bool(lower_case))
    # transformers' AlbertTokenizer, which is also what an absent tokenizer_config.json means.
    return TextRules(True, not fields["keep_accents"], lower_case is None or lower_case)


def write_repository(
    checkpoint: Checkpoint, folder: Path, layout: RepositoryLayout, progress: Progress | None = None
) -> None:
    """Write a checkpoint as a repository.

    Args:
        checkpoint: What to write.
        folder: An existing, empty folder.
        layout: `bridge` or `stock`.
        progress: Called after every tensor.
    """
    model_type, class_name = _CLASSES[layout]
    config: dict[str, Any] = {"architectures": [class_name], "model_type": model_type}
    config |= write_keys(_TABLES[layout], checkpoint.architecture) | {"dtype": checkpoint.dtype}
    if checkpoint.text is not None:
        ids = checkpoint.text.vocabulary.special_ids
        config |= {"pad_token_id": ids["pad"], "bos_token_id": ids["cls"], "eos_token_id": ids["sep"]}
        _write_text(checkpoint.text, folder, layout, checkpoint.architecture)
    write_json(folder / CONFIG, config)
    dialect, prefix = _DIALECTS[layout], _PREFIXES[layout] if layout == "stock" else ""
    sizes = axis_sizes(checkpoint.architecture)
    shapes = {prefix + rule.name(dialect): rule.shape(dialect, sizes) for rule in checkpoint.rules}
    placed = lay_out(folder / WEIGHTS, shapes, checkpoint.dtype)
    offsets = {name.removeprefix(prefix): offset for name, offset in placed.items()}
    write_weights(checkpoint, folder / WEIGHTS, dialect, offsets, progress)


def _write_text(text: Text, folder: Path, layout: RepositoryLayout, architecture: Architecture) -> None:
    (folder / VOCABULARY).write_bytes(text.proto)
    build_tokenizer(text.vocabulary, text.rules).save(str(folder / TOKENIZER), pretty=False)
    # The generic class takes tokenizer.json as it is; AlbertTokenizer would rebuild it with rules of its own.
    tokenizer_class = "AlbertHubTokenizer" if layout == "bridge" else "PreTrainedTokenizerFast"
    config: dict[str, Any] = {f"{name}_token": piece for name, piece in SPECIAL_PIECES.items()}
    config |= {
        "tokenizer_class": tokenizer_class,
        "model_max_length": min(text.sequence_length or 512, architecture.max_sequence_length),
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "replace_quotes": text.rules.replace_quotes,
        "strip_accents": text.rules.strip_accents,
        "do_lower_case": text.rules.lower_case,
        "truncate": text.truncate,
    }
    write_json(folder / TOKENIZER_CONFIG, config)
