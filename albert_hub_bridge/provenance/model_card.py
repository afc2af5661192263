"""Model cards: what was converted, what was measured and what is missing.

A card is rendered from `conversion.json` alone, so it can be rendered again. Text that users write between the two
marks at its end stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from albert_hub_bridge.checkpoint import count_by_reason, is_loss
from albert_hub_bridge.disk.durable import add_filename
from albert_hub_bridge.mapping.configs import NO_LOSS
from albert_hub_bridge.mapping.heads import HEADS, HeadKind
from albert_hub_bridge.mapping.onnx_names import check_name
from albert_hub_bridge.model.architecture import KERAS_FIELDS
from albert_hub_bridge.provenance.record import CARD, PICTURE, ConversionRecord, IgnoredKeyRecord
from albert_hub_bridge.text import first_few, one_line


BEGIN, END = "<!-- Text between these two lines is kept. -->", "<!-- End of the kept text. -->"

_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
_LAYOUTS = {
    "keras": "a KerasHub preset",
    "albert_hub": "a repository for transformers with albert-hub-bridge",
    "transformers": "a repository for transformers alone",
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


def render_card(record: ConversionRecord, location: str, by_hand: str = "") -> str:
    """Render a card.

    Args:
        record: Of the conversion.
        location: Where users will load it from: `hf://user/repo`, `kaggle://user/model/framework/name`, or the name of
            the folder.
        by_hand: Text that a user wrote into the card before.

    Source:
        https://huggingface.co/docs/hub/model-cards; the metadata is huggingface_hub's `ModelCardData`.
    """
    from huggingface_hub.repocard import ModelCard

    scheme, _, name = location.rpartition("://")
    on_kaggle = scheme == "kaggle"
    head, vocabulary = HEADS[record.head_kind] if record.head_kind is not None else None, record.vocabulary
    rendered = ModelCard.from_template(
        _metadata(record, location),
        template_path=str(_TEMPLATE),
        record=record,
        # Where it is, and how it is loaded from there.
        title=location.rpartition("/")[2],
        location=name,
        keras_location=location,
        on_kaggle=on_kaggle,
        keras_class=head.keras if head is not None else "AlbertBackbone",
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
        text_normalization=_plain(vocabulary.text_normalization) if vocabulary is not None else None,
        normalization=_plain(vocabulary.normalization) if vocabulary is not None else None,
        pooling=_POOLINGS.get(record.sentence_transformers),
        # transformers.js knows ALBERT, and no class of this package.
        js_task=_PIPELINES[record.head_kind] if record.target.layout == "transformers" and not on_kaggle else None,
        parity=_parity(record),
        picture=PICTURE if record.picture is not None else None,
        notes=[_plain(note) for note in record.notes],
        dropped=[
            (_plain(each.name), tuple(each.shape), each.reason) for each in record.dropped if is_loss(each.reason)
        ],
        unneeded=_unneeded(record),
        ignored=_by_reason(record.ignored),
        begin=BEGIN,
        end=END,
    )
    content = re.sub(r"\n{3,}", "\n\n", str(rendered)).rstrip() + "\n"
    return content.replace(f"{BEGIN}\n", f"{BEGIN}\n\n{by_hand.strip()}\n\n" if by_hand.strip() else f"{BEGIN}\n\n")


def _labels(labels: Sequence[str] | None) -> str:
    return first_few([f"`{_plain(label)}`" for label in labels or ()], _MAX_LABELS)


def _example_output(record: ConversionRecord) -> str | None:
    output = (record.verification or {}).get("example_output")
    return one_line(output, 400) if isinstance(output, str) else None


def _by_reason(ignored: Sequence[IgnoredKeyRecord]) -> dict[str, list[str]]:
    """Return the keys that reports for people show, each once, by the reason why they were not converted."""
    reasons: dict[str, list[str]] = {}
    for each in ignored:
        keys = reasons.setdefault(each.reason, [])
        if each.reason not in NO_LOSS and _plain(each.key) not in keys:
            keys.append(_plain(each.key))
    return {reason: keys for reason, keys in reasons.items() if keys}


_MARKUP = str.maketrans({"<": "&lt;", "`": "'"})


def _plain(text: str) -> str:
    """Return a text of the source on one line, without Markdown or HTML: no tags, links or code."""
    return one_line(text, 2000).translate(_MARKUP).replace("](", "] (")


def _unneeded(record: ConversionRecord) -> str:
    counts = count_by_reason(tensor.reason for tensor in record.dropped if not is_loss(tensor.reason))
    return _plain(counts) if counts else ""


def _parity(record: ConversionRecord) -> dict[str, str]:
    """Return the rows of the table of results; none before a verification."""
    verification, onnx = record.verification, [check_name(each.precision) for each in record.onnx]
    if verification is None:
        return {}
    relative, absolute = verification["max_relative_difference"], verification["max_abs_difference"]
    return {
        **{name: _outcome(check) for name, check in verification["checks"].items()},
        **{name: "not measured: run verify again" for name in onnx if name not in verification["checks"]},
        **{_difference_of(name): _both(relative.get(name), absolute[name]) for name in absolute},
    }


def _both(relative: float | None, absolute: float | None) -> str:
    if relative is None or absolute is None:
        return "not a number"
    return f"{relative:.1e} relative, {absolute:.1e} absolute"


def _outcome(check: Mapping[str, Any]) -> str:
    not_measured = [f"not measured: {what.removeprefix('not measured: ')}" for what in check["not_measured"]]
    description = f": {check['description']}" if check["description"] else ""
    lines = [f"{check['outcome']}{description}", *check["failures"], *not_measured]
    return "; ".join(lines).replace("|", r"\|")


def _difference_of(name: str) -> str:
    return f"largest difference of `{name}` on texts, in float32"


def _metadata(record: ConversionRecord, location: str) -> Any:
    """Return the metadata of a card."""
    from huggingface_hub.repocard_data import EvalResult, ModelCardData

    handle, pipeline = record.source.handle, _PIPELINES[record.head_kind]
    on_hub = handle.removeprefix("hf://").partition("@")[0] if handle.startswith("hf://") else None
    metadata, published = record.metadata, record.published or {}
    differences = record.verification["max_abs_difference"] if record.verification is not None else {}
    results = [
        EvalResult(
            task_type=pipeline,
            dataset_type="albert-hub-bridge/sample-texts",
            dataset_name="sample texts of albert-hub-bridge",
            metric_type="max_abs_difference",
            metric_name=f"largest absolute difference of {name} from the source",
            metric_value=value,
        )
        for name, value in differences.items()
        if value is not None
    ]
    library, tags = "transformers", ["albert", "albert-hub-bridge", "pytorch"]
    if record.target.layout == "keras":
        library, tags = "keras-hub", ["albert", "albert-hub-bridge", "keras-hub"]
    if record.sentence_transformers is not None:  # the Hub finds such models by these words
        library, tags = "sentence-transformers", [*tags, "sentence-transformers", "feature-extraction"]
    return ModelCardData(
        license=metadata.license or published.get("license"),
        license_name=metadata.license_name,
        license_link=metadata.license_link,
        language=_one_or_more(metadata.language) or published.get("language"),
        datasets=_one_or_more(metadata.datasets),
        base_model=on_hub or _one_or_more(metadata.base_model),
        # The Hub has no relation for the same weights in another format, only for rounded weights.
        base_model_relation="quantized" if on_hub and record.target.dtype != record.source.dtype else None,
        library_name=library,
        pipeline_tag="sentence-similarity" if record.sentence_transformers is not None else pipeline,
        tags=tags,
        model_name=location.rpartition("/")[2] if results else None,
        eval_results=results or None,
    )


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


def written_by_hand(folder: Path) -> str:
    """Return the text that a user wrote between the marks of a folder's card."""
    file = folder / CARD
    with add_filename(file):
        return between_marks(file.read_text(encoding="utf-8")) if file.is_file() else ""


def digest_of_card(text: str) -> str:
    """Return the SHA-256 of a card without the text between its marks, in hexadecimal."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    return sha256("".join((before, begin, end, after)).encode()).hexdigest()


def is_card_edited(folder: Path, record: ConversionRecord) -> bool:
    """Return whether a user changed a folder's card outside of its marks since it was rendered."""
    file = folder / CARD
    if record.card_sha256 is None or not file.is_file():
        return False
    with add_filename(file):
        return digest_of_card(file.read_text(encoding="utf-8")) != record.card_sha256


def between_marks(text: str) -> str:
    """Return the text between the marks of a card."""
    return text.partition(BEGIN)[2].partition(END)[0].strip()
