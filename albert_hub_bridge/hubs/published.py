"""What is published: KerasHub's presets of ALBERT, by the names that KerasHub knows them by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishedPreset:
    """A preset that KerasHub publishes.

    Args:
        layers: Number of layers.
        width: Of the layers.
        parameters: Number of parameters of the backbone.
        kaggle: Its handle on Kaggle.
        transformers: Google's checkpoint of the same size on Hugging Face, in the transformers layout.
    """

    layers: int
    width: int
    parameters: int
    kaggle: str
    transformers: str

    @property
    def description(self) -> str:
        """What it is, in a sentence."""
        what = f"{self.layers} layers of width {self.width}, trained on lower-cased {ABOUT_PUBLISHED['trained_on']}"
        return f"{what}; KerasHub's tokenizer does not lower-case."


# fmt: off
PUBLISHED_PRESETS = {
    "albert_base_en_uncased":              PublishedPreset(12, 768,   11_683_584, "keras/albert/keras/albert_base_en_uncased/5", "albert/albert-base-v2"),
    "albert_large_en_uncased":             PublishedPreset(24, 1024,  17_683_968, "keras/albert/keras/albert_large_en_uncased/3", "albert/albert-large-v2"),
    "albert_extra_large_en_uncased":       PublishedPreset(24, 2048,  58_724_864, "keras/albert/keras/albert_extra_large_en_uncased/3", "albert/albert-xlarge-v2"),
    "albert_extra_extra_large_en_uncased": PublishedPreset(12, 4096, 222_595_584, "keras/albert/keras/albert_extra_extra_large_en_uncased/3", "albert/albert-xxlarge-v2"),
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
    kaggle = {preset.kaggle.rpartition("/")[0] for preset in PUBLISHED_PRESETS.values()}
    # Google's repositories on Hugging Face are called albert/albert-SIZE-v1 and -v2.
    return handle.startswith(("hf://albert/albert-", *(f"kaggle://{name}/" for name in kaggle))) or (
        handle.removeprefix("kaggle://") in kaggle
    )
