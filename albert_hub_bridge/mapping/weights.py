"""The table of weights: one row per parameter, with its name in every dialect and its axes in both layouts.

The dialects are `keras` (datasets in KerasHub's `model.weights.h5`, and in `task.weights.h5` for heads), `albert_hub`
(parameters of `AlbertHubModel`) and `albert` (parameters of transformers' `AlbertModel`). Shapes, conversions in both
directions, parameter counts and the table in `docs/reference/weights.md` are derived from these rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import numpy as np

from albert_hub_bridge.mapping.axes import axis_sizes, parse, rearrange, shape_of
from albert_hub_bridge.mapping.heads import HeadKind
from albert_hub_bridge.model.architecture import Architecture


Dialect = Literal["keras", "albert_hub", "albert"]
TorchDialect = Literal["albert_hub", "albert"]

# The prefix of the encoder's parameters in a model with a head.
ENCODERS: Mapping[TorchDialect, str] = {"albert_hub": "backbone.", "albert": "albert."}


@dataclass(frozen=True, slots=True)
class WeightRule:
    """A parameter: its name in every dialect and its axes in both layouts."""

    keras: str  # empty if KerasHub has no such head
    albert_hub: str
    albert: str
    keras_axes: str
    torch_axes: str

    def name(self, dialect: Dialect) -> str:
        """Return the name in a dialect."""
        return getattr(self, dialect)  # type: ignore[no-any-return]

    def axes(self, dialect: Dialect) -> str:
        """Return the axes in a dialect."""
        return self.keras_axes if dialect == "keras" else self.torch_axes

    def shape(self, dialect: Dialect, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Return the shape in a dialect."""
        return shape_of(self.axes(dialect), sizes)

    def move(self, array: np.ndarray, source: Dialect, target: Dialect, sizes: Mapping[str, int]) -> np.ndarray:
        """Convert the values from one dialect to another. The result is a view."""
        return rearrange(array, self.axes(source), self.axes(target), sizes)


# fmt: off
_STEM = (
    WeightRule("layers/reversible_embedding/vars/0",  "token_embedding.weight",       "embeddings.word_embeddings.weight",               "vocabulary embedding", "vocabulary embedding"),
    WeightRule("layers/position_embedding/vars/0",    "position_embedding.weight",    "embeddings.position_embeddings.weight",           "position embedding",   "position embedding"),
    WeightRule("layers/embedding/vars/0",             "segment_embedding.weight",     "embeddings.token_type_embeddings.weight",         "segment embedding",    "segment embedding"),
    WeightRule("layers/layer_normalization/vars/0",   "embeddings_layer_norm.weight", "embeddings.LayerNorm.weight",                     "embedding",            "embedding"),
    WeightRule("layers/layer_normalization/vars/1",   "embeddings_layer_norm.bias",   "embeddings.LayerNorm.bias",                       "embedding",            "embedding"),
    WeightRule("layers/dense/vars/0",                 "embeddings_projection.weight", "encoder.embedding_hidden_mapping_in.weight",      "embedding hidden",     "hidden embedding"),
    WeightRule("layers/dense/vars/1",                 "embeddings_projection.bias",   "encoder.embedding_hidden_mapping_in.bias",        "hidden",               "hidden"),
)

# One encoder layer. `_in_layer` adds the prefixes of the names.
_LAYER = (
    WeightRule("_self_attention_layer/query_dense/vars/0",    "self_attention_layer.query_dense.weight",    "attention.query.weight",       "hidden heads head_dim", "(heads head_dim) hidden"),
    WeightRule("_self_attention_layer/query_dense/vars/1",    "self_attention_layer.query_dense.bias",      "attention.query.bias",         "heads head_dim",        "(heads head_dim)"),
    WeightRule("_self_attention_layer/key_dense/vars/0",      "self_attention_layer.key_dense.weight",      "attention.key.weight",         "hidden heads head_dim", "(heads head_dim) hidden"),
    WeightRule("_self_attention_layer/key_dense/vars/1",      "self_attention_layer.key_dense.bias",        "attention.key.bias",           "heads head_dim",        "(heads head_dim)"),
    WeightRule("_self_attention_layer/value_dense/vars/0",    "self_attention_layer.value_dense.weight",    "attention.value.weight",       "hidden heads head_dim", "(heads head_dim) hidden"),
    WeightRule("_self_attention_layer/value_dense/vars/1",    "self_attention_layer.value_dense.bias",      "attention.value.bias",         "heads head_dim",        "(heads head_dim)"),
    WeightRule("_self_attention_layer/output_dense/vars/0",   "self_attention_layer.output_dense.weight",   "attention.dense.weight",       "heads head_dim hidden", "hidden (heads head_dim)"),
    WeightRule("_self_attention_layer/output_dense/vars/1",   "self_attention_layer.output_dense.bias",     "attention.dense.bias",         "hidden",                "hidden"),
    WeightRule("_self_attention_layer_norm/vars/0",           "self_attention_layer_norm.weight",           "attention.LayerNorm.weight",   "hidden",                "hidden"),
    WeightRule("_self_attention_layer_norm/vars/1",           "self_attention_layer_norm.bias",             "attention.LayerNorm.bias",     "hidden",                "hidden"),
    WeightRule("_feedforward_intermediate_dense/vars/0",      "feedforward_intermediate_dense.weight",      "ffn.weight",                   "hidden intermediate",   "intermediate hidden"),
    WeightRule("_feedforward_intermediate_dense/vars/1",      "feedforward_intermediate_dense.bias",        "ffn.bias",                     "intermediate",          "intermediate"),
    WeightRule("_feedforward_output_dense/vars/0",            "feedforward_output_dense.weight",            "ffn_output.weight",            "intermediate hidden",   "hidden intermediate"),
    WeightRule("_feedforward_output_dense/vars/1",            "feedforward_output_dense.bias",              "ffn_output.bias",              "hidden",                "hidden"),
    WeightRule("_feedforward_layer_norm/vars/0",              "feedforward_layer_norm.weight",              "full_layer_layer_norm.weight", "hidden",                "hidden"),
    WeightRule("_feedforward_layer_norm/vars/1",              "feedforward_layer_norm.bias",                "full_layer_layer_norm.bias",   "hidden",                "hidden"),
)

POOLER_RULES = (
    WeightRule("layers/dense_1/vars/0", "pooled_dense.weight", "pooler.weight", "hidden pooled", "pooled hidden"),
    WeightRule("layers/dense_1/vars/1", "pooled_dense.bias",   "pooler.bias",   "pooled",        "pooled"),
)

# The kernel of the token scores is the token embedding.
_MASKED_LM = (
    WeightRule("layers/masked_lm_head/_intermediate_dense/vars/0",      "masked_lm_head.intermediate_dense.weight",      "predictions.dense.weight",     "hidden embedding", "embedding hidden"),
    WeightRule("layers/masked_lm_head/_intermediate_dense/vars/1",      "masked_lm_head.intermediate_dense.bias",        "predictions.dense.bias",       "embedding",        "embedding"),
    WeightRule("layers/masked_lm_head/_intermediate_layer_norm/vars/0", "masked_lm_head.intermediate_layer_norm.weight", "predictions.LayerNorm.weight", "embedding",        "embedding"),
    WeightRule("layers/masked_lm_head/_intermediate_layer_norm/vars/1", "masked_lm_head.intermediate_layer_norm.bias",   "predictions.LayerNorm.bias",   "embedding",        "embedding"),
    WeightRule("layers/masked_lm_head/vars/0",                          "masked_lm_head.decoder.bias",                   "predictions.bias",             "vocabulary",       "vocabulary"),
)
_SENTENCE_ORDER = (
    WeightRule("", "sentence_order_classifier.weight", "sop_classifier.classifier.weight", "hidden label", "label hidden"),
    WeightRule("", "sentence_order_classifier.bias",   "sop_classifier.classifier.bias",   "label",        "label"),
)
_SEQUENCE_CLASSIFIER = (
    WeightRule("layers/dense/vars/0", "classifier.weight", "classifier.weight", "hidden label", "label hidden"),
    WeightRule("layers/dense/vars/1", "classifier.bias",   "classifier.bias",   "label",        "label"),
)
_CHOICE_CLASSIFIER = (
    WeightRule("", "classifier.weight", "classifier.weight", "hidden score", "score hidden"),
    WeightRule("", "classifier.bias",   "classifier.bias",   "score",        "score"),
)
_SPAN_CLASSIFIER = (
    WeightRule("", "qa_outputs.weight", "qa_outputs.weight", "hidden label", "label hidden"),
    WeightRule("", "qa_outputs.bias",   "qa_outputs.bias",   "label",        "label"),
)
_HEADS: Mapping[HeadKind, tuple[WeightRule, ...]] = {
    "masked_lm":               _MASKED_LM,
    "pretraining":             _MASKED_LM + _SENTENCE_ORDER,
    "sequence_classification": _SEQUENCE_CLASSIFIER,
    "token_classification":    tuple(replace(rule, keras="") for rule in _SEQUENCE_CLASSIFIER),
    "multiple_choice":         _CHOICE_CLASSIFIER,
    "question_answering":      _SPAN_CLASSIFIER,
}
# fmt: on


def weight_rules(architecture: Architecture, pooler: bool = True) -> tuple[WeightRule, ...]:
    """Return the rows of all parameters of an encoder, in the order of the forward pass."""
    return (*_STEM, *_layers(architecture), *(POOLER_RULES if pooler else ()))


def head_rules(kind: HeadKind) -> tuple[WeightRule, ...]:
    """Return the rows of all parameters of a head."""
    return _HEADS[kind]


def scale_of(name: str) -> str:
    """Return the albert_hub name of the scales of an int8 weight."""
    return f"{name}_scale"


def with_scales(rules: tuple[WeightRule, ...], int8: Collection[str]) -> tuple[WeightRule, ...]:
    """Return rows with one more after each int8 weight: its scales, one for each row of the weight in torch's layout.

    Args:
        rules: Rows of the table.
        int8: The albert_hub names of the int8 weights.
    """
    return tuple(each for rule in rules for each in ((rule, _scales(rule)) if rule.albert_hub in int8 else (rule,)))


def _scales(rule: WeightRule) -> WeightRule:
    """Return the row of the scales of a weight. Only the albert_hub layout has them."""
    rows = f"({' '.join(parse(rule.torch_axes)[0])})"
    return WeightRule("", scale_of(rule.albert_hub), "", rows, rows)


POOLER = frozenset(rule.albert_hub for rule in POOLER_RULES)


def _layers(architecture: Architecture) -> Iterator[WeightRule]:
    """Yield the rows of all encoder layers. KerasHub numbers the layers of all groups consecutively."""
    for group in range(architecture.num_groups):
        for inner in range(architecture.num_inner_repetitions):
            count = group * architecture.num_inner_repetitions + inner
            encoder = f"transformer_encoder_{count}" if count else "transformer_encoder"
            for rule in _LAYER:
                yield _in_layer(rule, encoder, str(group), str(inner))


def _in_layer(rule: WeightRule, encoder: str, group: str, inner: str) -> WeightRule:
    return replace(
        rule,
        keras=f"layers/{encoder}/{rule.keras}",
        albert_hub=f"transformer_layers.{group}.{inner}.{rule.albert_hub}",
        albert=f"encoder.albert_layer_groups.{group}.albert_layers.{inner}.{rule.albert}",
    )


def parameter_count(architecture: Architecture) -> int:
    """Return the number of parameters of an encoder."""
    sizes = axis_sizes(architecture)
    return sum(prod(rule.shape("albert_hub", sizes)) for rule in weight_rules(architecture))


def weights_as_markdown() -> str:
    """Return the table as Markdown. A test compares it with `docs/reference/weights.md`."""
    lines = [
        "| KerasHub dataset | its axes | `AlbertHubModel` | transformers `AlbertModel` | their axes |",
        "|---|---|---|---|---|",
    ]
    layer = [_in_layer(rule, "transformer_encoder[_n]", "g", "i") for rule in _LAYER]
    heads = (*_MASKED_LM, *_SENTENCE_ORDER, *_SEQUENCE_CLASSIFIER, *_CHOICE_CLASSIFIER, *_SPAN_CLASSIFIER)
    for rule in (*_STEM, *layer, *POOLER_RULES, *heads):
        keras = f"`{rule.keras}` | {rule.keras_axes}" if rule.keras else "none | "
        lines.append(f"| {keras} | `{rule.albert_hub}` | `{rule.albert}` | {rule.torch_axes} |")
    return "\n".join(lines)
