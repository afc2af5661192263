"""Google's original release, as a download, a TF-Hub module or fine-tuned. It is only read.

Source:
    The names are those of https://github.com/google-research/albert, modeling.py, run_pretraining.py and
    run_classifier.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from albert_hub_bridge.checkpoint import (
    DROPPED_HEAD,
    OPTIMIZER,
    Checkpoint,
    DroppedTensor,
    TokenizerSpec,
    check_layers,
    leave_out,
    match_weights,
)
from albert_hub_bridge.disk.source_folder import SourceFolder
from albert_hub_bridge.errors import Problem, WeightsError
from albert_hub_bridge.formats.lazy_tensors import LazyTensor, transposed
from albert_hub_bridge.formats.sentencepiece import read_vocabulary
from albert_hub_bridge.formats.tensor_bundle import read_bundle
from albert_hub_bridge.layouts.configuration import Configuration, read_configuration
from albert_hub_bridge.layouts.google.files import (
    FILES,
    find_configuration,
    find_index,
    find_vocabulary,
    is_release,
    mark_values_as_read,
    max_files,
    object_based,
)
from albert_hub_bridge.layouts.layout import Layout, ReadOptions
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.mapping.configs import ALBERT
from albert_hub_bridge.mapping.heads import HEADS, Head, HeadKind
from albert_hub_bridge.mapping.number_commas import split_number_commas
from albert_hub_bridge.mapping.unused_keys import with_unused_keys
from albert_hub_bridge.mapping.weights import WeightRule, head_rules, weight_rules
from albert_hub_bridge.model.sentencepiece_unigram import NAMED_NORMALIZATIONS


# Google's names -> those of transformers' ALBERT, which began as a translation of them.
_NAMES = (
    (r"^module/", ""),  # of a model that was fine-tuned from a TF-Hub module
    (r"^bert/", ""),
    (r"/transformer/group_(\d+)/inner_group_(\d+)/", r"/albert_layer_groups/\1/albert_layers/\2/"),
    (r"/attention_1/self/", "/attention/"),
    (r"/attention_1/output/dense/", "/attention/dense/"),
    (r"/ffn_1/intermediate/output/dense/", "/ffn_output/"),
    (r"/ffn_1/intermediate/dense/", "/ffn/"),
    (r"(/albert_layers/\d+)/LayerNorm/", r"\1/attention/LayerNorm/"),
    (r"(/albert_layers/\d+)/LayerNorm_1/", r"\1/full_layer_layer_norm/"),
    (r"^pooler/dense/", "pooler/"),
    (r"^cls/predictions/transform/", "predictions/"),
    (r"^cls/predictions/output_bias$", "predictions/bias"),
    (r"^cls/seq_relationship/output_weights$", "sop_classifier/classifier/weight"),
    (r"^cls/seq_relationship/output_bias$", "sop_classifier/classifier/bias"),
    (r"^cls/squad/output_weights$", "qa_outputs/weight"),
    (r"^cls/squad/output_bias$", "qa_outputs/bias"),
    (r"^output_weights$", "classifier/weight"),
    (r"^output_bias$", "classifier/bias"),
    (r"_embeddings$", "_embeddings/weight"),
    (r"/(kernel|gamma)$", "/weight"),
    (r"/beta$", "/bias"),
)
_COMPILED_NAMES = [(re.compile(pattern), replacement) for pattern, replacement in _NAMES]
_TRAINING = re.compile(r"global_step|beta[12]_power|(?s:.*)/((adam|lamb)_[mv](_\d+)?|Adam(_1)?)")
# Google's squad_utils.py (v2): the answer's start, its end given the start, and whether there is one.
_OTHER_HEAD = re.compile(r"(start_logits|end_logits|answer_class)\.")
_FINE_TUNED = re.compile(r"(classifier|qa_outputs)\.|" + _OTHER_HEAD.pattern)
# A TF-Hub module has the heads of pretraining, and so has what was fine-tuned from it.
_PRETRAINING_HEADS = re.compile(r"(predictions|sop_classifier)\.")
_UNUSED_HEAD = "a head of pretraining, which the fine-tuned model does not use"
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def read_release(source: SourceFolder, options: ReadOptions) -> Checkpoint:
    """Read Google's release of an ALBERT, pretrained or a fine-tuned classifier.

    Args:
        source: A folder with `albert_config.json` and a checkpoint, or a TF-Hub module.
        options: How to read it. The head is found by its tensors, and nothing is a pickle.

    Raises:
        SourceError: A file is missing, or there are several and nothing says which one, or the checkpoint is one of
            TensorFlow 2.
        FileError, ConfigurationError, WeightsError, VocabularyError: The release is wrong; all problems are listed.
    """
    file, chosen = find_index(source)
    tensors, dropped = _read_variables(file)
    mark_values_as_read(source, file)
    configuration = read_release_configuration(source)
    architecture = configuration.architecture
    tensors, other_heads = _without_other_heads(file, tensors, options.drop_head)
    check_layers(file, architecture, len(tensors))
    expected: dict[str, WeightRule] = {rule.albert: rule for rule in weight_rules(architecture)}
    known = {*expected, *(rule.albert for kind in HEADS for rule in head_rules(kind))}
    tensors, named = leave_out(file, tensors, options.drop_unknown, known)
    head = _find_head(tensors)
    expected |= {rule.albert: rule for rule in (head_rules(head.kind) if head is not None else ())}
    sizes = axis_sizes(architecture, head.num_labels if head is not None else 2)
    weights = match_weights(file, tensors, expected, sizes, "albert")
    tokenizer, notes = _read_tokenizer(source, configuration)
    return Checkpoint(
        layout="google",
        folder=source.folder,
        architecture=architecture,
        weights=weights,
        dtype=next(iter(weights.values())).dtype,
        head=head,
        tokenizer=tokenizer,
        dropped=[*dropped, *other_heads, *named],
        ignored=configuration.ignored,
        notes=[*chosen, *notes],
        weights_file=file,
    )


def read_release_configuration(source: SourceFolder) -> Configuration:
    """Read `albert_config.json`.

    Raises:
        SourceError: There is no such file, or there are several.
        ConfigurationError: The configuration is wrong; all problems are listed.
    """
    name = find_configuration(source)
    keys = source.json(name)
    if keys.get("hidden_act") == "gelu":  # Google's function of that name is the tanh form
        keys["hidden_act"] = "gelu_new"
    return read_configuration(source.path(name), with_unused_keys(ALBERT, keys), keys)


def _read_tokenizer(source: SourceFolder, configuration: Configuration) -> tuple[TokenizerSpec | None, list[str]]:
    name, notes = find_vocabulary(source)
    if name is None:
        return None, notes
    proto, vocabulary = read_vocabulary(source.path(name), configuration.architecture)
    # Google's tokenization.py lower-cases, strips accents and replaces old quotes before SentencePiece, and splits
    # numbers from commas after it.
    normalization = NAMED_NORMALIZATIONS["uncased"]
    tokenizer = TokenizerSpec(proto, vocabulary, normalization, 512, normalization_from="Google's code")
    return tokenizer.with_proto(split_number_commas(proto)), []


def _read_variables(file: Path) -> tuple[dict[str, LazyTensor], list[DroppedTensor]]:
    """Return the variables under transformers' names, and the dropped ones of the optimizer."""
    found: dict[str, LazyTensor] = {}
    dropped, twice = [], []
    variables = read_bundle(file, max_files(file))
    if _OBJECT_GRAPH in variables:
        raise object_based(file)
    for name, tensor in variables.items():
        if _TRAINING.fullmatch(name):
            dropped.append(DroppedTensor(name, tensor.shape, OPTIMIZER))
            continue
        current = name
        for pattern, replacement in _COMPILED_NAMES:
            current = pattern.sub(replacement, current)
        current = current.replace("/", ".")
        if current in found:
            twice.append(Problem("twice", name, f"expected one variable that is {current}, found another before"))
        found[current] = transposed(tensor) if name.endswith("/kernel") else tensor
    if twice:
        raise WeightsError(file, "weights", twice)
    return found, dropped


def _without_other_heads(
    file: Path, tensors: Mapping[str, LazyTensor], drop_head: bool
) -> tuple[dict[str, LazyTensor], list[DroppedTensor]]:
    """Return the variables without those of heads that no library has or the model does not use, and the dropped ones.

    Raises:
        WeightsError: There is a head that no library has, and it may not be dropped.
    """
    head = [name for name in tensors if _OTHER_HEAD.match(name)]
    if head and not drop_head:
        detail = f"expected a head that transformers has, found that of SQuAD 2 ({len(head)} variables)"
        advice = "Pass --drop-head (drop_head=True) to convert the encoder alone."
        raise WeightsError(file, "weights", [Problem("unsupported", "head", detail)], advice)
    reasons = dict.fromkeys(head, DROPPED_HEAD)
    if any(map(_FINE_TUNED.match, tensors)):
        reasons |= dict.fromkeys(filter(_PRETRAINING_HEADS.match, tensors), _UNUSED_HEAD)
    dropped = [DroppedTensor(name, tensors[name].shape, reason) for name, reason in reasons.items()]
    return {name: tensor for name, tensor in tensors.items() if name not in reasons}, dropped


def _find_head(found: Mapping[str, LazyTensor]) -> Head | None:
    kind: HeadKind | None = None
    if "sop_classifier.classifier.weight" in found:
        kind = "pretraining"
    elif "predictions.bias" in found:
        kind = "masked_lm"
    elif "classifier.weight" in found:
        kind = "sequence_classification"
    elif "qa_outputs.weight" in found:
        kind = "question_answering"
    if kind is None:
        return None
    scores = found.get("classifier.weight", found.get("sop_classifier.classifier.weight"))
    count = scores.shape[0] if scores is not None and scores.shape else 2
    return Head(kind=kind, num_labels=count, layer_norm_epsilon=1e-12)


RELEASE = Layout("google", FILES, is_release, read_release_configuration, read_release)
