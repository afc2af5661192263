"""Read the rows of a corpus: find its files, check their columns, and yield a text or pair for each row."""

from __future__ import annotations

import glob
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from albert_hub_bridge.choices import did_you_mean
from albert_hub_bridge.corpora.formats import FORMATS, Format, Kind, format_of
from albert_hub_bridge.errors import AlbertHubBridgeError, SourceError, SourceNotFoundError
from albert_hub_bridge.text import first_few, one_line, short_repr


_STANDARD_INPUT = Path("/dev/stdin")
_KNOWN = ".txt, .csv, .jsonl (also .gz, .bz2, .zst, .lz4) or .parquet"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a corpus.

    Args:
        text: The text or pair; None if it is invalid.
        keys: The values of the key columns.
        problem: Why it is invalid: the file, the place and what was found; empty if it is valid.
    """

    text: str | tuple[str, str] | None
    keys: tuple[str | int | None, ...]
    problem: str = ""


class Corpus:
    """The rows of files, in the order of the files.

    Args:
        source: A file, a folder, a pattern with `*`, or `-` for the standard input, with a text in each line. A folder
            is one that `datasets` saved, or its files of known formats are read in the order of their names.
        columns: The column of the texts, or two for pairs. By default the column `text`, or the only column.
        keys: Columns of texts or integers that are passed on.

    Raises:
        SourceError: There is no such file or column, or a file cannot be read.
        AlbertHubBridgeError: pyarrow is not installed.
        TypeError: `columns` or `keys` is one name, and no list.
        ValueError: There are more than two columns, or a key has the name of a column that is written.
    """

    def __init__(self, source: str | Path, columns: Sequence[str] = (), keys: Sequence[str] = ()) -> None:
        if importlib.util.find_spec("pyarrow") is None:
            raise AlbertHubBridgeError("Embedding needs pyarrow. Run: pip install 'albert-hub-bridge[embed]'.")
        for name, value in (("columns", columns), ("keys", keys)):
            if isinstance(value, str):
                raise TypeError(f"{name} is a list of names, not one name. Pass {name}=[{value!r}].")
        if len(columns) > 2:
            raise ValueError(f"A row has one text, or two for a pair, not {len(columns)}: {', '.join(columns)}.")
        if taken := sorted({"row", "embedding"} & set(keys)) or [key for key in keys if list(keys).count(key) > 1]:
            raise ValueError(f"The output has the column {taken[0]} already. Choose other keys, or rename the column.")
        self.files = _find_files(source)
        self._share_read = 0.0
        found = {file: format_.columns(file) for file, format_ in self.files.items()}
        first = next(iter(found.values()))
        self.columns = tuple(columns) or (_default_column(next(iter(found)), first),)
        self.keys: dict[str, Kind] = {}
        for key in keys:
            kinds = (present[key] for present in found.values() if key in present)
            self.keys[key] = next((kind for kind in kinds if kind not in ("null", "repeated")), "text")
        for file, present in found.items():
            self._check_columns(file, present)

    def _check_columns(self, file: Path, present: Mapping[str, Kind]) -> None:
        missing = [name for name in (*self.columns, *self.keys) if name not in present]
        if missing:
            there = first_few(list(present), 20) or "no columns"
            suggestion = did_you_mean(missing[0], {name: name for name in present})
            raise SourceError(f"{file} has no column {missing[0]}. It has {there}.{suggestion}")
        for name in (*self.columns, *self.keys):
            if present[name] == "repeated":
                raise SourceError(f"{file}: expected one column {name}, found several. Rename all but one of them.")
        for name in self.columns:
            if present[name] not in ("text", "null"):
                raise SourceError(f"{file}: expected texts in the column {name}, found {present[name]} values.")
        for name, kind in self.keys.items():
            if kind == "other" or present[name] not in (kind, "null"):
                expected = "texts or integers" if kind == "other" else f"{kind} values, as in {next(iter(self.files))}"
                raise SourceError(f"{file}: expected {expected} in the column {name}, found {present[name]} values.")

    @property
    def share_read(self) -> float:
        """The share of the files that `rows` has read, by their sizes, in [0, 1]. It is 0 for the standard input."""
        return self._share_read

    def rows(self) -> Iterator[Row]:
        """Yield all rows.

        Raises:
            SourceError: A file cannot be read, or a key is wrong. The message names the file and the place.
        """
        sizes = {file: file.stat().st_size for file in self.files}
        before, total = 0, max(sum(sizes.values()), 1)
        for file, found in self.files.items():
            numbers = count(1)
            for batch, share in found.rows(file, (*self.columns, *self.keys)):
                for values in batch:
                    yield self._row(values, f"{_name(file)}, {found.unit} {next(numbers)}")
                self._share_read = (before + share * sizes[file]) / total
            before += sizes[file]

    def _row(self, values: Sequence[Any], place: str) -> Row:
        keys = tuple(
            _key(value, kind, f"{place}, column {name}")
            for value, (name, kind) in zip(values[len(self.columns) :], self.keys.items(), strict=True)
        )
        texts = []
        for name, value in zip(self.columns, values, strict=False):
            text = _as_text(value)
            if text is None:
                return Row(None, keys, f"{place}, column {name}: expected a text, found {_describe(value)}")
            texts.append(text)
        return Row(texts[0] if len(texts) == 1 else (texts[0], texts[1]), keys)


def _as_text(value: Any) -> str | None:
    """Return a value as a text, or None if it is none. A text that UTF-8 cannot encode is none."""
    try:
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, str):
            value.encode()
            return value
    except UnicodeError:
        pass
    return None


def _describe(value: Any) -> str:
    if value is None:
        return "null"
    invalid = "invalid UTF-8: " if isinstance(value, bytes | str) else ""
    return invalid + one_line(short_repr(value), 100)


def _key(value: Any, kind: Kind, place: str) -> str | int | None:
    key = value if value is None or (kind == "integer" and type(value) is int) else _as_text(value)
    if kind == "integer" and key is not None and (isinstance(key, str) or not -(2**63) <= key < 2**63):
        key = None
    if key is None is not value:
        expected = "a text" if kind == "text" else "an integer of 64 bits"
        raise SourceError(f"{place}: expected {expected}, as in the rows before, found {_describe(value)}.")
    return key


def _default_column(file: Path, present: Mapping[str, Kind]) -> str:
    if "text" in present:
        return "text"
    if len(present) != 1:
        there = first_few(list(present), 20) or "none"
        raise SourceError(f"{file} has no column text. Choose one with --column (columns=[...]): {there}.")
    return next(iter(present))


# The files.


def _name(file: Path) -> str:
    return "the standard input" if file == _STANDARD_INPUT else str(file)


def _find_files(source: str | Path) -> dict[Path, Format]:
    """Return the files of a corpus with their formats, in the order in which they are read."""
    if source == "-":
        return {_STANDARD_INPUT: FORMATS[".txt"]}
    if "://" in str(source):
        raise SourceError(
            f"{source} is an address, and texts are read from files. Mount the storage as a folder, or copy the files."
        )
    path = Path(source).expanduser()
    if path.is_dir():
        return _files_of_folder(path)
    files = [path]
    if not path.exists():
        files = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if Path(name).is_file()]
        if not files:
            raise SourceNotFoundError(f"There is no file or folder {source}.")
    found = {file: format_of(file) for file in files}
    if unknown := [str(file) for file, format_ in found.items() if format_ is None]:
        raise SourceError(f"{unknown[0]} is of no known format. The name of a file ends in {_KNOWN}.")
    return {file: format_ for file, format_ in found.items() if format_ is not None}


def _files_of_folder(folder: Path) -> dict[Path, Format]:
    if (folder / "dataset_dict.json").is_file():
        splits = [entry.name for entry in sorted(folder.iterdir()) if entry.is_dir()]
        if not splits:
            raise SourceError(f"{folder} has a dataset_dict.json, but no split. Save the dataset again.")
        raise SourceError(f"{folder} has the splits {first_few(splits, 20)}. Choose one: {folder / splits[0]}.")
    if (folder / "state.json").is_file():  # of `Dataset.save_to_disk`
        return {folder / name: FORMATS[".arrow"] for name in _names_in_state(folder / "state.json")}
    names = sorted(path for path in folder.rglob("*") if path.is_file())
    visible = [path for path in names if not any(part[0] in "._" for part in path.relative_to(folder).parts)]
    found = {path: format_ for path in visible if (format_ := format_of(path)) is not None}
    if not found:
        raise SourceError(f"{folder} has no file whose name ends in {_KNOWN}.")
    if len({id(format_) for format_ in found.values()}) > 1:
        names_of = {path.suffix: path.name for path in found}
        raise SourceError(
            f"{folder} has files of several formats, such as {', '.join(names_of.values())}. Choose those of one: "
            f"'{folder}/**/*{next(iter(names_of))}'."
        )
    return found


def _names_in_state(file: Path) -> list[str]:
    """Return the names of the Arrow files that a `state.json` of `datasets` lists."""
    try:
        names = [each["filename"] for each in json.loads(file.read_bytes())["_data_files"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SourceError(f"{file} is not what datasets writes. Save the dataset again.") from error
    for name in names:  # a dataset has its files next to this one
        if not isinstance(name, str) or name != os.path.basename(name) or name in ("", ".", "..") or "\0" in name:
            raise SourceError(
                f"{file}: expected names of files in its folder, found {one_line(short_repr(name), 100)}. Save the "
                "dataset again."
            )
    if not names:
        raise SourceError(f"{file} lists no file. Save the dataset again.")
    return names
