"""Google's original release: a TensorFlow 1 checkpoint, `albert_config.json` and `30k-clean.model`. Read only.

Source of the names: https://github.com/google-research/albert, modeling.py, run_pretraining.py and run_classifier.py.
"""

from __future__ import annotations

import re
from pathlib import Path

from albert_hub_bridge.checkpoint import Checkpoint, DroppedTensor, TokenizerSpec, check_layers, match_weights
from albert_hub_bridge.disk.json_files import read_json
from albert_hub_bridge.errors import Problem, SourceError, WeightsError
from albert_hub_bridge.formats.lazy_tensors import LazyTensor, transposed
from albert_hub_bridge.formats.sentencepiece import read_vocabulary
from albert_hub_bridge.formats.tensor_bundle import read_bundle
from albert_hub_bridge.layouts.configuration import Configuration, read_configuration
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.mapping.configs import ALBERT
from albert_hub_bridge.mapping.heads import Head, HeadKind
from albert_hub_bridge.mapping.weights import head_rules, weight_rules
from albert_hub_bridge.model.sentencepiece_unigram import NAMED_NORMALIZATIONS
from albert_hub_bridge.text import first_few, one_line


CONFIG, VOCABULARY, BEST = "albert_config.json", "30k-clean.model", "model.ckpt-best.index"

# Google's names, rewritten to those of transformers' ALBERT, which began as a translation of them.
_NAMES = (
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
_TRAINING = re.compile(r"(^(global_step|beta[12]_power)$)|(/(adam|lamb)_[mv](_\d+)?$)|(/Adam(_1)?$)")


def read_google(folder: Path) -> Checkpoint:
    """Read Google's release of an ALBERT, pretrained or a fine-tuned classifier.

    Args:
        folder: That has `albert_config.json` and a checkpoint, `model.ckpt-best` or the only one.

    Raises:
        SourceError: There is no checkpoint, or several.
        FileError, ConfigurationError, WeightsError, VocabularyError: The release is wrong; all problems are listed.
    """
    configuration = read_config(folder)
    file = _index(folder)
    architecture = configuration.architecture
    found, dropped = _read_variables(file)
    check_layers(file, architecture, len(found))
    head = _head(found)
    expected = {rule.albert: rule for rule in weight_rules(architecture)}
    expected |= {rule.albert: rule for rule in (head_rules(head.kind) if head is not None else ())}
    sizes = axis_sizes(architecture, head.num_labels if head is not None else 2)
    weights = match_weights(file, found, expected, sizes, "albert")
    text, notes = None, []
    vocabularies = sorted(folder.glob("*.model"))
    if len(vocabularies) == 1:
        proto, vocabulary = read_vocabulary(vocabularies[0], architecture)
        # Google's tokenization.py lower-cases, strips accents and replaces old quotes before SentencePiece.
        text = TokenizerSpec(
            proto,
            vocabulary,
            NAMED_NORMALIZATIONS["uncased"],
            512,
            normalization_from="Google's code",
        )
    else:
        found_names = first_few([one_line(path.name, 80) for path in vocabularies], 5) or "none"
        notes.append(f"Expected one SentencePiece model, such as {VOCABULARY}, found {found_names}: no tokenizer.")
    return Checkpoint(
        layout="google",
        folder=folder,
        architecture=architecture,
        weights=weights,
        dtype=next(iter(weights.values())).dtype,
        head=head,
        tokenizer=text,
        dropped=dropped,
        ignored=configuration.ignored,
        notes=notes,
        weights_file=file,
    )


def read_config(folder: Path) -> Configuration:
    """Read `albert_config.json`.

    Raises:
        ConfigurationError: The configuration is wrong; all problems are listed.
    """
    keys = read_json(folder / CONFIG)
    if keys.get("hidden_act") == "gelu":  # Google's function of that name is the tanh form
        keys["hidden_act"] = "gelu_new"
    return read_configuration(folder / CONFIG, ALBERT, keys)


def is_checkpoint_file(name: str) -> bool:
    """Tell whether a file of that name is part of a release."""
    return name in (CONFIG, "checkpoint") or re.search(r"\.(model|vocab|meta)\Z|\.ckpt|\.data-", name) is not None


def _index(folder: Path) -> Path:
    indices = sorted(folder.glob("*.index"))
    if folder / BEST in indices:
        return folder / BEST
    if len(indices) != 1:
        found = first_few([one_line(path.name, 80) for path in indices], 5) or "none"
        raise SourceError(f"{folder} has to have {BEST}, or one TensorFlow checkpoint of another name; found {found}.")
    return indices[0]


def _read_variables(file: Path) -> tuple[dict[str, LazyTensor], list[DroppedTensor]]:
    """Return the variables under transformers' names, and those of the optimizer."""
    found: dict[str, LazyTensor] = {}
    dropped, twice = [], []
    for name, tensor in read_bundle(file).items():
        if _TRAINING.search(name):
            dropped.append(DroppedTensor(name, tensor.shape, "the optimizer's state"))
            continue
        todays = name
        for pattern, replacement in _NAMES:
            todays = re.sub(pattern, replacement, todays)
        todays = todays.replace("/", ".")
        if todays in found:
            twice.append(Problem("twice", name, f"expected one variable that is {todays}, found another before"))
        found[todays] = transposed(tensor) if name.endswith("/kernel") else tensor
    if twice:
        raise WeightsError(file, "weights", twice)
    return found, dropped


def _head(found: dict[str, LazyTensor]) -> Head | None:
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
