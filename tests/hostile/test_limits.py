"""Refuse huge files, and files that claim to be huge, in little memory and time.

Each refusal runs in a process, which may use 200 MB more than a process that refuses an empty folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random
from string import ascii_letters
from typing import Any

import h5py
import msgpack
import numpy as np
import pytest

from albert_hub_bridge.errors import WeightsError
from albert_hub_bridge.formats.hdf5 import read_datasets
from tests.hostile.bundles import HEADER, entry, sealed, table, varint, with_restarts
from tests.hostile.conftest import SECONDS, WAITING, assert_message, command_for
from tests.hostile.valid import edit, flax_array, in_bytes, in_hdf5, put, with_header


MEGABYTES = 200
BIAS, KERNEL = "layers/dense/vars/1", "layers/dense/vars/0"


# A process inherits the peak of its parent, and that of pytest is larger than what is measured.
_STARTER = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=sys.stderr)
spent = resource.getrusage(resource.RUSAGE_CHILDREN)
print(spent.ru_maxrss, spent.ru_utime + spent.ru_stime)
sys.exit(code)
"""


def _peak(command: list[str], cwd: Path) -> tuple[int, str, float, float]:
    """Run a command; return its exit code and messages, its seconds of the processor, and the peak of its memory in MB.

    The seconds are those of the command and of its children, the peak is that of the largest of them.
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", _STARTER, *command]
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env=environment, timeout=WAITING, check=False
    )
    kilobytes, seconds = done.stdout.split()
    return done.returncode, done.stderr, float(seconds), int(kilobytes) / 1024


@pytest.fixture(scope="module")
def at_rest(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Return the peak in MB of a process that refuses an empty folder."""
    cwd = tmp_path_factory.mktemp("nothing")
    code, _, _, megabytes = _peak(
        [sys.executable, "-m", "albert_hub_bridge", "convert", ".", "x", "--to", "transformers"], cwd
    )
    assert code == 2
    return megabytes


def _gzipped(file: h5py.File, name: str, rows: int, chunk: int, inflated: int) -> None:
    """Replace a tensor by gzipped zeros; each chunk inflates to this number of bytes."""
    dataset = put(file, name, data=None, shape=(rows,), dtype="f4", chunks=(chunk,), compression="gzip")
    content = zlib.compress(bytes(inflated), 1)
    for top in range(0, rows, chunk):
        dataset.id.write_direct_chunk((top,), content)


def _sparse(name: str, beginning: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Change the beginning of a file, and make it a terabyte long, without using the disk."""

    def apply(folder: Path) -> None:
        file = folder / name
        file.write_bytes(beginning(file.read_bytes() if file.exists() else b""))
        os.truncate(file, 1 << 40)

    return apply


def _listed(folder: Path) -> None:
    """Write a file of 20,000 empty groups."""
    with h5py.File(folder / "model.weights.h5", "w", libver="latest") as file:
        group = file.create_group("layers")
        for number in range(20_000):
            group.create_group(str(number))


def _within(make: Callable[[], Any]) -> Callable[[Path], None]:
    """Add a value to the configuration of a preset, with as few bytes as possible."""

    def apply(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text())
        content["config"]["x"] = make()
        (folder / "config.json").write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")))

    return apply


def _nested() -> Any:
    """Return nested objects that are all wrong, and whose `repr` is four times as long as their text."""
    value: Any = "\x7f" * 3_800_000 + "\U0001f600"
    for _ in range(25):
        value = {"class_name": 1, "x": value}
    return value


def _with_rows(rows: int, more: bytes) -> Callable[[Path], None]:
    """Give a task an embedding of many rows, and append bytes to its vocabulary."""

    def apply(folder: Path) -> None:
        edit("config.json", lambda c: c["config"].update(vocabulary_size=rows))(folder)
        edit("task.json", lambda c: c["config"]["backbone"]["config"].update(vocabulary_size=rows))(folder)
        with (folder / "assets/tokenizer/vocabulary.spm").open("ab") as file:
            file.write(more)

    return apply


def _long_names(folder: Path) -> None:
    """Write 90,000 arrays, each in 13 maps with names of 190 characters."""
    array = flax_array(np.zeros(0, np.float32))
    node: dict[str, Any] = {f"{outer}": {f"{inner}": array for inner in range(9000)} for outer in range(10)}
    for level in range(13):
        node = {f"{level}".ljust(190, "x"): node}
    (folder / "flax_model.msgpack").write_bytes(msgpack.packb(node))


def _many_variables(folder: Path) -> None:
    """Write an index of 30,000 variables with the longest names, which look like those of layers."""
    (folder / "config.json").rename(folder / "albert_config.json")
    (folder / "model.data-00000-of-00001").write_bytes(b"\0")
    row = {"dtype": 1, "shape": (0,), "shard": 0, "offset": 0, "size": 0, "checksum": 0xA282EAD8, "more": b""}
    first, value = entry(row | {"dtype": 10, "shape": (), "size": 1}), entry(row)
    beginning = b"bert/encoder/transformer/group_".ljust(292, b"1")
    rows = b"\0\0\6" + HEADER + b"\0\1" + varint(len(first)) + b"a" + first
    rows += b"\0" + varint(292) + varint(len(value)) + beginning + value
    rows += b"".join(varint(292) + b"\x08" + varint(len(value)) + b"%08d" % at + value for at in range(29_997))
    (folder / "model.index").write_bytes(table([(b"z", sealed(rows + with_restarts([0])))]))


def _long_pieces() -> list[list[Any]]:
    """Return pieces without common prefixes, for which the tokenizers library makes large trees."""
    random = Random(1)
    return [["".join(random.choices(ascii_letters, k=300)), -9.0] for _ in range(20_000)]


def _added(content: Any) -> list[dict[str, Any]]:
    first = content["added_tokens"][0]
    return [{**first, "content": piece, "id": 1000 + at} for at, (piece, _) in enumerate(_long_pieces())]


HUGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a dataset of a petabyte": (
        "preset",
        in_hdf5(lambda f: put(f, KERNEL, data=None, shape=(1 << 24, 1 << 24), dtype="f4", chunks=(64, 64))),
    ),
    "4 GB of zeros in 4 MB": ("preset", in_hdf5(lambda f: _gzipped(f, KERNEL, 1 << 30, 1 << 22, 1 << 24))),
    "20,000 groups": ("preset", _listed),
    "a file of a terabyte": ("preset", _sparse("model.weights.h5", lambda b: b)),
    "a configuration of 4 MB": ("preset", in_bytes("config.json", lambda b: b"{" + b'"a":[{}],' * 400_000 + b"}")),
    "a configuration of keys": (
        "preset",
        edit("config.json", lambda c: c["config"].update({f"key {n}" * 9: "v" * 20 for n in range(30_000)})),
    ),
    "a key of a megabyte with many children": ("preset", _within(lambda: {"k" * 1_500_000: [{}] * 400_000})),
    "a text of megabytes in many objects": ("preset", _within(_nested)),
    "a vocabulary of 17 MB": ("task", _with_rows(1 << 19, bytes(17 << 20))),
    "half a million pieces": ("task", _with_rows(1 << 19, b"\x0a\x00" * 524_000)),
    "names of megabytes": ("flax", _long_names),
    "30,000 variables with long names": ("transformers", _many_variables),
    "an index of a terabyte": (
        "transformers",
        lambda folder: [_many_variables(folder), _sparse("model.index", lambda b: b)(folder)],
    ),
    "modules of a terabyte": ("albert_hub", _sparse("modules.json", lambda b: b"[")),
    "a tokenizer of 32 MB": ("text", in_bytes("tokenizer.json", lambda b: b'{"a":[' + b"{}," * 999_000 + b"{}]}")),
    "added tokens of 6 MB": ("text", edit("tokenizer.json", lambda c: c["added_tokens"].extend(_added(c)))),
    "pieces of 6 MB": ("text", edit("tokenizer.json", lambda c: c["model"]["vocab"].extend(_long_pieces()))),
    "a header of a terabyte": ("transformers", _sparse("model.safetensors", lambda b: (1 << 39).to_bytes(8, "little"))),
    "a header of 16 MB": (
        "transformers",
        in_bytes("model.safetensors", lambda b: with_header(b'{"a":[' + b"[]," * 999_000 + b"[]]}")),
    ),
    "a tensor of a terabyte": ("transformers", _sparse("model.safetensors", lambda b: b)),
    "an array of 3 GB": ("flax", _sparse("flax_model.msgpack", lambda b: b"\x81\xa1a\xc9\xb2\xd0\x5e\x00\x01")),
    "msgpack of a terabyte": ("flax", _sparse("flax_model.msgpack", lambda b: msgpack.packb({"a": 1})[:-1])),
    "a vocabulary of 4 million pieces": ("albert_hub", in_bytes("spiece.model", lambda p: p + b"\x0a\x00" * 2_000_000)),
}


@pytest.mark.parametrize("what", HUGE)
def test_refusals_are_small_and_quick(
    what: str, source: Callable[[str], Path], valid: dict[str, Path], at_rest: float, tmp_path: Path
) -> None:
    kind, change = HUGE[what]
    folder = source(kind)
    change(folder)
    (tmp_path / "cwd").mkdir()
    command = command_for(folder, tmp_path / "target", valid)
    code, message, seconds, megabytes = _peak([sys.executable, "-m", "albert_hub_bridge", *command], tmp_path / "cwd")
    assert code == 2, message[-2000:]
    assert message.startswith("Error: ")
    assert "Traceback" not in message
    assert str(folder) in message
    print(f"{megabytes - at_rest:.0f} MB more than {at_rest:.0f}, {seconds:.1f} s")
    assert megabytes - at_rest < MEGABYTES
    assert seconds < SECONDS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cwd", "source"]


def test_the_sandbox_limits_memory(source: Callable[[str], Path]) -> None:
    """A chunk of 4 MB that inflates to 256 MB needs more memory than the process may have."""
    folder = source("preset")
    in_hdf5(lambda f: _gzipped(f, BIAS, 1 << 20, 1 << 20, 1 << 28))(folder)
    with ExitStack() as resources, pytest.raises(WeightsError, match="not HDF5") as error:
        read_datasets(folder / "model.weights.h5", resources)[BIAS].read()
    assert_message(error.value, folder)


def test_a_message_in_json_is_ascii(source: Callable[[str], Path], tmp_path: Path) -> None:
    folder = source("preset")
    (folder / "config.json").write_text('{"\\u001b[2J": NaN}')
    command = [sys.executable, "-m", "albert_hub_bridge", "inspect", str(folder), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert result.returncode == 2
    assert "found NaN" in json.loads(result.stdout)["error"]
    assert "\x1b" not in result.stderr
