"""Small valid sources, which the tables of this folder make hostile."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import msgpack
import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from albert_hub_bridge.layouts.hub.repository import write_repository
from albert_hub_bridge.layouts.keras.preset import write_preset
from albert_hub_bridge.layouts.layout import WriteOptions
from albert_hub_bridge.lora.adapter import Adapter
from albert_hub_bridge.lora.factors import Factors, lora_layers
from albert_hub_bridge.lora.keras_file import write_keras_adapter
from albert_hub_bridge.lora.peft_folder import write_peft_adapter
from albert_hub_bridge.mapping.heads import Head
from albert_hub_bridge.mapping.weights import weight_rules
from albert_hub_bridge.model.architecture import Architecture
from conversion.sample import random_checkpoint, train_vocabulary


ARCHITECTURE = Architecture(
    vocabulary_size=90,
    num_layers=2,
    num_heads=2,
    embedding_dim=6,
    hidden_dim=8,
    intermediate_dim=12,
    num_groups=2,
    num_inner_repetitions=1,
    max_sequence_length=10,
)
CLASSIFIER = Head(kind="sequence_classification", num_labels=3)

CORPUS = ("a bridge joins two banks of a river", "and nothing that crosses it is lost", "at all (not - even . one)")


def small_vocabulary() -> bytes:
    return train_vocabulary(60, CORPUS * 4, user_defined_symbols=["."])


def write_all(parent: Path, proto: bytes) -> dict[str, Path]:
    """Write a source of every kind that is read without TensorFlow or JAX."""
    made = {}

    def new(name: str) -> Path:
        made[name] = parent / name
        made[name].mkdir()
        return made[name]

    bare, task = random_checkpoint(ARCHITECTURE), random_checkpoint(ARCHITECTURE, proto, head=CLASSIFIER)
    write_preset(bare, new("preset"))
    write_preset(task, new("task"))
    write_preset(random_checkpoint(ARCHITECTURE, dtype="bfloat16"), new("bfloat16"))
    write_preset(bare, new("shards"), max_shard_bytes=3000)
    _quantize(bare, new("int8"))
    write_repository(bare, new("transformers"), "transformers")
    write_repository(task, new("albert_hub"), "albert_hub")
    write_repository(task, new("text"), "transformers")
    (made["text"] / "spiece.model").unlink()
    (made["text"] / "added_tokens.json").write_text('{"[MASK]": 4}')
    (made["text"] / "special_tokens_map.json").write_text('{"mask_token": "[MASK]"}')
    write_repository(bare, new("transformers_shards"), "transformers", WriteOptions(max_shard_bytes=3000))
    write_repository(random_checkpoint(ARCHITECTURE, head=Head(kind="masked_lm")), new("masked_lm"), "transformers")
    for name, write in (("pickle", write_pickle), ("flax", write_flax), ("tensorflow", write_tensorflow)):
        write_repository(bare, new(name), "transformers")
        tensors = load_file(made[name] / "model.safetensors")
        (made[name] / "model.safetensors").unlink()
        write(made[name], tensors)
    adapter = _adapter()
    write_keras_adapter(adapter, new("keras_adapter") / "a.lora.h5", ARCHITECTURE)
    write_peft_adapter(adapter, new("peft_adapter"), "albert", with_head=False)
    return made


def write_pickle(folder: Path, tensors: Mapping[str, Any]) -> None:
    as_torch = {n: torch.from_numpy(t) if isinstance(t, np.ndarray) else t for n, t in tensors.items()}
    torch.save(as_torch, folder / "pytorch_model.bin")


def write_flax(folder: Path, tensors: Mapping[str, Any]) -> None:
    """Write tensors as Flax does; other values are written as they are."""
    tree: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *path, leaf = name.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = flax_array(tensor) if isinstance(tensor, np.ndarray) else tensor
    (folder / "flax_model.msgpack").write_bytes(msgpack.packb(tree))


def flax_array(array: np.ndarray, shape: Any = None, dtype: Any = None) -> msgpack.ExtType:
    content = (list(array.shape) if shape is None else shape, dtype or array.dtype.name, array.tobytes())
    return msgpack.ExtType(1, msgpack.packb(content))


def write_tensorflow(folder: Path, tensors: Mapping[str, np.ndarray]) -> None:
    with h5py.File(folder / "tf_model.h5", "w") as file:
        for name, tensor in tensors.items():
            file[f"tf_albert_model/{name.replace('.', '/')}:0"] = tensor


def _quantize(bare: Any, folder: Path) -> None:
    write_preset(bare, folder)
    with h5py.File(folder / "model.weights.h5", "r+") as file:
        put(file, "layers/dense/vars/0", np.ones((6, 8), np.int8))
        file["layers/dense/vars/2"] = np.full(8, 100, np.float32)


def _adapter() -> Adapter:
    random = np.random.default_rng(0)
    factors = {}
    for layer in lora_layers(ARCHITECTURE):
        if layer.keras in ("query", "value"):
            a, b = (random.standard_normal(shape, dtype=np.float32) for shape in ((4, 8), (8, 4)))
            factors[layer] = Factors(a, b, 2.0)
    return Adapter(factors)


# Functions that make functions that change a source.


def edit(name: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Return a function that changes the JSON of a file."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        change(content)
        (folder / name).write_text(json.dumps(content))

    return apply


def put(file: h5py.File, name: str, values: Any = None, **options: Any) -> h5py.Dataset:
    """Replace a dataset of an HDF5 file by one with other values or options."""
    before = file[name][()] if name in file else None
    if name in file:
        del file[name]
    options.setdefault("data", before if values is None else values)
    return file.create_dataset(name, **options)


def in_hdf5(change: Callable[[h5py.File], object], name: str = "model.weights.h5") -> Callable[[Path], None]:
    """Return a function that changes an HDF5 file."""

    def apply(folder: Path) -> None:
        with h5py.File(folder / name, "r+") as file:
            change(file)

    return apply


def in_bytes(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Return a function that changes the bytes of a file."""

    def apply(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return apply


def in_tensors(change: Callable[[dict[str, Any]], object], name: str = "model.safetensors") -> Callable[[Path], None]:
    """Return a function that changes the tensors of a safetensors file."""

    def apply(folder: Path) -> None:
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name)

    return apply


def in_header(change: Callable[[dict[str, Any]], object], name: str = "model.safetensors") -> Callable[[Path], None]:
    """Return a function that changes the header of a safetensors file, but not its values."""

    def apply(folder: Path) -> None:
        content = (folder / name).read_bytes()
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
        change(header)
        (folder / name).write_bytes(with_header(json.dumps(header).encode(), content[8 + size :]))

    return apply


def with_header(header: bytes, values: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + values


RULES = weight_rules(ARCHITECTURE)
