"""Repositories in transformers.js: the ids, and what its pipelines compute, next to Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerFast, pipeline

from albert_hub_bridge import convert
from albert_hub_bridge.layouts.keras.preset import write_preset
from albert_hub_bridge.mapping.heads import Head, HeadKind
from albert_hub_bridge.mapping.vocabulary import bake_normalization
from albert_hub_bridge.model.sentencepiece_unigram import (
    NAMED_NORMALIZATIONS,
    build_tokenizer,
    parse_vocabulary,
)
from conversion.sample import CORPUS, SAMPLE_ARCHITECTURE, random_checkpoint, train_vocabulary
from tests import corpus
from tests.clients.node import require_transformers_js, run_transformers_js


def _lines() -> list[str]:
    """Return 5,000 lines: English documentation, words of eleven scripts among English ones, white space, quotes."""
    return [*corpus.documentation(2500), *corpus.scripts(2400), *CORPUS, *corpus.LONG[:2]][:5000]


VOCABULARIES = {
    "nmt_nfkc": train_vocabulary,
    "identity": lambda: train_vocabulary(normalization_rule_name="identity"),
    "nmt_nfkc_cf": lambda: train_vocabulary(normalization_rule_name="nmt_nfkc_cf"),
    "baked-uncased": lambda: bake_normalization(train_vocabulary(), NAMED_NORMALIZATIONS["uncased"]),
    "no-space-before": lambda: train_vocabulary(add_dummy_prefix=False),
    "all-spaces": lambda: train_vocabulary(remove_extra_whitespaces=False),
}


def write_tokenizer(vocabulary: bytes, normalization: str, folder: Path, texts: list[str]) -> list[list[int]]:
    """Write a tokenizer into a folder, and return the ids that Python gives to texts."""
    tokenizer = build_tokenizer(parse_vocabulary(vocabulary), NAMED_NORMALIZATIONS[normalization])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def test_ids_are_those_of_python(tmp_path: Path) -> None:
    require_transformers_js()
    texts, expected, tasks = _lines(), {}, []
    for name, make in VOCABULARIES.items():
        for normalization in NAMED_NORMALIZATIONS:
            folder = tmp_path / f"{name}-{normalization}"
            expected[folder.name] = write_tokenizer(make(), normalization, folder, texts)
            tasks.append({"ids": str(folder), "texts": texts})
    found = run_transformers_js(tasks)
    wrong = {
        name: [text for text, ours, theirs in zip(texts, ids, others, strict=True) if ours != theirs]
        for (name, ids), others in zip(expected.items(), found, strict=True)
    }
    # transformers.js has no map of the vocabulary: it computes NFKC, and removes or keeps some kinds of white space.
    assert {name: len(lines) for name, lines in wrong.items() if len(lines) > 2} == {}, wrong


def _repository(folder: Path, kind: HeadKind | None, **settings: Any) -> Path:
    """Write a repository with ONNX files from a KerasHub preset or, for other heads, from a checkpoint."""
    head = Head(kind=kind, **settings) if kind is not None else None
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, train_vocabulary(), head=head, std=0.1)
    source = folder.with_name(f"{folder.name}-source")
    source.mkdir()
    write_preset(checkpoint, source)
    convert(source, folder, to="transformers", onnx=True, quantize="int8")
    return folder


TEXTS = ["the same text in, the same numbers out", "a bridge", "Crème brûlée and 日本語"]


def test_pipelines_compute_what_python_computes(tmp_path: Path) -> None:
    require_transformers_js()
    encoder = _repository(tmp_path / "encoder", None)
    classifier = _repository(
        tmp_path / "classifier", "sequence_classification", num_labels=3, labels=("a", "b", "c"), activation="softmax"
    )
    masked = _repository(tmp_path / "masked", "masked_lm")
    questions = ["a bridge [MASK] two banks", "every layer of this [MASK]"]
    embedding, quantized, classes, fills = run_transformers_js([
        {
            "pipeline": "feature-extraction",
            "folder": str(encoder),
            "texts": TEXTS,
            "options": {"pooling": "mean", "normalize": True},
        },
        {
            "pipeline": "feature-extraction",
            "folder": str(encoder),
            "texts": TEXTS,
            "options": {"pooling": "mean", "normalize": True},
            "dtype": "q8",
        },
        {"pipeline": "text-classification", "folder": str(classifier), "texts": TEXTS, "options": {"top_k": 3}},
        {"pipeline": "fill-mask", "folder": str(masked), "texts": questions, "options": {"top_k": 5}},
    ])  # fmt: skip

    batch = AutoTokenizer.from_pretrained(encoder)(TEXTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        states = AutoModel.from_pretrained(encoder)(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    means = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1).numpy()
    np.testing.assert_allclose(embedding, means, atol=1e-5)
    assert (np.asarray(quantized) * means).sum(-1).min() > 0.98  # the cosine
    _compare(classes, pipeline("text-classification", str(classifier), top_k=3)(TEXTS), "label")
    _compare(fills, pipeline("fill-mask", str(masked), top_k=5)(questions), "token")


def _compare(found: list[Any], expected: list[Any], key: str) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        assert [each[key] for each in ours] == [each[key] for each in theirs]
        np.testing.assert_allclose([each["score"] for each in ours], [each["score"] for each in theirs], atol=1e-5)
