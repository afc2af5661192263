"""h5py is the oracle: datasets of every storage have its values, and copies vanish."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from albert_hub_bridge.errors import WeightsError
from albert_hub_bridge.formats import hdf5
from albert_hub_bridge.formats.hdf5 import Hdf5Files, read_datasets


# fmt: off
STORAGE: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunks":     {"chunks": (3, 2)},
    "gzip":       {"chunks": (4, 5), "compression": "gzip", "shuffle": True, "fletcher32": True},
    "big-endian": {"dtype": ">f4"},
    "float16":    {"dtype": ">f2", "chunks": (1, 5)},
    "int8":       {"dtype": "i1", "chunks": True},
    "int64":      {"dtype": ">i8"},
}
# fmt: on


def _write(file: Path) -> None:
    random = np.random.default_rng(0)
    with h5py.File(file, "w") as opened:
        for name, options in STORAGE.items():
            opened.create_dataset(name, data=random.integers(-100, 100, (7, 5)), **{"dtype": "f4", **options})
        opened.create_dataset("scalar", data=np.array(4, ">i4"))


def test_datasets_have_the_values_that_h5py_reads(tmp_path: Path, temporary: Path) -> None:
    _write(tmp_path / "file.h5")
    with h5py.File(tmp_path / "file.h5") as opened, ExitStack() as resources:
        found = read_datasets(tmp_path / "file.h5", resources)
        assert set(found) == {*STORAGE, "scalar"}
        assert not any(temporary.iterdir())
        for name, tensor in found.items():
            expected = opened[name][()]
            assert tensor.dtype == expected.dtype.name
            np.testing.assert_array_equal(tensor.load(), expected)
            assert tensor.load().dtype.isnative
        assert len(list(temporary.iterdir())) == 1
    assert not any(temporary.iterdir())


def test_threads_share_one_copy(tmp_path: Path, temporary: Path) -> None:
    _write(tmp_path / "file.h5")
    with ExitStack() as resources, ThreadPoolExecutor(8) as pool:
        found = read_datasets(tmp_path / "file.h5", resources)
        values = list(pool.map(lambda name: found[name].load().sum(), ["gzip", "chunks"] * 20))
        assert len(set(values)) == 2
        assert len(list(temporary.iterdir())) == 1


def test_several_files_are_copied_apart(tmp_path: Path, temporary: Path) -> None:
    files = [tmp_path / "one.h5", tmp_path / "two.h5"]
    for value, file in enumerate(files):
        with h5py.File(file, "w") as opened:
            opened.create_dataset("x", data=np.full(3, value, ">f4"))
    with ExitStack() as resources:
        opened = Hdf5Files(files, resources)
        found = [opened.datasets(file)["x"].load().tolist() for file in files]
    assert found == [[0, 0, 0], [1, 1, 1]]


def test_copies_have_a_limit(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "file.h5", "w") as opened:
        opened.create_dataset("x", data=np.zeros(1_000_000, "f4"), chunks=(100_000,), compression="gzip")
    monkeypatch.setattr(hdf5, "_MAX_COPIED_BYTES", 100_000)
    with ExitStack() as resources:
        found = read_datasets(tmp_path / "file.h5", resources)
        with pytest.raises(
            WeightsError, match=r"too large +x +expected at most .* bytes in chunks .*, found 4,000,000"
        ):
            found["x"].load()
        assert not any(temporary.iterdir())


def test_damage_in_a_chunk_is_refused_and_leaves_nothing(tmp_path: Path, temporary: Path) -> None:
    file = tmp_path / "file.h5"
    with h5py.File(file, "w") as opened:
        dataset = opened.create_dataset("x", data=np.arange(64, dtype="f4"), chunks=(64,), fletcher32=True)
        offset = dataset.id.get_chunk_info(0).byte_offset
    content = bytearray(file.read_bytes())
    content[offset + 5] ^= 1
    file.write_bytes(content)
    with ExitStack() as resources:
        found = read_datasets(file, resources)
        for _ in range(2):
            with pytest.raises(
                WeightsError, match=r"expected a whole HDF5 file, found .* in x, when the values of x were copied"
            ):
                found["x"].load()
    assert not any(temporary.iterdir())


def test_an_answer_that_is_read_late_is_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "many.h5"
    with h5py.File(file, "w") as h5:
        for number in range(1500):  # an answer that does not fit into a pipe
            h5[f"layers/a_dataset_with_a_long_name_{number}"] = np.float32(number)
    monkeypatch.setattr(hdf5, "_LIST_SECONDS", 2)
    with ExitStack() as resources:
        files = Hdf5Files([file], resources)
        time.sleep(4)
        assert len(files.datasets(file)) == 1500


def test_a_file_that_is_replaced_before_its_values_are_copied_is_refused(tmp_path: Path) -> None:
    file, other = tmp_path / "a.h5", tmp_path / "other.h5"
    for path, dtype in ((file, ">f4"), (other, ">i4")):
        with h5py.File(path, "w") as h5:
            h5["a"] = np.ones(4, dtype)
    with ExitStack() as resources:
        tensor = read_datasets(file, resources)["a"]
        other.replace(file)
        with pytest.raises(WeightsError, match="other datasets than before: the file was changed"):
            tensor.load()


def test_a_full_disk_is_not_called_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.h5"
    with h5py.File(file, "w") as h5:
        h5["a"] = np.ones(4, ">f4")
    full = SimpleNamespace(total=1 << 20, used=1 << 20, free=0)
    monkeypatch.setattr("albert_hub_bridge.formats.hdf5.shutil.disk_usage", lambda _: full)
    with ExitStack() as resources, pytest.raises(OSError, match="No space left on device"):
        read_datasets(file, resources)["a"].load()
