"""The command `embed`: the vectors of a corpus, as Parquet parts or one `.npy` file."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from albert_hub_bridge._version import __version__
from albert_hub_bridge.choices import choose
from albert_hub_bridge.corpora.chunks import Chunk, chunks_of, unfinished
from albert_hub_bridge.corpora.npy import is_written, write_npy
from albert_hub_bridge.corpora.parts import Columns, OutputDtype, PartsFolder, open_parts
from albert_hub_bridge.corpora.reading import Corpus, Row
from albert_hub_bridge.document import Block, Document, escape
from albert_hub_bridge.errors import SourceError, TargetExistsError
from albert_hub_bridge.runtime.embedding import Embedder, PoolingMode
from albert_hub_bridge.runtime.tokens import Text


DEFAULT_PART_ROWS = 16_384
_MAX_SHOWN = 10  # invalid rows in the report for people


@dataclass(frozen=True, slots=True)
class Embedding(Document):
    """What `embed` did.

    Args:
        target: The folder or file.
        rows: The number of rows in it.
        continued_from: How many of them were there from a run before.
        dimension: The size of a vector.
        dtype: The dtype of its values.
        pooling: How states became vectors.
        normalize: Whether vectors have length 1.
        tokens: The number of tokens of all texts, without padding.
        truncated: How many texts were longer than the largest length, and were cut.
        invalid: Why a row has no vector, for each such row.
        seconds: How long this run computed.
        texts_per_second: Of this run.
        tokens_per_second: Of this run.
        padding: The share of padding in the batches of this run, in [0, 1]. On a CPU it is not computed.
    """

    target: str
    rows: int
    continued_from: int
    dimension: int
    dtype: OutputDtype
    pooling: PoolingMode
    normalize: bool
    tokens: int
    truncated: int
    invalid: Sequence[str]
    seconds: float
    texts_per_second: float
    tokens_per_second: float
    padding: float

    def blocks(self) -> Iterator[Block]:
        """Yield what the report shows."""
        what = "of each token" if self.pooling == "none" else f"({self.pooling}{', normalized' * self.normalize})"
        facts = {
            "target": escape(self.target),
            "vectors": f"{self.rows:,} of {self.dimension} {self.dtype} {what}",
            "tokens": f"{self.tokens:,}",
        }
        if self.seconds:
            speed = f"{self.texts_per_second:,.0f} texts/s, {self.tokens_per_second:,.0f} tokens/s"
            facts["speed"] = f"{speed}, {self.padding:.1%} padding"
        if self.continued_from:
            facts["continued"] = f"after {self.continued_from:,} rows of a run before"
        if self.truncated:
            facts["truncated"] = f"{self.truncated:,} texts were longer than the largest length"
        yield facts
        if self.invalid:
            yield f"[yellow]{len(self.invalid):,} rows have no vector:[/]"
            yield from (f"  {escape(problem)}" for problem in self.invalid[:_MAX_SHOWN])
            if len(self.invalid) > _MAX_SHOWN:
                yield f"  and {len(self.invalid) - _MAX_SHOWN:,} more (--json lists them)"

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return asdict(self)


@dataclass
class EmbeddingProgress:
    """How far a run is. The numbers are those of this run.

    Args:
        share: The share of the input that was read, in [0, 1].
        texts: The number of texts.
        tokens: The number of their tokens.
        positions: The number of tokens and padding.
        seconds: The time since the first text was computed.
    """

    share: float = 0.0
    texts: int = 0
    tokens: int = 0
    positions: int = 0
    seconds: float = 0.0

    @property
    def padding(self) -> float:
        """The share of padding."""
        return 1 - self.tokens / self.positions if self.positions else 0.0

    def per_second(self, count: int) -> float:
        """Return a count per second."""
        return count / self.seconds if self.seconds else 0.0


def embed(
    model: str | Path,
    source: str | Path,
    target: str | Path,
    *,
    columns: Sequence[str] = (),
    keys: Sequence[str] = (),
    skip_invalid: bool = False,
    output_dtype: OutputDtype = "float32",
    part_rows: int = DEFAULT_PART_ROWS,
    progress: Callable[[EmbeddingProgress], None] | None = None,
    **options: Any,
) -> Embedding:
    """Compute the vectors of a corpus. A run that was interrupted continues when it is started again.

    Args:
        model: A source, as in `convert`.
        source: The texts: a file (`.txt`, `.csv`, `.jsonl`, `.parquet`; the first three may be compressed), a folder
            or a pattern of such files, a folder of `datasets`, or `-` for lines of the standard input.
        target: A folder of Parquet parts to make, or a file that ends in `.npy`.
        columns: The column of the texts, or two for pairs. By default the column `text`, or the only column.
        keys: Columns of texts or integers that are written next to the vectors.
        skip_invalid: Whether a row without a text gets no vector (null; NaN in a `.npy`), instead of an error.
        output_dtype: The dtype of the vectors in the output: `float32` or `float16`.
        part_rows: The number of rows of a part. An interrupted run loses the part that it was computing.
        progress: Called after every chunk of texts.
        **options: The options of `Embedder`: `pooling`, `normalize`, `dtype`, `device`, ...

    Returns:
        What was done.

    Raises:
        SourceError, CheckpointError: The model or the texts cannot be read.
        TargetError: The target was made with other settings or texts, is being written, or cannot be written.
        AlbertHubBridgeError: pyarrow is not installed.
        ValueError: An option has an unsupported value.
    """
    output_dtype = choose("output_dtype", output_dtype, get_args(OutputDtype))
    if part_rows < 1:
        raise ValueError(f"part_rows must be at least 1, not {part_rows}.")
    corpus = Corpus(source, columns, keys)
    target = Path(target)
    as_npy = target.suffix == ".npy"
    folder = target.with_name(f"{target.name}.parts") if as_npy else target
    with open_parts(folder) as parts:
        if as_npy and target.exists() and not folder.exists():  # asked under the lock: another run may have ended now
            raise TargetExistsError(f"The target {target} exists. Choose another target, or delete it.")
        embedder = Embedder(model, **options)
        per_token = embedder.settings.pooling == "none"
        if as_npy and per_token:
            raise ValueError("A .npy file has one vector of each text. Write a folder of Parquet parts instead.")
        settings = {
            "model_sha256": embedder.fingerprint,
            **asdict(embedder.settings),
            "columns": list(corpus.columns),
            "keys": corpus.keys,
            "output_dtype": output_dtype,
            "part_rows": part_rows,
        }
        parts.begin(settings, {"albert_hub_bridge": __version__, "model": str(model)})
        continued_from = sum(part.rows for part in parts.finished)
        output = Columns(embedder.dimension, output_dtype, per_token, corpus.keys)
        if as_npy and target.exists() and not is_written(parts, output, target):
            raise TargetExistsError(
                f"The target {target} exists, and is not the file of {folder}. Move it, and run the command again."
            )
        chunks = chunks_of(_checked(corpus.rows(), skip_invalid), part_rows)
        so_far = EmbeddingProgress()
        for so_far in _write_parts(parts, output, embedder, unfinished(chunks, parts.finished, str(target))):
            so_far.share = corpus.share_read
            if progress is not None:
                progress(so_far)
        parts.finish()
        if as_npy:
            if not is_written(parts, output, target):
                write_npy(parts, output, target)
            parts.discard()
    return _report(target, parts, output, embedder, so_far, continued_from)


def _checked(rows: Iterable[Row], skip_invalid: bool) -> Iterator[Row]:
    for row in rows:
        if row.problem and not skip_invalid:
            raise SourceError(
                f"{row.problem}. Correct it, or pass --skip-invalid (skip_invalid=True) for a row without vector."
            )
        yield row


def _write_parts(
    parts: PartsFolder, output: Columns, embedder: Embedder, chunks: Iterable[Chunk]
) -> Iterator[EmbeddingProgress]:
    """Compute and write chunks, and yield how far the run is after each of them."""
    waiting: deque[Chunk] = deque()  # chunks that were read, and are not computed yet

    def texts() -> Iterator[Sequence[Text]]:  # runs in the thread that tokenizes
        for chunk in chunks:
            waiting.append(chunk)
            yield [row.text for row in chunk.rows if row.text is not None]

    so_far, start, writer = EmbeddingProgress(), time.monotonic(), None
    for found in embedder.encode_chunks(texts()):
        chunk = waiting.popleft()
        writer = writer or parts.writer(output)
        writer.write(chunk, found.vectors, found.tokens, len(found.truncated))
        if chunk.ends_part:
            parts.add(writer)
            writer = None
        so_far.texts += len(found.vectors)
        so_far.tokens += found.tokens
        so_far.positions += found.positions
        so_far.seconds = time.monotonic() - start
        yield so_far
    if writer is not None:
        parts.add(writer)


def _report(
    target: Path, parts: PartsFolder, output: Columns, embedder: Embedder, run: EmbeddingProgress, continued_from: int
) -> Embedding:
    return Embedding(
        target=str(target),
        rows=sum(part.rows for part in parts.finished),
        continued_from=continued_from,
        dimension=output.dimension,
        dtype=output.dtype,
        pooling=embedder.settings.pooling,
        normalize=embedder.settings.normalize,
        tokens=sum(part.tokens for part in parts.finished),
        truncated=sum(part.truncated for part in parts.finished),
        invalid=[problem for part in parts.finished for problem in part.invalid],
        seconds=run.seconds,
        texts_per_second=run.per_second(run.texts),
        tokens_per_second=run.per_second(run.tokens),
        padding=run.padding,
    )
