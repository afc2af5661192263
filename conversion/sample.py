"""A small ALBERT preset with random weights, and a vocabulary trained on a few sentences of our own.

Making it needs neither a network nor Keras. The demo, the tests and the benchmarks use it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece

from albert_hub_bridge.checkpoint import Checkpoint, TokenizerSpec
from albert_hub_bridge.disk.atomic import new_folder
from albert_hub_bridge.formats.lazy_tensors import DTYPES, LazyTensor
from albert_hub_bridge.layouts.keras.preset import write_preset
from albert_hub_bridge.layouts.registry import is_written_file
from albert_hub_bridge.mapping.axes import axis_sizes
from albert_hub_bridge.mapping.heads import Head
from albert_hub_bridge.mapping.weights import WeightRule, head_rules, weight_rules
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.model.sentencepiece_unigram import TextNormalization, parse_vocabulary


# Two groups of two layers, run twice each: one group alone would hide an index that is off by one.
SAMPLE_ARCHITECTURE = Architecture(
    vocabulary_size=400,
    num_layers=4,
    num_heads=4,
    embedding_dim=16,
    hidden_dim=32,
    intermediate_dim=64,
    num_groups=2,
    num_inner_repetitions=2,
    max_sequence_length=64,
)

CORPUS = (
    "a bridge joins two banks of a river, and nothing that crosses it is lost",
    "the same text in, the same numbers out: that is what a conversion has to prove",
    "every layer of this small model shares its weights with the layers of its group",
    "in the morning the ferry takes (about) forty people and three bicycles to the island",
    "she counted the boats: one, two, three - and then a fourth came round the bend .",
    "bread costs 2.50 £ at the market, or 3 € where the tourists buy it",
    'he said "wait for me", but the train had left the platform at 9.15',
    "old maps show a road along the coast – it has been under water for a century",
    "water boils at a hundred degrees, ice melts at zero, and tea is best somewhere between",
    "a short sentence helps the reader, a long one helps nobody who is in a hurry",
    "the library opens at ten and closes when the last reader goes home",
    "we measured it twice, wrote it down once, and checked it again the next day",
    "green hills, grey stones, white sheep: the north of the country in six words",
    "the engineer drew the arch first and the pillars afterwards, as her teacher had done",
    "numbers that nobody checks are opinions, and opinions do not carry a load",
    "if the rope is too short, tie two ropes together and test the knot",
)


def train_vocabulary(size: int = 400, corpus: Sequence[str] = CORPUS, **options: Any) -> bytes:
    """Train a SentencePiece model with the flags of Google's ALBERT vocabularies.

    Args:
        size: Largest number of pieces.
        corpus: Sentences to train on.
        **options: Flags of the trainer that differ from Google's.

    Returns:
        The serialized model.
    """
    flags: dict[str, Any] = {
        "model_type": "unigram",
        "vocab_size": size,
        "hard_vocab_limit": False,
        "pad_id": 0,
        "unk_id": 1,
        "bos_id": -1,
        "eos_id": -1,
        "control_symbols": ["[CLS]", "[SEP]", "[MASK]"],
        "user_defined_symbols": ["(", ")", '"', "-", ".", "–", "£", "€"],
        "minloglevel": 2,
        "num_threads": 1,
    }
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(corpus), model_writer=model, **{**flags, **options})
    return model.getvalue()


def random_checkpoint(
    architecture: Architecture,
    proto: bytes | None = None,
    dtype: str = "float32",
    seed: int = 0,
    std: float = 0.3,
    head: Head | None = None,
) -> Checkpoint:
    """Make a checkpoint with random weights. Biases and layer norms are random too, so that a lost one is noticed.

    Args:
        architecture: Of the encoder.
        proto: Its serialized vocabulary, or None for a checkpoint without tokenizer.
        dtype: Of the weights.
        seed: Of the random numbers, which differ for every tensor.
        std: Standard deviation of the weights.
        head: Its head, or None for an encoder alone.
    """
    sizes = axis_sizes(architecture, head.num_labels if head is not None else 2)
    rules = (*weight_rules(architecture), *(head_rules(head.kind) if head is not None else ()))
    weights = {}
    for index, rule in enumerate(rules):
        shape = rule.shape("albert_hub", sizes)
        weights[rule.albert_hub] = LazyTensor(shape, dtype, partial(_draw, rule, shape, dtype, (seed, index), std))
    text = None if proto is None else TokenizerSpec(proto, parse_vocabulary(proto), TextNormalization())
    return Checkpoint("albert_hub", Path("random"), architecture, weights, dtype, head=head, tokenizer=text)


def _draw(rule: WeightRule, shape: tuple[int, ...], dtype: str, seed: tuple[int, int], std: float) -> np.ndarray:
    values = std * np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    if rule.albert_hub.endswith("layer_norm.weight"):
        values += 1
    return values.astype(DTYPES[dtype])


def write_sample_preset(folder: Path) -> None:
    """Write the sample as a KerasHub preset."""
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, train_vocabulary())
    with new_folder(folder, True, is_written_file) as staging:
        write_preset(checkpoint, staging)
