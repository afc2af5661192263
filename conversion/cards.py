"""The model cards of the published checkpoints before their conversion: `python -m conversion.cards` writes them.

They are rendered from `checkpoints.toml` with the template of every card, and contain only what is known without the
files. The recipes write the complete card into the folder that they make. A test compares `model_cards` with this
module.
"""

from __future__ import annotations

from pathlib import Path

from albert_hub_bridge.choices import LayoutName
from albert_hub_bridge.commands.options import ConvertOptions
from albert_hub_bridge.hubs.published import ABOUT_PUBLISHED
from albert_hub_bridge.provenance.card_metadata import CardMetadata
from albert_hub_bridge.provenance.model_card import render_card
from albert_hub_bridge.provenance.record import (
    ConversionRecord,
    SourceRecord,
    TargetRecord,
    VocabularySummary,
)
from conversion.recipes import CHECKPOINTS, Entry, read_entries


CARDS = Path(__file__).parent.parent / "model_cards"


def planned_cards() -> dict[str, str]:
    """Render the card of every entry, by the name of its file."""
    cards = {}
    for entry in (*read_entries("keras").values(), *read_entries("transformers").values()):
        to: LayoutName = "transformers" if entry.kind == "keras" else "keras"
        name = f"{entry.name}-{to}"
        cards[f"{name}.md"] = render_card(planned_record(entry, to, name), f"hf://USER/{name}")
    return cards


def planned_record(entry: Entry, to: LayoutName, name: str) -> ConversionRecord:
    """Return the record of an entry's conversion, as far as it is known before.

    Args:
        entry: Of `checkpoints.toml`.
        to: Layout of the target.
        name: Of the folder that the entry's recipe makes.
    """
    handle, revision = entry.handle, None
    if handle.startswith("kaggle://"):
        handle, _, revision = handle.rpartition("/")
    architecture = entry.architecture.keras_arguments
    del architecture["dropout"]  # an entry does not contain it
    return ConversionRecord(
        tool="albert-hub-bridge",
        command=ConvertOptions(to, drop_head=True).command(entry.handle, name),
        source=SourceRecord(handle, revision, entry.kind, dtype=None, files={}),
        target=TargetRecord(to, dtype=None, files={}, tensors={}),
        metadata=CardMetadata(),
        published=ABOUT_PUBLISHED,
        architecture=architecture,
        head="those of the source that KerasHub supports" if to == "keras" else None,
        head_kind=None,
        has_pooler=True,
        parameters=entry.parameters,
        vocabulary=VocabularySummary(
            pieces=entry.architecture.vocabulary_size,
            text_normalization=entry.text_normalization,
            text_normalization_from=CHECKPOINTS.name,
            normalization_in_vocabulary=to == "keras",  # KerasHub has no other normalization
            normalization=entry.normalization,
            lower_cases=entry.text_normalization == "uncased",
            sequence_length=None,
            truncate="round_robin",
        ),
        changed_texts=None,
        sample_size=0,
        sentence_transformers=None,
        ignored=[],
        dropped=[],
        notes=[],
        golden=entry.golden,
    )


if __name__ == "__main__":
    CARDS.mkdir(exist_ok=True)
    for file, card in planned_cards().items():
        (CARDS / file).write_text(card, encoding="utf-8")
        print(CARDS.name + "/" + file)
