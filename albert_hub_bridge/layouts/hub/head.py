"""The head of a repository: which one it is, and its settings in `config.json`."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.layouts.configuration import Configuration
from albert_hub_bridge.mapping.heads import HEADS, IMPLIED_PROBLEM_TYPES, Head, HeadKind, kind_of_class
from albert_hub_bridge.mapping.weights import Dialect, head_rules
from albert_hub_bridge.text import short_repr


def find_head(
    file: Path, keys: Mapping[str, Any], names: Set[str], dialect: Dialect, drop_head: bool
) -> HeadKind | None:
    """Return the kind of the head: by its tensors, and by its class in `config.json` where several kinds share them.

    Args:
        file: `config.json`, for the message.
        keys: The content of the file.
        names: The names of all tensors.
        dialect: The dialect of the names.
        drop_head: Whether to return None for a class without tensors, instead of refusing it.

    Raises:
        ConfigurationError: The class has a head, and there are no tensors of that head.
    """
    classes = keys.get("architectures")
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
    if "pretraining" in present and "masked_lm" in present:  # the tensors decide, whichever class is named
        sentence_order = {rule.name(dialect) for rule in head_rules("pretraining")[-2:]}
        return "pretraining" if sentence_order & names else "masked_lm"
    # Three kinds share the name "classifier". Without a class it is the first of them, the most common one.
    return named if named is not None else next((kind for kind in present), None)


def read_head(kind: HeadKind, configuration: Configuration, file: Path) -> Head:
    """Read the settings of the head from the configuration.

    Raises:
        ConfigurationError: The labels are wrong, or contradict their number.
    """
    fields = configuration.head
    head = Head(
        kind=kind,
        dropout=fields["classifier_dropout"],
        layer_norm_epsilon=fields.get("masked_lm_layer_norm_epsilon", configuration.architecture.layer_norm_epsilon),
        problem_type=fields["problem_type"],
        activation=fields["classifier_activation"],
    )
    labels, count = fields["id2label"], fields["num_labels"]
    if not any("label" in rule.torch_axes.split() for rule in head_rules(kind)):
        labels, count = labels or None, count or None  # this head has no labels, so there may be 0 of them
    if labels is not None:
        return _with_labels(head, labels, count, file)
    if count == 0:
        detail = f"expected at least 1, for a {HEADS[kind].description}, found 0"
        raise ConfigurationError(file, "configuration", [Problem("unsupported value", "num_labels", detail)])
    return head if count is None else replace(head, num_labels=count)


def _with_labels(head: Head, labels: Mapping[Any, Any], count: int | None, file: Path) -> Head:
    in_order = {str(index) for index in labels} == {str(index) for index in range(len(labels))}
    if not labels or not in_order or not all(isinstance(label, str | int) for label in labels.values()):
        detail = f"expected a text for each of 0, 1, 2, ..., found {dict(labels)!r}"
        raise ConfigurationError(file, "configuration", [Problem("unsupported value", "id2label", detail)])
    if count is not None and count != len(labels):
        problem = Problem("contradiction", "num_labels", f"expected {len(labels)}, as id2label has, found {count}")
        raise ConfigurationError(file, "configuration", [problem])
    by_index = {int(index): str(label) for index, label in labels.items()}
    names = tuple(by_index[index] for index in range(len(by_index)))
    unnamed = replace(head, num_labels=len(names), labels=None)
    return unnamed if names == unnamed.label_names else replace(unnamed, labels=names)


def head_fields(head: Head) -> dict[str, Any]:
    """Return the settings of a head for a configuration, without those that are a library's default."""
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
