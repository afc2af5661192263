"""The command `embed`: the vectors of a corpus, as Parquet parts or one `.npy` file."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from albert_hub_bridge._version import __version__
from albert_hub_bridge.choices import DEFAULT_PART_ROWS, Engine, OutputDtype, choose
from albert_hub_bridge.commands.embedding_report import Embedding, EmbeddingProgress
from albert_hub_bridge.corpora.chunks import Chunk, chunks_of, unfinished
from albert_hub_bridge.corpora.npy import is_written, write_npy
from albert_hub_bridge.corpora.parts import Columns, PartsFolder, open_parts
from albert_hub_bridge.corpora.reading import Corpus, Row
from albert_hub_bridge.errors import SourceError, TargetError, TargetExistsError
from albert_hub_bridge.runtime.embedding import Embedder
from albert_hub_bridge.runtime.ray_cluster import Cluster
from albert_hub_bridge.runtime.ray_embedding import RayEmbedder, ray_embedder
from albert_hub_bridge.runtime.tokens import Text


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
    engine: Engine = "local",
    address: str | None = None,
    actors: int | None = None,
    gpus_per_actor: float = 0.0,
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
        engine: Where vectors are computed: in this process (`local`), or by actors of Ray on one or more machines.
            Reading and writing stay in this process.
        address: The address of a cluster of Ray. By default that of `RAY_ADDRESS`, or a new one on this machine.
        actors: The number of actors of Ray. By default as many as the cluster has room for.
        gpus_per_actor: The number of GPUs of an actor of Ray, also a fraction. With 0, it computes on a CPU.
        progress: Called after every chunk of texts.
        **options: The options of `Embedder`: `pooling`, `normalize`, `dtype`, `device`, ...

    Returns:
        What was done.

    Raises:
        SourceError, CheckpointError: The model or the texts cannot be read.
        TargetError: The target was made with other settings or texts, is being written, or cannot be written.
        AlbertHubBridgeError: pyarrow or Ray is not installed, or the cluster of Ray fails.
        ValueError: An option has an unsupported value.
    """
    output_dtype = choose("output_dtype", output_dtype, get_args(OutputDtype))
    if part_rows < 1:
        raise ValueError(f"part_rows must be at least 1, not {part_rows}.")
    make_embedder = _embedder(engine, Cluster(address, actors, gpus_per_actor))
    corpus = Corpus(source, columns, keys)
    if "://" in str(target):
        raise TargetError(
            f"{target} is an address, and vectors are written into a folder. Mount the storage as a folder, or copy "
            "the folder afterwards."
        )
    target = Path(target)
    as_npy = target.suffix == ".npy"
    folder = target.with_name(f"{target.name}.parts") if as_npy else target
    with open_parts(folder) as parts:
        if as_npy and target.exists() and not folder.exists():  # asked under the lock: another run may have ended now
            raise TargetExistsError(f"The target {target} exists. Choose another target, or delete it.")
        with make_embedder(model, **options) as embedder:
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


def _embedder(
    engine: Engine, cluster: Cluster
) -> Callable[..., AbstractContextManager[Embedder] | AbstractContextManager[RayEmbedder]]:
    """Return what makes the embedder of an engine, given the arguments of `Embedder`."""
    if choose("engine", engine, get_args(Engine)) == "ray":
        return lambda model, **options: ray_embedder(model, cluster, **options)
    if cluster != Cluster():
        raise ValueError("address, actors and gpus_per_actor are for the engine ray. Pass --engine ray (engine='ray').")
    return lambda model, **options: nullcontext(Embedder(model, **options))


def _checked(rows: Iterable[Row], skip_invalid: bool) -> Iterator[Row]:
    for row in rows:
        if row.problem and not skip_invalid:
            raise SourceError(
                f"{row.problem}. Correct it, or pass --skip-invalid (skip_invalid=True) for a row without vector."
            )
        yield row


def _write_parts(
    parts: PartsFolder, output: Columns, embedder: Embedder | RayEmbedder, chunks: Iterable[Chunk]
) -> Iterator[EmbeddingProgress]:
    """Compute and write chunks, and yield how far the run is after each of them."""
    waiting: deque[Chunk] = deque()  # chunks that were read, and are not computed yet
    start = 0.0

    def texts() -> Iterator[Sequence[Text]]:  # runs in the thread that tokenizes
        nonlocal start
        for chunk in chunks:
            start = start or time.monotonic()  # a run that continues has read the parts that are written by now
            waiting.append(chunk)
            yield [row.text for row in chunk.rows if row.text is not None]

    so_far, writer = EmbeddingProgress(), None
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
    target: Path,
    parts: PartsFolder,
    output: Columns,
    embedder: Embedder | RayEmbedder,
    run: EmbeddingProgress,
    continued_from: int,
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
