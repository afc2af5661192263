"""The model cards of what is published, as they are before anybody has converted it: `python -m conversion.cards`.

They are rendered from `checkpoints.toml` by the template of every other card, and say only what is known without the
files. The recipes write the whole card into the folder that they make. A test compares `model_cards` with this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from albert_hub_bridge.hubs.published import ABOUT_PUBLISHED
from albert_hub_bridge.provenance.model_card import between_marks, render_card
from conversion.recipes import Entry, read_entries


CARDS = Path(__file__).parent.parent / "model_cards"


def planned_cards() -> dict[str, str]:
    """Render the card of every entry, by the name of its file; what was written into one by hand stays."""
    cards = {}
    for entry in (*read_entries("keras").values(), *read_entries("transformers").values()):
        name = f"{entry.name}-{'transformers' if entry.kind == 'keras' else 'keras'}"
        file = CARDS / f"{name}.md"
        by_hand = between_marks(file.read_text(encoding="utf-8")) if file.is_file() else ""
        cards[file.name] = render_card(planned_record(entry, name), f"hf://USER/{name}", by_hand)
    return cards


def planned_record(entry: Entry, name: str) -> dict[str, Any]:
    """Say what `conversion.json` will say of an entry's conversion, as far as it is known before.

    Args:
        entry: Of `checkpoints.toml`.
        name: Of the folder that its recipe makes.
    """
    handle, revision, layout = entry.handle, None, "keras" if entry.kind == "transformers" else "transformers"
    if handle.startswith("kaggle://"):
        handle, _, revision = handle.rpartition("/")
    facts = entry.architecture.keras_arguments
    del facts["dropout"]  # of which an entry says nothing
    return {
        "tool": "albert-hub-bridge",
        "command": f"albert-hub-bridge convert {entry.handle} {name} --to {layout} --drop-head",
        "source": {"handle": handle, "revision": revision, "layout": entry.kind, "dtype": None, "files": {}},
        "target": {"layout": layout, "dtype": None, "files": {}},
        "published": ABOUT_PUBLISHED,
        "architecture": facts,
        "head": "the encoder, and those of its heads that KerasHub has" if entry.kind == "transformers" else None,
        "head_kind": None,
        "has_pooler": True,
        "parameters": entry.parameters,
        "vocabulary": {
            "text_normalization": entry.text_normalization,
            "normalization": entry.normalization,
            "rules_in_vocabulary": layout == "keras",  # where KerasHub finds them
            "lower_cases": entry.text_normalization == "uncased",
        },
        "sentence_transformers": None,
        "changed_texts": None,
        "sample_size": None,
        "ignored": [],
        "dropped": [],
        "notes": [],
        "verification": None,
        "picture": None,
        "golden": {**entry.golden, "max_abs_difference": None} if entry.golden is not None else None,
    }


if __name__ == "__main__":
    CARDS.mkdir(exist_ok=True)
    for file, card in planned_cards().items():
        (CARDS / file).write_text(card, encoding="utf-8")
        print(CARDS.name + "/" + file)
