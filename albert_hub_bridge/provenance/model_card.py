"""Model cards: what was converted, what was measured and what is missing.

A card is rendered from `conversion.json` alone, so it can be rendered again. `card_edits` merges it with what users
wrote into it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from albert_hub_bridge.checkpoint import count_by_reason, is_loss
from albert_hub_bridge.choices import TRANSFORMERS_LAYOUTS
from albert_hub_bridge.mapping.configs import NO_LOSS
from albert_hub_bridge.mapping.heads import HEADS, HeadKind
from albert_hub_bridge.model.architecture import KERAS_FIELDS
from albert_hub_bridge.provenance.card_metadata import METADATA_BLOCK
from albert_hub_bridge.provenance.card_results import plain, rows_of_results
from albert_hub_bridge.provenance.record import PICTURE, ConversionRecord, IgnoredKeyRecord
from albert_hub_bridge.text import first_few, one_line


if TYPE_CHECKING:
    from jinja2 import Template


_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
_LAYOUTS = {
    "keras": "a KerasHub preset",
    "albert_hub": "a repository for transformers with albert-hub-bridge",
    "transformers": "a repository for transformers alone",
    "universal": "a KerasHub preset and a repository for transformers in one folder",
    "google": "Google's original release",
}
_POOLINGS: Mapping[str | None, str] = {
    "mean": "the mean of the states of its tokens",
    "cls": "the state of its first token, `[CLS]`",
}
_PIPELINES: Mapping[HeadKind | None, str] = {
    None: "feature-extraction",
    "masked_lm": "fill-mask",
    "pretraining": "fill-mask",
    "sequence_classification": "text-classification",
    "token_classification": "token-classification",
    "multiple_choice": "multiple-choice",
    "question_answering": "question-answering",
}

_MODEL_KINDS: Mapping[HeadKind | None, str] = {
    None: "encoder",
    "masked_lm": "masked language model",
    "pretraining": "model with both heads of pretraining",
    "sequence_classification": "text classifier",
    "token_classification": "token classifier",
    "multiple_choice": "model for multiple choice",
    "question_answering": "model for question answering",
}

# Of the example that the card of a classifier shows. Lower case, because many vocabularies have nothing else.
EXAMPLE_TEXT = "the river rose by two feet overnight, and nobody slept."
_MAX_LABELS = 50  # that a card lists


def render_card(record: ConversionRecord, location: str) -> str:
    """Render a card.

    Args:
        record: Of the conversion.
        location: Where users will load it from: `hf://user/repo`, `kaggle://user/model/framework/name`, or the name of
            the folder.

    Raises:
        ValueError: The metadata cannot be read back.

    Source:
        https://huggingface.co/docs/hub/model-cards; the metadata is that of huggingface_hub's `ModelCardData`, which
        the tests compare. Its import takes longer than the conversion of a small model.
    """
    import yaml

    scheme, _, name = location.rpartition("://")
    layout = record.target.layout
    on_kaggle = scheme == "kaggle"
    head, vocabulary = HEADS[record.head_kind] if record.head_kind is not None else None, record.vocabulary
    metadata = _metadata(record, location)
    rendered = compile_template().render(
        metadata,
        card_data=yaml.dump(metadata, allow_unicode=True, sort_keys=False).strip(),
        record=record,
        # Where it is, and how it is loaded from there.
        title=location.rpartition("/")[2],
        location=name,
        keras_location=location,
        on_kaggle=on_kaggle,
        keras_class=head.keras if head is not None else "AlbertBackbone",
        other_task="AlbertTextClassifier" if record.head_kind == "masked_lm" else "AlbertMaskedLM",
        auto_class=head.auto if head is not None else "AutoModel",
        code=[file for file in record.target.files if file.endswith(".py")],  # a conversion writes no code but ours
        # KerasHub's importer needs a pooler, and ignores settings that KerasHub does not have.
        kerashub_reads=record.has_pooler and set(record.architecture) <= set(KERAS_FIELDS),
        # In words.
        source=_link(record.source.handle),
        source_layout=_LAYOUTS[record.source.layout],
        target_layout=_LAYOUTS[record.target.layout],
        model_kind=_MODEL_KINDS[record.head_kind],
        labels=_labels(record.labels),
        example_text=json.dumps(EXAMPLE_TEXT),
        example_output=_example_output(record),
        text_normalization=plain(vocabulary.text_normalization) if vocabulary is not None else None,
        normalization=plain(vocabulary.normalization) if vocabulary is not None else None,
        pooling=_POOLINGS.get(record.sentence_transformers),
        # transformers.js knows ALBERT, and no class of this package.
        js_task=_PIPELINES[record.head_kind] if layout in TRANSFORMERS_LAYOUTS and not on_kaggle else None,
        results=rows_of_results(record),
        picture=PICTURE if record.picture is not None else None,
        notes=[plain(note) for note in record.notes],
        dropped=[(plain(each.name), tuple(each.shape), each.reason) for each in record.dropped if is_loss(each.reason)],
        unneeded=_unneeded(record),
        ignored=_by_reason(record.ignored),
    )
    card = re.sub(r"\n{3,}", "\n\n", rendered).rstrip() + "\n"
    block = METADATA_BLOCK.match(card)
    if block is None or yaml.dump(yaml.safe_load(block[1])) != yaml.dump(metadata):  # NaN equals itself as text
        raise ValueError("the metadata of the card cannot be read back")
    return card


@cache
def compile_template() -> Template:
    """Return the template of a card. Compiling it takes longer than all else of a card, and needs no record."""
    from jinja2 import Template

    template: Template = Template(_TEMPLATE.read_text(encoding="utf-8"))
    return template


def _labels(labels: Sequence[str] | None) -> str:
    return first_few([f"`{plain(label)}`" for label in labels or ()], _MAX_LABELS)


def _example_output(record: ConversionRecord) -> str | None:
    output = (record.verification or {}).get("example_output")
    return one_line(output, 400) if isinstance(output, str) else None


def _by_reason(ignored: Sequence[IgnoredKeyRecord]) -> dict[str, list[str]]:
    """Return the keys that reports for people show, each once, by the reason why they were not converted."""
    reasons: dict[str, list[str]] = {}
    for each in ignored:
        keys = reasons.setdefault(each.reason, [])
        if each.reason not in NO_LOSS and plain(each.key) not in keys:
            keys.append(plain(each.key))
    return {reason: keys for reason, keys in reasons.items() if keys}


def _unneeded(record: ConversionRecord) -> str:
    counts = count_by_reason(tensor.reason for tensor in record.dropped if not is_loss(tensor.reason))
    return plain(counts) if counts else ""


def _metadata(record: ConversionRecord, location: str) -> dict[str, Any]:
    """Return the metadata of a card, in the order and with the names of `ModelCardData`."""
    handle, pipeline = record.source.handle, _PIPELINES[record.head_kind]
    on_hub = handle.removeprefix("hf://").partition("@")[0] if handle.startswith("hf://") else None
    metadata, published = record.metadata, record.published or {}
    library, tags = "transformers", ["albert", "albert-hub-bridge", "pytorch"]
    if record.target.layout == "keras":
        library, tags = "keras-hub", ["albert", "albert-hub-bridge", "keras-hub"]
    elif record.target.layout == "universal":
        tags = [*tags, "keras-hub"]
    if record.sentence_transformers is not None:  # the Hub finds such models by these words
        library, tags = "sentence-transformers", [*tags, "sentence-transformers", "feature-extraction"]
    is_rounded = record.source.dtype not in (record.target.dtype, "int8")
    found = {
        "base_model": on_hub or _one_or_more(metadata.base_model),
        "datasets": _one_or_more(metadata.datasets),
        "language": _one_or_more(metadata.language) or published.get("language"),
        "library_name": library,
        "license": metadata.license or published.get("license"),
        "license_name": metadata.license_name,
        "license_link": metadata.license_link,
        "pipeline_tag": "sentence-similarity" if record.sentence_transformers is not None else pipeline,
        "tags": tags,
        # The Hub has no relation for the same weights in another format, only for rounded weights.
        "base_model_relation": "quantized" if on_hub and is_rounded else None,
        "model-index": _model_index(record, location.rpartition("/")[2]),
    }
    return {name: value for name, value in found.items() if value is not None}


def _model_index(record: ConversionRecord, model_name: str) -> list[dict[str, Any]] | None:
    """Return what a verification measured, as the Hub shows it; None before one."""
    if record.verification is None:
        return None
    from huggingface_hub.repocard_data import EvalResult, eval_results_to_model_index

    results = [
        EvalResult(
            task_type=_PIPELINES[record.head_kind],
            dataset_type="albert-hub-bridge/sample-texts",
            dataset_name="sample texts of albert-hub-bridge",
            metric_type="max_abs_difference",
            metric_name=f"largest absolute difference of {name} from the source",
            metric_value=value,
        )
        for name, value in record.verification["max_abs_difference"].items()
        if value is not None
    ]
    return eval_results_to_model_index(model_name, results) if results else None


def _one_or_more(values: list[str]) -> str | list[str] | None:
    """Return metadata as cards have it: a list only if there are several values."""
    return values if len(values) > 1 else next(iter(values), None)


def _link(handle: str) -> str:
    scheme, mark, name = handle.partition("://")
    name = name.partition("@")[0]
    if mark and scheme == "hf":
        return f"[{handle}](https://huggingface.co/{name})"
    if mark and scheme == "kaggle":
        return f"[{handle}](https://www.kaggle.com/models/{name})"
    return f"`{handle}`"
