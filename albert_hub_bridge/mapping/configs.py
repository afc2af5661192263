"""The table of configuration keys: what every key means, in every dialect.

A key is *renamed* (a field of `Architecture` or of the head), *constant* (only the listed values are supported) or
*ignored*, with a reason for the report. Unknown keys are errors, in both directions. `unused_keys` adds rows for those
that repositories may have.
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
    """The values that a key may have."""

    description: str
    accepts: Callable[[Any], bool]


# `type(value) is int` excludes booleans. Comparisons exclude NaN. `Architecture` validates its fields itself.
# fmt: off
ANYTHING         = Validator("anything", lambda value: True)
BOOLEAN          = Validator("true or false", lambda value: type(value) is bool)
COUNT            = Validator("a positive integer", lambda value: type(value) is int and value > 0)
POSITIVE         = Validator("a positive number", lambda value: type(value) in (int, float) and value > 0)
EPSILON          = Validator("a positive number below 1", is_epsilon)
RATE_OR_NONE     = Validator("a number in [0, 1), or null", lambda value: value is None or is_rate(value))
LABELS           = Validator("an object", lambda value: isinstance(value, Mapping))
LABEL_COUNT      = Validator("an integer from 1 to 100,000", lambda value: type(value) is int and 0 < value <= 100_000)
LABEL_COUNT_OR_0 = Validator("an integer from 0 to 100,000", lambda value: type(value) is int and 0 <= value <= 100_000)
# fmt: on


def _one_of(*values: str | None) -> Validator:
    names = ["null" if value is None else repr(value) for value in values]
    return Validator(f"{', '.join(names[:-1])} or {names[-1]}", lambda value: value in values)


TRUNCATION = _one_of("round_robin", "waterfall")
TRUNCATION_OR_LONGEST = _one_of("round_robin", "waterfall", "longest_first")
PROBLEM_TYPE = _one_of("regression", "single_label_classification", "multi_label_classification")
SIDE = _one_of("right", "left")
CLASSIFIER_ACTIVATION = _one_of(None, "softmax", "sigmoid")

# transformers has several names for the same function.
SAME_ACTIVATION = {"gelu_new": "gelu_pytorch_tanh", "gelu_fast": "gelu_pytorch_tanh", "gelu_python": "gelu"}
ACTIVATION = Validator(
    f"one of {', '.join((*ACTIVATIONS, *SAME_ACTIVATION))}",
    lambda value: isinstance(value, str) and (value in ACTIVATIONS or value in SAME_ACTIVATION),
)


@dataclass(frozen=True, slots=True)
class Renamed:
    """The key is a field of this package. An absent key has the default of its library."""

    field: str
    default: Any = REQUIRED
    validator: Validator = ANYTHING


@dataclass(frozen=True, slots=True)
class Constant:
    """The key must have one of these values. Others are not supported."""

    allowed: tuple[Any, ...]
    reason: str
    default: Any = REQUIRED  # of an absent key; REQUIRED if an absent key is always fine


@dataclass(frozen=True, slots=True)
class Ignored:
    """The key does not change the computation, or its information is stored elsewhere."""

    reason: str
    default: Any = REQUIRED  # a value that is no loss, because the target has it too


Rule = Renamed | Constant | Ignored
Table = Mapping[str, Rule]


@dataclass(frozen=True, slots=True)
class IgnoredKey:
    """A key of the source that is not converted, for the report."""

    key: str
    value: Any
    reason: str


# fmt: off
_NOT_AN_ENCODER  = "ALBERT is a bidirectional encoder"
_STRUCTURE       = "no library supports this structure"
_OWN_NAME        = "the name of the file"
_PACKING         = "the preprocessor adds [CLS] and [SEP]"
_SPECIAL_PIECE   = "a special piece of the vocabulary"
NAMES_CODE       = "names code of the source, which is neither run nor converted"
NOT_USED         = "not used by ALBERT"
_PRETRAINING     = "only used to mask texts for pretraining"
# Nothing is lost with these keys, so a report for people omits them.
_VOCABULARY      = "stored in the vocabulary"
_KERAS_NAME      = "the name of an object in Keras"
_LAYOUT          = "the target has its own value"
_DTYPE           = "stored in the weights"
_TENSORS         = "follows from the weights"
INVERSE_LABELS   = "derived from id2label"
ONLY_INITIALIZES = "only initializes new weights"
SET_BY_TRANSFORMERS = "transformers sets it when it loads a model"
_TRAINING        = "only used in training"
_OUTPUT          = "selects the outputs of a call"
_GENERATION      = "only used in text generation"
_RUNTIME         = "changes the runtime, not the result"
_PROVENANCE      = "the origin of the file"
_DEFAULT         = "the default of the library"
# fmt: on

NO_LOSS = frozenset(
    {
        _VOCABULARY,
        _KERAS_NAME,
        _LAYOUT,
        _DTYPE,
        _TENSORS,
        INVERSE_LABELS,
        ONLY_INITIALIZES,
        SET_BY_TRANSFORMERS,
        _TRAINING,
        _OUTPUT,
        _GENERATION,
        _RUNTIME,
        _PROVENANCE,
        _DEFAULT,
    }
)

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
    "name":                  Ignored(_KERAS_NAME),
    "trainable":             Ignored(_TRAINING),
    "dtype":                 Ignored(_DTYPE),
}

# config.json of any model of transformers 2 to 5.
_TRANSFORMERS: Table = {
    "is_decoder":              Constant((False,), _NOT_AN_ENCODER),
    "is_encoder_decoder":      Constant((False,), _NOT_AN_ENCODER),
    "add_cross_attention":     Constant((False,), _NOT_AN_ENCODER),
    "pruned_heads":            Constant(({}, None), "pruned heads change the shapes of the weights"),
    "quantization_config":     Constant((None,), "quantized weights are not supported"),
    "per_layer_config":        Constant((None,), "all layers have the same shape"),
    "architectures":           Ignored(_TENSORS),
    "model_type":              Ignored(_LAYOUT),
    "auto_map":                Ignored(NAMES_CODE),
    "custom_pipelines":        Constant((None, {}), NAMES_CODE),
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
    "initializer_range":       Ignored(ONLY_INITIALIZES),
    "return_dict":             Ignored(_OUTPUT),
    "output_attentions":       Ignored(_OUTPUT),
    "output_hidden_states":    Ignored(_OUTPUT),
    "output_past":             Ignored(_OUTPUT),
    "_name_or_path":           Ignored(_PROVENANCE),
    "_commit_hash":            Ignored(_PROVENANCE),
    "transformers_version":    Ignored(_PROVENANCE),
    "tie_word_embeddings":     Ignored(_TENSORS),
    "tie_encoder_decoder":     Ignored("ALBERT has no decoder"),
    "num_labels":              Renamed("num_labels", None, LABEL_COUNT_OR_0),  # 0 if no head needs labels
    "_num_labels":             Ignored(_TENSORS),
    "id2label":                Renamed("id2label", None, LABELS),
    "label2id":                Ignored(INVERSE_LABELS),
    "problem_type":            Renamed("problem_type", None, PROBLEM_TYPE),
    "classifier_activation":   Renamed("classifier_activation", None, CLASSIFIER_ACTIVATION),
    "finetuning_task":         Ignored(NOT_USED),
    "task_specific_params":    Ignored(NOT_USED),
    "tokenizer_class":         Ignored(_LAYOUT),
    "prefix":                  Ignored(_GENERATION),
    "pad_token_id":            Ignored(_VOCABULARY),
    "bos_token_id":            Ignored(_VOCABULARY),
    "eos_token_id":            Ignored(_VOCABULARY),
    "eos_token_ids":           Ignored(_VOCABULARY),
    "sep_token_id":            Ignored(_VOCABULARY),
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
    "classifier_dropout":           Ignored("ALBERT in transformers reads classifier_dropout_prob"),
    "position_embedding_type":      Constant(("absolute",), "no library supports relative positions in ALBERT"),
    "net_structure_type":           Constant((0,), _STRUCTURE),
    "layers_to_keep":               Constant(([], None), _STRUCTURE),
    "gap_size":                     Constant((0,), _STRUCTURE),
    "num_memory_blocks":            Constant((0,), _STRUCTURE),
    "down_scale_factor":            Constant((1,), _STRUCTURE),
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
    "quantization_config":          Ignored(_TENSORS),
}

# task.json of a preset, by the class of the task.
_KERAS_TASK: Table = {
    "backbone":     Ignored("compared with config.json"),
    "preprocessor": Ignored("read from preprocessor.json"),
    "name":         Ignored(_KERAS_NAME),
    "trainable":    Ignored(_TRAINING),
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

# preprocessor.json of a preset, without the nested tokenizer.
PREPROCESSOR: Table = {
    "sequence_length":       Renamed("sequence_length", 512, COUNT),
    "truncate":              Renamed("truncate", "round_robin", TRUNCATION),
    "config_file":           Constant(("preprocessor.json",), _OWN_NAME),
    "tokenizer":             Ignored("the vocabulary is read from assets/tokenizer"),
    "name":                  Ignored(_KERAS_NAME),
    "trainable":             Ignored(_KERAS_NAME),
    "dtype":                 Ignored(_KERAS_NAME),
    "mask_selection_rate":   Ignored(_PRETRAINING, 0.15),
    "mask_selection_length": Ignored(_PRETRAINING, 96),
    "mask_token_rate":       Ignored(_PRETRAINING, 0.8),
    "random_token_rate":     Ignored(_PRETRAINING, 0.1),
}
DEFAULT_MASKING = {
    key: rule.default for key, rule in PREPROCESSOR.items() if isinstance(rule, Ignored) and rule.default is not REQUIRED
}

# tokenizer.json of a preset.
KERAS_TOKENIZER: Table = {
    "config_file":     Constant(("tokenizer.json",), _OWN_NAME),
    "proto":           Constant((None,), "the vocabulary is a separate file"),
    "sequence_length": Constant((None,), "packing is a setting of the preprocessor"),
    "add_bos":         Constant((False,), _PACKING),
    "add_eos":         Constant((False,), _PACKING),
    "name":            Ignored(_KERAS_NAME),
    "trainable":       Ignored(_KERAS_NAME),
    "dtype":           Ignored(_KERAS_NAME),
}

# tokenizer_config.json of a repository. transformers writes all arguments of the tokenizer into it. The table has those
# that change the ids. All other keys are ignored, and reported.
TOKENIZER_CONFIG: Table = {
    "model_max_length":     Renamed("sequence_length", None, POSITIVE),
    "truncate":             Renamed("truncate", "longest_first", TRUNCATION_OR_LONGEST),
    "padding_side":         Renamed("padding_side", "right", SIDE),
    "truncation_side":      Renamed("truncation_side", "right", SIDE),
    "do_lower_case":        Renamed("lower_case", None, BOOLEAN),
    "keep_accents":         Renamed("keep_accents", None, BOOLEAN),
    "strip_accents":        Renamed("strip_accents", None, BOOLEAN),
    "replace_quotes":       Renamed("replace_quotes", None, BOOLEAN),
    "split_white_space":    Renamed("split_white_space", None, BOOLEAN),
    "auto_map":             Ignored(NAMES_CODE),
    "tokenizer_class":      Ignored(_LAYOUT),
    "model_input_names":    Ignored(_LAYOUT),
    "added_tokens_decoder": Ignored(_VOCABULARY),
    "remove_space":         Constant((True,), "the vocabulary removes extra spaces"),
    "pad_token":            Constant(("<pad>",), _SPECIAL_PIECE),
    "unk_token":            Constant(("<unk>",), _SPECIAL_PIECE),
    "cls_token":            Constant(("[CLS]",), _SPECIAL_PIECE),
    "sep_token":            Constant(("[SEP]",), _SPECIAL_PIECE),
    "mask_token":           Constant(("[MASK]",), _SPECIAL_PIECE),
}
# fmt: on


def read_keys(table: Table, keys: Mapping[str, Any]) -> tuple[dict[str, Any], list[IgnoredKey], list[Problem]]:
    """Read a configuration by its table.

    Args:
        table: The meaning of every key.
        keys: The parsed configuration.

    Returns:
        The fields with their values, the ignored keys, and all problems: unknown keys, missing keys, unsupported
        values, and contradictions between two keys of one field. With problems, the fields are incomplete.
    """
    fields: dict[str, Any] = {}
    origin: dict[str, str] = {}
    ignored: list[IgnoredKey] = []
    problems = [
        Problem("unknown key", key, f"expected a known key, found {short_repr(keys[key])}")
        for key in keys
        if key not in table
    ]
    for key, rule in table.items():
        match rule:
            case Ignored(reason, default) if key in keys:
                ignored.append(IgnoredKey(key, keys[key], _DEFAULT if _equal(keys[key], default) else reason))
            case Constant(allowed, reason, default) if key in keys or default is not REQUIRED:
                value = keys.get(key, default)
                if not any(_equal(value, each) for each in allowed):
                    detail = f"expected {' or '.join(map(repr, allowed))}, found {short_repr(value)}: {reason}"
                    problems.append(Problem("unsupported value", key, detail))
            case Renamed(field, default, validator):
                value = keys.get(key, default)
                if value is REQUIRED:
                    problems.append(Problem("missing key", key, "expected a value, found none: it has no default"))
                elif key in keys and value is not default and not validator.accepts(value):
                    detail = f"expected {validator.description}, found {short_repr(value)}"
                    problems.append(Problem("unsupported value", key, detail))
                elif field in fields and fields[field] != value:
                    expected = f"expected {short_repr(fields[field])}, the value of {origin[field]}"
                    problems.append(Problem("contradiction", key, f"{expected}, found {short_repr(value)}"))
                else:
                    fields[field], origin[field] = value, key
    return fields, ignored, problems


def _equal(value: Any, allowed: Any) -> bool:
    """Return whether two values of JSON are equal; `0` and `false` are not."""
    return value == allowed and isinstance(value, bool) == isinstance(allowed, bool)


def write_keys(table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """Write fields as a configuration: the keys of the fields in `values`, and constant keys with a default."""
    keys: dict[str, Any] = {}
    for key, rule in table.items():
        if isinstance(rule, Renamed) and rule.field in values:
            keys[key] = values[rule.field]
        elif isinstance(rule, Constant) and rule.default is not REQUIRED:
            keys[key] = rule.allowed[0]
    return keys
