"""Refuse hostile TensorFlow checkpoints: false indices with valid checksums, and damaged files."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from albert_hub_bridge.errors import WeightsError
from albert_hub_bridge.layouts.registry import read_checkpoint
from tests.hostile.bundles import (
    HEADER,
    MAGIC,
    Bundle,
    block,
    in_bundle,
    proto,
    read_for_change,
    sealed,
    table,
    varint,
    with_restarts,
)
from tests.hostile.conftest import Refused, expect


INDEX, VALUES = "model.ckpt-best.index", "model.ckpt-best.data-00000-of-00001"
BIAS, KERNEL = "bert/pooler/dense/bias", "bert/pooler/dense/kernel"
LAST = "output_weights"
NOISE = np.random.default_rng(3).bytes(2000)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 13044\n"


@pytest.fixture
def release(unpacked: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(unpacked("google_classifier"), tmp_path / "source"))


def test_the_writer_of_this_module_writes_what_tensorflow_wrote(release: Path) -> None:
    before = (release / INDEX).read_bytes()
    bundle = read_for_change(release)
    assert bundle.index() == before


def _row(**changes: object) -> Callable[[Bundle], object]:
    return lambda bundle: bundle.rows[BIAS].update(changes)


def _header(content: bytes) -> Callable[[Bundle], object]:
    return lambda bundle: setattr(bundle, "header", content)


def _renamed(name: str) -> Callable[[Bundle], object]:
    return lambda bundle: bundle.rows.update({name: bundle.rows.pop(BIAS)})


def _same_place(bundle: Bundle) -> None:
    twin = bundle.rows["bert/embeddings/LayerNorm/beta"]
    bundle.rows["bert/embeddings/LayerNorm/gamma"].update(offset=twin["offset"], checksum=twin["checksum"])


def _more(bundle: Bundle, name: str, **changes: object) -> None:
    row = {"dtype": 1, "shape": (0,), "shard": 0, "offset": 0, "size": 0, "checksum": 0xA282EAD8, "more": b""}
    bundle.rows = dict(sorted({**bundle.rows, name: {**row, **changes}}.items()))


# fmt: off
# A change of the index, with valid checksums -> what the message has to contain.
CHANGES: dict[str, tuple[Callable[[Bundle], object], str]] = {
    "no variables":              (lambda b: b.rows.clear(), "with variables in 0"),
    "another dtype":             (_row(dtype=3), "found int32"),
    "a wider dtype":             (_row(dtype=2), "float64 and shape (8,) in 32 bytes"),
    "a narrower dtype":          (_row(dtype=19), "float16 and shape (8,) in 32 bytes"),
    "texts":                     (_row(dtype=7), "found string"),
    "an unknown dtype":      (_row(dtype=99), "found dtype 99"),
    "a dtype below 0":           (_row(dtype=-1), "found dtype -1"),
    "no dtype":                  (_row(dtype=0), "found dtype 0"),
    "a shape of a petabyte":     (_row(shape=(1 << 24, 1 << 24)), "in 32 bytes"),
    "a shape and size of one":   (_row(shape=(1 << 46,), size=1 << 48), "281474976710656 bytes"),
    "sizes of a terabyte":       (_row(shape=(1 << 38,), size=1 << 40), "where the tensor before it ends"),
    "a shape that overflows":    (_row(shape=(1 << 62, 1 << 62)), "not all of it are sizes"),
    "a shape below 0":           (_row(shape=(-8,)), "not all of it are sizes"),
    "another shape":             (_row(shape=(2, 4)), "wrong shape"),
    "40 dimensions":             (_row(shape=(1,) * 39 + (8,)), "not all of it are sizes"),
    "a size below 0":            (_row(size=-32), "-32 bytes"),
    "an offset below 0":         (_row(offset=-1), "32 bytes at -1"),
    "an offset elsewhere":       (_row(offset=0), "where the tensor before it ends"),
    "an offset beyond the file": (lambda b: b.rows[LAST].update(offset=1 << 40), "where the tensor before it ends"),
    "a file that is not there":  (_row(shard=1), "of file 1 of 1"),
    "a file below 0":            (_row(shard=-1), "of file -1 of 1"),
    "two in one place":          (_same_place, "at byte 0, where"),
    "one less":                  (lambda b: b.rows.pop(LAST), "96 bytes after its last tensor"),
    "one more":                  (lambda b: _more(b, "one_more", offset=13044), "unexpected"),
    "one more, beyond the file": (lambda b: _more(b, "one_more", offset=13044, shape=(1,), size=4), "truncated"),
    "another name":              (_renamed("bert/pooler/dense/bia"), "are not in order"),
    "an empty name":             (_renamed(""), "are not in order"),
    "a name of two variables":   (lambda b: _more(b, "pooler/dense/bias", shape=(), size=4), "where the tensor"),
    "two that mean one":         (lambda b: _more(b, "pooler/dense/bias"), "twice"),
    "a name for terminals":      (lambda b: _more(b, "x\x9b\x1b[2J"), "can't decode"),
    "a name of a megabyte":      (lambda b: _more(b, "x" * 1_000_000), "where 300 of 65,536 are allowed"),
    "slices":                    (_row(more=proto((7, b""))), "in parts"),
    "a million slices":          (_row(more=proto((7, b"")) * 1_000_000), "where 300 of 65,536 are allowed"),
    "a part of a variable":      (lambda b: _more(b, "\0x\0\1"), "x in parts"),
    "an unknown field":      (_row(more=proto((9, 9))), "more than TensorFlow writes"),
    "a field twice":             (_row(more=proto((4, 8))), "more than TensorFlow writes"),
    "half a message":            (_row(more=b"\x3a\x7f"), "a message that is damaged"),
    "a number without end":      (_row(more=b"\x48" + b"\xff" * 30), "a message that is damaged"),
    "no header":                 (_header(b""), "one of 0 files"),
    "a header of noise":         (_header(b"\xff" * 9), "a message that is damaged"),
    "big-endian":                (_header(proto((1, 1), (2, 1))), "byte order 1"),
    "files below 0":             (_header(proto((1, -1))), "one of -1 files"),
    "two billion files":         (_header(proto((1, 2_000_000_000))), "2,000,000,000 files"),
    "two files":                 (_header(proto((1, 2))), "one of 2 files of values"),
    "a later version":           (_header(HEADER[:2] + proto((3, proto((1, 3), (2, 2))))), "readers"),
    "a version that went bad":   (_header(HEADER[:2] + proto((3, proto((3, b"\1"))))), "readers"),
}
# fmt: on


@pytest.mark.parametrize("what", CHANGES)
def test_changed_indices_are_refused(what: str, release: Path, refused: Refused) -> None:
    change, found = CHANGES[what]
    in_bundle(change)(release)
    expect(refused(release), ["model.ckpt-best", found])


def _with_block(content: bytes, kind: int = 0) -> bytes:
    return table([(b"z", sealed(content, kind))])


def _messages(change: Callable[[list[tuple[bytes, bytes]]], list[tuple[bytes, bytes]]]) -> Callable[[Bundle], bytes]:
    return lambda bundle: _with_block(block(change(bundle.messages())))


def _first(rows: bytes) -> Callable[[Bundle], bytes]:
    """Return a function that writes these rows after the header."""
    return lambda bundle: _with_block(b"\0\0\6" + HEADER + rows + with_restarts([0]))


def _restarts(change: Callable[[list[int]], list[int]]) -> Callable[[Bundle], bytes]:
    def make(bundle: Bundle) -> bytes:
        content = block(bundle.messages())
        count = struct.unpack("<I", content[-4:])[0]
        starts = list(struct.unpack(f"<{count}I", content[-4 * count - 4 : -4]))
        return _with_block(content[: -4 * count - 4] + with_restarts(change(starts)))

    return make


def _in_blocks(*parts: tuple[bytes, slice]) -> Callable[[Bundle], bytes]:
    return lambda bundle: table([(key, sealed(block(bundle.messages()[some]))) for key, some in parts])


def _edited(change: Callable[[bytearray], object]) -> Callable[[Bundle], bytes]:
    def make(bundle: Bundle) -> bytes:
        content = bytearray(bundle.index())
        change(content)
        return bytes(content)

    return make


def _footer(*numbers: int) -> Callable[[Bundle], bytes]:
    footer = b"".join(varint(number) for number in numbers).ljust(40, b"\0")
    return lambda bundle: bundle.index()[:-48] + footer + bundle.index()[-8:]


def _at(offset: int, new: bytes) -> Callable[[Bundle], bytes]:
    return _edited(lambda content: content.__setitem__(slice(offset, offset + len(new)), new))


MANY = b"".join(b"\0\4\0" + struct.pack(">I", number) for number in range(1, 500_000))
FOOTER, CUT = "a footer that does not name", "was it cut off?"
RESTARTS, ORDER, OTHERS = "restarts where no whole name is", "are not in order", "names outside of its range"
# fmt: off
# The bytes of an index -> what the message has to contain.
WRITTEN: dict[str, tuple[Callable[[Bundle], bytes], str]] = {
    "nothing":                      (lambda b: b"", "0 bytes"),
    "a flipped bit":                (_edited(lambda c: c.__setitem__(1000, c[1000] ^ 4)), "with crc32c"),
    "a flipped length":             (_edited(lambda c: c.__setitem__(2, c[2] ^ 1)), "with crc32c"),
    "a flipped type":               (_edited(lambda c: c.__setitem__(-48 - 5 - 26, 1)), "with crc32c"),
    "another type":                 (lambda b: _with_block(block(b.messages()), 1), "compressed (type 1)"),
    "an unknown type":          (lambda b: _with_block(block(b.messages()), 77), "compressed (type 77)"),
    "cut off":                      (lambda b: b.index()[:-1], CUT),
    "cut off before the footer":    (lambda b: b.index()[:-48], CUT),
    "a footer and nothing else":    (lambda b: b.index()[-48:], FOOTER),
    "a byte at the end":            (lambda b: b.index() + b"\0", CUT),
    "a byte at the beginning":      (lambda b: b"\0" + b.index(), FOOTER),
    "a byte between blocks":        (lambda b: table([(b"z", sealed(block(b.messages())) + b"\0")]), "with crc32c"),
    "a magic of another":           (_at(-8, b"\0"), CUT),
    "a footer of noise":            (_at(-48, b"\xff" * 40), "a number without an end"),
    "a footer of more":             (_at(-9, b"\1"), FOOTER),
    "a place beyond the end":       (_footer(0, 8, 1 << 40, 26), FOOTER),
    "a place of exabytes":          (_footer((1 << 63) - 1, 8, 13, 1), FOOTER),
    "places in the wrong order":    (_footer(3000, 8, 2900, 26), FOOTER),
    "a number with zeros":          (_at(-48, b"\x80\x80\x00"), "a number with zeros at its end"),
    "blocks about others":          (lambda b: table([], sealed(block([(b"a", b"")]))), "blocks about other blocks"),
    "no blocks":                    (lambda b: table([]), "does not begin with a header"),
    "a block of nothing":           (lambda b: table([(b"a", sealed(block([])))]), "an empty block"),
    "a block without restarts":     (lambda b: _with_block(with_restarts([])), "0 restarts"),
    "a block of a byte":            (lambda b: _with_block(b"\1"), "with 1 restarts"),
    "four billion restarts":        (lambda b: _with_block(b"\xff" * 4), "4,294,967,295 restarts"),
    "a million restarts":           (_restarts(lambda s: [0] * 1_000_000), RESTARTS),
    "restarts in a row":            (_restarts(lambda s: list(range(2000))), RESTARTS),
    "restarts backwards":           (_restarts(lambda s: [0, *s[:0:-1]]), RESTARTS),
    "restarts elsewhere":           (_restarts(lambda s: [s[0], s[1] + 1]), RESTARTS),
    "a first restart elsewhere":    (_restarts(lambda s: s[1:]), RESTARTS),
    "a name of what was not there": (_first(b"\5\1\0a"), "5 of the 0 bytes before it"),
    "a length beyond the block":    (_first(b"\0\x7f\0a"), "instead of 127"),
    "a value beyond the block":     (_first(b"\0\1\x7fa"), "instead of 127"),
    "a length of exabytes":         (_first(b"\0" + varint(1 << 62) + b"\0a"), "are allowed"),
    "a length without end":         (_first(b"\0" + b"\xff" * 40), "a number without an end"),
    "a length that ends too soon":  (_first(b"\x80"), "a number without an end"),
    "half a million names":         (_first(MANY), "more than 30,000 names"),
    "no header":                    (_messages(lambda m: m[1:]), "does not begin with a header"),
    "names in another order":       (_messages(lambda m: m[:1] + m[:0:-1]), ORDER),
    "one name twice":               (_messages(lambda m: [*m, m[-1]]), ORDER),
    "blocks in another order":      (_in_blocks((b"a", slice(1)), (b"y", slice(40, 77)), (b"z", slice(1, 40))), OTHERS),
    "blocks that share a name":     (_in_blocks((b"bert/q", slice(74)), (b"z", slice(73, None))), OTHERS),
    "a block under another key":    (_in_blocks((b"bert", slice(74)), (b"z", slice(74, None))), OTHERS),
    "one key for two blocks":       (_in_blocks((b"z", slice(74)), (b"z", slice(74, None))), ORDER),
    "an index of 5 MB":             (lambda b: bytes(5 << 20) + b.index(), "expected at most 4,194,304 bytes"),
}
# fmt: on


@pytest.mark.parametrize("what", WRITTEN)
def test_index_bytes_are_refused(what: str, release: Path, refused: Refused) -> None:
    make, found = WRITTEN[what]
    bundle = read_for_change(release)
    bundle.write(make(bundle))
    expect(refused(release), [INDEX, found])


def test_several_blocks_are_read(release: Path) -> None:
    """LevelDB shortens the key of a block: it only has to be between two names."""
    bundle = read_for_change(release)
    with read_checkpoint(release) as checkpoint:
        before = {name: weight.read().tobytes() for name, weight in checkpoint.weights.items()}
    blocks = [
        (b"bert/encodes", slice(72)),
        (b"c", slice(72, 74)),
        (b"output_bias", slice(74, 76)),
        (b"p", slice(76, 77)),
    ]
    bundle.write(_in_blocks(*blocks)(bundle))
    with read_checkpoint(release) as checkpoint:
        assert {name: weight.read().tobytes() for name, weight in checkpoint.weights.items()} == before


# fmt: off
# The places of two blocks, in a table with one block of this size.
PLACES: dict[str, Callable[[int], tuple[bytes, bytes]]] = {
    "one block twice":      lambda size: (varint(0) + varint(size), varint(0) + varint(size)),
    "a block of petabytes": lambda size: (varint(0) + varint(1 << 50), varint(size) + varint(1)),
    "not the first block":  lambda size: (varint(1) + varint(size - 1), varint(size + 5) + varint(8)),
    "the block of nothing": lambda size: (varint(0) + varint(size), varint(size + 5) + varint(8)),
    "more in a place":      lambda size: (varint(0) + varint(size) + b"\0", varint(size + 5) + varint(8)),
}
# fmt: on


@pytest.mark.parametrize("what", PLACES)
def test_block_places_are_refused(what: str, release: Path, refused: Refused) -> None:
    bundle = read_for_change(release)
    content, about = sealed(block(bundle.messages())), sealed(block([]))
    first, second = PLACES[what](len(content) - 5)
    places = sealed(block([(b"y", first), (b"z", second)], 1))
    ends = (len(content), 8, len(content) + len(about), len(places) - 5)
    bundle.write(content + about + places + b"".join(map(varint, ends)).ljust(40, b"\0") + MAGIC)
    expect(refused(release), [INDEX, "a block of", "where the block before it ends at"])


def _flipped(at: int) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        content = bytearray((folder / VALUES).read_bytes())
        content[at] ^= 16
        (folder / VALUES).write_bytes(content)

    return change


def _piped(folder: Path) -> None:
    (folder / VALUES).unlink()
    os.mkfifo(folder / VALUES)


def _linked(folder: Path) -> None:
    (folder / VALUES).rename(folder.parent / "elsewhere")
    (folder / VALUES).symlink_to(folder.parent / "elsewhere")


def _sparse(name: str) -> Callable[[Path], object]:
    return lambda folder: os.truncate(folder / name, 1 << 40)


# fmt: off
# A change of the files -> what the message has to contain.
FILES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "noise":                  (lambda f: (f / INDEX).write_bytes(NOISE), [INDEX, "was it cut off?"]),
    "no values":              (lambda f: (f / VALUES).unlink(), [INDEX, f"no {VALUES} in its folder"]),
    "empty values":           (lambda f: (f / VALUES).write_bytes(b""), [VALUES, "0 bytes"]),
    "half of the values":     (lambda f: os.truncate(f / VALUES, 6000), [VALUES, "truncated at 6,000 of 13,044 bytes"]),
    "a byte more":            (lambda f: os.truncate(f / VALUES, 13045), [VALUES, "1 bytes after its last tensor"]),
    "values of a terabyte":   (_sparse(VALUES), [VALUES, "bytes after its last tensor"]),
    "an index of a terabyte": (_sparse(INDEX), [INDEX, "too large"]),
    "a flipped bit":          (_flipped(12_700), [VALUES, "wrong checksum", KERNEL, "expected values with crc32c 0x"]),
    "the first bit flipped":  (_flipped(0), [VALUES, "wrong checksum", "bert/embeddings/LayerNorm/beta"]),
    "the last bit flipped":   (_flipped(-1), [VALUES, "wrong checksum", LAST]),
    "another checksum":       (in_bundle(_row(checksum=7)), [VALUES, "wrong checksum", BIAS, "crc32c 0x00000007"]),
    "a pointer of LFS":       (lambda f: (f / VALUES).write_bytes(POINTER), [VALUES, "git lfs pull"]),
    "values that are a pipe": (_piped, [VALUES, "a pipe"]),
    "values of a neighbour":  (_linked, [VALUES, "outside of it"]),
    "an index that is a pipe": (lambda f: ((f / INDEX).unlink(), os.mkfifo(f / INDEX)), [INDEX, "a pipe"]),
}
# fmt: on


@pytest.mark.parametrize("what", FILES)
def test_checkpoint_files_are_refused(what: str, release: Path, refused: Refused) -> None:
    change, found = FILES[what]
    change(release)
    expect(refused(release), found)


def test_an_optimizer_is_not_read(release: Path) -> None:
    """The state of an optimizer is twice the size of the model: damage in it does not matter."""
    _flipped(12_930)(release)  # in global_step
    with read_checkpoint(release) as checkpoint:
        assert [tensor.name for tensor in checkpoint.dropped] == ["global_step"]
        checkpoint.check_values()


def test_wrong_values_are_refused_at_each_read(release: Path) -> None:
    _flipped(12_700)(release)
    with read_checkpoint(release) as checkpoint:
        for _ in range(2):
            with pytest.raises(WeightsError, match="wrong checksum"):
                checkpoint.weights["pooled_dense.weight"].read()
