"""What both sides of a conversion make of texts: pieces and ids next to each other, and how similar the texts are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np

from albert_hub_bridge.document import Block, Document, escape
from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.layouts.layout import ReadOptions
from albert_hub_bridge.layouts.registry import read_checkpoint
from albert_hub_bridge.verification.run import open_sides, source_options, without_dropped
from albert_hub_bridge.verification.side import Side


MAX_TEXTS = 8


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a text, and its id."""

    piece: str
    id: int


@dataclass(frozen=True, slots=True)
class TokenRow:
    """What both sides have at one place of a text. A side may have nothing there.

    Args:
        source: The token of the source.
        target: The token of the target.
        same: Whether both have the same id.
    """

    source: Token | None
    target: Token | None
    same: bool


@dataclass(frozen=True, slots=True)
class TextView:
    """A text as both sides split it."""

    text: str
    rows: Sequence[TokenRow]

    @property
    def same(self) -> bool:
        """Whether both sides have the same ids."""
        return all(row.same for row in self.rows)


@dataclass(frozen=True, slots=True)
class SideBySide(Document):
    """What both sides make of some texts.

    Args:
        source_engine: The library that computed the source, with its version.
        target_engine: The library that computed the target, with its version.
        texts: The texts.
        source_similarity: The cosine similarity of each text and each other one in the source, (texts, texts). The
            vector of a text is the mean of its tokens' states. None if a side cannot compute texts.
        target_similarity: The same in the target.
    """

    source_engine: str
    target_engine: str
    texts: Sequence[TextView]
    source_similarity: Sequence[Sequence[float]] | None
    target_similarity: Sequence[Sequence[float]] | None

    @property
    def largest_difference(self) -> float | None:
        """The largest difference of a similarity between both sides."""
        if self.source_similarity is None or self.target_similarity is None:
            return None
        return float(np.max(np.abs(np.subtract(self.source_similarity, self.target_similarity))))

    def blocks(self) -> Iterator[Block]:
        """Yield what the report shows."""
        yield {"source": escape(self.source_engine), "target": escape(self.target_engine)}
        for view in self.texts:
            yield f"[bold]{escape(view.text)}[/]: {'the same ids' if view.same else '[red]other ids[/]'}"
        if self.largest_difference is not None:
            yield f"largest difference of a similarity: {self.largest_difference:.1e}"

    def as_dict(self) -> dict[str, Any]:
        """Return the report as data for JSON."""
        views = [{**asdict(view), "same": view.same} for view in self.texts]
        return {**asdict(self), "texts": views, "largest_difference": self.largest_difference}


class OpenedSides:
    """A source and its conversion, each loaded by its own library.

    Args:
        source: The folder of the source.
        target: The folder of the target.

    Raises:
        SourceError, CheckpointError: A folder is not valid; or a side has no tokenizer.
        EngineError: The library of a side cannot load it.
    """

    def __init__(self, source: Path, target: Path) -> None:
        with (
            read_checkpoint(target, ReadOptions()) as target_read,
            read_checkpoint(source, source_options(source, target_read, allow_pickle=False)) as whole_source,
        ):
            source_read, _ = without_dropped(whole_source, target_read)
            for checkpoint in (source_read, target_read):
                if not checkpoint.has_tokenizer:
                    raise SourceError(f"{checkpoint.folder} has no tokenizer: it takes no texts.")
            self.source, self.target = open_sides(source_read, target_read)

    def look(self, texts: Sequence[str]) -> SideBySide:
        """Return what both sides make of texts.

        Args:
            texts: One to eight texts, none of them empty.

        Raises:
            EngineError: The library of a side cannot tokenize or compute them.
            ValueError: There are none, or too many.
        """
        if not 0 < len(texts) <= MAX_TEXTS or not all(text.strip() for text in texts):
            raise ValueError(f"Give 1 to {MAX_TEXTS} texts, one a line.")
        ids = [side.engine.tokenize(texts) or [] for side in (self.source, self.target)]
        views = [
            TextView(text, _align(_tokens(one, self.source, self.target), _tokens(other, self.target, self.source)))
            for text, one, other in zip(texts, *ids, strict=True)
        ]
        length = min(self.source.max_length, self.target.max_length)
        similarities = [_similarity(side, texts, length) for side in (self.source, self.target)]
        return SideBySide(self.source.engine.name, self.target.engine.name, views, *similarities)


def _tokens(ids: Sequence[int], side: Side, other: Side) -> list[Token]:
    """Return the pieces of ids. A tokenizer that is no SentencePiece model has the pieces of the other side, if any."""
    tokenizer = side.checkpoint.tokenizer or other.checkpoint.tokenizer
    pieces = tokenizer.vocabulary.pieces if tokenizer is not None else ()
    return [Token(pieces[index][0] if index < len(pieces) else f"#{index}", index) for index in ids]


def _align(source: Sequence[Token], target: Sequence[Token]) -> list[TokenRow]:
    """Put equal tokens of both sides next to each other."""
    rows = []
    matcher = SequenceMatcher(a=[each.id for each in source], b=[each.id for each in target], autojunk=False)
    for kind, start, end, other_start, other_end in matcher.get_opcodes():
        for offset in range(max(end - start, other_end - other_start)):
            one = source[start + offset] if start + offset < end else None
            other = target[other_start + offset] if other_start + offset < other_end else None
            rows.append(TokenRow(one, other, kind == "equal"))
    return rows


def _similarity(side: Side, texts: Sequence[str], length: int) -> list[list[float]] | None:
    if side.special_ids is None or side.engine.encode(texts[:1], None, length) is None:
        return None
    vectors = np.stack([states.mean(axis=0, dtype=np.float64) for states in side.engine.features(texts, length)])
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    similarities: list[list[float]] = (vectors @ vectors.T).tolist()
    return similarities
