from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from albert_hub_bridge import Embedder, embed
from albert_hub_bridge.cli import app
from albert_hub_bridge.corpora.reading import Corpus, Row
from albert_hub_bridge.disk.staging import staging_directory
from albert_hub_bridge.errors import SourceError, TargetError, TargetExistsError, TargetNotFoundError
from albert_hub_bridge.layouts.registry import write_checkpoint
from conversion.sample import CORPUS, SAMPLE_ARCHITECTURE, random_checkpoint


pytest.importorskip("pyarrow", reason="embed needs the extra 'embed'")

from pyarrow import parquet


TEXTS = [CORPUS[n % len(CORPUS)][: 5 + n] for n in range(60)]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    file = tmp_path / "corpus.jsonl"
    write(file, TEXTS)
    return file


def write(file: Path, texts: Sequence[Any]) -> None:
    rows = [{"id": 100 + n, "name": f"n{n}", "text": text} for n, text in enumerate(texts)]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def vectors_of(folder: Path) -> Any:
    return parquet.read_table(folder).column("embedding").combine_chunks()


@pytest.fixture(scope="module")
def expected(preset: Path) -> np.ndarray:
    vectors = Embedder(preset, device="cpu").encode(TEXTS)
    assert isinstance(vectors, np.ndarray)
    return vectors


def near(found: Any, expected: np.ndarray, tolerance: float = 1e-5) -> bool:
    return bool(np.abs(np.asarray(found) - expected).max() <= tolerance * np.abs(expected).max())


def test_parts_are_read_by_other_libraries(preset: Path, corpus: Path, expected: np.ndarray, tmp_path: Path) -> None:
    target = tmp_path / "out"
    report = embed(preset, corpus, target, keys=["id", "name"], part_rows=25)
    assert (report.rows, report.dimension, report.dtype, report.continued_from) == (60, 32, "float32", 0)
    assert sorted(contents(target)) == ["_embedding.json", *(f"part-00000{n}.parquet" for n in range(3))]
    assert json.loads((target / "_embedding.json").read_text())["complete"]["rows"] == 60

    table = parquet.read_table(target)
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("row", "int64"),
        ("id", "int64"),
        ("name", "string"),
        ("embedding", "fixed_size_list<element: float>[32]"),
    ]
    assert table.column("row").to_pylist() == list(range(60))
    assert near(table.column("embedding").to_pylist(), expected)

    polars, duckdb = pytest.importorskip("polars"), pytest.importorskip("duckdb")
    datasets = pytest.importorskip("datasets")
    frame = polars.read_parquet(target / "*.parquet")
    assert frame["id"].to_list() == list(range(100, 160))
    assert near(frame["embedding"].to_numpy(), expected)
    rows = duckdb.sql(f"SELECT name, embedding FROM '{target}/*.parquet' WHERE row = 31").fetchall()
    assert rows[0][0] == "n31"
    assert near(rows[0][1], expected[31])
    loaded = datasets.load_dataset(
        "parquet", data_files=f"{target}/*.parquet", cache_dir=str(tmp_path / "cache"), split="train"
    )
    assert near(loaded["embedding"][:], expected)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_npy_file(preset: Path, corpus: Path, expected: np.ndarray, tmp_path: Path, dtype: Any) -> None:
    target = tmp_path / "vectors.npy"
    embed(preset, corpus, target, part_rows=25, output_dtype=dtype)
    found = np.load(target, mmap_mode="r")
    assert (found.shape, found.dtype) == ((60, 32), dtype)
    assert near(found, expected, 1e-5 if dtype == "float32" else 1e-3)
    assert sorted(os.listdir(tmp_path)) == ["corpus.jsonl", "vectors.npy"]
    with pytest.raises(TargetExistsError, match=r"vectors\.npy exists\. Choose another target, or delete it"):
        embed(preset, corpus, target)


def stopped_before_the_parts_are_removed(preset: Path, corpus: Path, folder: Path) -> tuple[Path, Path]:
    """Return the file and the parts that a run leaves that is killed after it wrote the file."""
    embed(preset, corpus, folder / "vectors.npy")
    embed(preset, corpus, folder / "vectors.npy.parts")
    return folder / "vectors.npy", folder / "vectors.npy.parts"


def test_a_run_that_wrote_the_npy_file_ends(preset: Path, corpus: Path, tmp_path: Path) -> None:
    target, _ = stopped_before_the_parts_are_removed(preset, corpus, tmp_path)
    written = target.read_bytes()
    assert embed(preset, corpus, target).continued_from == 60
    assert target.read_bytes() == written
    assert sorted(os.listdir(tmp_path)) == ["corpus.jsonl", "vectors.npy"]


@pytest.mark.parametrize("other", [b"notes", b"cut", np.zeros((60, 31), "float32"), np.zeros((60, 32), "float16")])
def test_another_npy_file_is_not_taken_for_the_output(preset: Path, corpus: Path, tmp_path: Path, other: Any) -> None:
    target, folder = stopped_before_the_parts_are_removed(preset, corpus, tmp_path)
    parts = contents(folder)
    if isinstance(other, np.ndarray):
        np.save(target, other)
    else:
        target.write_bytes(other if other == b"notes" else target.read_bytes()[:-1])
    before = target.read_bytes()
    with pytest.raises(TargetExistsError, match=r"vectors\.npy exists, and is not the file of .*parts\. Move it"):
        embed(preset, corpus, target)
    assert (target.read_bytes(), contents(folder)) == (before, parts)


def test_an_npy_file_that_appears_during_a_run_stays(preset: Path, corpus: Path, tmp_path: Path) -> None:
    target = tmp_path / "vectors.npy"
    with pytest.raises(TargetExistsError):
        embed(preset, corpus, target, progress=lambda _: np.save(target, np.zeros((60, 32), "float32")))
    assert not np.load(target).any()
    assert (tmp_path / "vectors.npy.parts" / "part-000000.parquet").is_file()


def test_float16_parts(preset: Path, corpus: Path, expected: np.ndarray, tmp_path: Path) -> None:
    embed(preset, corpus, tmp_path / "out", output_dtype="float16")
    found = vectors_of(tmp_path / "out")
    assert str(found.type) == "fixed_size_list<element: halffloat>[32]"
    assert near(found.to_pylist(), expected, 1e-3)


def test_a_vector_of_each_token(preset: Path, tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl", [*TEXTS[:9], None, "", *TEXTS[9:]])
    embed(preset, tmp_path / "corpus.jsonl", tmp_path / "out", pooling="none", part_rows=25, skip_invalid=True)
    found = vectors_of(tmp_path / "out").to_pylist()
    alone = Embedder(preset, device="cpu", pooling="none").encode([*TEXTS[:9], "", *TEXTS[9:]])
    assert found.pop(9) is None
    assert [len(each) for each in found] == [len(each) for each in alone]
    assert len(found[9]) == 2  # [CLS] [SEP]
    assert all(near(ours, theirs) for ours, theirs in zip(found, alone, strict=True))
    with pytest.raises(ValueError, match=r"A \.npy file has one vector of each text"):
        embed(preset, tmp_path / "corpus.jsonl", tmp_path / "out.npy", pooling="none")


def test_pairs(preset: Path, corpus: Path, tmp_path: Path) -> None:
    embed(preset, corpus, tmp_path / "out", columns=["text", "name"])
    pairs = [(text, f"n{n}") for n, text in enumerate(TEXTS)]
    expected = Embedder(preset, device="cpu").encode(pairs)
    assert near(vectors_of(tmp_path / "out").to_pylist(), np.asarray(expected))


def test_invalid_rows(preset: Path, tmp_path: Path) -> None:
    texts = [*TEXTS[:30], None, *TEXTS[30:], 7]
    file = tmp_path / "corpus.jsonl"
    write(file, texts)
    with pytest.raises(
        SourceError, match=r"corpus\.jsonl, line 31, column text: expected a text, found null\. .*--skip-in"
    ):
        embed(preset, file, tmp_path / "out", part_rows=25)
    report = embed(preset, file, tmp_path / "out", part_rows=25, skip_invalid=True)
    assert report.continued_from == 25  # what was written before the invalid row stays
    assert [problem.rpartition(", column")[0] for problem in report.invalid] == [f"{file}, line 31", f"{file}, line 62"]
    assert "2 rows have no vector:" in str(report)
    found = vectors_of(tmp_path / "out").to_pylist()
    assert [n for n, vector in enumerate(found) if vector is None] == [30, 61]
    embed(preset, file, tmp_path / "out.npy", part_rows=25, skip_invalid=True)
    array = np.load(tmp_path / "out.npy")
    assert np.isnan(array).all(1).nonzero()[0].tolist() == [30, 61]
    assert np.array_equal(np.delete(array, [30, 61], 0), [vector for vector in found if vector is not None])


def test_invalid_rows_alone(vocabulary: bytes, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    write_checkpoint(random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary), model, "transformers")
    write(tmp_path / "corpus.jsonl", [None, None])
    for target, options in (("out", {}), ("tokens", {"pooling": "none"})):
        report = embed(model, tmp_path / "corpus.jsonl", tmp_path / target, skip_invalid=True, **options)
        assert (report.rows, len(report.invalid), report.tokens) == (2, 2, 0)
        assert vectors_of(tmp_path / target).to_pylist() == [None, None]


def test_a_run_that_was_refused_before_its_first_part_takes_other_settings(preset: Path, tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl", [None, *TEXTS])
    with pytest.raises(SourceError, match="line 1, column text"):
        embed(preset, tmp_path / "corpus.jsonl", tmp_path / "out")
    report = embed(preset, tmp_path / "corpus.jsonl", tmp_path / "out", columns=["name"], pooling="cls")
    assert (report.rows, report.continued_from) == (61, 0)
    manifest = json.loads((tmp_path / "out" / "_embedding.json").read_text())
    assert (manifest["settings"]["columns"], manifest["settings"]["pooling"]) == (["name"], "cls")
    with pytest.raises(TargetExistsError, match="was made in another way"):
        embed(preset, tmp_path / "corpus.jsonl", tmp_path / "out", skip_invalid=True)


def test_an_interrupted_run_continues(preset: Path, corpus: Path, tmp_path: Path) -> None:
    embed(preset, corpus, tmp_path / "whole", part_rows=10, keys=["id"])

    def interrupt(_: Any) -> None:
        if len(list((tmp_path / "out").glob("*.parquet"))) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(preset, corpus, tmp_path / "out", part_rows=10, keys=["id"], progress=interrupt)
    written = contents(tmp_path / "out")
    assert sorted(written) == ["_embedding.json", "part-000000.parquet", "part-000001.parquet"]
    assert "complete" not in json.loads(written["_embedding.json"])
    report = embed(preset, corpus, tmp_path / "out", part_rows=10, keys=["id"])
    assert (report.rows, report.continued_from) == (60, 20)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.parquet")}
    assert embed(preset, corpus, tmp_path / "out", part_rows=10, keys=["id"]).continued_from == 60
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert sorted(os.listdir(tmp_path)) == ["corpus.jsonl", "out", "whole"]


def test_the_time_to_read_finished_parts_does_not_count(
    preset: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0.0

    def rows(self: Corpus) -> Iterator[Row]:  # a second for each row
        nonlocal clock
        for row in read(self):
            clock += 1
            yield row

    def stop(_: Any) -> None:
        if (tmp_path / "out" / "part-000003.parquet").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(preset, corpus, tmp_path / "out", part_rows=10, progress=stop)
    read = Corpus.rows
    monkeypatch.setattr(Corpus, "rows", rows)
    monkeypatch.setattr("albert_hub_bridge.commands.embed.time.monotonic", lambda: clock)
    report = embed(preset, corpus, tmp_path / "out", part_rows=10)
    assert (report.continued_from, report.seconds) == (40, 10)  # from the 50th row, which ends a chunk, to the 60th


def test_another_run_into_the_same_target_is_refused(
    preset: Path, vocabulary: bytes, corpus: Path, tmp_path: Path
) -> None:
    target, other_model = tmp_path / "out", tmp_path / "model"
    other_model.mkdir()
    write_checkpoint(random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary, seed=1), other_model, "keras")
    embed(preset, corpus, target, part_rows=25, pooling="mean")
    before = contents(target)
    for model, options, differences in (
        (preset, {"pooling": "cls"}, ["pooling: 'mean', now 'cls'"]),
        (preset, {"part_rows": 30, "dtype": "bfloat16"}, ["part_rows: 25, now 30", "dtype: 'float32', now 'bfloat16'"]),
        (preset, {"keys": ["id"]}, ["keys: {}, now {'id': 'integer'}"]),
        (preset, {"columns": ["name"]}, ["columns: ['text'], now ['name']"]),
        (preset, {"output_dtype": "float16"}, ["output_dtype: 'float32', now 'float16'"]),
        (other_model, {}, ["model_sha256: '"]),
    ):
        with pytest.raises(TargetExistsError, match="was made in another way") as refused:
            embed(model, corpus, target, **{"part_rows": 25, **options})  # type: ignore[arg-type]
        found = str(refused.value)
        assert all(difference in found for difference in differences)
        assert found.count(", now ") == len(differences)

    other = tmp_path / "other.jsonl"
    for texts, how in (
        ([*TEXTS[:30], "another text", *TEXTS[31:]], r"The rows up to 49 are not those of part 1\."),
        ([*TEXTS, "one more"], r"The rows up to 60 are not those of part 2\."),
        (TEXTS[:25], r"The texts end before the last part\."),
    ):
        write(other, texts)
        with pytest.raises(TargetExistsError, match=rf"was made from other texts or keys\. {how}"):
            embed(preset, other, target, part_rows=25)
    assert contents(target) == before


def test_targets_that_are_refused(preset: Path, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    (tmp_path / "file").touch()
    for name in ("folder", "file"):
        with pytest.raises(TargetExistsError, match=rf"{name} exists and has no _embedding\.json"):
            embed(preset, corpus, tmp_path / name)
    with pytest.raises(TargetError, match=r"gs://bucket/out is an address, .* Mount the storage as a folder, or copy"):
        embed(preset, corpus, "gs://bucket/out")
    with pytest.raises(TargetNotFoundError, match=r"The folder .*missing that should hold the target does not exist"):
        embed(preset, corpus, tmp_path / "missing" / "out")
    embed(preset, corpus, tmp_path / "out")
    (tmp_path / "out" / "part-000000.parquet").write_bytes(b"PAR1")
    with pytest.raises(TargetError, match=r"part-000000\.parquet is not a part that this command wrote"):
        embed(preset, corpus, tmp_path / "out")
    for content in ("[]", '{"settings": [1]}', "[" * 100_000):
        (tmp_path / "out" / "_embedding.json").write_text(content)
        with pytest.raises(TargetError, match=r"_embedding\.json is not what this command writes"):
            embed(preset, corpus, tmp_path / "out")


def test_one_of_two_runs_wins(preset: Path, corpus: Path, tmp_path: Path) -> None:
    with staging_directory(tmp_path / "out"), pytest.raises(TargetError, match=r"Another process is writing .*out"):
        embed(preset, corpus, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_empty_corpus(preset: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    assert embed(preset, tmp_path / "empty.txt", tmp_path / "out").rows == 0
    embed(preset, tmp_path / "empty.txt", tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").shape == (0, 32)


def test_command(preset: Path, corpus: Path, tmp_path: Path) -> None:
    arguments = [
        "embed",
        str(preset),
        str(corpus),
        str(tmp_path / "out"),
        "--key",
        "id",
        "--pooling",
        "CLS",
        "--device",
    ]
    run = CliRunner().invoke(app, [*arguments, "cpu"])
    assert run.exit_code == 0
    assert re.search(
        r"vectors +60 of 32 float32 \(cls\) *\ntokens +[\d,]+ *\nspeed +[\d,]+ texts/s, [\d,]+ tokens/s, ", run.output
    )
    report = json.loads(CliRunner().invoke(app, [*arguments, "cpu", "--json"]).stdout)
    assert (report["rows"], report["continued_from"], report["pooling"], report["invalid"]) == (60, 60, "cls", [])
    run = CliRunner().invoke(app, [*arguments, "cpu", "--max-length", "1000"])
    assert run.exit_code == 2
    assert "max_length is at most 64" in run.output


def test_what_libraries_print_is_not_in_the_report(
    preset: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noisy(*arguments: Any, **options: Any) -> Any:
        print("a message of Ray")
        return embed(*arguments, **options)

    monkeypatch.setattr("albert_hub_bridge.commands.embed.embed", noisy)
    run = CliRunner().invoke(app, ["embed", str(preset), str(corpus), str(tmp_path / "out"), "--json"])
    assert json.loads(run.stdout)["rows"] == 60
    assert run.stderr == "a message of Ray\n"


def test_standard_input(preset: Path, corpus: Path, tmp_path: Path) -> None:
    embed(preset, corpus, tmp_path / "expected.npy")
    arguments = [sys.executable, "-m", "albert_hub_bridge", "embed", str(preset), "-", str(tmp_path / "out.npy")]
    subprocess.run(arguments, input="\n".join(TEXTS).encode(), check=True, capture_output=True)
    assert np.array_equal(np.load(tmp_path / "out.npy"), np.load(tmp_path / "expected.npy"))


def test_ctrl_c_does_not_wait_for_the_standard_input(preset: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "albert_hub_bridge", "embed", str(preset), "-", str(tmp_path / "out")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "out" / "_embedding.json").exists():  # it reads after that
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr is not None
        assert "Interrupted. The parts that are written stay" in process.stderr.read()
    assert sorted(os.listdir(tmp_path)) == ["out"]
