"""msgpack is the oracle: what it writes is found here at the right bytes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from albert_hub_bridge.errors import WeightsError
from albert_hub_bridge.formats.flax import read_flax
from albert_hub_bridge.formats.lazy_tensors import DTYPES
from tests.hostile.valid import flax_array


# From the smallest head of an extension to the largest, and shapes of every rank.
SHAPES = [(), (1,), (2,), (0, 3), (7, 9), (300,), (2, 1, 3, 1, 2, 1, 1, 4), (70_000,)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_are_mapped_from_where_they_lie(dtype: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {f"ä{number}": random.standard_normal(shape).astype(DTYPES[dtype]) for number, shape in enumerate(SHAPES)}
    tree = {"albert": {"a": {name: flax_array(array) for name, array in arrays.items()}}, "empty": {}}
    file = tmp_path / "flax_model.msgpack"
    file.write_bytes(msgpack.packb(tree))
    with ExitStack() as resources:
        found = read_flax(file, resources)
        assert list(found) == [f"albert/a/{name}" for name in arrays]
        for name, array in arrays.items():
            tensor = found[f"albert/a/{name}"]
            values = tensor.load()
            assert isinstance(values, np.memmap)
            assert (tensor.dtype, tensor.shape) == (dtype, array.shape)
            assert (values.dtype, values.tobytes()) == (array.dtype, array.tobytes())


ARRAY = flax_array(np.zeros(8, np.float32))
# fmt: off
REFUSED: dict[str, tuple[Any, str]] = {
    "a chunked array":     ({"a": {"__msgpack_chunked_array__": True, "shape": {"0": 8}, "chunks": {"0": ARRAY}}},
                            "where a map or an array should be, at 'a/__msgpack_chunked_array__'"),
    "another extension":   ({"a": msgpack.ExtType(3, bytes(40))},          "an extension of type 3 at 'a'"),
    "a slash":             ({"a/b": ARRAY},                                "a slash in the name 'a/b'"),
    "a long name":         ({"a" * 200: {"b" * 200: ARRAY}},               "a name of 401 characters"),
    "a name too long":     ({"a" * 301: ARRAY},                            "301 exceeds max_str_len(300)"),
    "bytes for a name":    ({b"a": ARRAY},                                 "1 exceeds max_bin_len(0)"),
    "nothing for a name":  ({None: ARRAY},                                 "NoneType instead of a name"),
    "a number for a name": ({1: ARRAY},                                    "int instead of a name"),
    "a list":              ({"a": [ARRAY]},                                "where a map or an array should be, at 'a'"),
    "a text":              ({"a": "b"},                                    "where a map or an array should be, at 'a'"),
    "9 dimensions":        ({"a": flax_array(np.zeros((1,) * 9, "f4"))},   "9 exceeds max_array_len(8)"),
    "a shape of floats":   ({"a": flax_array(np.zeros(8, "f4"), [8.0])},   "which is not a list of sizes"),
    "another size":        ({"a": flax_array(np.zeros(8, "f4"), [9])},     "a of float32 and shape (9,) in 32 bytes"),
}
# fmt: on


@pytest.mark.parametrize("what", REFUSED)
def test_other_trees_are_refused(what: str, tmp_path: Path) -> None:
    tree, found = REFUSED[what]
    (tmp_path / "flax_model.msgpack").write_bytes(msgpack.packb(tree))
    with ExitStack() as resources, pytest.raises(WeightsError) as error:
        read_flax(tmp_path / "flax_model.msgpack", resources)
    assert f"expected a tree of arrays in msgpack, found {found}" in str(error.value) or found in str(error.value)


def test_16_levels_are_read_and_17_are_refused(tmp_path: Path) -> None:
    tree: Any = ARRAY
    for _ in range(16):
        tree = {"a": tree}
    file = tmp_path / "flax_model.msgpack"
    with ExitStack() as resources:
        file.write_bytes(msgpack.packb(tree))
        assert list(read_flax(file, resources)) == ["/".join("a" * 16)]
        file.write_bytes(msgpack.packb({"a": tree}))
        with pytest.raises(WeightsError, match="more than 16 levels of names"):
            read_flax(file, resources)


def test_a_file_is_refused_wherever_it_is_cut_off(tmp_path: Path) -> None:
    whole = msgpack.packb({"a": {"b": ARRAY}, "c": ARRAY})
    file = tmp_path / "flax_model.msgpack"
    with ExitStack() as resources:
        for size in (1, 2, 3, 5, 7, 9, 11, 15, 25, 30, len(whole) - 32, len(whole) - 1):
            file.write_bytes(whole[:size])
            with pytest.raises(WeightsError, match="truncated at"):
                read_flax(file, resources)


def test_msgpack_in_pure_python_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "flax_model.msgpack"
    file.write_bytes(msgpack.packb({"a": {"b": flax_array(np.arange(6, dtype=np.float32).reshape(2, 3))}}))
    monkeypatch.setenv("MSGPACK_PUREPYTHON", "1")
    with ExitStack() as resources:
        (tensor,) = read_flax(file, resources).values()
        assert tensor.load().tolist() == [[0, 1, 2], [3, 4, 5]]
