"""The sibling of the table of weights: what every configuration key means, in every dialect.

A key is *renamed* (it is a field of `Architecture`), *constant* (it is checked, and refused when different) or
*ignored*, with a reason that the report shows. A key that nobody names is an error, in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from albert_hub_bridge.errors import Problem
from albert_hub_bridge.model.architecture import ACTIVATIONS, is_epsilon, is_rate
from albert_hub_bridge.text import short_repr


REQUIRED = object()


@dataclass(frozen=True, slots=True)
class Validator:
    """What a value has to be."""

    description: str
    accepts: Callable[[Any], bool]


# The values of an architecture are checked together, by Architecture.
ANYTHING = Validator("anything", lambda value: True)
COUNT = Validator("a positive integer", lambda value: type(value) is int and value > 0)
LABEL_COUNT = Validator("an integer from 1 to 100,000", lambda value: type(value) is int and 0 < value <= 100_000)
LABEL_COUNT_OR_0 = Validator("an integer from 0 to 100,000", lambda value: type(value) is int and 0 <= value <= 100_000)
POSITIVE = Validator(
    "a positive number", lambda value: type(value) in (int, float) and value > 0
)  # not NaN, and not True
BOOLEAN = Validator("true or false", lambda value: type(value) is bool)
TRUNCATION = Validator("'round_robin' or 'waterfall'", lambda value: value in ("round_robin", "waterfall"))
TRUNCATION_OR_LONGEST = Validator(
    "'round_robin', 'waterfall' or 'longest_first'", lambda value: value == "longest_first" or TRUNCATION.accepts(value)
)

# transformers has several names for one function.
SAME_ACTIVATION = {"gelu_new": "gelu_pytorch_tanh", "gelu_fast": "gelu_pytorch_tanh", "gelu_python": "gelu"}
ACTIVATION = Validator(
    f"one of {', '.join((*ACTIVATIONS, *SAME_ACTIVATION))}",
    lambda value: isinstance(value, str) and (value in ACTIVATIONS or value in SAME_ACTIVATION),
)
RATE_OR_NONE = Validator("a number in [0, 1), or null", lambda value: value is None or is_rate(value))
EPSILON = Validator("a positive number below 1", is_epsilon)
LABELS = Validator("an object", lambda value: isinstance(value, Mapping))
_PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
PROBLEM_TYPE = Validator(f"one of {', '.join(_PROBLEM_TYPES)}", lambda value: value in _PROBLEM_TYPES)
CLASSIFIER_ACTIVATION = Validator("null, 'softmax' or 'sigmoid'", lambda value: value in (None, "softmax", "sigmoid"))


@dataclass(frozen=True, slots=True)
class Renamed:
    """The key is a field of ours; where it is absent it has the default of its own library."""

    field: str
    default: Any = REQUIRED
    kind: Validator = ANYTHING


@dataclass(frozen=True, slots=True)
class Constant:
    """The key may only have one of these values, because nothing here computes anything else."""

    allowed: tuple[Any, ...]
    why: str
    default: Any = REQUIRED  # what an absent key means; by default, an allowed value


@dataclass(frozen=True, slots=True)
class Ignored:
    """The key does not change what is computed, or is said elsewhere."""

    reason: str


Rule = Renamed | Constant | Ignored
Table = Mapping[str, Rule]


@dataclass(frozen=True, slots=True)
class IgnoredKey:
    """A key that was read and not carried over, for the report."""

    key: str
    value: Any
    reason: str


_NOT_AN_ENCODER = "ALBERT is a bidirectional encoder"
_OUTPUT = "chooses what a call returns, not what it computes"
_GENERATION = "only text generation uses it"
_INIT = "only initializes new weights"
_RUNTIME = "chooses how, not what, is computed"
_PROVENANCE = "says where the file came from"
_IDS = "the vocabulary says it"
_LABEL = "names an object in Keras"

_CODE = "names code, and that of a source is neither run nor carried over"

_LAYOUT = "the target has its own"
_DTYPE = "the weights carry their own dtype"
_TENSORS = "the tensors say it"

# Reasons of keys that the target says all the same, in its own way: a report to people can leave them out.
SAID_ELSEWHERE = frozenset({_IDS, _LABEL, _LAYOUT, _DTYPE, _TENSORS})

# fmt: off
KERAS: Table = {
    "vocabulary_size":       Renamed("vocabulary_size"),
    "num_layers":            Renamed("num_layers"),
    "num_heads":             Renamed("num_heads"),
    "embedding_dim":         Renamed("embedding_dim"),
    "hidden_dim":            Renamed("hidden_dim"),
    "intermediate_dim":      Renamed("intermediate_dim"),
    "num_groups":            Renamed("num_groups", 1),
    "num_inner_repetitions": Renamed("num_inner_repetitions", 1),
    "dropout":               Renamed("dropout", 0.0),
    "max_sequence_length":   Renamed("max_sequence_length", 512),
    "num_segments":          Renamed("num_segments", 2),
    "name":                  Ignored(_LABEL),
    "trainable":             Ignored("a setting of training, not of the model"),
    "dtype":                 Ignored(_DTYPE),
}

# What transformers has written into any model's config.json, from version 2 to 5.
_TRANSFORMERS: Table = {
    "is_decoder":              Constant((False,), _NOT_AN_ENCODER),
    "is_encoder_decoder":      Constant((False,), _NOT_AN_ENCODER),
    "add_cross_attention":     Constant((False,), _NOT_AN_ENCODER),
    "pruned_heads":            Constant(({}, None), "pruned heads change the shape of the weights"),
    "quantization_config":     Constant((None,), "quantized weights are not read"),
    "per_layer_config":        Constant((None,), "every layer has the same shape"),
    "architectures":           Ignored(_TENSORS),
    "model_type":              Ignored(_LAYOUT),
    "auto_map":                Ignored(_CODE),
    "dtype":                   Ignored(_DTYPE),
    "torch_dtype":             Ignored(_DTYPE),
    "chunk_size_feed_forward": Ignored(_RUNTIME),
    "use_bfloat16":            Ignored(_RUNTIME),
    "torchscript":             Ignored(_RUNTIME),
    "gradient_checkpointing":  Ignored(_RUNTIME),
    "attn_implementation":     Ignored(_RUNTIME),
    "_attn_implementation":    Ignored(_RUNTIME),
    "use_cache":               Ignored(_RUNTIME),
    "xla_device":              Ignored(_RUNTIME),
    "tf_legacy_loss":          Ignored(_RUNTIME),
    "initializer_range":       Ignored(_INIT),
    "return_dict":             Ignored(_OUTPUT),
    "output_attentions":       Ignored(_OUTPUT),
    "output_hidden_states":    Ignored(_OUTPUT),
    "output_past":             Ignored(_OUTPUT),
    "_name_or_path":           Ignored(_PROVENANCE),
    "_commit_hash":            Ignored(_PROVENANCE),
    "transformers_version":    Ignored(_PROVENANCE),
    "tie_word_embeddings":     Ignored(_TENSORS),
    "tie_encoder_decoder":     Ignored("there is no decoder"),
    "num_labels":              Renamed("num_labels", None, LABEL_COUNT_OR_0),  # 0 where no head needs any
    "_num_labels":             Ignored(_TENSORS),
    "id2label":                Renamed("id2label", None, LABELS),
    "label2id":                Ignored("made again from id2label"),
    "problem_type":            Renamed("problem_type", None, PROBLEM_TYPE),
    "classifier_activation":   Renamed("classifier_activation", None, CLASSIFIER_ACTIVATION),
    "finetuning_task":         Ignored(_PROVENANCE),
    "task_specific_params":    Ignored(_GENERATION),
    "tokenizer_class":         Ignored(_LAYOUT),
    "prefix":                  Ignored(_GENERATION),
    "pad_token_id":            Ignored(_IDS),
    "bos_token_id":            Ignored(_IDS),
    "eos_token_id":            Ignored(_IDS),
    "eos_token_ids":           Ignored(_IDS),
    "sep_token_id":            Ignored(_IDS),
    **dict.fromkeys((
        "cross_attention_hidden_size", "decoder_start_token_id", "max_length", "min_length", "do_sample",
        "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p",
        "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
        "bad_words_ids", "num_return_sequences", "output_scores", "return_dict_in_generate", "forced_bos_token_id",
        "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens",
        "begin_suppress_tokens",
    ), Ignored(_GENERATION)),
}

ALBERT: Table = {
    "vocab_size":                   Renamed("vocabulary_size", 30000),
    "num_hidden_layers":            Renamed("num_layers", 12),
    "num_attention_heads":          Renamed("num_heads", 64),
    "embedding_size":               Renamed("embedding_dim", 128),
    "hidden_size":                  Renamed("hidden_dim", 4096),
    "intermediate_size":            Renamed("intermediate_dim", 16384),
    "num_hidden_groups":            Renamed("num_groups", 1),
    "inner_group_num":              Renamed("num_inner_repetitions", 1),
    "hidden_dropout_prob":          Renamed("dropout", 0.0),
    "attention_probs_dropout_prob": Renamed("attention_dropout", 0.0),
    "max_position_embeddings":      Renamed("max_sequence_length", 512),
    "type_vocab_size":              Renamed("num_segments", 2),
    "hidden_act":                   Renamed("activation", "gelu_new", ACTIVATION),
    "layer_norm_eps":               Renamed("layer_norm_epsilon", 1e-12, EPSILON),
    "classifier_dropout_prob":      Renamed("classifier_dropout", 0.1, RATE_OR_NONE),
    "classifier_dropout":           Ignored("transformers' ALBERT reads classifier_dropout_prob"),
    "position_embedding_type":      Constant(("absolute",), "no library computes relative positions in ALBERT any more"),
    "net_structure_type":           Constant((0,), "a structure that no library computes"),
    "gap_size":                     Constant((0,), "a structure that no library computes"),
    "num_memory_blocks":            Constant((0,), "a structure that no library computes"),
    "down_scale_factor":            Constant((1,), "a structure that no library computes"),
    **_TRANSFORMERS,
}

ALBERT_HUB: Table = {
    **{key: rule for key, rule in KERAS.items() if isinstance(rule, Renamed)},
    "activation":                   Renamed("activation", "gelu_pytorch_tanh", ACTIVATION),
    "layer_norm_epsilon":           Renamed("layer_norm_epsilon", 1e-12, EPSILON),
    "attention_dropout":            Renamed("attention_dropout", None, RATE_OR_NONE),
    "classifier_dropout":           Renamed("classifier_dropout", 0.1, RATE_OR_NONE),
    "masked_lm_layer_norm_epsilon": Renamed("masked_lm_layer_norm_epsilon", 1e-5, EPSILON),
    **_TRANSFORMERS,
}

# task.json of a preset, by its class.
_KERAS_TASK: Table = {
    "backbone":     Ignored("compared with config.json"),
    "preprocessor": Ignored("read from preprocessor.json"),
    "name":         Ignored(_LABEL),
    "trainable":    Ignored("a setting of training, not of the model"),
    "dtype":        Ignored(_DTYPE),
}
KERAS_TASKS: Mapping[str, Table] = {
    "AlbertMaskedLM":       _KERAS_TASK,
    "AlbertTextClassifier": {
        **_KERAS_TASK,
        "num_classes":      Renamed("num_labels", REQUIRED, LABEL_COUNT),
        "activation":       Renamed("classifier_activation", None, CLASSIFIER_ACTIVATION),
        "dropout":          Renamed("classifier_dropout", 0.1, RATE_OR_NONE),
    },
}

# preprocessor.json of a preset, next to the tokenizer that is nested in it.
PREPROCESSOR: Table = {
    "sequence_length":       Renamed("sequence_length", 512, COUNT),
    "truncate":              Renamed("truncate", "round_robin", TRUNCATION),
    "config_file":           Constant(("preprocessor.json",), "the file's own name"),
    "tokenizer":             Ignored("the vocabulary is read from assets/tokenizer"),
    "name":                  Ignored(_LABEL),
    "trainable":             Ignored(_LABEL),
    "dtype":                 Ignored(_LABEL),
    "mask_selection_rate":   Ignored("masks texts for pretraining"),
    "mask_selection_length": Ignored("masks texts for pretraining"),
    "mask_token_rate":       Ignored("masks texts for pretraining"),
    "random_token_rate":     Ignored("masks texts for pretraining"),
}

# tokenizer.json of a preset.
KERAS_TOKENIZER: Table = {
    "config_file":     Constant(("tokenizer.json",), "the file's own name"),
    "proto":           Constant((None,), "the vocabulary is a file of its own"),
    "sequence_length": Constant((None,), "packing belongs to the preprocessor"),
    "add_bos":         Constant((False,), "[CLS] and [SEP] are added by the preprocessor"),
    "add_eos":         Constant((False,), "[CLS] and [SEP] are added by the preprocessor"),
    "name":            Ignored(_LABEL),
    "trainable":       Ignored(_LABEL),
    "dtype":           Ignored(_LABEL),
}

# tokenizer_config.json of a repository. transformers writes whatever its tokenizer was given into it, so keys that are
# not here are reported as ignored; those that decide the ids are.
TOKENIZER_CONFIG: Table = {
    "model_max_length":     Renamed("sequence_length", None, POSITIVE),
    "truncate":             Renamed("truncate", "longest_first", TRUNCATION_OR_LONGEST),
    "do_lower_case":        Renamed("lower_case", None, BOOLEAN),
    "keep_accents":         Renamed("keep_accents", None, BOOLEAN),
    "strip_accents":        Renamed("strip_accents", None, BOOLEAN),
    "replace_quotes":       Renamed("replace_quotes", None, BOOLEAN),
    "auto_map":             Ignored(_CODE),
    "tokenizer_class":      Ignored(_LAYOUT),
    "model_input_names":    Ignored(_LAYOUT),
    "added_tokens_decoder": Ignored(_IDS),
    "remove_space":         Constant((True,), "the vocabulary removes extra spaces"),
    "pad_token":            Constant(("<pad>",), "the vocabulary's special piece"),
    "unk_token":            Constant(("<unk>",), "the vocabulary's special piece"),
    "cls_token":            Constant(("[CLS]",), "the vocabulary's special piece"),
    "sep_token":            Constant(("[SEP]",), "the vocabulary's special piece"),
    "mask_token":           Constant(("[MASK]",), "the vocabulary's special piece"),
}
# fmt: on


def read_keys(table: Table, keys: Mapping[str, Any]) -> tuple[dict[str, Any], list[IgnoredKey], list[Problem]]:
    """Read a configuration by its table.

    Args:
        table: What each key means.
        keys: The configuration, as parsed from JSON.

    Returns:
        The renamed fields with their values, the ignored keys, and everything that is wrong: unknown and missing
        keys, refused values, and two keys of one field that disagree. Where there are problems the fields are not
        complete.
    """
    fields: dict[str, Any] = {}
    origin: dict[str, str] = {}
    ignored: list[IgnoredKey] = []
    problems = [
        Problem("unknown key", key, f"expected a key that is known, found {short_repr(keys[key])}")
        for key in keys
        if key not in table
    ]
    for key, rule in table.items():
        match rule:
            case Ignored(reason) if key in keys:
                ignored.append(IgnoredKey(key, keys[key], reason))
            case Constant(allowed, why, default) if key in keys or default is not REQUIRED:
                value = keys.get(key, default)
                if not any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in allowed):
                    expected = " or ".join(repr(other) for other in allowed)
                    problems.append(
                        Problem("unsupported value", key, f"expected {expected}, found {short_repr(value)}: {why}")
                    )
            case Renamed(field, default, _):
                value = keys.get(key, default)
                if value is REQUIRED:
                    problems.append(Problem("missing key", key, "expected a value, found none: it has no default"))
                elif key in keys and value is not default and not rule.kind.accepts(value):
                    problems.append(
                        Problem(
                            "unsupported value", key, f"expected {rule.kind.description}, found {short_repr(value)}"
                        )
                    )
                elif field in fields and fields[field] != value:
                    detail = f"expected {short_repr(fields[field])} as {origin[field]} has, found {short_repr(value)}: there is only one {field}"
                    problems.append(Problem("contradiction", key, detail))
                else:
                    fields[field], origin[field] = value, key
    return fields, ignored, problems


def write_keys(table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """Write fields as a dialect's configuration: the keys that rename one of `values`, and the constant ones."""
    keys: dict[str, Any] = {}
    for key, rule in table.items():
        if isinstance(rule, Renamed) and rule.field in values:
            keys[key] = values[rule.field]
        elif isinstance(rule, Constant) and rule.default is not REQUIRED:
            keys[key] = rule.allowed[0]
    return keys
