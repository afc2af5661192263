"""The ALBERT presets that KerasHub publishes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PublishedPreset:
    """A preset that KerasHub publishes.

    Args:
        num_layers: Number of layers.
        hidden_dim: Size of the hidden states.
        parameters: Number of parameters of the backbone.
        kaggle: Its handle on Kaggle.
        hugging_face: Google's repository for the same size on Hugging Face, in the transformers layout.
    """

    num_layers: int
    hidden_dim: int
    parameters: int
    kaggle: str
    hugging_face: str

    @property
    def description(self) -> str:
        """A sentence about the preset."""
        size = f"{self.num_layers} layers of width {self.hidden_dim}"
        trained_on = ABOUT_PUBLISHED["trained_on"]
        return f"{size}, trained on lower-cased {trained_on}; KerasHub's tokenizer does not lower-case."


# fmt: off
PUBLISHED_PRESETS = {
    "albert_base_en_uncased":              PublishedPreset(12, 768,   11_683_584, "keras/albert/keras/albert_base_en_uncased/5", "albert/albert-base-v2"),
    "albert_large_en_uncased":             PublishedPreset(24, 1024,  17_683_968, "keras/albert/keras/albert_large_en_uncased/3", "albert/albert-large-v2"),
    "albert_extra_large_en_uncased":       PublishedPreset(24, 2048,  58_724_864, "keras/albert/keras/albert_extra_large_en_uncased/3", "albert/albert-xlarge-v2"),
    "albert_extra_extra_large_en_uncased": PublishedPreset(12, 4096, 222_595_584, "keras/albert/keras/albert_extra_extra_large_en_uncased/3", "albert/albert-xxlarge-v2"),
}
# fmt: on

# Facts about all of them, for model cards. Source: the paper and the release of Google.
ABOUT_PUBLISHED = {
    "license": "apache-2.0",
    "language": "en",
    "trained_on": "English Wikipedia and BooksCorpus",
    "paper": "https://arxiv.org/abs/1909.11942",
}


def is_published(handle: str) -> bool:
    """Return whether a handle is one of these presets, in any version, or one of Google's repositories."""
    kaggle = {preset.kaggle.rpartition("/")[0] for preset in PUBLISHED_PRESETS.values()}
    # Google's repositories are named albert/albert-SIZE-v1 and albert/albert-SIZE-v2.
    return handle.startswith(("hf://albert/albert-", *(f"kaggle://{name}/" for name in kaggle))) or (
        handle.removeprefix("kaggle://") in kaggle
    )
