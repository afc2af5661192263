"""Fuzz every parser of untrusted files with mutants of valid files, which hypothesis draws.

    python -m tests.hostile.fuzz --json 1000000 --safetensors 1000000 --hdf5 100000 --protos 10000 --bundles 100000 \\
        --flax 100000

Each mutant has to be refused with an exception of this package, or to have every tensor bit for bit as before. The
structure of a file is changed, never its values: any values are valid. Some mutants are valid files with other tensors,
for example with two names of one shape exchanged, which no reader can detect. Then the format's own library has to read
the same tensors, and the mutant is counted separately.

HDF5 and Flax files are read in the sandbox, where a library may crash. Vocabularies are parsed in a process that must
not crash, because the package parses them without a sandbox.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from math import prod
from pathlib import Path
from random import Random
from typing import Any

import hypothesis
import msgpack
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from albert_hub_bridge.errors import AlbertHubBridgeError
from albert_hub_bridge.formats.flax import locations_in
from albert_hub_bridge.formats.hdf5 import check_superblock, read_datasets
from albert_hub_bridge.formats.lazy_tensors import DTYPES, STORED_DTYPES, LazyTensor, tensors_at
from albert_hub_bridge.formats.safetensors import read_safetensors
from albert_hub_bridge.formats.sandbox import Sandbox, SandboxError, encode_path
from albert_hub_bridge.formats.tensor_bundle import read_bundle
from albert_hub_bridge.layouts.google.release import _read_variables
from albert_hub_bridge.layouts.registry import read_configuration
from tests.conftest import FIXTURES
from tests.hostile.bundles import block, read_for_change, sealed, table
from tests.hostile.valid import small_vocabulary, with_header, write_all


ROUND = 500  # examples of one run of hypothesis, which remembers all of them
BATCH = 50  # mutants of one example: hypothesis is slow, and draws only the seed of a batch

_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|[a-z]+|[\[\]{},:]')
_NUMBERS = [0, 1, 2, 7, 8, 127, 255, 256, 65535, (1 << 31) - 1, 1 << 32, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]
_WORDS = [b"null", b"true", b"NaN", b"-1", b"1e999", b'""', b"[]", b"{}", b'"\\ud800"', b'"F64"', b"1.5", b"[", b"}"]
_WORDS += [str(number).encode() for number in _NUMBERS]


def _edited(content: bytes, draw: Random, same_size: bool = False) -> bytes:
    """Edit bytes in one to three places."""
    changed = bytearray(content)
    kinds = (
        ("set", "flip", "number", "copy") if same_size else ("set", "flip", "number", "copy", "insert", "delete", "cut")
    )
    for _ in range(draw.randint(1, 3)):
        at, kind = draw.randrange(len(changed) + 1), draw.choice(kinds)
        noise = draw.randbytes(draw.randint(1, 8))
        if kind == "set":
            changed[at : at + len(noise)] = noise[: len(changed) - at]
        elif kind == "flip" and at < len(changed):
            changed[at] ^= 1 << draw.randrange(8)
        elif kind == "number":
            size = min(8, len(changed) - at)
            changed[at : at + size] = draw.choice(_NUMBERS).to_bytes(8, "little")[:size]
        elif kind == "copy":
            begin = draw.randrange(len(changed) + 1)
            part = changed[begin : begin + 16]
            changed[at : at + len(part)] = part[: len(changed) - at]
        elif kind == "insert":
            changed[at:at] = noise
        elif kind == "delete":
            del changed[at : at + len(noise)]
        elif kind == "cut" and draw.random() < 0.1:
            del changed[at:]
    return bytes(changed)


def _edited_json(content: bytes, draw: Random) -> bytes:
    """Edit bytes or tokens of JSON in one to three places."""
    if draw.random() < 0.3:
        return _edited(content, draw)
    tokens = _TOKENS.findall(content)
    for _ in range(draw.randint(1, 3)):
        at, other = draw.randrange(len(tokens)), draw.randrange(len(tokens))
        kind = draw.choice(("word", "swap", "copy", "twice", "drop"))
        if kind == "word":
            tokens[at] = draw.choice(_WORDS)
        elif kind == "swap":
            tokens[at], tokens[other] = tokens[other], tokens[at]
        elif kind == "copy":
            tokens[at] = tokens[other]
        elif kind == "twice":
            tokens.insert(at, tokens[at])
        elif len(tokens) > 1:
            del tokens[at]
    return b" ".join(tokens)


def _draw(check: Callable[[Random], object], count: int, seed: int) -> None:
    """Call a function with random generators; it draws a batch of mutants from each, until there are `count`."""
    examples = -(-count // BATCH)
    for first in range(0, examples, ROUND):
        _one_round(check, min(examples - first, ROUND), seed + first)


def _one_round(check: Callable[[Random], object], examples: int, seed: int) -> None:
    @hypothesis.seed(seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, (1 << 64) - 1))
    def each(drawn: int) -> None:
        check(Random(f"{seed} {drawn}"))

    each()


def fuzz_json(folder: Path, count: int, seed: int) -> Counter[str]:
    """Read mutants of the configurations of a preset and of a repository."""
    outcomes: Counter[str] = Counter()
    sources = [write_all_once(folder)[kind] for kind in ("task", "transformers")]
    for source in sources:
        file = source / "config.json"
        valid = file.read_bytes()

        def check(draw: Random, source: Path = source, file: Path = file, valid: bytes = valid) -> None:
            for _ in range(BATCH):
                file.write_bytes(_edited_json(valid, draw))
                try:
                    read_configuration(source)
                except AlbertHubBridgeError:
                    outcomes["refused"] += 1
                else:
                    outcomes["accepted"] += 1

        _draw(check, count // len(sources), seed)
        file.write_bytes(valid)
    return outcomes


def fuzz_safetensors(folder: Path, count: int, seed: int) -> Counter[str]:
    """Read mutants of the header of a safetensors file."""
    outcomes: Counter[str] = Counter()
    file = write_all_once(folder)["transformers"] / "model.safetensors"
    whole = file.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    header, values = whole[8 : 8 + size], whole[8 + size :]

    def tensors() -> dict[str, tuple[Any, ...]]:
        with ExitStack() as resources:
            return _loaded(read_safetensors(file, resources))

    def without_values(found: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
        return {name: row[:2] for name, row in found.items()}

    valid = tensors()

    def check(draw: Random) -> None:
        for _ in range(BATCH):
            file.write_bytes(with_header(_edited_json(header, draw), values))
            try:
                found = tensors()
            except AlbertHubBridgeError:
                outcomes["refused"] += 1
                continue
            if without_values(found) != without_values(valid):
                outcomes["refused by the table"] += 1
            elif found == valid:
                outcomes["accepted, unchanged"] += 1
            else:
                theirs = {name: each.tobytes() for name, each in load_file(file).items()}
                assert theirs == {name: row[2] for name, row in found.items()}, "not what the file says"
                outcomes["whole, and other weights"] += 1

    _draw(check, count, seed)
    file.write_bytes(whole)
    return outcomes


def fuzz_flax(folder: Path, count: int, seed: int) -> Counter[str]:
    """Read mutants of a Flax file, many in one process; msgpack has to read the same from those that are accepted."""
    outcomes: Counter[str] = Counter()
    file = write_all_once(folder)["flax"] / "flax_model.msgpack"
    whole = file.read_bytes()
    with ExitStack() as resources:
        locations = locations_in(Sandbox("flax", [file], 5, resources), file)
    valid = _loaded(tensors_at(file, locations))
    runs = sorted((offset, offset + 4 * prod(shape)) for _, shape, offset in locations.values())
    structure = _without(whole, runs)

    def read(sandbox: Sandbox, mutant: Path) -> str:
        try:
            found = _loaded(tensors_at(mutant, locations_in(sandbox, mutant)))
        except ValueError:
            return "refused"
        if found == valid:
            return "accepted, unchanged"
        assert found == _by_msgpack(mutant.read_bytes()), "not what the file says"
        return "whole, and other tensors"

    def check(draw: Random) -> None:
        mutants = []
        for number in range(BATCH):
            any_size = draw.random() < 0.3
            content = _edited(whole, draw) if any_size else _joined(_edited(structure, draw, True), whole, runs)
            mutants.append(folder / f"mutant{number}.msgpack")
            mutants[-1].write_bytes(content or b"\0")
        _read_all("flax", mutants, read, outcomes)

    _draw(check, count, seed)
    return outcomes


def _loaded(tensors: Mapping[str, LazyTensor]) -> dict[str, tuple[Any, ...]]:
    return {name: (each.dtype, each.shape, each.load().tobytes()) for name, each in tensors.items()}


def _by_msgpack(content: bytes) -> dict[str, tuple[Any, ...]]:
    def array(_: int, data: bytes) -> tuple[Any, ...]:
        shape, dtype, values = msgpack.unpackb(data)
        return dtype, tuple(shape), values if dtype in STORED_DTYPES else b""  # values of other dtypes are not read

    def flat(node: Any, path: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
        if isinstance(node, dict):
            for name, child in node.items():
                yield from flat(child, f"{path}/{name}" if path else name)
        else:
            yield path, node

    return dict(flat(msgpack.unpackb(content, ext_hook=array), ""))


def _read_all(task: Any, files: list[Path], read: Callable[[Sandbox, Path], str], outcomes: Counter[str]) -> None:
    """Read files in one process, and start another one after a file on which it crashes or hangs."""
    while files:
        began = time.perf_counter()
        with ExitStack() as resources:
            sandbox = Sandbox(task, files, 5, resources)
            for file in list(files):
                files.remove(file)
                try:
                    outcomes[read(sandbox, file)] += 1
                except SandboxError as error:
                    if "crashes" in str(error):
                        hung = time.perf_counter() - began > 5
                        outcomes["killed after 5 s" if hung else "crashed in the sandbox"] += 1
                        break
                    outcomes["refused"] += 1


def fuzz_hdf5(folder: Path, count: int, seed: int) -> Counter[str]:
    """Read mutants of an HDF5 file, many in one process. The values are not changed, only the bytes between them."""
    outcomes: Counter[str] = Counter()
    source = write_all_once(folder)["preset"] / "model.weights.h5"
    whole = source.read_bytes()
    with ExitStack() as resources:
        valid = _rows(Sandbox("hdf5", [source], 5, resources).answer(source))
    runs = sorted((offset, offset + 4 * prod(shape)) for _, shape, offset in valid.values())
    structure = _without(whole, runs)

    def read(sandbox: Sandbox, mutant: Path) -> str:
        answer = sandbox.answer(mutant)
        if answer["problems"]:
            return "refused"
        found = _rows(answer)
        if {name: row[:2] for name, row in found.items()} != {name: row[:2] for name, row in valid.items()}:
            return "refused by the table"
        return "accepted, unchanged" if _is_same(mutant, found, valid, whole) else "whole, and other weights"

    def check(draw: Random) -> None:
        mutants = []
        for number in range(BATCH):
            mutant = folder / f"mutant{number}.h5"
            mutant.write_bytes(_joined(_edited(structure, draw, same_size=True), whole, runs))
            try:
                check_superblock(mutant)
                mutants.append(mutant)
            except AlbertHubBridgeError:
                outcomes["refused by its superblock"] += 1
        _read_all("hdf5", mutants, read, outcomes)

    _draw(check, count, seed)
    return outcomes


def _rows(answer: dict[str, Any]) -> dict[str, tuple[str, list[int], int | None]]:
    return {name: (dtype, shape, offset) for name, dtype, shape, offset in answer["datasets"]}


def _without(whole: bytes, runs: list[tuple[int, int]]) -> bytes:
    """Return all of a file except its values, which are in these runs."""
    starts, stops = [0, *(stop for _, stop in runs)], [*(begin for begin, _ in runs), len(whole)]
    return b"".join(whole[begin:stop] for begin, stop in zip(starts, stops, strict=True))


def _joined(structure: bytes, whole: bytes, runs: list[tuple[int, int]]) -> bytes:
    """Put the values back between the other bytes."""
    parts, end, taken = [], 0, 0
    for begin, stop in [*runs, (len(whole), len(whole))]:
        parts += [structure[taken : taken + begin - end], whole[begin:stop]]
        end, taken = stop, taken + begin - end
    return b"".join(parts)


def _values(content: bytes, datasets: dict[str, Any]) -> dict[str, bytes | None]:
    """Return the values of datasets that lie in one run."""
    return {
        name: None if offset is None else content[offset : offset + 4 * prod(shape)]
        for name, (_, shape, offset) in datasets.items()
    }


def _is_same(file: Path, found: dict[str, Any], valid: dict[str, Any], whole: bytes) -> bool:
    """Return whether a file has the tensors that it had; if not, libhdf5 has to read the same as we do."""
    before = _values(whole, valid)
    if _values(file.read_bytes(), found) == before:
        return True
    with ExitStack() as resources:
        ours = {name: each.load().tobytes() for name, each in read_datasets(file, resources).items()}
    if ours == before:
        return True
    target = file.with_suffix(".values")
    options = {"names": list(ours), "target": encode_path(target)}
    with ExitStack() as resources:
        Sandbox("hdf5", [file], 5, resources, written=len(whole), **options).answer(file)
    assert target.read_bytes() == b"".join(ours.values()), "not what the file says"
    return False


_PARSER = """
import sys
from pathlib import Path
from albert_hub_bridge.errors import VocabularyError
from albert_hub_bridge.formats.sentencepiece import fitting_vocabulary
from tests.hostile.valid import ARCHITECTURE
while size := int.from_bytes(sys.stdin.buffer.read(4), "little"):
    try:
        vocabulary = fitting_vocabulary(Path("mutant"), sys.stdin.buffer.read(size), ARCHITECTURE)
        vocabulary.processor.encode(["a bridge joins two banks", "ÅngströmX \\u3000 é ``'' [MASK]", ""])
        print("accepted", flush=True)
    except VocabularyError:
        print("refused", flush=True)
"""


def fuzz_protos(folder: Path, count: int, seed: int) -> Counter[str]:
    """Parse mutants of a vocabulary, and encode texts with those that are accepted."""
    outcomes: Counter[str] = Counter()
    valid = small_vocabulary()
    command = [sys.executable, "-c", _PARSER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parser:
        assert parser.stdin is not None
        assert parser.stdout is not None

        def check(draw: Random) -> None:
            for _ in range(BATCH):
                mutant = _edited(valid, draw) or b"\0"
                parser.stdin.write(len(mutant).to_bytes(4, "little") + mutant)
                parser.stdin.flush()
                answer = parser.stdout.readline().decode().strip()
                assert answer in ("accepted", "refused"), f"the parser crashed: {mutant!r}"
                outcomes[answer] += 1

        _draw(check, count, seed)
        parser.stdin.write(bytes(4))
    return outcomes


def fuzz_bundles(folder: Path, count: int, seed: int) -> Counter[str]:
    """Read mutants of a TensorFlow checkpoint: of its values, of its index, and of its index with valid checksums."""
    outcomes: Counter[str] = Counter()
    with zipfile.ZipFile(FIXTURES / "google_classifier.zip") as archive:
        archive.extractall(folder / "release")
    bundle = read_for_change(folder / "release")
    wholes = {file: file.read_bytes() for file in (bundle.index_file, bundle.values_file)}
    messages = bundle.messages()

    def draw_index(draw: Random) -> bytes:
        if draw.random() < 0.3:
            return table([(b"z", sealed(_edited(block(messages), draw)))])
        rows = list(messages)
        for _ in range(draw.randint(1, 2)):
            at, part = draw.randrange(len(rows)), draw.choice((0, 1, 1))
            edited = draw.choice(rows)[part] if draw.random() < 0.2 else _edited(rows[at][part], draw)
            rows[at] = (edited, rows[at][1]) if part == 0 else (rows[at][0], edited)
        return table([(b"z", sealed(block(sorted(rows))))])

    def of_the_table() -> dict[str, tuple[Any, ...]]:
        found, dropped = _read_variables(bundle.index_file)
        rows: dict[str, tuple[Any, ...]] = {name: (each.dtype, each.shape) for name, each in found.items()}
        return rows | {tensor.name: ("dropped", tensor.shape) for tensor in dropped}

    def tensors() -> dict[str, bytes]:
        found = read_bundle(bundle.index_file).items()
        return {name: each.load().tobytes() for name, each in found if each.dtype in DTYPES}

    expected, valid = of_the_table(), tensors()

    def check(draw: Random) -> None:
        for _ in range(BATCH):
            valid_checksums = draw.random() < 0.5
            file = bundle.index_file if valid_checksums else draw.choice(list(wholes))
            content = draw_index(draw) if valid_checksums else _edited(wholes[file], draw)
            file.write_bytes(content)
            outcome = "accepted, unchanged"
            try:
                if of_the_table() != expected:
                    outcome = "refused by the table"
                elif (found := tensors()) != valid:
                    assert found == _by_tensorflow(bundle.index_file), "not what the file says"
                    outcome = "whole, and other weights"
            except AlbertHubBridgeError:
                outcome = "refused"
            # The values of the optimizer are not read.
            unread = file == bundle.values_file and outcome == "accepted, unchanged"
            assert valid_checksums or outcome == "refused" or unread or content == wholes[file], "an unseen change"
            outcomes[f"{outcome}, with valid checksums" if valid_checksums else outcome] += 1
            file.write_bytes(wholes[file])

    _draw(check, count, seed)
    return outcomes


def _by_tensorflow(index: Path) -> dict[str, bytes]:
    import tensorflow

    reader = tensorflow.train.load_checkpoint(str(index.with_suffix("")))
    dtypes = reader.get_variable_to_dtype_map()
    return {name: reader.get_tensor(name).tobytes() for name in dtypes if dtypes[name].name in DTYPES}


_written: dict[Path, dict[str, Path]] = {}


def write_all_once(folder: Path) -> dict[str, Path]:
    """Write the valid sources into a folder, once."""
    if folder not in _written:
        (folder / "valid").mkdir()
        _written[folder] = write_all(folder / "valid", small_vocabulary())
    return _written[folder]


FUZZERS = {
    "json": fuzz_json,
    "safetensors": fuzz_safetensors,
    "hdf5": fuzz_hdf5,
    "protos": fuzz_protos,
    "bundles": fuzz_bundles,
    "flax": fuzz_flax,
}
# fmt: off
COUNTS = {
    "json": 1_000_000, "safetensors": 1_000_000, "hdf5": 100_000, "protos": 10_000, "bundles": 100_000, "flax": 100_000,
}
# fmt: on


def main() -> None:
    """Read mutants of each kind, and print how many were refused and accepted."""
    parser = argparse.ArgumentParser(description="Fuzz every parser of untrusted files.")
    for name, count in COUNTS.items():
        parser.add_argument(f"--{name}", type=int, default=count, help=f"number of mutants (default {count:,})")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        for name, fuzz in FUZZERS.items():
            began = time.perf_counter()
            outcomes = fuzz(Path(parent), getattr(options, name), options.seed)
            seconds = time.perf_counter() - began
            print(f"{name}: {sum(outcomes.values()):,} mutants in {seconds:,.0f} s: {json.dumps(outcomes)}", flush=True)


if __name__ == "__main__":
    main()
