"""The file formats of corpora: text, CSV, JSON lines, Parquet, and the Arrow files of `datasets`.

Each format has two functions. One lists the columns of a file, the other yields its rows. Rows come in batches, each
with the share of the file that was read by then. pyarrow parses all formats but lines of text and of JSON: it does not
say which line is wrong.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

from albert_hub_bridge.errors import SourceError
from albert_hub_bridge.text import one_line


# Of the values of a column: null if no value says it, repeated if several columns have the name.
Kind = Literal["text", "integer", "null", "other", "repeated"]
Batch = tuple[list[tuple[Any, ...]], float]  # rows, with a value of each wanted column; and the share of the file

_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
_BATCH_ROWS = 1024
_CSV_BLOCK = 1 << 24  # bytes; no row may be longer


@dataclass(frozen=True, slots=True)
class Format:
    """A file format.

    Args:
        columns: Returns the columns of a file, by name.
        rows: Yields the rows of a file in batches, given the names of the wanted columns.
        unit: What a row is called in a message, with numbers from 1.
        may_be_compressed: Whether the whole file may be compressed, as its name says.
    """

    columns: Callable[[Path], Mapping[str, Kind]]
    rows: Callable[[Path, Sequence[str]], Iterator[Batch]]
    unit: Literal["line", "row"]
    may_be_compressed: bool


def format_of(file: Path) -> Format | None:
    """Return the format that the name of a file stands for, or None."""
    if file.suffix.lower() not in _COMPRESSIONS:
        return FORMATS.get(file.suffix.lower())
    found = FORMATS.get(Path(file.stem).suffix.lower())
    return found if found is not None and found.may_be_compressed else None


@contextmanager
def _reading(file: Path, place: Callable[[], str] = str) -> Iterator[None]:
    """Turn an error of pyarrow or of the system into one that names the file, and the place if it is known."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        encoding = "expected UTF-8. " if isinstance(error, UnicodeDecodeError) else ""
        detail = one_line(encoding + " ".join(str(error).split()), 500)
        raise SourceError(f"{file}{place()} cannot be read: {detail} Write it again, or leave it out.") from error


@contextmanager
def _opened(file: Path) -> Iterator[tuple[IO[bytes], Callable[[], float]]]:
    """Open a file that may be compressed, and yield it with a function that returns the share that was read."""
    import pyarrow as pa

    with file.open("rb") as raw:
        size = file.stat().st_size
        compression = _COMPRESSIONS.get(file.suffix.lower())
        stream: Any = raw if compression is None else io.BufferedReader(pa.CompressedInputStream(raw, compression))
        yield stream, lambda: raw.tell() / size if size else 1.0


# Lines of text.


def _text_columns(_: Path) -> Mapping[str, Kind]:
    return {"text": "text"}


def _text_rows(file: Path, _: Sequence[str]) -> Iterator[Batch]:
    with _reading(file), _opened(file) as (stream, share):
        while lines := [*islice(stream, _BATCH_ROWS)]:
            yield [(_line(line),) for line in lines], share()


def _line(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


# Lines of JSON.


def _json_columns(file: Path) -> Mapping[str, Kind]:
    kinds: dict[type, Kind] = {str: "text", int: "integer", type(None): "null"}
    found: dict[str, Kind] = {}
    for records, _ in islice(_json_records(file), 1):
        for name, value in (item for record in records for item in record.items()):
            if found.get(name, "null") == "null":
                found[name] = kinds.get(type(value), "other")
    return found


def _json_rows(file: Path, names: Sequence[str]) -> Iterator[Batch]:
    for records, share in _json_records(file):
        yield [tuple(record.get(name) for name in names) for record in records], share


def _json_records(file: Path) -> Iterator[tuple[list[dict[str, Any]], float]]:
    number = 0
    with _reading(file), _opened(file) as (stream, share):
        while lines := [*islice(stream, _BATCH_ROWS)]:
            yield [_json_record(file, number + index, line) for index, line in enumerate(lines, 1)], share()
            number += len(lines)


def _json_record(file: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{file}, line {number}: expected a JSON object, found no JSON ({error}).") from error
    if not isinstance(record, dict):
        raise SourceError(f"{file}, line {number}: expected a JSON object, found {type(record).__name__}.")
    return record


# CSV.


def _csv_columns(file: Path) -> Mapping[str, Kind]:
    with _csv_reader(file) as (reader, _):
        return _without_repeated((name, "text") for name in reader.schema.names)


def _csv_rows(file: Path, names: Sequence[str]) -> Iterator[Batch]:
    with _csv_reader(file, names) as (reader, share):
        for batch in reader:
            yield from _rows_of(batch, names, share())


@contextmanager
def _csv_reader(file: Path, names: Sequence[str] = ()) -> Iterator[tuple[Any, Callable[[], float]]]:
    """Yield a reader of some columns, or of all. Values are bytes, so that this package decodes and checks them."""
    import pyarrow as pa
    from pyarrow import csv

    with _reading(file), _opened(file) as (stream, share):
        reader = csv.open_csv(
            stream,
            read_options=csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK),
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                include_columns=list(dict.fromkeys(names)),
                column_types=dict.fromkeys(names, pa.binary()),
                check_utf8=False,
                strings_can_be_null=False,
            ),
        )
        yield reader, share


# Parquet and Arrow.


def _parquet_columns(file: Path) -> Mapping[str, Kind]:
    from pyarrow import parquet

    with _reading(file), parquet.ParquetFile(file) as opened:
        return _kinds(opened.schema_arrow)


def _parquet_rows(file: Path, names: Sequence[str]) -> Iterator[Batch]:
    from pyarrow import parquet

    done = 0
    with _reading(file, lambda: f", after row {done},"), parquet.ParquetFile(file) as opened:
        total = max(opened.metadata.num_rows, 1)
        for batch in opened.iter_batches(_BATCH_ROWS, columns=list(dict.fromkeys(names)), use_threads=False):
            done += len(batch)
            yield from _rows_of(batch, names, done / total)


def _arrow_columns(file: Path) -> Mapping[str, Kind]:
    import pyarrow as pa

    with _reading(file), pa.memory_map(str(file)) as mapped, pa.ipc.open_stream(mapped) as reader:
        return _kinds(reader.schema)


def _arrow_rows(file: Path, names: Sequence[str]) -> Iterator[Batch]:
    import pyarrow as pa

    with _reading(file), pa.memory_map(str(file)) as mapped, pa.ipc.open_stream(mapped) as reader:
        for batch in reader:
            yield from _rows_of(batch, names, mapped.tell() / mapped.size())


def _kinds(schema: Any) -> dict[str, Kind]:
    return _without_repeated((field.name, _kind(field.type)) for field in schema)


def _without_repeated(columns: Iterable[tuple[str, Kind]]) -> dict[str, Kind]:
    """Return the kinds of columns by name, where a name of several columns is `repeated`."""
    found: dict[str, Kind] = {}
    for name, kind in columns:
        found[name] = "repeated" if name in found else kind
    return found


def _kind(arrow_type: Any) -> Kind:
    from pyarrow import types

    if types.is_dictionary(arrow_type):
        return _kind(arrow_type.value_type)
    is_text = any(check(arrow_type) for check in (types.is_string, types.is_large_string, types.is_string_view))
    if types.is_null(arrow_type):
        return "null"
    return "text" if is_text else "integer" if types.is_integer(arrow_type) else "other"


def _rows_of(batch: Any, names: Sequence[str], share: float) -> Iterator[Batch]:
    """Yield the rows of a batch of pyarrow, a part at a time: a batch may be a whole file."""
    columns = [_as_bytes(batch.column(name)) for name in names]
    for start in range(0, len(batch), _BATCH_ROWS):
        values = [column.slice(start, _BATCH_ROWS).to_pylist() for column in columns]
        yield list(zip(*values, strict=True)), share


def _as_bytes(column: Any) -> Any:
    """Return a column of texts as bytes, so that this package decodes and checks them. Others stay as they are."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_string_view(column.type):
        return column.cast(pa.binary_view())
    if types.is_large_string(column.type):
        return column.cast(pa.large_binary())
    return column.cast(pa.binary()) if types.is_string(column.type) else column


FORMATS: Mapping[str, Format] = {
    ".txt": Format(_text_columns, _text_rows, "line", True),
    ".csv": Format(_csv_columns, _csv_rows, "row", True),
    ".jsonl": Format(_json_columns, _json_rows, "line", True),
    ".parquet": Format(_parquet_columns, _parquet_rows, "row", False),
    ".arrow": Format(_arrow_columns, _arrow_rows, "row", False),
}
