"""The section of a card that says how the other library loads a completed repository."""

from __future__ import annotations

from typing import Literal

from albert_hub_bridge.mapping.heads import HEADS, HeadKind


BEGIN, END = "<!-- Added by albert-hub-bridge complete. -->", "<!-- End of what it added. -->"


def with_section(
    card: str, library: Literal["keras_hub", "transformers"], head: HeadKind | None, location: str, has_tokenizer: bool
) -> str:
    """Return a card with one more section at its end. Nothing else of the card changes.

    Args:
        card: The card; empty if there is none.
        library: The library that loads the repository after the completion.
        head: What is on the encoder.
        location: `hf://user/repo`, or the name of the folder.
        has_tokenizer: Whether there is a tokenizer.
    """
    section = _keras_hub if library == "keras_hub" else _transformers
    lines = [BEGIN, "", *section(head, location, has_tokenizer), "", END]
    return f"{card.rstrip()}{chr(10) * 2 if card.strip() else ''}{chr(10).join(lines)}{chr(10)}"


def _keras_hub(head: HeadKind | None, location: str, has_tokenizer: bool) -> list[str]:
    name = HEADS[head].keras if head is not None else "AlbertBackbone"
    tokenizer = (
        f'tokenizer = keras_hub.models.AlbertTokenizer.from_preset("{location}", config_file="keras_tokenizer.json")'
    )
    return [
        "## KerasHub",
        "",
        "KerasHub loads this repository too, with the same weights and the same ids:",
        "",
        "```python",
        "import keras_hub",
        "",
        f'model = keras_hub.models.{name}.from_preset("{location}")',
        *([tokenizer] if has_tokenizer else []),
        "```",
    ]


def _transformers(head: HeadKind | None, location: str, has_tokenizer: bool) -> list[str]:
    auto, name = HEADS[head].auto if head is not None else "AutoModel", location.removeprefix("hf://")
    return [
        "## transformers",
        "",
        "transformers loads this repository too, with the same weights and the same ids:",
        "",
        "```python",
        f"from transformers import {auto}{', AutoTokenizer' if has_tokenizer else ''}",
        "",
        f'model = {auto}.from_pretrained("{name}")',
        *([f'tokenizer = AutoTokenizer.from_pretrained("{name}")'] if has_tokenizer else []),
        "```",
    ]
