"""Notes about what differs in the target."""

from __future__ import annotations

from albert_hub_bridge.checkpoint import Checkpoint, Layout
from albert_hub_bridge.mapping.heads import HEADS, IMPLIED_PROBLEM_TYPES, KERAS_EPSILON
from albert_hub_bridge.verification.sample_texts import SAMPLE_TEXTS


def conversion_notes(source: Checkpoint, target: Checkpoint, to: Layout) -> list[str]:
    """Say what is not the same in the target."""
    notes = []
    if source.dtype != target.dtype:
        exact = source.dtype != "float32" and target.dtype == "float32"
        notes.append(f"The weights were {source.dtype}, and are {target.dtype}{'' if exact else ', rounded'}.")
    if to == "keras":
        if target.tokenizer is not None and target.tokenizer.truncate == "longest_first":
            notes.append(
                "Of pairs that are too long transformers keeps the odd piece of the longer or the second text, "
                "and KerasHub of the first (round_robin)."
            )
        if not target.has_pooler:
            notes.append("KerasHub needs a pooler, and the source has none: its pooled_output will be zeros.")
        head = target.head
        if head is not None and head.problem_type not in (None, IMPLIED_PROBLEM_TYPES[head.activation]):
            notes.append(f"KerasHub has no place for problem_type {head.problem_type}.")
    pooled = target.head is None or target.head.kind in ("pretraining", "sequence_classification", "multiple_choice")
    if to == "transformers" and target.head is not None and target.has_pooler and not pooled:
        notes.append(
            f"{HEADS[target.head.kind].albert} has no pooler, and reports that of the file as unexpected; "
            "AutoModel and KerasHub use it."
        )
    if target.head is not None and target.head.kind in ("masked_lm", "pretraining"):
        epsilon = {"keras": KERAS_EPSILON, "albert_hub": target.head.layer_norm_epsilon}.get(
            to, target.architecture.layer_norm_epsilon
        )
        if epsilon != target.head.layer_norm_epsilon:
            from albert_hub_bridge.verification.engines.albert_hub import epsilon_effect

            library = "KerasHub" if to == "keras" else "transformers' ALBERT"
            notes.append(
                f"The layer norm of the masked-LM head has epsilon {target.head.layer_norm_epsilon:g}, and in "
                f"{library} it is {epsilon:g}: that changes the scores of the sample texts by up to "
                f"{epsilon_effect(target, epsilon, SAMPLE_TEXTS):.1e}. The albert_hub layout is exact."
            )
    return notes
