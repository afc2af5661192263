"""What KerasHub's ALBERT cannot compute, and how a checkpoint is adapted to it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint, TokenizerFiles
from albert_hub_bridge.errors import Problem
from albert_hub_bridge.formats.lazy_tensors import DTYPES, LazyTensor
from albert_hub_bridge.mapping.heads import HEADS, Head
from albert_hub_bridge.mapping.vocabulary import bake_normalization
from albert_hub_bridge.mapping.weights import POOLER, head_rules, weight_rules
from albert_hub_bridge.model.architecture import DEFAULTS, Architecture


APPROXIMATED = "gelu"  # KerasHub has only its tanh form


def unsupported_by_keras(architecture: Architecture, head: Head | None) -> list[Problem]:
    """Return what KerasHub's ALBERT cannot compute."""
    problems = [
        Problem(
            "unsupported value", name, f"expected {DEFAULTS[name]!r}, found {value!r}: KerasHub computes nothing else"
        )
        for name, value in architecture.differences_from_keras.items()
    ]
    if head is not None and not HEADS[head.kind].keras:
        missing = "sentence-order head" if head.kind == "pretraining" else HEADS[head.kind].description
        problems.append(Problem("unsupported", "head", f"KerasHub's ALBERT has no {missing}"))
    return problems


def unsupported_tokenizer(files: TokenizerFiles | None) -> list[Problem]:
    """Return what of a tokenizer KerasHub cannot hold."""
    if files is None or not files.beyond_sentencepiece:
        return []
    detail = f"expected a SentencePiece vocabulary and nothing else, found {files.beyond_sentencepiece}"
    return [Problem("unsupported", "tokenizer", detail)]


def advice_on_unsupported(checkpoint: Checkpoint, problems: list[Problem], *, keeps_files: bool = False) -> str:
    """Return what to do about what KerasHub does not support.

    Args:
        checkpoint: The checkpoint.
        problems: What `unsupported_by_keras` and `unsupported_tokenizer` found.
        keeps_files: Whether the checkpoint is a folder that keeps its files, so that nothing can be left out.
    """
    where = {problem.where for problem in problems}
    options = {"--drop-head": "(drop_head=True)"} if "head" in where else {}
    if "tokenizer" in where:
        rest = "leave out the tokenizer" if checkpoint.tokenizer is None else "keep the SentencePiece vocabulary alone"
        options["--drop-tokenizer"] = f"(drop_tokenizer=True) to {rest}"
    if checkpoint.architecture.activation == APPROXIMATED:
        options["--allow-approximate-gelu"] = "(allow_approximate_gelu=True), which says how much that changes"
    has_way_out = len(options) == len(where)
    if keeps_files:
        command = f"albert-hub-bridge convert SOURCE TARGET --to universal {' '.join(options)}"
        advice = "The folder keeps its files, so that nothing can be left out of it"
        return f"{advice}. Make another one: {command}" if has_way_out else f"{advice}."
    advice = "Convert to the albert_hub layout instead, which can hold it"
    passed = " and ".join(f"{option} {rest}" for option, rest in options.items())
    return f"{advice}, or pass {passed}." if has_way_out else f"{advice}."


def with_approximate_gelu(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with the tanh form of gelu, if it has the exact one. KerasHub's importer does the same."""
    if checkpoint.architecture.activation != APPROXIMATED:
        return checkpoint
    return replace(checkpoint, architecture=replace(checkpoint.architecture, activation=DEFAULTS["activation"]))


def without_other_tokenizer(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint without what of its tokenizer is no SentencePiece model.

    A SentencePiece vocabulary stays.
    """
    files = checkpoint.tokenizer_files
    return replace(checkpoint, tokenizer_files=None) if files is not None and files.beyond_sentencepiece else checkpoint


def with_cut_out_pieces(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with a SentencePiece model that cuts the same characters out of a text as its tokenizer.

    Nothing changes if the tokenizer does anything else that KerasHub cannot hold.
    """
    tokenizer, files = checkpoint.tokenizer, checkpoint.tokenizer_files
    if tokenizer is None or files is None or not files.cut_out:
        return checkpoint
    proto = bake_normalization(tokenizer.proto, tokenizer.normalization, files.cut_out)
    return replace(checkpoint, tokenizer=tokenizer.with_proto(proto), tokenizer_files=None)


def with_heads_of_keras(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint without heads that KerasHub does not have.

    Of a pretraining head, the masked LM stays.
    """
    head = checkpoint.head
    if head is None or HEADS[head.kind].keras:
        return checkpoint
    kept = replace(head, kind="masked_lm") if head.kind == "pretraining" else None
    kept_rules = head_rules("masked_lm") if kept is not None else ()
    rules = [rule for rule in checkpoint.head_rules if rule not in kept_rules]
    return checkpoint.without(rules, kept, "unsupported by KerasHub")


def with_pooler(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with a pooler. One of zeros is added if it has none, because KerasHub needs one."""
    if checkpoint.has_pooler:
        return checkpoint
    pooler = {
        rule.albert_hub: LazyTensor(shape, checkpoint.dtype, partial(np.zeros, shape, DTYPES[checkpoint.dtype]))
        for rule in weight_rules(checkpoint.architecture)
        if rule.albert_hub in POOLER and (shape := rule.shape("albert_hub", checkpoint.sizes))
    }
    return replace(checkpoint, weights={**checkpoint.weights, **pooler})
