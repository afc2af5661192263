"""Refuse hostile HDF5 files: links, storage, types, shapes, names, values and superblocks, in every kind of file."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.hostile.conftest import Refused, expect
from tests.hostile.valid import edit, in_bytes, in_hdf5, put


KERNEL, BIAS, EMBEDDING = "layers/dense/vars/0", "layers/dense/vars/1", "layers/reversible_embedding/vars/0"
QUERY = "layers/transformer_encoder/_self_attention_layer/query_dense"
Change = Callable[[h5py.File], object]


def _replaced(name: str, new: Any) -> Change:
    """Replace an object by a link, a group or a type."""

    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file[name] = new

    return change


def _moved(file: h5py.File, name: str, place: str, link: Any) -> None:
    file.move(name, place)
    file[name] = link


def _alias(name: str, other: str) -> Change:
    def change(file: h5py.File) -> None:
        if name in file:
            del file[name]
        file[name] = file[other]

    return change


def _nested(file: h5py.File, levels: int) -> None:
    group = file
    for _ in range(levels):
        group = group.create_group("g")
    group["x"] = np.zeros(1, np.float32)


EXTERNAL, SOFT = h5py.ExternalLink, h5py.SoftLink
LINKS: dict[str, Change] = {
    "a soft link to a dataset": _replaced(BIAS, SOFT("/layers/dense_1/vars/1")),
    "a soft link to nothing": _replaced(BIAS, SOFT("/nowhere")),
    "a relative soft link": _replaced(BIAS, SOFT("0")),
    "a soft link to itself": _replaced(BIAS, SOFT(f"/{BIAS}")),
    "a soft link to a group": lambda f: _moved(f, "layers/dense", "layers/elsewhere", SOFT("/layers/elsewhere")),
    "a soft link at the root": lambda f: _moved(f, "layers", "elsewhere", SOFT("/elsewhere")),
    "a soft link within a path": lambda f: _moved(f, QUERY, "layers/q", SOFT("/layers/q")),
    "a soft link that is not read": _replaced("extra", SOFT("/layers")),
    "an external link to a dataset": _replaced(BIAS, EXTERNAL("other.h5", "/x")),
    "an external link to a group": _replaced("layers/dense", EXTERNAL("other.h5", "/layers/dense")),
    "an external link at the root": _replaced("layers", EXTERNAL("other.h5", "/layers")),
    "an external link to itself": _replaced(BIAS, EXTERNAL("model.weights.h5", "/layers/dense_1/vars/1")),
    "an external link upwards": _replaced(BIAS, EXTERNAL("../../secret.h5", "/x")),
    "an absolute external link": _replaced(BIAS, EXTERNAL("/etc/passwd", "/x")),
    "an external link that is not read": _replaced("layers/extra", EXTERNAL("other.h5", "/")),
    "an external link with a driver's name": _replaced(BIAS, EXTERNAL("ros3://host/secret.h5", "/x")),
    "two names of one dataset": _alias(BIAS, "layers/dense_1/vars/1"),
    "a second name of a dataset": _alias("layers/extra", BIAS),
    "two names of one group": _alias("layers/transformer_encoder_1", "layers/transformer_encoder"),
    "a second name of a group": _alias("layers/copy", "layers/dense"),
    "a group in itself": _alias("layers/dense/self", "layers/dense"),
    "the root in a group": _alias("layers/root", "/"),
    "two groups in each other": lambda f: (
        _alias("layers/dense/a", "layers/dense_1")(f),
        _alias("layers/dense_1/b", "layers/dense")(f),
    ),
    "a named type": _replaced("layers/extra", np.dtype("f4")),
    "a named type for a dataset": _replaced(BIAS, np.dtype("f4")),
    "a group for a dataset": lambda f: (f.__delitem__(BIAS), f.create_group(BIAS)),
    "40 levels": lambda f: _nested(f, 40),
    "a very long name": lambda f: f.create_dataset("x" * 5000, data=np.zeros(1)),
}


def _external(file: h5py.File, parts: int) -> None:
    size = file[KERNEL].shape[0] * file[KERNEL].shape[1] * 4
    files = [(f"/etc/part{number}", 0, size // parts) for number in range(parts)]
    put(file, KERNEL, data=None, shape=(6, 8), dtype="f4", external=files)


def _virtual(file: h5py.File, where: str) -> None:
    layout = h5py.VirtualLayout((8,), "float32")
    layout[:] = h5py.VirtualSource(where, "x" if where != "." else "layers/dense_1/vars/1", (8,))
    del file[BIAS]
    file.create_virtual_dataset(BIAS, layout)


def _low_level(
    file: h5py.File, name: str, shape: tuple[int, ...], change: Callable[[Any], object], kind: Any = None
) -> None:
    """Create a dataset with a property list that h5py's high-level functions do not offer."""
    del file[name]
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    change(layout)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, name.encode(), kind or h5py.h5t.IEEE_F32LE, space, layout)


def _partly_written(file: h5py.File) -> None:
    put(file, EMBEDDING, data=None, shape=(90, 6), dtype="f4", chunks=(30, 6))[:30] = 1


def _foreign_filter(code: int) -> Callable[[Any], object]:
    def change(layout: Any) -> None:
        layout.set_chunk((6, 8))
        layout.set_filter(code, h5py.h5z.FLAG_OPTIONAL, (1, 2))

    return change


STORAGE: dict[str, Change] = {
    "values in another file": lambda f: _external(f, 1),
    "values in several files": lambda f: _external(f, 4),
    "a virtual dataset": lambda f: _virtual(f, "/etc/secret.h5"),
    "a virtual dataset of its own file": lambda f: _virtual(f, "."),
    "values that were never written": lambda f: put(f, KERNEL, data=None, shape=(6, 8), dtype="f4"),
    "chunks that were never written": lambda f: put(f, KERNEL, data=None, shape=(6, 8), dtype="f4", chunks=(3, 4)),
    "chunks of which some were written": _partly_written,
    "the filter lzf": lambda f: put(f, KERNEL, compression="lzf"),
    "the filter scale-offset": lambda f: put(f, KERNEL, scaleoffset=2),
    "a filter of a plugin": lambda f: _low_level(f, KERNEL, (6, 8), _foreign_filter(32001)),
    "an unknown filter": lambda f: _low_level(f, KERNEL, (6, 8), _foreign_filter(300)),
    "the filter n-bit": lambda f: _low_level(f, KERNEL, (6, 8), _foreign_filter(5)),
    "a petabyte that was never written": lambda f: put(f, KERNEL, data=None, shape=(1 << 24, 1 << 24), dtype="f4"),
    "a petabyte in chunks": lambda f: put(f, KERNEL, data=None, shape=(1 << 24, 1 << 24), dtype="f4", chunks=(64, 64)),
    "a chunk of 256 MB": lambda f: put(f, KERNEL, data=None, shape=(8192, 8192), dtype="f4", chunks=(8192, 8192)),
    "no values at all": lambda f: put(f, KERNEL, h5py.Empty("f4")),
}


def _odd_float(file: h5py.File) -> None:
    """Create a dataset of 32-bit floats with the exponent of a 64-bit float."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(31, 20, 11, 0, 20)
    kind.set_ebias(1023)
    _low_level(file, BIAS, (8,), lambda layout: layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY), kind)


def _opaque(name: Any) -> Change:
    def change(file: h5py.File) -> None:
        dataset = put(file, BIAS, np.zeros(8, "V2"))
        if name is not None:
            dataset.attrs["dtype"] = name

    return change


def _scaled(file: h5py.File, shape: tuple[int, ...] = (8,), dtype: str = "f4") -> None:
    """Create an int8 kernel with scales of a wrong shape or dtype."""
    put(file, KERNEL, np.ones((6, 8), "i1"))
    put(file, KERNEL[:-1] + "2", np.ones(shape, dtype))


TYPES: dict[str, Change] = {
    **{
        f"of {kind}": lambda f, kind=kind: put(f, BIAS, np.zeros(8, kind))
        for kind in ("f8", ">f8", "i1", "u1", "i4", "i8", "u8", "c8", "?", "S4", "V4", "V16")
    },
    "of a compound": lambda f: put(f, BIAS, np.zeros(8, [("a", "f4"), ("b", "i4")])),
    "of texts": lambda f: put(f, BIAS, np.array(["x"] * 8, dtype=object), dtype=h5py.string_dtype()),
    "of arrays": lambda f: put(f, BIAS, None, data=None, shape=(8,), dtype=np.dtype(("f4", (2,)))),
    "of lists": lambda f: put(f, BIAS, None, data=None, shape=(8,), dtype=h5py.vlen_dtype("f4"), chunks=(8,)),
    "of references": lambda f: put(
        f, BIAS, np.array([f["layers"].ref] * 8, dtype=h5py.ref_dtype), dtype=h5py.ref_dtype
    ),
    "of an enumeration": lambda f: put(f, BIAS, np.zeros(8, "i1"), dtype=h5py.enum_dtype({"a": 0}, "i1")),
    "of an odd float": _odd_float,
    "of two bytes without a name": _opaque(None),
    "of two bytes of another name": _opaque("float16"),
    "of two bytes named by a number": _opaque(7),
    "of two bytes named by many": _opaque(["bfloat16", "bfloat16"]),
    "mixed with float16": lambda f: put(f, BIAS, np.zeros(8, "f2")),
    "int8 without a scale": lambda f: put(f, KERNEL, np.zeros((6, 8), "i1")),
    **{f"int8 with a scale of {d}": partial(_scaled, dtype=d) for d in ("u1", "i4", "f8")},
    "int8 with a scale of many": partial(_scaled, shape=(5, 1, 8)),
}

SHAPES: dict[str, Change] = {
    "transposed": lambda f: put(f, KERNEL, np.zeros((8, 6), "f4")),
    "with a row too few": lambda f: put(f, EMBEDDING, np.zeros((89, 6), "f4")),
    "with a row too many": lambda f: put(f, EMBEDDING, np.zeros((91, 6), "f4")),
    "with one dimension more": lambda f: put(f, BIAS, np.zeros((1, 8), "f4")),
    "a scalar": lambda f: put(f, BIAS, np.float32(1)),
    "without elements": lambda f: put(f, BIAS, np.zeros((0,), "f4")),
    "with heads merged": lambda f: put(f, f"{QUERY}/vars/0", np.zeros((8, 8), "f4")),
    "of 32 dimensions": lambda f: put(f, BIAS, np.zeros((1,) * 31 + (8,), "f4")),
    "grown": lambda f: put(f, BIAS, np.zeros(16, "f4"), maxshape=(None,)),
}


def _in_bytes(file: h5py.File, name: bytes) -> None:
    space = h5py.h5s.create_simple((3,))
    dataset = h5py.h5d.create(file.id, name, h5py.h5t.IEEE_F32LE, space)
    h5py.Dataset(dataset)[...] = 1


NAMES: dict[str, Change] = {
    "no kernel": lambda f: f.__delitem__(KERNEL),
    "no layer": lambda f: f.__delitem__("layers/transformer_encoder_1"),
    "no layers": lambda f: f.__delitem__("layers"),
    "another counter": lambda f: f.move("layers/transformer_encoder_1", "layers/transformer_encoder_2"),
    "the kernel under a suffix": lambda f: f.move(KERNEL, f"elsewhere/{KERNEL}"),
    "one dataset more": lambda f: f.create_dataset("layers/extra/vars/0", data=np.zeros(3, "f4")),
    "one dataset more at the root": lambda f: f.create_dataset("extra", data=np.zeros(3, "f4")),
    "a third variable": lambda f: f.create_dataset("layers/dense/vars/2", data=np.zeros(8, "f4")),
    "2000 datasets more": lambda f: [f.create_dataset(f"layers/x{n}/vars/0", data=np.zeros(1)) for n in range(2000)],
    "a name that steers terminals": lambda f: f.create_dataset("\x1b[2J\x1b]0;owned\x07", data=np.zeros(1)),
    "a name with a line break": lambda f: f.create_dataset("a\nError: nothing", data=np.zeros(1)),
    "a name with dots": lambda f: f["layers"].create_dataset("...", data=np.zeros(1)),
    "a name that is not UTF-8": lambda f: _in_bytes(f, b"\xff\xfe"),
    "a name from right to left": lambda f: f.create_dataset("\u202eabc", data=np.zeros(1)),
}


def _value(name: str, index: Any, value: float) -> Change:
    def change(file: h5py.File) -> None:
        file[name][index] = value

    return change


VALUES: dict[str, Change] = {
    "NaN in a kernel": _value(KERNEL, (5, 7), np.nan),
    "infinity in a bias": _value(BIAS, 0, np.inf),
    "minus infinity in an embedding": _value(EMBEDDING, (89, 5), -np.inf),
    "NaN everywhere": _value("layers/dense_1/vars/0", ..., np.nan),
    "NaN in chunks": lambda f: put(f, BIAS, np.full(8, np.nan, "f4"), chunks=(2,)),
    "NaN in gzip": lambda f: put(f, BIAS, np.full(8, np.nan, "f4"), compression="gzip", shuffle=True, fletcher32=True),
    "NaN in big-endian order": lambda f: put(f, BIAS, np.full(8, np.nan, ">f4")),
}


@pytest.mark.parametrize("what", LINKS)
def test_links_are_refused(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("preset")
    with h5py.File(folder.parent / "other.h5", "w") as other:
        other["x"] = np.ones(8, np.float32)
    in_hdf5(LINKS[what])(folder)
    expect(refused(folder), "model.weights.h5")


@pytest.mark.parametrize("what", STORAGE)
def test_storage_is_refused(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("preset")
    in_hdf5(STORAGE[what])(folder)
    expect(refused(folder), ["model.weights.h5", "layers/dense/vars/" if "some were" not in what else EMBEDDING])


@pytest.mark.parametrize("what", [*TYPES, *SHAPES])
def test_types_and_shapes_are_refused(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("preset")
    in_hdf5({**TYPES, **SHAPES}[what])(folder)
    expect(refused(folder), ["model.weights.h5", "layers/"])


@pytest.mark.parametrize("what", NAMES)
def test_names_are_refused(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("preset")
    in_hdf5(NAMES[what])(folder)
    expect(refused(folder), "model.weights.h5")


@pytest.mark.parametrize("what", VALUES)
def test_values_are_refused(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("preset")
    in_hdf5(VALUES[what])(folder)
    expect(refused(folder), ["not finite", "model.weights.h5", "layers/", "that are not, the first"])


@pytest.mark.parametrize(
    ("kind", "name", "values", "problem"),
    [
        ("bfloat16", BIAS, np.frombuffer(b"\xc0\x7f" * 8, "V2"), "not finite"),
        ("bfloat16", BIAS, np.frombuffer(b"\x80\xff" * 8, "V2"), "not finite"),
        ("int8", "layers/dense/vars/2", np.zeros(8, "f4"), "wrong scale"),
        ("int8", "layers/dense/vars/2", np.full(8, np.nan, "f4"), "wrong scale"),
    ],
)
def test_bfloat16_and_int8_values_are_refused(
    kind: str, name: str, values: np.ndarray, problem: str, source: Callable[[str], Path], refused: Refused
) -> None:
    folder = source(kind)

    def change(file: h5py.File) -> None:
        attributes = dict(file[name].attrs)
        put(file, name, values).attrs.update(attributes)

    in_hdf5(change)(folder)
    expect(refused(folder), [problem, "layers/dense/vars/"])


def _patched(position: int, content: bytes) -> Callable[[bytes], bytes]:
    return lambda whole: whole[:position] + content + whole[position + len(content) :]


SUPERBLOCKS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda b: b"",
    "cut off in the signature": lambda b: b[:5],
    "cut off in the superblock": lambda b: b[:20],
    "cut off in the middle": lambda b: b[: len(b) // 2],
    "cut off before the last byte": lambda b: b[:-1],
    "one byte longer": lambda b: b + b"\0",
    "followed by a zip archive": lambda b: b + b"PK\x05\x06" + bytes(18),
    "after a user block of 512 bytes": lambda b: bytes(512) + b,
    "after a user block of 2048 bytes": lambda b: b"#!/bin/sh\n".ljust(2048) + b,
    "of another signature": _patched(0, b"\x89PNG\r\n\x1a\n"),
    "of an unknown version": _patched(8, b"\x09"),
    "with addresses of 4 bytes": _patched(13, b"\x04"),
    "with an end before its end": _patched(40, (100).to_bytes(8, "little")),
    "with an end after its end": _patched(40, (1 << 40).to_bytes(8, "little")),
    "with an end that is undefined": _patched(40, b"\xff" * 8),
    "with a base that is not 0": _patched(24, (64).to_bytes(8, "little")),
    "with a root elsewhere": _patched(64, (1 << 30).to_bytes(8, "little")),
    "with zeros after its superblock": lambda b: b[:96] + bytes(len(b) - 96),
    "of noise after its superblock": lambda b: b[:96] + np.random.default_rng(0).bytes(len(b) - 96),
    "compressed": lambda b: b"\x1f\x8b\x08" + b,
    "a pointer": lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    "a page": lambda b: b"\n<!DOCTYPE html><html><body>404</body></html>",
}


@pytest.mark.parametrize("what", SUPERBLOCKS)
def test_superblocks_are_refused(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("preset")
    in_bytes("model.weights.h5", SUPERBLOCKS[what])(folder)
    message = refused(folder)
    if what.startswith("cut off in the middle"):
        expect(message, "truncated at ")


HEAD = "layers/dense/vars/1"  # of the classifier


def _copied(dtype: str) -> Change:
    """Add a vector of the encoder to the weights of a task, in another dtype."""
    return lambda f: f.create_dataset(f"layers/albert_backbone/{BIAS}", data=np.zeros(8, dtype))


TASKS: dict[str, Callable[[Path], object]] = {
    "no bias": in_hdf5(lambda f: f.__delitem__(HEAD), "task.weights.h5"),
    "one dataset more": in_hdf5(lambda f: f.create_dataset("layers/x", data=np.zeros(2)), "task.weights.h5"),
    "another number of labels": in_hdf5(lambda f: put(f, HEAD, np.zeros(4, "f4")), "task.weights.h5"),
    "another dtype": in_hdf5(lambda f: put(f, HEAD, np.zeros(3, "f2")), "task.weights.h5"),
    "NaN": in_hdf5(_value(HEAD, 2, np.nan), "task.weights.h5"),
    "a link": in_hdf5(_replaced(HEAD, SOFT("/layers/dense/vars/0")), "task.weights.h5"),
    "another encoder": in_hdf5(
        lambda f: f.create_dataset(f"layers/albert_backbone/{BIAS}", data=np.zeros(8, "f4")), "task.weights.h5"
    ),
    **{f"an encoder of {dtype}": in_hdf5(_copied(dtype), "task.weights.h5") for dtype in ("u1", "?", "c8", "S4", "f8")},
    "an unknown tensor of the encoder": in_hdf5(
        lambda f: f.create_dataset("layers/albert_backbone/x", data=np.zeros(8, "f4")), "task.weights.h5"
    ),
    "no file": lambda folder: (folder / "task.weights.h5").unlink(),
    "no configuration": lambda folder: (folder / "task.json").unlink(),
    "half a file": in_bytes("task.weights.h5", lambda b: b[: len(b) // 2]),
}


@pytest.mark.parametrize("what", TASKS)
def test_task_weights_are_refused(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("task")
    TASKS[what](folder)
    expect(refused(folder), "task.")


SHARD = "model_00001.weights.h5"


def _to(name: Any) -> Callable[[Path], None]:
    return edit("model.weights.json", lambda c: c["weight_map"].update({next(iter(c["weight_map"])): name}))


def _exchange(shards: dict[str, Any]) -> None:
    first, *_, last = shards
    assert shards[first] != shards[last]
    shards[first], shards[last] = shards[last], shards[first]


SHARDS: dict[str, Callable[[Path], object]] = {
    "a shard upwards": _to(f"../{SHARD}"),
    "a shard at an absolute path": _to(f"/etc/{SHARD}"),
    "a shard of another name": _to("passwd"),
    "a shard with a line break": _to(f"{SHARD}\n"),
    "a shard with a zero": _to(f"{SHARD}\0"),
    "a shard that is a number": _to(7),
    "a shard that is a list of lists": _to([[SHARD]]),
    "a shard that is an object": _to({}),
    "a group in another shard": edit("model.weights.json", lambda c: _exchange(c["weight_map"])),
    "a group that is nowhere": edit("model.weights.json", lambda c: c["weight_map"].update({"/layers/x/vars": SHARD})),
    "a group that is missing": edit("model.weights.json", lambda c: c["weight_map"].popitem()),
    "no shards": edit("model.weights.json", lambda c: c["weight_map"].clear()),
    "no index of names": edit("model.weights.json", lambda c: c.pop("weight_map")),
    "a list of shards": edit("model.weights.json", lambda c: c.update(weight_map=[SHARD])),
    "a missing shard": lambda folder: (folder / SHARD).unlink(),
    "a shard that is a link": lambda folder: _linked(folder / SHARD),
    "a shard twice": lambda folder: (folder / "model_00000.weights.h5").write_bytes((folder / SHARD).read_bytes()),
    "a whole file too": lambda folder: (folder / "model.weights.h5").write_bytes(b""),
    "half a shard": in_bytes(SHARD, lambda b: b[: len(b) // 2]),
    "one dataset more": in_hdf5(lambda f: f.create_dataset("x", data=np.zeros(2)), SHARD),
}


def _linked(file: Path) -> None:
    file.rename(file.parent.parent / "elsewhere.h5")
    file.symlink_to(file.parent.parent / "elsewhere.h5")


@pytest.mark.parametrize("what", SHARDS)
def test_shards_are_refused(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("shards")
    SHARDS[what](folder)
    expect(refused(folder), "model")


def _tensorflow(change: Change) -> Callable[[Path], None]:
    return in_hdf5(change, "tf_model.h5")


TENSORFLOW: dict[str, Callable[[Path], object]] = {
    "a soft link": _tensorflow(_replaced("tf_albert_model/x", SOFT("/tf_albert_model"))),
    "an external link": _tensorflow(_replaced("tf_albert_model/x", EXTERNAL("other.h5", "/x"))),
    "one variable more": _tensorflow(lambda f: f.create_dataset("tf_albert_model/x:0", data=np.zeros(2, "f4"))),
    "no variables": _tensorflow(lambda f: f.__delitem__("tf_albert_model")),
    "NaN": _tensorflow(_value("tf_albert_model/albert/pooler/bias:0", 0, np.nan)),
    "one variable twice, with other values": _tensorflow(
        lambda f: f.create_dataset("tf_albert_model_1/albert/pooler/bias:0", data=np.zeros(8, "f4"))
    ),
    "half a file": in_bytes("tf_model.h5", lambda b: b[: len(b) // 2]),
}


@pytest.mark.parametrize("what", TENSORFLOW)
def test_tensorflow_files_are_refused(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("tensorflow")
    TENSORFLOW[what](folder)
    expect(refused(folder), "tf_model.h5")


def test_plugins_are_off(source: Callable[[str], Path], refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugins of the user are not loaded, and HDF5 does not see its environment variables."""
    folder = source("preset")
    plugins = folder.parent / "plugins"
    plugins.mkdir()
    (plugins / "libhostile.so").write_bytes(b"not a library")
    monkeypatch.setenv("HDF5_PLUGIN_PATH", str(plugins))
    monkeypatch.setenv("HDF5_DRIVER", "family")
    in_hdf5(STORAGE["a filter of a plugin"])(folder)
    expect(refused(folder), "found filter 32001")
    assert os.environ["HDF5_DRIVER"] == "family"
