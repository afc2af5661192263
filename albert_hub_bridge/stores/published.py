"""What is published: KerasHub's presets of ALBERT, by the names that KerasHub knows them by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishedPreset:
    """A preset that KerasHub publishes.

    Args:
        description: What it is.
        parameters: Number of parameters of the backbone.
        kaggle: Its handle on Kaggle.
        stock: Google's checkpoint of the same size on Hugging Face, in the stock layout.
    """

    description: str
    parameters: int
    kaggle: str
    stock: str


_DATA = "trained on lower-cased English Wikipedia and BooksCorpus; KerasHub's tokenizer does not lower-case"

# fmt: off
PUBLISHED_PRESETS = {
    "albert_base_en_uncased":              PublishedPreset(f"12 layers of width 768, {_DATA}.",   11_683_584, "keras/albert/keras/albert_base_en_uncased/5", "albert/albert-base-v2"),
    "albert_large_en_uncased":             PublishedPreset(f"24 layers of width 1024, {_DATA}.",  17_683_968, "keras/albert/keras/albert_large_en_uncased/3", "albert/albert-large-v2"),
    "albert_extra_large_en_uncased":       PublishedPreset(f"24 layers of width 2048, {_DATA}.",  58_724_864, "keras/albert/keras/albert_extra_large_en_uncased/3", "albert/albert-xlarge-v2"),
    "albert_extra_extra_large_en_uncased": PublishedPreset(f"12 layers of width 4096, {_DATA}.", 222_595_584, "keras/albert/keras/albert_extra_extra_large_en_uncased/3", "albert/albert-xxlarge-v2"),
}
# fmt: on

# What the model cards say of all of them: the licence of Google's release, its language, what it was trained on, and
# where that is described.
ABOUT_PUBLISHED = {
    "license": "apache-2.0",
    "language": "en",
    "trained_on": "English Wikipedia and BooksCorpus",
    "paper": "https://arxiv.org/abs/1909.11942",
}


def is_published(handle: str) -> bool:
    """Tell whether a source's handle names one of them, in any version."""
    return any(
        handle == f"hf://{preset.stock}"
        or handle.startswith((f"hf://{preset.stock}@", f"kaggle://{preset.kaggle.rpartition('/')[0]}"))
        for preset in PUBLISHED_PRESETS.values()
    )
