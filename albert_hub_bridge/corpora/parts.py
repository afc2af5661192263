"""Write vectors as a folder of Parquet parts, each of them a whole file, and continue where a run stopped.

A part is written in a staging directory next to the folder, brought to the disk, and renamed into the folder. So every
part in the folder is whole. The staging directory is locked, so one run alone writes into the folder. `_embedding.json`
says how the vectors were computed. A part says from which texts, so that a run with other texts is noticed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from albert_hub_bridge.choices import OutputDtype
from albert_hub_bridge.corpora.chunks import Chunk, PartFacts
from albert_hub_bridge.corpora.formats import Kind
from albert_hub_bridge.corpora.reading import Row
from albert_hub_bridge.disk.durable import folder_to_disk, to_disk, write_file
from albert_hub_bridge.disk.staging import staging_directory
from albert_hub_bridge.errors import TargetError, TargetExistsError, TargetNotFoundError, write_error
from albert_hub_bridge.text import short_repr


Vectors = np.ndarray | Sequence[np.ndarray]  # one of each text, or an array of each text with one of each token

MANIFEST = "_embedding.json"  # readers of Parquet folders skip names that begin with an underscore
_FACTS = "albert_hub_bridge"  # the key of a part's facts in its metadata
_CONTINUE = "The parts that are written stay. Run the command again to continue."


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of the output.

    Args:
        dimension: The size of a vector.
        dtype: The dtype of its values.
        per_token: Whether a text has a list of vectors.
        keys: The key columns.
    """

    dimension: int
    dtype: OutputDtype
    per_token: bool
    keys: Mapping[str, Kind]

    @property
    def schema(self) -> Any:
        """The schema for pyarrow."""
        import pyarrow as pa

        keys = [(name, pa.int64() if kind == "integer" else pa.string()) for name, kind in self.keys.items()]
        vector = pa.list_(pa.float32() if self.dtype == "float32" else pa.float16(), self.dimension)
        return pa.schema([("row", pa.int64()), *keys, ("embedding", pa.list_(vector) if self.per_token else vector)])

    def table(self, chunk: Chunk, vectors: Vectors) -> Any:
        """Return a chunk as a table of pyarrow, with the vectors of its valid rows, in their order."""
        import pyarrow as pa

        numbers = range(chunk.first_row, chunk.first_row + len(chunk.rows))
        keys = zip(*(row.keys for row in chunk.rows), strict=True)
        columns = [pa.array(values, field.type) for values, field in zip((numbers, *keys), self.schema, strict=False)]
        return pa.table([*columns, self._embeddings(chunk.rows, vectors)], self.schema)

    def _embeddings(self, rows: Sequence[Row], vectors: Vectors) -> Any:
        import pyarrow as pa

        is_valid = np.array([row.text is not None for row in rows])
        missing = None if is_valid.all() else pa.array(~is_valid)
        if not self.per_token:
            values = np.zeros((len(rows), self.dimension), self.dtype)
            values[is_valid] = vectors
            return pa.FixedSizeListArray.from_arrays(values.ravel(), self.dimension, mask=missing)
        lengths = np.zeros(len(rows), int)
        lengths[is_valid] = [len(each) for each in vectors]
        states = np.concatenate([np.empty((0, self.dimension), self.dtype), *vectors], dtype=self.dtype)
        tokens = pa.FixedSizeListArray.from_arrays(states.ravel(), self.dimension)
        return pa.ListArray.from_arrays(pa.array([0, *lengths.cumsum()], pa.int32()), tokens, mask=missing)


class PartsFolder:
    """A folder of parts that this process alone writes. `open_parts` opens it."""

    def __init__(self, folder: Path, staging: Path) -> None:
        self.folder, self._staging = folder, staging
        self.finished: list[PartFacts] = []
        self.was_complete = False  # before this run

    def begin(self, settings: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Make the folder, or continue with it if it was made with the same settings, or has no part yet.

        Args:
            settings: Everything that the vectors depend on.
            about: What else the manifest says.

        Raises:
            TargetError: The folder has other files, or was made with other settings, or a part cannot be read.
        """
        manifest = self.folder / MANIFEST
        if manifest.is_file():
            content = _read_manifest(manifest)
            if any(self.folder.glob("part-*")) or not _differences(content["settings"], settings):
                _check_settings(self.folder, content["settings"], settings)
                self.finished, self.was_complete = _read_facts(self.folder), "complete" in content
                return
        elif self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise TargetExistsError(
                f"The target {self.folder} exists and has no {MANIFEST}, so this command did not make it. Choose "
                "another target."
            )
        self.folder.mkdir(exist_ok=True)
        self._write_manifest({**about, "settings": settings})

    def finish(self) -> None:
        """Add to the manifest that the folder is complete."""
        content = json.loads((self.folder / MANIFEST).read_bytes())
        content["complete"] = {
            "rows": sum(part.rows for part in self.finished),
            "parts": len(self.finished),
            "tokens": sum(part.tokens for part in self.finished),
            "truncated": sum(part.truncated for part in self.finished),
            "invalid": sum(len(part.invalid) for part in self.finished),
        }
        self._write_manifest(content)

    def discard(self) -> None:
        """Remove the folder in one step. A process that is killed leaves all of it, or nothing under its name."""
        os.rename(self.folder, self._staging / self.folder.name)
        folder_to_disk(self.folder.parent)

    def _write_manifest(self, content: Mapping[str, Any]) -> None:
        staged = self._staging / MANIFEST
        write_file(staged, f"{json.dumps(content, indent=2)}\n".encode())
        self._put_in_place(staged)

    def _put_in_place(self, staged: Path) -> None:
        os.replace(staged, self.folder / staged.name)
        folder_to_disk(self.folder)

    def writer(self, columns: Columns) -> PartWriter:
        """Return a writer of the next part."""
        return PartWriter(self._staging / part_name(len(self.finished)), columns)

    def add(self, writer: PartWriter) -> None:
        """Finish the part of a writer, and give it its name in the folder."""
        self.finished.append(writer.close())
        self._put_in_place(writer.file)


class PartWriter:
    """Writes the chunks of a part, each as a row group."""

    def __init__(self, file: Path, columns: Columns) -> None:
        from pyarrow import parquet

        self.file, self._columns = file, columns
        self._writer = parquet.ParquetWriter(file, columns.schema, compression="zstd", use_dictionary=False)
        self._facts = PartFacts(0, 0, 0, (), "")

    def write(self, chunk: Chunk, vectors: Vectors, tokens: int, truncated: int) -> None:
        """Write a chunk.

        Args:
            chunk: The chunk.
            vectors: The vectors of its valid rows, in their order.
            tokens: The number of their tokens, without padding.
            truncated: The number of texts that were cut.
        """
        self._writer.write_table(self._columns.table(chunk, vectors))
        before = self._facts
        self._facts = PartFacts(
            before.rows + len(chunk.rows),
            before.tokens + tokens,
            before.truncated + truncated,
            (*before.invalid, *(row.problem for row in chunk.rows if row.problem)),
            chunk.part_sha256,
        )

    def close(self) -> PartFacts:
        """Write the end of the file, wait until it is on the disk, and return what it says of itself."""
        self._writer.add_key_value_metadata({_FACTS: json.dumps(asdict(self._facts))})
        self._writer.close()
        with self.file.open("rb", buffering=0) as stream:
            to_disk(stream)
        return self._facts


def part_name(number: int) -> str:
    """Return the name of a part, by its number from 0."""
    return f"part-{number:06}.parquet"


@contextmanager
def open_parts(folder: Path) -> Iterator[PartsFolder]:
    """Yield a folder of parts, locked for this process. It need not exist.

    Raises:
        TargetError: Another process writes it, or the system refused.
    """
    if not folder.parent.is_dir():
        raise TargetNotFoundError(f"The folder {folder.parent} that should hold the target does not exist.")
    try:
        with staging_directory(folder) as staging:
            staging.mkdir()
            yield PartsFolder(folder, staging)
    except OSError as error:
        where = Path(os.fsdecode(error.filename)) if error.filename else folder
        if isinstance(error, TargetError) or not {folder, folder.parent} & {where, *where.parents}:
            raise
        raise write_error(folder / where.name if where != folder else folder, error, _CONTINUE) from error


def _read_manifest(manifest: Path) -> dict[str, Any]:
    """Return the content of a manifest, whose settings are an object."""
    try:
        content = json.loads(manifest.read_bytes())
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        raise TargetError(f"{manifest} is not what this command writes. Choose another target.")
    return content


def _differences(found: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Return what differs between the settings of a manifest and those of this run."""
    expected = json.loads(json.dumps(settings))
    return [
        f"{name}: {short_repr(found.get(name))}, now {short_repr(expected.get(name))}"
        for name in {**expected, **found}
        if expected.get(name) != found.get(name)
    ]


def _check_settings(folder: Path, found: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse to continue with other settings, and name all that differ."""
    if differences := _differences(found, settings):
        raise TargetExistsError(
            f"{folder} was made in another way, and its parts would not fit together. It has "
            f"{'; '.join(differences)}. Choose another target, or delete {folder}."
        )


def _read_facts(folder: Path) -> list[PartFacts]:
    """Return the facts of all parts."""
    from pyarrow import ArrowException, parquet

    facts: list[PartFacts] = []
    while (file := folder / part_name(len(facts))).is_file():
        try:
            found = json.loads(parquet.read_metadata(file).metadata[_FACTS.encode()])
            facts.append(PartFacts(**{**found, "invalid": tuple(found["invalid"])}))
        except (ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise TargetError(f"{file} is not a part that this command wrote. Delete it and those after it.") from error
    return facts
