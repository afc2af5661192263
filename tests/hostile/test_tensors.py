"""Refuse hostile safetensors, pickles and msgpack, of models and of adapters."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tests.hostile.conftest import Refused, expect
from tests.hostile.valid import edit, in_bytes, in_hdf5, in_header, in_tensors, put, with_header, write_flax


BIAS, KERNEL = "albert.pooler.bias", "albert.pooler.weight"
FACTOR = "base_model.model.encoder.albert_layer_groups.0.albert_layers.0.attention.query.lora_A.weight"


def _row(name: str, **changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda header: header[name].update(changes)


def _shifted(by: int) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        for name, row in header.items():
            if name != "__metadata__":
                row["data_offsets"] = [offset + by for offset in row["data_offsets"]]

    return change


def _same_place(header: dict[str, Any]) -> None:
    header[BIAS]["data_offsets"] = header["albert.embeddings.LayerNorm.bias"]["data_offsets"]


def _exchanged(header: dict[str, Any]) -> None:
    """Exchange the offsets of two tensors of different shapes."""
    one, other = header[BIAS], header[KERNEL]
    one["data_offsets"], other["data_offsets"] = other["data_offsets"], one["data_offsets"]


# fmt: off
HEADERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "another dtype":            _row(BIAS, dtype="I32"),
    "a wider dtype":            _row(BIAS, dtype="F64"),
    "a narrower dtype":         _row(BIAS, dtype="F16"),
    "an unknown dtype":     _row(BIAS, dtype="X32"),
    "a dtype that is a number": _row(BIAS, dtype=32),
    "a shape transposed":       _row("albert.encoder.embedding_hidden_mapping_in.weight", shape=[6, 8]),
    "a shape of another size":  _row(BIAS, shape=[9]),
    "a shape of a petabyte":    _row(BIAS, shape=[1 << 50]),
    "a shape that overflows":   _row(BIAS, shape=[1 << 62, 4]),
    "a shape below 0":          _row(BIAS, shape=[-8]),
    "a shape of texts":         _row(BIAS, shape=["8"]),
    "a shape of halves":        _row(BIAS, shape=[8.0]),
    "a shape of true":          _row(BIAS, shape=[True]),
    "a shape that is a number": _row(BIAS, shape=8),
    "a shape of lists":         _row(BIAS, shape=[[8]]),
    "40 dimensions":            _row(BIAS, shape=[1] * 39 + [8]),
    "no offsets":               lambda h: h[BIAS].pop("data_offsets"),
    "three offsets":            _row(BIAS, data_offsets=[0, 32, 64]),
    "offsets backwards":        _row(BIAS, data_offsets=[32, 0]),
    "offsets below 0":          _row(BIAS, data_offsets=[-32, 0]),
    "offsets beyond the file":  _row(BIAS, data_offsets=[1 << 40, (1 << 40) + 32]),
    "offsets in the header":    _shifted(-8),
    "a gap before all":         _shifted(8),
    "two in one place":         _same_place,
    "two in exchanged places":  _exchanged,
    "one key more":             _row(BIAS, hostile_module=1),
    "a row that is a list":     lambda h: h.update({BIAS: []}),
    "a row that is null":       lambda h: h.update({BIAS: None}),
    "metadata of numbers":      lambda h: h.update(__metadata__={"a": 1}),
    "metadata that is a list":  lambda h: h.update(__metadata__=[]),
    "another name":             lambda h: h.update({"albert.pooler.bia": h.pop(BIAS)}),
    "a name with a prefix":     lambda h: h.update({f"x.{BIAS}": h.pop(BIAS)}),
    "a name with a suffix":     lambda h: h.update({f"{BIAS}.x": h.pop(BIAS)}),
    "a name that is a path":    lambda h: h.update({"../../" + BIAS: h.pop(BIAS)}),
    "an empty name":            lambda h: h.update({"": h.pop(BIAS)}),
    "a name for terminals":     lambda h: h.update({"\x1b[2J": h.pop(BIAS)}),
    "a name of a megabyte":     lambda h: h.update({"x" * 1_000_000: h.pop(BIAS)}),
    "no tensors":               lambda h: h.clear(),
}
# fmt: on


@pytest.mark.parametrize("what", HEADERS)
def test_headers_are_refused(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("transformers")
    in_header(HEADERS[what])(folder)
    expect(refused(folder), "model.safetensors")


def _header_with(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(whole: bytes) -> bytes:
        size = int.from_bytes(whole[:8], "little")
        header = whole[8 : 8 + size]
        assert old in header
        return with_header(header.replace(old, new, 1), whole[8 + size :])

    return change


_BIAS = b'"albert.pooler.bias"'
_TENSOR = b'{"dtype":"F32","shape":[8],"data_offsets":[0,32]}'
BYTES: dict[str, Callable[[bytes], bytes]] = {
    "cut off in the length": lambda b: b[:4],
    "cut off in the header": lambda b: b[:100],
    "cut off in the values": lambda b: b[:-1],
    "cut off in the middle": lambda b: b[: len(b) // 2],
    "one byte longer": lambda b: b + b"\0",
    "a header of 16 exabytes": lambda b: b"\xff" * 8 + b[8:],
    "a header of 100 MB": lambda b: (100 << 20).to_bytes(8, "little") + b[8:],
    "a header of nothing": lambda b: bytes(8) + b[8:],
    "a header that is a list": lambda b: with_header(b"[]"),
    "a header that is no JSON": lambda b: with_header(b"{" + b[9:]),
    "a header that is no UTF-8": _header_with(b'"albert.pooler.bias"', b'"albert.pooler.\xff\xff\xff\xff"'),
    "a tensor twice": _header_with(_BIAS, _BIAS + b":" + _TENSOR + b"," + _BIAS),
    "a shape twice": _header_with(b'"shape"', b'"shape":[1],"shape"'),
    "metadata twice": _header_with(b"{", b'{"__metadata__":{},'),
    "NaN for an offset": _header_with(b'"data_offsets":[0,', b'"data_offsets":[NaN,'),
    "an offset in floats": _header_with(b'"data_offsets":[0,', b'"data_offsets":[0e0,'),
    "20,000 levels": lambda b: with_header(b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
    "a million tensors": lambda b: with_header(b"{" + b",".join(b'"%d":{}' % n for n in range(700_000)) + b"}"),
    "a pickle": lambda b: pickle.dumps({"a": 1}),
    "a zip archive": lambda b: b"PK\x03\x04" + b,
    "a page": lambda b: b"<html><body>404</body></html>",
}


@pytest.mark.parametrize("what", BYTES)
def test_safetensors_bytes_are_refused(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("transformers")
    in_bytes("model.safetensors", BYTES[what])(folder)
    message = refused(folder)
    expect(
        message,
        ["model.safetensors", "truncated at " if what in ("cut off in the values", "cut off in the header") else ""],
    )


def _with(name: str, values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda tensors: tensors.update({name: np.asarray(values)})


TENSORS: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "one tensor more": ("transformers", _with("extra", np.zeros(3, np.float32))),
    "one tensor less": ("transformers", lambda t: t.pop(BIAS)),
    "half of the pooler": ("transformers", lambda t: t.pop(KERNEL)),
    "another shape": ("transformers", _with(KERNEL, np.zeros((8, 9), np.float32))),
    "float64": ("transformers", _with(BIAS, np.zeros(8))),
    "float64 that overflows": ("transformers", _with(BIAS, np.full(8, 1e300))),
    "one of half precision": ("transformers", _with(BIAS, np.zeros(8, np.float16))),
    "NaN": ("transformers", _with(BIAS, np.full(8, np.nan, np.float32))),
    "infinity": ("transformers", _with(BIAS, np.array([0] * 7 + [np.inf], np.float32))),
    "nothing": ("transformers", lambda t: t.clear()),
    "a tensor of TensorFlow": ("transformers", lambda t: t.update({f"tf_albert.{BIAS}": t.pop(BIAS)})),
    "a tensor with slashes": ("transformers", lambda t: t.update({BIAS.replace(".", "/") + ":0": t.pop(BIAS)})),
    "a tensor of Flax": ("transformers", lambda t: t.update({KERNEL.replace("weight", "kernel"): t.pop(KERNEL)})),
    "an untied decoder": ("masked_lm", _with("predictions.decoder.weight", np.ones((90, 6), np.float32))),
    "a decoder of another shape": ("masked_lm", _with("predictions.decoder.weight", np.ones((1, 6), np.float32))),
    "NaN in the head": ("masked_lm", _with("predictions.bias", np.full(90, np.nan, np.float32))),
    "a head of another shape": ("masked_lm", _with("predictions.bias", np.zeros(91, np.float32))),
    "a classifier with a label more": ("albert_hub", _with("classifier.bias", np.zeros(4, np.float32))),
    "a classifier without a bias": ("albert_hub", lambda t: t.pop("classifier.bias")),
}


@pytest.mark.parametrize("what", TENSORS)
def test_tensors_are_refused(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    kind, change = TENSORS[what]
    folder = source(kind)
    in_tensors(change)(folder)
    expect(refused(folder), "model.safetensors")


def test_an_untied_decoder_that_is_missing_is_refused(source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("masked_lm")
    edit("config.json", lambda c: c.update(tie_word_embeddings=False))(folder)
    expect(refused(folder), ["missing", "predictions.decoder.weight", "nothing is tied"])


INDEX = "model.safetensors.index.json"
FIRST = "albert.embeddings.LayerNorm.bias"


def _named(name: Any) -> Callable[[Path], None]:
    return edit(INDEX, lambda c: c["weight_map"].update({FIRST: name}))


INDICES: dict[str, Callable[[Path], object]] = {
    "a shard upwards": _named("../source/model-00001-of-00002.safetensors"),
    "a shard at an absolute path": _named("/etc/passwd"),
    "a shard on another system": _named("C:\\model-00001-of-00002.safetensors"),
    "a shard in a folder": _named("shards/model-00001-of-00002.safetensors"),
    "a shard with a zero": _named("model-00001-of-00002.safetensors\0"),
    "a shard with a line break": _named("model-00001-of-00002.safetensors\n"),
    "a shard of another format": _named("pytorch_model-00001-of-00002.bin"),
    "a shard that is a number": _named(1),
    "a shard that is a list": _named(["model-00001-of-00002.safetensors"]),
    "a shard that is missing": _named("model-00009-of-00009.safetensors"),
    "a shard of an address": _named("https://host/model-00001-of-00002.safetensors"),
    "a tensor in no shard": edit(INDEX, lambda c: c["weight_map"].update(extra=next(iter(c["weight_map"].values())))),
    "a tensor in another shard": edit(INDEX, lambda c: c["weight_map"].update({FIRST: c["weight_map"][KERNEL]})),
    "a tensor that is not named": edit(INDEX, lambda c: c["weight_map"].pop(FIRST)),
    "no tensors": edit(INDEX, lambda c: c["weight_map"].clear()),
    "no map": edit(INDEX, lambda c: c.pop("weight_map")),
    "a map that is a list": edit(INDEX, lambda c: c.update(weight_map=[])),
    "a whole file too": lambda folder: (folder / "model.safetensors").write_bytes(with_header(b"{}")),
}


@pytest.mark.parametrize("what", INDICES)
def test_indices_are_refused(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("transformers_shards")
    INDICES[what](folder)
    expect(refused(folder), "model.safetensors")


def _array(shape: Any = (8,), dtype: Any = "float32", values: bytes = bytes(32)) -> msgpack.ExtType:
    return msgpack.ExtType(1, msgpack.packb((shape, dtype, values)))


FLAX: dict[str, bytes] = {
    "a number": msgpack.packb(7),
    "a text": msgpack.packb("x" * 100),
    "bytes": msgpack.packb(bytes(100)),
    "a list": msgpack.packb([1, 2]),
    "nothing": msgpack.packb({}),
    "a number for an array": msgpack.packb({"a": 1}),
    "a text for an array": msgpack.packb({"a": {"b": "hostile_module"}}),
    "a list for an array": msgpack.packb({"a": [1.0, 2.0]}),
    "another extension": msgpack.packb({"a": msgpack.ExtType(3, b"x")}),
    "a time": msgpack.packb({"a": msgpack.Timestamp(1)}),
    "an array of nothing": msgpack.packb({"a": msgpack.ExtType(1, b"")}),
    "an array of a number": msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(1))}),
    "an array of two": msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(([8], "float32")))}),
    "an array of another size": msgpack.packb({"a": _array(shape=(9,))}),
    "an array of a petabyte": msgpack.packb({"a": _array(shape=(1 << 47,))}),
    "an array below 0": msgpack.packb({"a": _array(shape=(-8,))}),
    "an array of texts": msgpack.packb({"a": _array(shape=("8",))}),
    "an array of objects": msgpack.packb({"a": _array(dtype="object")}),
    "an array of another dtype": msgpack.packb({"a": _array(dtype="float64", shape=(4,))}),
    "a dtype that is a list": msgpack.packb({"a": _array(dtype=[["x", "f4"]])}),
    "values that are texts": msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(([8], "float32", "x" * 32)))}),
    "an array in an array": msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(([8], "float32", _array())))}),
    "a name twice": b"\x82"
    + msgpack.packb("a")
    + msgpack.packb(_array())
    + msgpack.packb("a")
    + msgpack.packb(_array()),
    "a path twice": msgpack.packb({"a": {"b": _array()}, "a/b": _array()}),
    "a number twice": b"\x82" + msgpack.packb("1") + msgpack.packb(_array()) + b"\x01" + msgpack.packb(_array()),
    "900 levels": b"\x81\xa1a" * 900 + b"\x01",
    "5000 levels": b"\x81\xa1a" * 5000 + b"\x01",
    "four billion names": b"\xdf\xff\xff\xff\xff" + b"\x01" * 100,
    "four billion items": b"\xdd\xff\xff\xff\xff" + b"\x01" * 100,
    "four billion bytes": b"\x81\xa1a\xc9\xff\xff\xff\xff\x01" + bytes(100),
    "a million items": b"\x81\xa1a\xdd\x00\x0f\x42\x40" + b"\x01" * 1_000_000,
    "cut off": msgpack.packb({"a": _array()})[:-3],
    "two trees": msgpack.packb({"a": _array()}) * 2,
    "zeros": bytes(1000),
    "noise": np.random.default_rng(1).bytes(1000),
}


@pytest.mark.parametrize("what", FLAX)
def test_msgpack_is_refused(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("flax")
    (folder / "flax_model.msgpack").write_bytes(FLAX[what])
    expect(refused(folder), "flax_model.msgpack")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_msgpack_values_are_refused(
    value: float, source: Callable[[str], Path], valid: dict[str, Path], refused: Refused
) -> None:
    folder = source("flax")
    tensors = load_file(valid["transformers"] / "model.safetensors")
    tensors[BIAS] = np.full(8, value, np.float32)
    write_flax(folder, tensors)
    expect(refused(folder), ["not finite", BIAS, "flax_model.msgpack"])


class _Call:
    """An object whose unpickling calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def _pickled(content: Any) -> Callable[[Path], object]:
    return lambda file: torch.save(content, file)


def _raw(content: Any) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(pickle.dumps(content))


def _big(file: Path) -> None:
    """Save a tensor with the shape of a terabyte and one element in memory."""
    torch.save({"a": torch.zeros(1).expand(1 << 38)}, file)


PICKLES: dict[str, Callable[[Path], object]] = {
    "a command": _pickled({"a": _Call(os.system, "touch pickle-was-run")}),
    "a command of its own": _raw(_Call(os.system, "touch pickle-was-run")),
    "an object of a module": lambda file: file.write_bytes(b"chostile_module\nRun\n(tR."),
    "a tensor of a terabyte": _big,
    "noise": lambda file: file.write_bytes(b"\x80\x02" + np.random.default_rng(2).bytes(500)),
}


@pytest.mark.parametrize("what", PICKLES)
def test_pickles_are_refused(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("pickle")
    PICKLES[what](folder / "pytorch_model.bin")
    expect(refused(folder, "--allow-pickle"), ["pytorch_model.bin", "which has only tensors"])


def test_pickles_need_permission(source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("pickle")
    expect(refused(folder), ["a pickle", "pytorch_model.bin", "--allow-pickle"])
    (folder / "pytorch_model.bin").rename(folder / "pytorch_model-00001-of-00001.bin")
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    expect(refused(folder), ["a pickle", "pytorch_model.bin.index.json", "--allow-pickle"])


PEFT: dict[str, Callable[[dict[str, Any]], object]] = {
    "one factor less": lambda t: t.pop(FACTOR),
    "one tensor more": _with("base_model.model.extra", np.zeros(3, np.float32)),
    "another shape": _with(FACTOR, np.zeros((4, 9), np.float32)),
    "another rank": _with(FACTOR, np.zeros((5, 8), np.float32)),
    "another dtype": _with(FACTOR, np.zeros((4, 8), np.int32)),
    "float64": _with(FACTOR, np.zeros((4, 8))),
    "NaN": _with(FACTOR, np.full((4, 8), np.nan, np.float32)),
    "infinity": _with(FACTOR, np.full((4, 8), np.inf, np.float32)),
    "infinity when it is scaled": _with(FACTOR.replace("lora_A", "lora_B"), np.full((8, 4), 3e38, np.float32)),
    "a classifier": _with("base_model.model.classifier.weight", np.zeros((3, 8), np.float32)),
    "another base": lambda t: [t.update({f"x.{name}": t.pop(name)}) for name in list(t)],
    "nothing": lambda t: t.clear(),
}


@pytest.mark.parametrize("what", PEFT)
def test_peft_adapters_are_refused(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("peft_adapter")
    in_tensors(PEFT[what], "adapter_model.safetensors")(folder)
    refused(folder)


@pytest.mark.parametrize(
    ("weight", "bias"),
    [((3, 9), (3,)), ((5, 8), (3,)), ((3, 8), None), (None, (3,)), ((0, 8), (0,)), ((1, 1, 1), ())],
)
def test_adapter_heads_are_refused(
    weight: tuple[int, ...] | None,
    bias: tuple[int, ...] | None,
    source: Callable[[str], Path],
    valid: dict[str, Path],
    refused: Refused,
) -> None:
    """The head of an adapter replaces that of the base, with any number of labels."""
    folder = source("peft_adapter")
    shapes = {"weight": weight, "bias": bias}
    head = {f"base_model.model.classifier.{n}": np.zeros(s, "f4") for n, s in shapes.items() if s is not None}
    in_tensors(lambda t: t.update(head), "adapter_model.safetensors")(folder)
    expect(
        refused(folder, "--base", str(valid["task"]), "--to", "transformers"),
        ["wrong shape", "base_model.model.classifier"],
    )


def test_a_pickled_adapter_needs_permission(source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("peft_adapter")
    (folder / "adapter_model.safetensors").unlink()
    _raw(_Call(os.system, "touch pickle-was-run"))(folder / "adapter_model.bin")
    expect(refused(folder), ["a pickle", "adapter_model.bin", "--allow-pickle"])
    expect(refused(folder, "--allow-pickle"), "not tensors")


RANK, LORA = "lora/vars/rank", "vars/lora_kernel_a"


def _factor(file: h5py.File) -> str:
    return f"lora/{next(name for name in file['lora'] if name != 'vars')}/{LORA}"


KERAS: dict[str, Callable[[h5py.File], object]] = {
    "no rank": lambda f: f.__delitem__(RANK),
    "a rank of 0": lambda f: put(f, RANK, np.int64(0)),
    "a rank below 0": lambda f: put(f, RANK, np.int64(-1)),
    "a rank of a trillion": lambda f: put(f, RANK, np.int64(1 << 40)),
    "a rank in floats": lambda f: put(f, RANK, np.float32(4)),
    "a rank of many": lambda f: put(f, RANK, np.array([4, 4])),
    "a rank that is a text": lambda f: put(f, RANK, "4"),
    "a rank that is a link": lambda f: (f.__delitem__(RANK), f.__setitem__(RANK, h5py.SoftLink("/lora"))),
    "another rank": lambda f: put(f, RANK, np.int64(5)),
    "one factor less": lambda f: f.__delitem__(_factor(f)),
    "one dataset more": lambda f: f.create_dataset("lora/extra", data=np.zeros(2)),
    "a layer that is not there": lambda f: f.create_dataset(f"lora/999/{LORA}", data=np.zeros((8, 4), "f4")),
    "another shape": lambda f: put(f, _factor(f), np.zeros((9, 4), "f4")),
    "another dtype": lambda f: put(f, _factor(f), np.zeros(f[_factor(f)].shape, "i4")),
    "NaN": lambda f: put(f, _factor(f), np.full(f[_factor(f)].shape, np.nan, "f4")),
    "a link": lambda f: f.__setitem__("lora/extra", h5py.ExternalLink("/etc/passwd", "/x")),
    "nothing": lambda f: f.__delitem__("lora"),
}


@pytest.mark.parametrize("what", KERAS)
def test_keras_adapters_are_refused(what: str, source: Callable[[str], Path], refused: Refused) -> None:
    folder = source("keras_adapter")
    in_hdf5(KERAS[what], "a.lora.h5")(folder)
    expect(refused(folder), "a.lora.h5")
