from __future__ import annotations

import bz2
import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from albert_hub_bridge.errors import AlbertHubBridgeError, SourceError, SourceNotFoundError


pytest.importorskip("pyarrow", reason="corpora need the extra 'embed'")

import pyarrow as pa
from pyarrow import parquet

from albert_hub_bridge.corpora.reading import Corpus, Row


TEXTS = ["a bridge", "", "日本語 🙂", "two\nlines, with a comma", '"quoted"', " spaces "] + [
    f"text {n}" for n in range(3000)
]
RECORDS = [{"id": n, "text": text, "title": f"title {n}", "score": n / 2} for n, text in enumerate(TEXTS)]


def texts_of(source: str | Path, *columns: str) -> list[Any]:
    return [row.text for row in Corpus(source, columns).rows()]


def write_csv(file: Path) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, RECORDS[0])
        writer.writeheader()
        writer.writerows(RECORDS)


def write_jsonl(file: Path) -> None:
    file.write_text("".join(f"{json.dumps(record)}\n" for record in RECORDS), encoding="utf-8")


def write_parquet(file: Path) -> None:
    polars = pytest.importorskip("polars")
    polars.DataFrame(RECORDS).write_parquet(file, row_group_size=1000)


@pytest.mark.parametrize("write", [write_csv, write_jsonl, write_parquet])
def test_files_with_columns(write: Any, tmp_path: Path) -> None:
    file = tmp_path / f"corpus.{write.__name__.removeprefix('write_')}"
    write(file)
    assert texts_of(file) == TEXTS
    corpus = Corpus(file, ["text", "title"], ["id", "title"])
    rows = list(corpus.rows())
    assert corpus.share_read == 1
    of_csv = write is write_csv  # whose values are all texts
    assert corpus.keys == {"id": "text" if of_csv else "integer", "title": "text"}
    assert rows == [
        Row((each["text"], each["title"]), (str(each["id"]) if of_csv else each["id"], each["title"]))
        for each in RECORDS
    ]
    with pytest.raises(
        SourceError, match=r"has no column titel\. It has id, text, title, score\. Did you mean title\?"
    ):
        Corpus(file, ["titel"])
    with pytest.raises(SourceError, match="has no column number") as refused:
        Corpus(file, ["text"], ["number"])
    assert str(file) in str(refused.value)
    if not of_csv:
        with pytest.raises(SourceError, match="expected texts in the column score, found other values"):
            Corpus(file, ["score"])
        with pytest.raises(SourceError, match="expected texts or integers in the column score, found other values"):
            Corpus(file, ["text"], ["score"])


def test_lines_of_text(tmp_path: Path) -> None:
    lines = ["a bridge", "", "日本語", "no \x0b\u2028 line break"]
    (tmp_path / "a.txt").write_bytes("\n".join(lines).encode())
    (tmp_path / "b.TXT").write_bytes("\r\n".join([*lines, ""]).encode())
    (tmp_path / "empty.txt").touch()
    assert texts_of(tmp_path / "a.txt") == lines
    assert texts_of(tmp_path / "b.TXT") == lines
    assert texts_of(tmp_path) == [*lines, *lines]
    with pytest.raises(SourceError, match=r"has no column title\. It has text\."):
        Corpus(tmp_path / "a.txt", ["title"])


@pytest.mark.parametrize("write", [write_csv, write_jsonl])
def test_compressed_files(write: Any, tmp_path: Path) -> None:
    suffix = write.__name__.removeprefix("write_")
    write(tmp_path / "plain")
    content = (tmp_path / "plain").read_bytes()
    (tmp_path / f"a.{suffix}.gz").write_bytes(gzip.compress(content))
    (tmp_path / f"a.{suffix}.bz2").write_bytes(bz2.compress(content))
    assert texts_of(tmp_path / f"a.{suffix}.gz") == texts_of(tmp_path / f"a.{suffix}.bz2") == TEXTS
    (tmp_path / f"cut.{suffix}.gz").write_bytes(gzip.compress(content)[:-1000])
    with pytest.raises(SourceError, match=r"cut\.\w+\.gz cannot be read: "):
        texts_of(tmp_path / f"cut.{suffix}.gz")


def test_folders_of_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    dataset = datasets.Dataset.from_list(RECORDS)
    dataset.save_to_disk(tmp_path / "saved", num_shards=3)
    assert texts_of(tmp_path / "saved") == TEXTS
    dataset.select(range(9, 0, -2)).save_to_disk(tmp_path / "selected")
    assert texts_of(tmp_path / "selected") == [TEXTS[index] for index in range(9, 0, -2)]
    datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(tmp_path / "splits")
    with pytest.raises(SourceError, match=r"has the splits test, train\. Choose one: .*splits/test\."):
        Corpus(tmp_path / "splits")
    assert texts_of(tmp_path / "splits" / "train") == TEXTS
    file = tmp_path / "saved" / "data-00001-of-00003.arrow"
    file.write_bytes(file.read_bytes()[:10_000])
    with pytest.raises(SourceError, match=r"data-00001-of-00003\.arrow cannot be read: "):
        texts_of(tmp_path / "saved")


def test_folders_and_patterns_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b", "a/z", "c", "_hidden", ".hidden"):
        file = tmp_path / f"{name}.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"text": name}))
    (tmp_path / "README.md").write_text("another file")
    assert texts_of(tmp_path) == texts_of(f"{tmp_path}/**/[a-z]*.jsonl") == ["a/z", "b", "c"]
    assert texts_of(f"{tmp_path}/?.jsonl") == ["b", "c"]
    (tmp_path / "d.txt").write_text("a text")
    with pytest.raises(SourceError, match=r"several formats, such as c\.jsonl, d\.txt\. .*\*\*/\*\.jsonl'"):
        Corpus(tmp_path)


def test_files_of_a_corpus_have_the_same_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "id": 1}')
    (tmp_path / "b.jsonl").write_text('{"text": "b", "id": "2"}')
    assert texts_of(tmp_path) == ["a", "b"]
    with pytest.raises(
        SourceError, match=r"b\.jsonl: expected integer values, as in .*a\.jsonl in the column id, found text"
    ):
        Corpus(tmp_path, ["text"], ["id"])


def test_what_is_no_corpus_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    for source, message in (
        (tmp_path / "missing.txt", r"There is no file or folder .*missing\.txt"),
        (f"{tmp_path}/*.csv", "There is no file or folder"),
    ):
        with pytest.raises(SourceNotFoundError, match=message):
            Corpus(source)
    with pytest.raises(SourceError, match=r"s3://bucket/a\.jsonl is an address, .* Mount the storage as a folder, or"):
        Corpus("s3://bucket/a.jsonl")
    with pytest.raises(SourceError, match=r"model\.bin is of no known format\. .*\.txt, \.csv"):
        Corpus(tmp_path / "model.bin")
    with pytest.raises(SourceError, match=r"has no file whose name ends in \.txt"):
        Corpus(tmp_path)
    (tmp_path / "two.jsonl").write_text('{"title": "a", "body": "b"}')
    with pytest.raises(SourceError, match=r"has no column text\. Choose one with --column .*: title, body\."):
        Corpus(tmp_path / "two.jsonl")
    with pytest.raises(ValueError, match="one text, or two for a pair, not 3: a, b, c"):
        Corpus(tmp_path, ["a", "b", "c"])
    with pytest.raises(ValueError, match="The output has the column row already"):
        Corpus(tmp_path, keys=["row"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": "b"', r"a\.jsonl, line 2: expected a JSON object, found no JSON \("),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": "b"}', r"a\.jsonl, line 2: expected a JSON object, found no JSON"),
        ("a.jsonl", b'{"text": "a"}\n["b"]', r"a\.jsonl, line 2: expected a JSON object, found list"),
        ("a.csv", b"id,text\n1,a\n2,b,c\n", r"a\.csv cannot be read: .*Row #3: Expected 2 columns, got 3"),
        ("a.csv", b"", r"a\.csv cannot be read: Empty CSV file"),
        ("a.csv", "text\na\n".encode("utf-16"), r"a\.csv cannot be read: expected UTF-8\. "),
        ("a.csv", b"text,text\na,b\n", r"a\.csv: expected one column text, found several\. Rename"),
        ("a.jsonl", b'{"text": "a"}\n' + b"[" * 100_000, r"a\.jsonl, line 2: expected a JSON object, found no JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "\xff"}', r"a\.jsonl, line 2: expected a JSON object, found no JSON"),
        ("a.parquet", b"PAR1 and nothing else", r"a\.parquet cannot be read: Parquet magic bytes not found"),
    ],
)
def test_broken_files_name_the_place(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        texts_of(tmp_path / name, "text")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("[]", r"state\.json is not what datasets writes\. Save the dataset again"),
        ('{"_data_files": [{"filename": 7}]}', r"state\.json: expected names of files in its folder, found 7"),
        ('{"_data_files": [{"filename": "../a.arrow"}]}', r"names of files in its folder, found '\.\./a\.arrow'"),
        ('{"_data_files": [{"filename": "a\\u0000"}]}', r"names of files in its folder, found 'a"),
        ('{"_data_files": [{"filename": "missing.arrow"}]}', r"missing\.arrow cannot be read: "),
        ('{"_data_files": []}', r"state\.json lists no file"),
        ('{"_data_files": ' + "[" * 100_000, r"state\.json is not what datasets writes"),
        ("\udcff", r"state\.json is not what datasets writes"),
    ],
)
def test_a_folder_of_datasets_with_an_odd_state(state: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.arrow").touch()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_bytes(state.encode(errors="surrogateescape"))
    with pytest.raises(SourceError, match=message):
        Corpus(tmp_path / "saved")


def test_splits_without_a_split(tmp_path: Path) -> None:
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(SourceError, match=r"has a dataset_dict\.json, but no split\. Save the dataset again"):
        Corpus(tmp_path)


def test_a_parquet_file_that_is_broken_inside(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": TEXTS}), file, row_group_size=1024)
    content = bytearray(file.read_bytes())
    start = parquet.read_metadata(file).row_group(1).column(0).data_page_offset
    content[start : start + 100] = bytes(100)
    file.write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.parquet, after row 1024, cannot be read: "):
        texts_of(file)


def test_invalid_rows_name_their_place(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "a"}\n{"text": null}\n{"text": 3.5}\n{}\n{"text": "\\ud800"}\n{"text": ""}'
    )
    (tmp_path / "a.txt").write_bytes(b"a\nb\xff\n")
    parquet.write_table(pa.table({"text": pa.array(["a", None, "c"]).dictionary_encode()}), tmp_path / "a.parquet")

    def problems(name: str) -> list[str]:
        return [row.problem.removeprefix(f"{tmp_path}/") for row in Corpus(tmp_path / name).rows()]

    assert problems("a.jsonl") == [
        "",
        "a.jsonl, line 2, column text: expected a text, found null",
        "a.jsonl, line 3, column text: expected a text, found 3.5",
        "a.jsonl, line 4, column text: expected a text, found null",
        r"a.jsonl, line 5, column text: expected a text, found invalid UTF-8: '\ud800'",
        "",
    ]
    assert problems("a.txt") == ["", r"a.txt, line 2, column text: expected a text, found invalid UTF-8: b'b\xff'"]
    assert problems("a.parquet") == ["", "a.parquet, row 2, column text: expected a text, found null", ""]


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view"])
def test_a_parquet_text_that_is_not_utf8_is_an_invalid_row(kind: str, tmp_path: Path) -> None:
    texts = pa.Array.from_buffers(pa.string(), 2, pa.array([b"a", b"b\xff"]).buffers())
    binary = pa.array([b"a", b"b\xff"])
    casts = {"large_string": pa.large_string(), "string_view": pa.string_view()}
    if kind in casts:
        wide = {"large_string": pa.large_binary(), "string_view": pa.binary_view()}[kind]
        texts = pa.Array.from_buffers(casts[kind], 2, binary.cast(wide).buffers())
    parquet.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    (_, row) = Corpus(tmp_path / "a.parquet").rows()
    assert row.problem == rf"{tmp_path}/a.parquet, row 2, column text: expected a text, found invalid UTF-8: b'b\xff'"
    with pytest.raises(SourceError, match=r"a\.parquet, row 2, column text: expected a text, .*found invalid UTF-8"):
        list(Corpus(tmp_path / "a.parquet", keys=["text"]).rows())


def test_columns_of_one_name_are_refused_if_they_are_read(tmp_path: Path) -> None:
    two = [pa.array(["a"]), pa.array(["b"]), pa.array(["c"])]
    parquet.write_table(pa.Table.from_arrays(two, ["text", "name", "name"]), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("text,name,name\na,b,c\n")
    for name in ("a.parquet", "a.csv"):
        assert texts_of(tmp_path / name) == ["a"]
        for arguments in ([["name"]], [["text"], ["name"]]):
            with pytest.raises(SourceError, match=rf"{name}: expected one column name, found several\. Rename"):
                Corpus(tmp_path / name, *arguments)


def test_nulls_do_not_say_the_type_of_a_column(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": null, "id": null}\n{"text": "b", "id": 2, "title": "c"}')
    corpus = Corpus(tmp_path / "a.jsonl", keys=["id", "title"])
    assert corpus.keys == {"id": "integer", "title": "text"}
    assert [(row.text, row.keys) for row in corpus.rows()] == [(None, (None, None)), ("b", (2, "c"))]
    (tmp_path / "0.jsonl").write_text('{"text": null, "id": null, "title": null}')  # nulls alone, before a.jsonl
    parquet.write_table(pa.table({"text": [None, None], "id": [None, None]}), tmp_path / "nulls.parquet")
    assert Corpus(f"{tmp_path}/*.jsonl", keys=["id", "title"]).keys == corpus.keys
    for name in ("0.jsonl", "nulls.parquet"):
        corpus = Corpus(tmp_path / name, ["text"], ["id"])
        assert corpus.keys == {"id": "text"}
        assert all(row.text is None and "expected a text, found null" in row.problem for row in corpus.rows())


def test_one_name_is_no_list_of_names(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    for name in ("columns", "keys"):
        with pytest.raises(TypeError, match=rf"{name} is a list of names, not one name\. Pass {name}=\['text'\]"):
            Corpus(tmp_path / "a.txt", **{name: "text"})  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ['"7"', "7.5", "18446744073709551616", "true"])
def test_keys_of_another_type_are_refused(value: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        f'{{"text": "a", "id": 7}}\n{{"text": "b", "id": null}}\n{{"text": "c", "id": {value}}}'
    )
    rows = Corpus(tmp_path / "a.jsonl", keys=["id"]).rows()
    assert [next(rows).keys, next(rows).keys] == [(7,), (None,)]
    with pytest.raises(
        SourceError, match=r"a\.jsonl, line 3, column id: expected an integer of 64 bits, as in the rows"
    ):
        next(rows)


def test_without_pyarrow_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(AlbertHubBridgeError, match=r"pip install 'albert-hub-bridge\[embed\]'"):
        Corpus(tmp_path)
