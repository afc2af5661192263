"""Model cards that say what was converted, what was measured and what is missing, and nothing else.

A card is rendered from `conversion.json` alone, so it can be rendered again; what people write between the two marks at
its end stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from albert_hub_bridge.disk.durable import add_filename
from albert_hub_bridge.mapping.heads import HEADS, HeadKind
from albert_hub_bridge.model.architecture import KERAS_FIELDS
from albert_hub_bridge.provenance.record import CARD, CHECKS, PICTURE
from albert_hub_bridge.text import one_line


BEGIN, END = "<!-- What is written between these lines is kept. -->", "<!-- Up to here. -->"

_TEMPLATE = Path(__file__).parent / "templates" / "model_card.md"
_HOMEPAGE = "https://pypi.org/project/albert-hub-bridge"
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
_PIPELINES: Mapping[HeadKind | None, str | None] = {
    None: "feature-extraction",
    "masked_lm": "fill-mask",
    "pretraining": "fill-mask",
    "sequence_classification": "text-classification",
    "token_classification": "token-classification",
    "multiple_choice": "multiple-choice",
    "question_answering": "question-answering",
}


def render_card(record: Mapping[str, Any], location: str, by_hand: str = "") -> str:
    """Render a card.

    Args:
        record: What `conversion.json` says.
        location: Where people will load it from: `hf://user/repo`, `kaggle://user/model/framework/name`, or the name of
            the folder.
        by_hand: What somebody wrote into the card before.

    Source:
        https://huggingface.co/docs/hub/model-cards; the metadata is huggingface_hub's `ModelCardData`.
    """
    from huggingface_hub.repocard import ModelCard

    source, target = record["source"], record["target"]
    kind: HeadKind | None = record["head_kind"]
    text, keras_class = record["vocabulary"], HEADS[kind].keras if kind is not None else "AlbertBackbone"
    scheme, _, name = location.rpartition("://")
    rendered = ModelCard.from_template(
        _metadata(record, location),
        template_path=str(_TEMPLATE),
        title=location.rpartition("/")[2],
        parameters=f"{record['parameters']:,}",
        head=record["head"] or "the encoder alone",
        dtype=target["dtype"],
        source=_link(source["handle"]),
        source_layout=_LAYOUTS[source["layout"]],
        target_layout=_LAYOUTS[target["layout"]],
        homepage=_HOMEPAGE,
        layout=target["layout"],
        published=record["published"],
        location=name,
        on_kaggle=scheme == "kaggle",
        keras_class=keras_class,
        # Only code of this package is ever among what a conversion wrote.
        code=[name for name in target["files"] if name.endswith(".py")],
        keras_location=location,
        # KerasHub's importer needs a pooler, and ignores whatever an ALBERT does otherwise.
        kerashub_reads=record["has_pooler"] and set(record["architecture"]) <= set(KERAS_FIELDS),
        auto_class=HEADS[kind].auto if kind is not None else "AutoModel",
        tokenizer=text is not None,
        text_normalization=_plain(text["text_normalization"]) if text is not None else None,
        normalization=_plain(text["normalization"]) if text is not None else None,
        rules_before=text is not None and not text["rules_in_vocabulary"] and text["text_normalization"] != "none",
        rules_inside=text is not None and text["rules_in_vocabulary"],
        lower_cases=text is not None and text["lower_cases"],
        changed_texts=record["changed_texts"],
        sample_size=record["sample_size"],
        pooling=_POOLINGS.get(record["sentence_transformers"]),
        verification=record["verification"],
        parity=_parity(record),
        picture=PICTURE if record["picture"] is not None else None,
        golden=record["golden"],
        facts=record["architecture"],
        notes=[_plain(note) for note in record["notes"]],
        dropped=[{**tensor, "name": _plain(tensor["name"])} for tensor in record["dropped"]],
        ignored=[{**key, "key": _plain(key["key"])} for key in record["ignored"]],
        revision=source["revision"],
        tool=record["tool"],
        command=record["command"],
        source_files=source["files"],
        target_files=target["files"],
        begin=BEGIN,
        end=END,
    )
    content = re.sub(r"\n{3,}", "\n\n", str(rendered)).rstrip() + "\n"
    return content.replace(f"{BEGIN}\n", f"{BEGIN}\n\n{by_hand.strip()}\n\n" if by_hand.strip() else f"{BEGIN}\n\n")


_MARKUP = str.maketrans({"<": "&lt;", "`": "'"})


def _plain(text: Any) -> str:
    """Keep what a source says from being Markdown or HTML: it is one line, and has no tags, links or code."""
    return one_line(str(text), 2000).translate(_MARKUP).replace("](", "] (")


def _parity(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the rows of the parity table."""
    verification = record["verification"]
    names = ["sequence_output", "pooled_output"][: 1 + record["has_pooler"]] + ["head_output"] * bool(
        record["head_kind"]
    )
    if verification is None:
        return dict.fromkeys([*CHECKS, *map(_difference_of, names)], "not measured")
    differences = verification["max_abs_difference"].items()
    return {
        **{name: _outcome(check) for name, check in verification["checks"].items()},
        **{_difference_of(name): "not a number" if value is None else f"{value:.1e}" for name, value in differences},
    }


def _outcome(check: Mapping[str, Any]) -> str:
    not_measured = [f"not measured: {what.removeprefix('not measured: ')}" for what in check["not_measured"]]
    description = f": {check['description']}" if check["description"] else ""
    lines = [f"{check['outcome']}{description}", *check["failures"], *not_measured]
    return "; ".join(lines).replace("|", r"\|")


def _difference_of(name: str) -> str:
    return f"largest absolute difference of `{name}`, in float32"


def _metadata(record: Mapping[str, Any], location: str) -> Any:
    from huggingface_hub.repocard_data import EvalResult, ModelCardData

    source, target, published = record["source"], record["target"], record["published"]
    on_hub = source["handle"].removeprefix("hf://").partition("@")[0] if source["handle"].startswith("hf://") else None
    verification = record.get("verification")
    results = [
        EvalResult(
            task_type=_PIPELINES[record["head_kind"]] or "feature-extraction",
            dataset_type="albert-hub-bridge/sample-texts",
            dataset_name="sample texts of albert-hub-bridge",
            metric_type="max_abs_difference",
            metric_name=f"largest absolute difference of {name} from the source",
            metric_value=value,
        )
        for name, value in (verification["max_abs_difference"] if verification else {}).items()
        if value is not None
    ]
    library, tags = "transformers", ["albert", "albert-hub-bridge", "pytorch"]
    if target["layout"] == "keras":
        library, tags = "keras-hub", ["albert", "albert-hub-bridge", "keras-hub"]
    if pooling := record["sentence_transformers"]:  # under which words the Hub looks for such models
        library, tags = "sentence-transformers", [*tags, "sentence-transformers", "feature-extraction"]
    return ModelCardData(
        license=published["license"] if published else None,
        language=published["language"] if published else None,
        base_model=on_hub,
        # The Hub has no word for the same weights in another format; only rounded ones have one.
        base_model_relation="quantized" if on_hub and target["dtype"] != source["dtype"] else None,
        library_name=library,
        pipeline_tag="sentence-similarity" if pooling else _PIPELINES[record["head_kind"]],
        tags=tags,
        model_name=location.rpartition("/")[2] if results else None,
        eval_results=results or None,
    )


def _link(handle: str) -> str:
    scheme, mark, name = handle.partition("://")
    name = name.partition("@")[0]
    if mark and scheme == "hf":
        return f"[{handle}](https://huggingface.co/{name})"
    if mark and scheme == "kaggle":
        return f"[{handle}](https://www.kaggle.com/models/{name})"
    return f"`{handle}`"


def written_by_hand(folder: Path) -> str:
    """Return what somebody wrote between the marks of a folder's card."""
    file = folder / CARD
    with add_filename(file):
        return between_marks(file.read_text(encoding="utf-8")) if file.is_file() else ""


def between_marks(text: str) -> str:
    """Return what somebody wrote between the marks of a card."""
    return text.partition(BEGIN)[2].partition(END)[0].strip()
