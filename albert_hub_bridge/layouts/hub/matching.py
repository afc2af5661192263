"""Match the tensors of a repository with the table of weights, and find its head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from albert_hub_bridge.checkpoint import (
    DROPPED_HEAD,
    DroppedTensor,
    check_layers,
    leave_out,
    match_int8,
    match_weights,
)
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.errors import ConfigurationError, WeightsError
from albert_hub_bridge.formats.lazy_tensors import Int8Weight, LazyTensor, TiedPair, check_tied
from albert_hub_bridge.layouts.configuration import Configuration
from albert_hub_bridge.layouts.hub.files import CONFIG
from albert_hub_bridge.layouts.hub.head import find_head, head_tensors, read_head
from albert_hub_bridge.layouts.hub.int8 import dequantize
from albert_hub_bridge.layouts.hub.legacy_names import rename_legacy_tensors
from albert_hub_bridge.layouts.hub.spelling import Spelling
from albert_hub_bridge.layouts.hub.tied_tensors import check_decoder, drop_copies
from albert_hub_bridge.layouts.layout import ReadOptions
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.mapping.heads import NEED_POOLER, Head
from albert_hub_bridge.mapping.weights import POOLER, WeightRule, head_rules, weight_rules


@dataclass(frozen=True, slots=True)
class MatchedTensors:
    """The weights of a repository.

    Args:
        weights: The weights by albert_hub names, in torch's layout.
        head: The head; None if there is none, or if it is dropped.
        dropped: The tensors that are neither.
        int8: The weights that are in int8, by the same names.
    """

    weights: Mapping[str, LazyTensor]
    head: Head | None
    dropped: Sequence[DroppedTensor]
    int8: Mapping[str, Int8Weight]


def match_tensors(
    source: SourceFolder,
    options: ReadOptions,
    spelling: Spelling,
    configuration: Configuration,
    file: Path,
    tensors: Mapping[str, LazyTensor],
) -> MatchedTensors:
    """Match all tensors of a repository.

    Args:
        source: The repository.
        options: How it is read.
        spelling: The names in its layout.
        configuration: The content of its `config.json`.
        file: The file of the weights, or the index of its shards.
        tensors: Every tensor by its name in the file.

    Raises:
        ConfigurationError: The head is unknown, or has wrong settings.
        WeightsError: A tensor is missing, unexpected, or wrong; lists them all.
    """
    architecture = configuration.architecture
    is_oldest = "model_type" not in source.json(CONFIG)
    unused: list[DroppedTensor] = []
    renamed_twice: list[TiedPair] = []
    if spelling.dialect == "albert":
        tensors, unused, renamed_twice = rename_legacy_tensors(file, tensors, is_oldest)
    quantized: dict[str, Int8Weight] = {}
    if spelling.dialect == "albert_hub":
        tensors, quantized = dequantize(file, tensors)
    check_layers(file, architecture, len(tensors))
    prefix = spelling.prefix if any(name.startswith(spelling.prefix) for name in tensors) else ""
    tensors, copies, tied = drop_copies(tensors, spelling, prefix)
    heads = head_tensors(spelling)
    encoder = {prefix + rule.name(spelling.dialect) for rule in weight_rules(architecture)}
    tensors, dropped = leave_out(file, tensors, options.drop_unknown, encoder | heads)
    dropped = [*unused, *copies, *dropped]
    try:
        head = _read_head(source, options, spelling, configuration, tensors)
        if head is not None and source.json(CONFIG).get("tie_word_embeddings") is False:
            check_decoder(file, head, spelling, copies)
        if head is not None and is_oldest and file.suffix == ".bin":
            head = replace(head, layer_norm_epsilon=1e-5)  # torch's default, which these versions used
        weights, int8 = _match(configuration, head, spelling, prefix, file, tensors, quantized)
        check_tied(file, [*renamed_twice, *tied])
    except (ConfigurationError, WeightsError):
        if not options.drop_head:
            raise
        head = None
        dropped += [DroppedTensor(name, tensors[name].shape, DROPPED_HEAD) for name in tensors if name in heads]
        tensors = {name: tensor for name, tensor in tensors.items() if name not in heads}
        weights, int8 = _match(configuration, None, spelling, prefix, file, tensors, quantized)
        check_tied(file, renamed_twice)
    return MatchedTensors(weights, head, dropped, int8)


def _read_head(
    source: SourceFolder,
    options: ReadOptions,
    spelling: Spelling,
    configuration: Configuration,
    tensors: Mapping[str, LazyTensor],
) -> Head | None:
    file = source.path(CONFIG)
    kind = find_head(file, source.json(CONFIG), tensors, spelling, options.head)
    return read_head(kind, configuration, file) if kind is not None else None


def _match(
    configuration: Configuration,
    head: Head | None,
    spelling: Spelling,
    prefix: str,
    file: Path,
    tensors: Mapping[str, LazyTensor],
    quantized: Mapping[str, Int8Weight],
) -> tuple[dict[str, LazyTensor], dict[str, Int8Weight]]:
    expected = _expected_rules(configuration, head, set(tensors), spelling, prefix)
    sizes = axis_sizes(configuration.architecture, head.num_labels if head is not None else 2)
    weights = match_weights(file, tensors, expected, sizes, spelling.dialect)
    return weights, match_int8(file, quantized, expected, sizes, spelling.dialect)


def _expected_rules(
    configuration: Configuration, head: Head | None, names: set[str], spelling: Spelling, prefix: str
) -> dict[str, WeightRule]:
    """Return the table's row of every tensor, by its name. Only a head on the pooled output needs the pooler."""
    dialect = spelling.dialect
    encoder = {prefix + rule.name(dialect): rule for rule in weight_rules(configuration.architecture)}
    pooler = {name for name, rule in encoder.items() if rule.albert_hub in POOLER}
    if not pooler & names and (head is None or head.kind not in NEED_POOLER):
        encoder = {name: rule for name, rule in encoder.items() if name not in pooler}
    return encoder | {rule.name(dialect): rule for rule in (head_rules(head.kind) if head is not None else ())}
