"""Notes on how the target of a conversion differs from the source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from albert_hub_bridge.checkpoint import Checkpoint, TokenizerSpec
from albert_hub_bridge.choices import PRESET_LAYOUTS, TRANSFORMERS_LAYOUTS, LayoutName, Pooling
from albert_hub_bridge.layouts.hub.spelling import SPELLINGS, repository_layout
from albert_hub_bridge.layouts.losses import lost_tensors
from albert_hub_bridge.layouts.tokenize import tokenize
from albert_hub_bridge.mapping.configs import ALBERT, NOT_USED, IgnoredKey
from albert_hub_bridge.mapping.cut_out import holds
from albert_hub_bridge.mapping.heads import HEADS, IMPLIED_PROBLEM_TYPES, KERAS_EPSILON, LABELED_HEADS, NEED_POOLER
from albert_hub_bridge.mapping.number_commas import is_number_comma, splits_number_commas
from albert_hub_bridge.mapping.unused_keys import kept_keys
from albert_hub_bridge.text import first_few, one_line
from albert_hub_bridge.verification.sample_texts import SAMPLE_TEXTS


def conversion_notes(
    source: Checkpoint,
    target: Checkpoint,
    to: LayoutName,
    sentence_transformers: Pooling | None = None,
    *,
    for_keras_hub: bool,
) -> list[str]:
    """Return one note for each difference between what was read and what is written, also for KerasHub to read."""
    return [
        *_dequantized(source, target),
        *_changed_dtype(source, target),
        *_approximate_gelu(source, target),
        *_number_commas(source, target),
        *_spiece_model(source),
        *_lost_tokenizer(source, target, to),
        *_sentence_modules(target, to, sentence_transformers),
        *(_keras_notes(source, target) if for_keras_hub else ()),
        *_unnamed_labels(target, to),
        *_unused_pooler(target, to),
        *_changed_epsilon(target, to),
        *_kept_keys(target, to),
    ]


def notes_in_memory(source: Checkpoint, target: Checkpoint, to: LayoutName) -> list[str]:
    """Return one note for each thing that a live model computes or has otherwise than the one that it was made from."""
    return [
        *(source.notes if source.layout == "keras" else ()),
        *_dequantized(source, target),
        *_lost_tensors(target),
        *_lost_tokenizer(source, target, to),
        *(_keras_notes(source, target) if to == "keras" else ()),
        *_lost_labels(target, to),
        *_other_epsilon(target, to),
    ]


def _lost_tensors(target: Checkpoint) -> Iterator[str]:
    if lost := lost_tensors(target.dropped):
        yield f"Tensors that were not converted: {first_few([one_line(each.name, 160) for each in lost], 10)}."


def _lost_labels(target: Checkpoint, to: LayoutName) -> Iterator[str]:
    if to == "keras" and target.head is not None and target.head.labels is not None:
        yield f"A model of KerasHub has no names of labels. They are {', '.join(target.head.labels[:10])}."


def _other_epsilon(target: Checkpoint, to: LayoutName) -> Iterator[str]:
    for library, forced in _forced_epsilons(target, to):
        yield (
            f"The layer norm of the masked-LM head has epsilon {target.head_epsilon:g}, and in {library} it is "
            f"{forced:g}, so that its scores differ. The albert_hub layout keeps the epsilon."
        )


def _forced_epsilons(target: Checkpoint, to: LayoutName) -> Iterator[tuple[str, float]]:
    """Yield the libraries that compute the masked-LM head with another epsilon than the target's, and that epsilon."""
    forced = []
    if to in PRESET_LAYOUTS:
        forced.append(("KerasHub", KERAS_EPSILON))
    if to in TRANSFORMERS_LAYOUTS:
        forced.append(("transformers", target.architecture.layer_norm_epsilon))
    yield from (each for each in forced if target.head_epsilon not in (None, each[1]))


def lost_keys(target: Checkpoint, to: LayoutName) -> tuple[IgnoredKey, ...]:
    """Return the keys of the source that the target does not have, of those that are not converted."""
    kept = {} if to == "keras" else kept_keys(target.ignored, SPELLINGS[repository_layout(to)].table)
    files = target.tokenizer_files
    carried = files.ignored if files is not None and files.fit(to) else ()
    return tuple(key for key in target.ignored if key.key not in kept and key not in carried)


def _kept_keys(target: Checkpoint, to: LayoutName) -> Iterator[str]:
    lost = lost_keys(target, to)
    unused = [key for key in target.ignored if key.reason == NOT_USED and key.key not in ALBERT and key not in lost]
    if unused:
        names = first_few([one_line(key.key, 80) for key in unused], 10)
        yield f"ALBERT does not use these settings of the source, and the target has them too: {names}."


def _changed_dtype(source: Checkpoint, target: Checkpoint) -> Iterator[str]:
    if target.dtype not in (source.dtype, "int8"):
        exact = source.dtype != "float32" and target.dtype == "float32"
        yield f"The weights were converted from {source.dtype} to {target.dtype}{'' if exact else ', and rounded'}."


def _dequantized(source: Checkpoint, target: Checkpoint) -> Iterator[str]:
    if source.int8 and target.dtype != "int8":
        yield (
            "The int8 weights were dequantized to float32. Linear layers of the source round their inputs to int8, and "
            "those of the target do not, so that their outputs differ. convert --to albert_hub --dtype int8 keeps the "
            "int8 weights, and computes what the source does."
        )


def _approximate_gelu(source: Checkpoint, target: Checkpoint) -> Iterator[str]:
    before, after = source.architecture.activation, target.architecture.activation
    if before == after:
        return
    from albert_hub_bridge.verification.engines.albert_hub import activation_effect

    effects = activation_effect(source, after, SAMPLE_TEXTS).items()
    listed = ", ".join(f"{name} by up to {effect:.1e}" for name, effect in effects)
    yield (
        f"KerasHub computes {before} by its tanh approximation. On the sample texts, this changes {listed}. "
        "The albert_hub and transformers layouts keep the exact function."
    )


def _number_commas(source: Checkpoint, target: Checkpoint) -> Iterator[str]:
    if source.tokenizer is None or target.tokenizer is None:
        return
    pieces = target.tokenizer.vocabulary.pieces
    had, has = splits_number_commas(source.tokenizer.vocabulary.pieces), splits_number_commas(pieces)
    numbers = [piece for piece, _ in pieces if is_number_comma(piece)]
    examples = f"{len(numbers)} pieces are numbers with a comma, such as {numbers[0].lstrip('▁')!r}" if numbers else ""
    if has is False:
        yield (
            f"{examples}, and texts become them, as in the source. Google's ALBERT and transformers' AlbertTokenizer "
            "split the number from the comma. --normalize uncased does it too."
        )
    elif has and not had:
        normalized = replace(source.tokenizer, normalization=target.tokenizer.normalization)
        rows = (tokenize(each, "transformers", SAMPLE_TEXTS) for each in (normalized, target.tokenizer))
        changed = sum(ids != others for ids, others in zip(*rows, strict=True))
        yield (
            f"{examples}. They become the number and the comma, as in Google's ALBERT and transformers' "
            f"AlbertTokenizer, but not in the source: this alone changes {changed} of {len(SAMPLE_TEXTS)} sample texts."
        )
    elif has and target.tokenizer.normalization.name == "none" != source.tokenizer.normalization.name:
        yield f"{examples}. They become the number and the comma, as in the source. --normalize does not change that."


def _spiece_model(source: Checkpoint) -> Iterator[str]:
    from albert_hub_bridge.verification.engines.spiece_model import note_on_spiece_model

    if (note := note_on_spiece_model(source, SAMPLE_TEXTS)) is not None:
        yield note


def _sentence_modules(target: Checkpoint, to: LayoutName, replaced: Pooling | None) -> Iterator[str]:
    modules = target.modules
    if modules is None or replaced is not None:
        return
    if to == "keras":
        yield "KerasHub is not for sentence-transformers: the target computes states of tokens, no vectors of texts."
    elif modules.obstacle:
        yield (
            f"The files of sentence-transformers were not converted, because {modules.obstacle}: the target computes "
            "states of tokens, no vectors of texts. A repository computes vectors with --sentence-transformers mean or "
            "cls."
        )


def _lost_tokenizer(source: Checkpoint, target: Checkpoint, to: LayoutName) -> Iterator[str]:
    files, carried = source.tokenizer_files, target.tokenizer_files
    if files is not None and files.cut_out and target.tokenizer is not None:
        of_universal = to == "universal" and carried is not None
        if of_universal or holds(target.tokenizer.vocabulary, files.cut_out):
            yield note_on_cut_out(files.cut_out)
            return
    if files is None or not files.beyond_sentencepiece or (target.tokenizer_files is not None and files.fit(to)):
        return
    rest = "the SentencePiece vocabulary alone is converted" if target.tokenizer is not None else "it is left out"
    yield f"Because of --drop-tokenizer, {rest}."


def note_on_cut_out(characters: str) -> str:
    """Return what a preset does otherwise than transformers, which cuts these characters out of a text first."""
    return (
        f"transformers cuts {' '.join(characters)} out of a text first, and begins a word after each. KerasHub's "
        "vocabulary has a space in these pieces, which gives the same ids. The ids differ only for texts in which such "
        "a character is written in another way, as a quote of two apostrophes or in full width. KerasHub's detokenize "
        "puts a space before these characters."
    )


def _keras_notes(source: Checkpoint, target: Checkpoint) -> Iterator[str]:
    if target.tokenizer is not None and target.tokenizer.truncate == "longest_first":
        yield (
            "If a pair of texts is too long, and an odd number of pieces fits, KerasHub (round_robin) keeps one piece "
            "more of the first text, and transformers (longest_first) of the longer or the second text."
        )
    if target.tokenizer is not None:
        yield from _sides(target.tokenizer)
    if not source.has_pooler:
        yield "KerasHub needs a pooler, and the source has none: pooled_output will be zeros."
    head = target.head
    if head is not None and head.problem_type not in (None, IMPLIED_PROBLEM_TYPES[head.activation]):
        yield f"KerasHub does not support problem_type {head.problem_type}."


def _sides(tokenizer: TokenizerSpec) -> Iterator[str]:
    if tokenizer.padding_side == "left":
        yield (
            "The source pads on the left, and KerasHub on the right: tokens after padding have other positions in the "
            "source, so that the outputs of padded inputs differ."
        )
    if tokenizer.truncation_side == "left":
        yield "Of a text that is too long, the source keeps the end, and KerasHub the beginning."


def _unused_pooler(target: Checkpoint, to: LayoutName) -> Iterator[str]:
    pooled = target.head is None or target.head.kind in NEED_POOLER
    if to in TRANSFORMERS_LAYOUTS and target.head is not None and target.has_pooler and not pooled:
        yield (
            f"{HEADS[target.head.kind].albert} has no pooler, and reports the pooler's weights as unexpected. "
            "AutoModel and KerasHub load them."
        )


def _unnamed_labels(target: Checkpoint, to: LayoutName) -> Iterator[str]:
    head = target.head
    if (
        head is not None
        and head.kind in LABELED_HEADS
        and head.labels is None
        and head.num_labels > 1
        and to != "keras"
    ):
        yield (
            "The labels have no names in the source, so transformers calls them LABEL_0, LABEL_1, ... Name them by "
            "--labels (labels=...)."
        )


def _changed_epsilon(target: Checkpoint, to: LayoutName) -> Iterator[str]:
    for library, forced in _forced_epsilons(target, to):
        from albert_hub_bridge.verification.engines.albert_hub import epsilon_effect

        effect = epsilon_effect(target, forced, SAMPLE_TEXTS)
        yield (
            f"The layer norm of the masked-LM head has epsilon {target.head_epsilon:g}, and in {library} it is "
            f"{forced:g}. This changes the scores of the sample texts by up to {effect:.1e}. The albert_hub layout "
            "keeps the epsilon."
        )
