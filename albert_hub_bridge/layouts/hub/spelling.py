"""How the two layouts of repositories spell classes, keys and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from albert_hub_bridge.choices import SourceLayoutName
from albert_hub_bridge.mapping.configs import ALBERT, ALBERT_HUB, Table
from albert_hub_bridge.mapping.weights import ENCODERS, TorchDialect


RepositoryLayout = Literal["albert_hub", "transformers"]


def repository_layout(layout: SourceLayoutName) -> RepositoryLayout:
    """Return in which layout a folder is a repository, or would be one."""
    return "albert_hub" if layout == "albert_hub" else "transformers"


@dataclass(frozen=True, slots=True)
class Spelling:
    """The names in one of the two layouts.

    Args:
        dialect: The dialect of the tensors.
        model_type: The `model_type` in `config.json`.
        bare_class: The class without a head.
        table: The table of the keys of `config.json`.
        decoder: What the names of the masked LM's decoder begin with.
        tied: What the decoder is tied to, by the last part of its name.
    """

    dialect: TorchDialect
    model_type: str
    bare_class: str
    table: Table
    decoder: str
    tied: Mapping[str, str]

    @property
    def prefix(self) -> str:
        """What the names of the encoder begin with."""
        return ENCODERS[self.dialect]


SPELLINGS: Mapping[RepositoryLayout, Spelling] = {
    "albert_hub": Spelling(
        "albert_hub",
        "albert_hub",
        "AlbertHubModel",
        ALBERT_HUB,
        "masked_lm_head.decoder.",
        {"weight": "token_embedding.weight"},
    ),
    "transformers": Spelling(
        "albert",
        "albert",
        "AlbertModel",
        ALBERT,
        "predictions.decoder.",
        {"weight": "embeddings.word_embeddings.weight", "bias": "predictions.bias"},
    ),
}
