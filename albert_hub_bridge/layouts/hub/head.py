"""The head of a repository: which one it is, and its settings in `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from albert_hub_bridge.errors import ConfigurationError, Problem
from albert_hub_bridge.formats.lazy_tensors import LazyTensor
from albert_hub_bridge.layouts.configuration import Configuration
from albert_hub_bridge.layouts.hub.spelling import Spelling
from albert_hub_bridge.mapping.heads import HEADS, IMPLIED_PROBLEM_TYPES, Head, HeadKind, kind_of_class
from albert_hub_bridge.mapping.weights import POOLER_RULES, head_rules
from albert_hub_bridge.text import short_repr


def head_tensors(spelling: Spelling) -> set[str]:
    """Return the names of all tensors that a head of any kind can have in a layout."""
    names = {rule.name(spelling.dialect) for kind in HEADS for rule in head_rules(kind)}
    return names | {f"{spelling.decoder}{leaf}" for leaf in ("weight", "bias")}


def named_head(keys: Mapping[str, Any]) -> str | None:
    """Return the class that `config.json` names, if it has a head."""
    classes = keys.get("architectures")
    name = classes[0] if isinstance(classes, list) and classes else None
    return name if isinstance(name, str) and kind_of_class(name) is not None else None


def find_head(
    file: Path,
    keys: Mapping[str, Any],
    tensors: Mapping[str, LazyTensor],
    spelling: Spelling,
    chosen: HeadKind | None,
) -> HeadKind | None:
    """Return the kind of the head: by its tensors, and by its class in `config.json` where several kinds share them.

    Args:
        file: `config.json`, for the message.
        keys: The content of the file.
        tensors: All tensors, by their current names.
        spelling: The names in the layout.
        chosen: What a user says, where neither tensors nor keys do.

    Raises:
        ConfigurationError: The class has a head, and there are no tensors of that head; or nothing says which head the
            tensors are.
    """
    classes = keys.get("architectures")
    if classes is not None and (not isinstance(classes, list) or not all(isinstance(name, str) for name in classes)):
        problem = Problem(
            "unsupported value", "architectures", f"expected a list of classes, found {short_repr(classes)}"
        )
        raise ConfigurationError(file, "configuration", [problem])
    named = kind_of_class(classes[0]) if classes else None
    present = [kind for kind in HEADS if {rule.name(spelling.dialect) for rule in head_rules(kind)} & set(tensors)]
    if named is not None and named not in present:
        found = HEADS[present[0]].description if present else "none"
        detail = f"expected the tensors of the head of {HEADS[named].name(spelling.dialect)}, found those of: {found}"
        advice = "" if present else "Pass --drop-head (drop_head=True) to convert the encoder alone."
        raise ConfigurationError(file, "configuration", [Problem("missing head", "architectures", detail)], advice)
    if "pretraining" in present and "masked_lm" in present:  # the tensors decide, whichever class is named
        sentence_order = {rule.name(spelling.dialect) for rule in head_rules("pretraining")[-2:]}
        return "pretraining" if sentence_order & set(tensors) else "masked_lm"
    if named is not None or len(present) < 2:
        return named or next(iter(present), None)
    return _kind_of_classifier(file, keys, tensors, spelling, chosen)


def _kind_of_classifier(
    file: Path,
    keys: Mapping[str, Any],
    tensors: Mapping[str, LazyTensor],
    spelling: Spelling,
    chosen: HeadKind | None,
) -> HeadKind:
    """Return which of the three kinds that share the name "classifier" the head is, if no class is named."""
    pooler = {rule.name(spelling.dialect) for rule in POOLER_RULES}
    has_pooler = any(name in pooler or name.removeprefix(spelling.prefix) in pooler for name in tensors)
    scores = next((tensor.shape for name, tensor in tensors.items() if name == "classifier.weight"), ())
    possible: list[HeadKind] = ["sequence_classification", "token_classification"]
    if not has_pooler:
        possible = ["token_classification"]
    elif scores[:1] == (1,):
        possible = ["sequence_classification", "multiple_choice"]
    labels = keys.get("id2label")
    names = [str(name) for name in labels.values()] if isinstance(labels, Mapping) else []
    if chosen is None and keys.get("problem_type") is not None:
        chosen = "sequence_classification"
    if chosen is None and any(name.startswith(("B-", "I-")) for name in names):
        chosen = "token_classification"
    if chosen in possible:
        return chosen
    if chosen is None and len(possible) == 1:
        return possible[0]
    found = f"a classifier {'with' if has_pooler else 'without'} a pooler"
    detail = f"expected the class of the model, found none beside {found}"
    if chosen is not None:
        detail = f"expected {' or '.join(possible)}, found {found}, which is no {chosen}"
    options = " or ".join(f"--head {kind}" for kind in possible)
    advice = f"Pass {options} (head=...), as the model was trained, or --drop-head for the encoder alone."
    raise ConfigurationError(file, "configuration", [Problem("unknown head", "architectures", detail)], advice)


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
