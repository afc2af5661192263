from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from albert_hub_bridge.formats import blocks
from albert_hub_bridge.formats.blocks import as_matrix, map_tensor
from albert_hub_bridge.formats.lazy_tensors import DTYPES
from albert_hub_bridge.formats.parallel_writer import ParallelWriter
from albert_hub_bridge.formats.safetensors import plan_header, read_header


@settings(deadline=None)
@given(
    shape=st.tuples(st.integers(1, 70), st.integers(1, 40)),
    transposed=st.booleans(),
    dtype=st.sampled_from(["float32", "float16", ml_dtypes.bfloat16, "float64"]),
    offset=st.integers(0, 20),
    block_bytes=st.sampled_from([1, 100, 1000, 1 << 20]),
)
def test_parallel_writer_writes_arrays_in_c_order(
    shape: tuple[int, int], transposed: bool, dtype: object, offset: int, block_bytes: int
) -> None:
    array = np.random.default_rng(0).standard_normal(shape).astype(dtype)  # type: ignore[call-overload]
    array = array.T if transposed else array
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_BLOCK_BYTES", block_bytes)
        patch.setattr(blocks, "_TILE_ROWS", 8)
        patch.setattr(blocks, "_TILE_COLUMNS", 4)
        file = Path(folder) / "file"
        file.write_bytes(b"x" * (offset + array.nbytes + 3))
        with ParallelWriter(file) as filler:
            filler.fill(array, offset)
        assert file.read_bytes() == b"x" * offset + array.tobytes() + b"xxx"
        mapped = map_tensor(file, offset, array.shape, array.dtype)
        assert mapped.tobytes() == array.tobytes()
        del mapped


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_as_matrix_does_not_copy(order: tuple[int, ...]) -> None:
    array = np.arange(60).reshape(3, 4, 5).transpose(order)
    matrix = as_matrix(array)
    assert matrix.ndim == 2
    assert np.shares_memory(matrix, array)
    np.testing.assert_array_equal(matrix.reshape(-1), array.reshape(-1))


def test_as_matrix_refuses_other_strides() -> None:
    with pytest.raises(ValueError, match="copy"):
        as_matrix(np.arange(60).reshape(3, 4, 5).transpose(2, 1, 0))


def test_parallel_writer_raises_errors_of_its_threads(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), ParallelWriter(tmp_path / "nowhere") as filler:
        filler.fill(np.zeros((2, 2)), 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_plan_header_plans_what_the_library_reads(dtype: str, tmp_path: Path) -> None:
    shapes = {"a": (2, 3), "ünicode": (5,), "scalar-like": (1, 1)}
    header, offsets = plan_header({name: (shape, dtype) for name, shape in shapes.items()})
    (tmp_path / "file").write_bytes(header)
    random = np.random.default_rng(0)
    arrays = {name: random.standard_normal(shape).astype(DTYPES[dtype]) for name, shape in shapes.items()}
    with ParallelWriter(tmp_path / "file") as filler:
        for name, array in arrays.items():
            filler.fill(array, offsets[name])
    loaded = safetensors.numpy.load_file(tmp_path / "file")
    assert {name: array.tobytes() for name, array in loaded.items()} == {n: a.tobytes() for n, a in arrays.items()}
    assert read_header(tmp_path / "file") == {name: (dtype, shapes[name], offsets[name]) for name in shapes}
    with safetensors.safe_open(tmp_path / "file", "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_read_header_finds_the_offsets_of_the_library(tmp_path: Path) -> None:
    arrays = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.ones(3, np.float16),
        "c": np.zeros(2, np.int64),
    }
    safetensors.numpy.save_file(arrays, tmp_path / "file")
    found = read_header(tmp_path / "file")
    assert {name: location.dtype for name, location in found.items()} == {"a": "float16", "b": "float32", "c": "I64"}
    for name, (_, shape, offset) in found.items():
        mapped = map_tensor(tmp_path / "file", offset, shape, arrays[name].dtype)
        np.testing.assert_array_equal(mapped, arrays[name])
