"""Hub repositories: `config.json`, `model.safetensors` and a tokenizer, in two layouts.

*albert_hub* (`model_type: albert_hub`) is loaded by this package's classes, *transformers* (`model_type: albert`) by transformers
alone. Source of the transformers layout: transformers/models/albert, and keras_hub/src/utils/transformers/convert_albert.py
for what KerasHub's own importer needs: names that begin with `albert.`, a pooler, and `spiece.model`.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from albert_hub_bridge.checkpoint import Checkpoint, DroppedTensor, Progress, check_layers, match_weights
from albert_hub_bridge.disk.json_files import read_json, write_json
from albert_hub_bridge.errors import ConfigurationError, Problem, WeightsError
from albert_hub_bridge.formats.lazy_tensors import LazyTensor, TiedPair, check_tied
from albert_hub_bridge.layouts.configuration import Configuration, read_configuration
from albert_hub_bridge.layouts.hub import sentence_transformers
from albert_hub_bridge.layouts.hub.legacy_names import rename_legacy_tensors
from albert_hub_bridge.layouts.hub.tokenizer import TEXT_FILES, RepositoryLayout, read_text, write_text
from albert_hub_bridge.layouts.hub.weights import INDEX, SHARD, WEIGHTS, open_weights, plan_weights
from albert_hub_bridge.layouts.weight_files import write_weights
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.mapping.configs import ALBERT, ALBERT_HUB, IgnoredKey, Renamed, write_keys
from albert_hub_bridge.mapping.heads import HEADS, IMPLIED_PROBLEM_TYPES, Head, HeadKind, kind_of_class
from albert_hub_bridge.mapping.weights import ENCODERS, POOLER, Dialect, TorchDialect, head_rules, weight_rules
from albert_hub_bridge.text import short_repr


CONFIG = "config.json"
SETTINGS = frozenset({CONFIG}) | TEXT_FILES | sentence_transformers.FILES

# layout -> dialect of its weights, what the names begin with, table of its configuration
_DIALECTS: dict[RepositoryLayout, TorchDialect] = {"albert_hub": "albert_hub", "transformers": "albert"}
_PREFIXES = {layout: ENCODERS[dialect] for layout, dialect in _DIALECTS.items()}
_TABLES = {"albert_hub": ALBERT_HUB, "transformers": ALBERT}
_BARE = {"albert_hub": ("albert_hub", "AlbertHubModel"), "transformers": ("albert", "AlbertModel")}

_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
# Names that are there twice: transformers ties them, and old versions saved both.
_COPIES = {
    "transformers": {"weight": "embeddings.word_embeddings.weight", "bias": "predictions.bias"},
    "albert_hub": {"weight": "token_embedding.weight"},
}
_DECODERS = {"transformers": "predictions.decoder.", "albert_hub": "masked_lm_head.decoder."}


def is_checkpoint_file(name: str) -> bool:
    """Tell whether repositories have a file of that name."""
    return name in {*SETTINGS, WEIGHTS, INDEX} or SHARD.fullmatch(name) is not None


def read_repository(
    folder: Path, layout: RepositoryLayout, drop_head: bool = False, allow_pickle: bool = False
) -> Checkpoint:
    """Read a repository. The weights stay on disk until they are asked for.

    Args:
        folder: A folder that has a `config.json` with the layout's `model_type`.
        layout: `albert_hub` or `transformers`.
        drop_head: Whether to leave out a head that `config.json` names and that has no weights, instead of refusing.
        allow_pickle: Whether to read weights that are a pickle.

    Raises:
        ConfigurationError, WeightsError, VocabularyError: The repository is wrong; all problems are listed.
    """
    configuration = read_config(folder, layout)
    resources = ExitStack()
    try:
        file, found = open_weights(folder, resources, allow_pickle)
        try:
            return _read(folder, layout, configuration, file, found, resources, drop_head)
        except (ConfigurationError, WeightsError):
            if not drop_head:
                raise
            encoder = {name: weight for name, weight in found.items() if name.startswith(_PREFIXES[layout])}
            if len(encoder) in (0, len(found)):
                raise  # it is not the head that is wrong
            checkpoint = _read(folder, layout, configuration, file, encoder, resources, drop_head)
            head = [DroppedTensor(n, w.shape, "its head is dropped") for n, w in found.items() if n not in encoder]
            return replace(checkpoint, dropped=[*checkpoint.dropped, *head])
    except BaseException:
        resources.close()
        raise


def _read(
    folder: Path,
    layout: RepositoryLayout,
    configuration: Configuration,
    file: Path,
    found: dict[str, LazyTensor],
    resources: ExitStack,
    drop_head: bool,
) -> Checkpoint:
    architecture, dialect = configuration.architecture, _DIALECTS[layout]
    unused: list[DroppedTensor] = []
    tied_pairs: list[TiedPair] = []
    keys = read_json(folder / CONFIG)
    oldest = "model_type" not in keys
    if layout == "transformers":
        found, unused, tied_pairs = rename_legacy_tensors(file, found, oldest)
    check_layers(file, architecture, len(found))
    prefix = _PREFIXES[layout] if any(name.startswith(_PREFIXES[layout]) for name in found) else ""
    found, dropped, tied = _without_copies(found, layout, prefix)
    kind = _kind_of_head(folder / CONFIG, set(found), dialect, drop_head)
    if kind in ("masked_lm", "pretraining") and keys.get("tie_word_embeddings") is False:
        decoder = _DECODERS[layout] + "weight"
        if decoder not in [tensor.name for tensor in dropped]:  # transformers would make one of random numbers
            problem = Problem("missing", decoder, f"expected, for {CONFIG} says that nothing is tied; found none")
            raise WeightsError(file, "weights", [problem])
    head = _read_head(kind, configuration, folder / CONFIG) if kind is not None else None
    if head is not None and oldest and file.suffix == ".bin":
        head = replace(head, layer_norm_epsilon=1e-5)  # what torch's layer norm has where nothing else is said
    poolers = {prefix + rule.name(dialect) for rule in weight_rules(architecture) if rule.albert_hub in POOLER}
    rules = weight_rules(architecture, pooler=bool(poolers & set(found)))
    expected = {prefix + rule.name(dialect): rule for rule in rules}
    expected |= {rule.name(dialect): rule for rule in (head_rules(kind) if kind is not None else ())}
    sizes = axis_sizes(architecture, head.num_labels if head is not None else 2)
    weights = match_weights(file, found, expected, sizes, dialect)
    check_tied(file, [*tied_pairs, *tied])
    text, text_ignored, notes = read_text(folder, layout, architecture)
    if not poolers & set(found):
        notes.append("The source has no pooler.")
    notes += sentence_transformers.dropped_settings(folder)
    written = {r.field: key for key, r in _TABLES[layout].items() if isinstance(r, Renamed) and key in keys}
    head_ignored = [
        IgnoredKey(written[field], value, "belongs to a head, and there is none")
        for field, value in configuration.head.items()
        if head is None and field in written and value is not None
    ]
    return Checkpoint(
        layout=layout,
        folder=folder,
        architecture=architecture,
        weights=weights,
        dtype=next(iter(weights.values())).dtype,
        head=head,
        tokenizer=text,
        dropped=[*unused, *dropped],
        ignored=[*configuration.ignored, *head_ignored, *text_ignored],
        notes=notes,
        weights_file=file,
        resources=resources,
    )


def read_config(folder: Path, layout: RepositoryLayout) -> Configuration:
    """Read what a repository's `config.json` says.

    Raises:
        ConfigurationError: The configuration is wrong; all problems are listed.
    """
    return read_configuration(folder / CONFIG, _TABLES[layout], read_json(folder / CONFIG))


def _without_copies(
    found: dict[str, LazyTensor], layout: RepositoryLayout, prefix: str
) -> tuple[dict[str, LazyTensor], list[DroppedTensor], list[TiedPair]]:
    """Leave out buffers, and the masked LM's decoder, which has to be what it is tied to."""
    kept, dropped, tied_pairs = dict(found), [], []
    for leaf, tied in _COPIES[layout].items():
        copy, original = _DECODERS[layout] + leaf, prefix + tied if leaf == "weight" else tied
        if copy in kept and original in kept:
            detail = f"expected the values of {original}, found others: an untied masked LM is not converted"
            tied_pairs.append(TiedPair(Problem("not tied", copy, detail), kept[copy], kept[original]))
            dropped.append(DroppedTensor(copy, kept.pop(copy).shape, f"a copy of {original}"))
        elif copy.endswith("bias") and copy in kept:  # the oldest writers had no other
            kept[original] = kept.pop(copy)
    for name in [name for name in kept if layout == "transformers" and name.removeprefix(prefix) in _BUFFERS]:
        reason = "a buffer, not a parameter: counts 0, 1, 2, ..."
        dropped.append(DroppedTensor(name, kept.pop(name).shape, reason))
    return kept, dropped, tied_pairs


def _kind_of_head(file: Path, names: set[str], dialect: Dialect, drop_head: bool) -> HeadKind | None:
    """Tell the head by its tensors, and by the class that `config.json` names where several have the same tensors.

    Raises:
        ConfigurationError: A class with a head is named, and there are no tensors of that head.
    """
    classes = read_json(file).get("architectures")
    if classes is not None and (not isinstance(classes, list) or not all(isinstance(name, str) for name in classes)):
        problem = Problem(
            "unsupported value", "architectures", f"expected a list of classes, found {short_repr(classes)}"
        )
        raise ConfigurationError(file, "configuration", [problem])
    named = kind_of_class(classes[0]) if classes else None
    present = [kind for kind in HEADS if {rule.name(dialect) for rule in head_rules(kind)} & names]
    if named is not None and named not in present:
        if drop_head and not present:
            return None
        found = HEADS[present[0]].description if present else "none"
        detail = f"expected the tensors of the head of {HEADS[named].name(dialect)}, found those of: {found}"
        advice = "" if present else "Pass --drop-head (drop_head=True) to convert the encoder alone."
        raise ConfigurationError(file, "configuration", [Problem("missing head", "architectures", detail)], advice)
    if named in present and named not in ("masked_lm", "pretraining"):
        return named
    if "pretraining" in present and "masked_lm" in present:  # whichever is named, the tensors say what is there
        sentence_order = {rule.name(dialect) for rule in head_rules("pretraining")[-2:]}
        return "pretraining" if sentence_order & names else "masked_lm"
    # Three heads are a "classifier": without a name it is the one that nearly all of them are.
    return named if named is not None else next((kind for kind in present), None)


def _read_head(kind: HeadKind, configuration: Configuration, file: Path) -> Head:
    """Read what the configuration says of the head."""
    fields = configuration.head
    epsilon = fields.get("masked_lm_layer_norm_epsilon", configuration.architecture.layer_norm_epsilon)
    head = Head(kind=kind, dropout=fields["classifier_dropout"], layer_norm_epsilon=epsilon)
    head = replace(head, problem_type=fields["problem_type"], activation=fields["classifier_activation"])
    labels, count = fields["id2label"], fields["num_labels"]
    if not any("label" in rule.torch_axes.split() for rule in head_rules(kind)):
        labels, count = labels or None, count or None  # no labels are enough for it
    if labels is not None:
        named = {str(index) for index in labels} == {str(index) for index in range(len(labels))}
        if not labels or not named or not all(isinstance(label, str | int) for label in labels.values()):
            detail = f"expected a text for each of 0, 1, 2, ..., found {dict(labels)!r}"
            raise ConfigurationError(file, "configuration", [Problem("unsupported value", "id2label", detail)])
        if count is not None and count != len(labels):
            problem = Problem("contradiction", "num_labels", f"expected {len(labels)}, as id2label has, found {count}")
            raise ConfigurationError(file, "configuration", [problem])
        by_index = {int(index): str(label) for index, label in labels.items()}
        names = tuple(by_index[index] for index in range(len(by_index)))
        head = replace(head, num_labels=len(names), labels=names)
        if head.labels == replace(head, labels=None).label_names:
            head = replace(head, labels=None)
    elif count is not None:
        if count == 0:
            detail = f"expected at least 1, for a {HEADS[kind].description}, found 0"
            raise ConfigurationError(file, "configuration", [Problem("unsupported value", "num_labels", detail)])
        head = replace(head, num_labels=count)
    return head


def write_repository(
    checkpoint: Checkpoint,
    folder: Path,
    layout: RepositoryLayout,
    progress: Progress | None = None,
    max_shard_bytes: int | None = None,
) -> dict[Path, str]:
    """Write a checkpoint as a repository.

    Args:
        checkpoint: What to write.
        folder: An existing, empty folder.
        layout: `albert_hub` or `transformers`.
        progress: Called after every tensor.
        max_shard_bytes: Size of the values in one file of weights; None for one file.

    Returns:
        The SHA-256 of every file of weights, as it was read back, in hexadecimal.

    Raises:
        TargetError: One weight alone is larger than a shard may be.
        OSError: The system did not write a file, which it names.
    """
    model_type, class_name = _BARE[layout]
    dialect, head, architecture = _DIALECTS[layout], checkpoint.head, checkpoint.architecture
    if head is not None:
        class_name = HEADS[head.kind].name(dialect)
    fields = asdict(architecture)
    if layout == "transformers" and architecture.attention_dropout is None:
        fields["attention_dropout"] = checkpoint.architecture.dropout
    if head is not None:
        fields |= head_fields(head)
        if layout == "transformers" and head.dropout is None:  # transformers' ALBERT wants a number
            fields["classifier_dropout"] = checkpoint.architecture.dropout
    config: dict[str, Any] = {"architectures": [class_name], "model_type": model_type}
    config |= write_keys(_TABLES[layout], fields) | {"dtype": checkpoint.dtype}
    if "id2label" in config:
        config["label2id"] = {label: int(index) for index, label in config["id2label"].items()}
    if checkpoint.tokenizer is not None:
        ids = checkpoint.tokenizer.vocabulary.special_ids
        config |= {"pad_token_id": ids["pad"], "bos_token_id": ids["cls"], "eos_token_id": ids["sep"]}
        write_text(checkpoint.tokenizer, folder, layout, checkpoint.architecture)
    write_json(folder / CONFIG, config)
    prefix = _PREFIXES[layout] if layout == "transformers" or head is not None else ""
    files = plan_weights(checkpoint, folder, dialect, prefix, max_shard_bytes)
    return write_weights(checkpoint, files, dialect, progress)


def head_fields(head: Head) -> dict[str, Any]:
    """Return what a configuration says of a head; a library's own default is not written."""
    fields: dict[str, Any] = {"classifier_dropout": head.dropout}
    if head.kind in ("masked_lm", "pretraining"):
        fields["masked_lm_layer_norm_epsilon"] = head.layer_norm_epsilon
    if head.activation is not None:
        fields["classifier_activation"] = head.activation
    if problem_type := head.problem_type or IMPLIED_PROBLEM_TYPES[head.activation]:
        fields["problem_type"] = problem_type
    if head.labels is not None or head.num_labels != 2:
        fields["id2label"] = {str(index): label for index, label in enumerate(head.label_names)}
    return fields
