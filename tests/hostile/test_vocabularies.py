"""Wrong SentencePiece models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentencepiece import sentencepiece_model_pb2 as proto_types

from conversion.sample import train_vocabulary
from tests.hostile.conftest import Refused, expect
from tests.hostile.valid import CORPUS


def _parsed(change: Callable[[Any], object]) -> Callable[[bytes], bytes]:
    def apply(proto: bytes) -> bytes:
        model: Any = proto_types.ModelProto()  # type: ignore[attr-defined]
        model.ParseFromString(proto)
        change(model)
        return bytes(model.SerializeToString())

    return apply


def _add(model: Any, count: int, **fields: Any) -> None:
    for number in range(count):
        model.pieces.add(**{"piece": f"x{number}", "score": -5.0, **fields})


def _mapped(charsmap: bytes) -> Callable[[bytes], bytes]:
    return _parsed(lambda model: setattr(model.normalizer_spec, "precompiled_charsmap", charsmap))


def _trained(**flags: Any) -> Callable[[bytes], bytes]:
    return lambda proto: train_vocabulary(60, CORPUS * 4, **{"user_defined_symbols": ["."], **flags})


# fmt: off
PROTOS: dict[str, Callable[[bytes], bytes]] = {
    "noise":                     lambda p: bytes(range(256)) * 4,
    "zeros":                     lambda p: bytes(1000),
    "cut off in a piece":        lambda p: p[:50],
    "cut off between pieces":    lambda p: p[: p.index(b"\x0a", 2)],
    "cut off in the middle":     lambda p: p[: len(p) // 2],
    "cut off before the end":    lambda p: p[:-1],
    "a field of groups":         lambda p: p + b"\x0b\x0c",
    "a number without an end":   lambda p: p + b"\x10" + b"\xff" * 20,
    "a length of exabytes":      lambda p: p + b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    "an unknown field":      lambda p: p + b"\xfa\x7f\x05hello" + b"\xff",
    "a million empty pieces":    lambda p: p + b"\x0a\x00" * 10_000,
    "more pieces than rows":     _parsed(lambda m: _add(m, 100)),
    "no pieces":                 _parsed(lambda m: m.ClearField("pieces")),
    "no trainer":                _parsed(lambda m: m.ClearField("trainer_spec")),
    "no normalizer":             _parsed(lambda m: m.ClearField("normalizer_spec")),
    "no special pieces":         _parsed(lambda m: setattr(m.pieces[0], "piece", "pad")),
    "no unknown piece":          _parsed(lambda m: setattr(m.pieces[1], "type", 1)),
    "two unknown pieces":        _parsed(lambda m: _add(m, 1, type=2)),
    "a piece twice":             _parsed(lambda m: _add(m, 2, piece="twice")),
    "an empty piece":            _parsed(lambda m: _add(m, 1, piece="")),
    "a score of NaN":            _parsed(lambda m: _add(m, 1, score=float("nan"))),
    "a score of infinity":       _parsed(lambda m: _add(m, 1, score=float("inf"))),
    "bytes for pieces":          _parsed(lambda m: _add(m, 1, type=6)),
    "a damaged map":             _mapped(b"\xff" * 64),
    "a map of a gigabyte":       _mapped(b"\xfc\xff\xff\x3f" + bytes(64)),
    "a map of 5 MB":             _mapped(bytes(5 << 20)),
    "a trainer of 5 MB":         _parsed(lambda m: m.trainer_spec.input.append("x" * (5 << 20))),
    "another model":             _parsed(lambda m: setattr(m.trainer_spec, "model_type", 2)),
    "falling back to bytes":     _parsed(lambda m: setattr(m.trainer_spec, "byte_fallback", True)),
    "white space behind":        _parsed(lambda m: setattr(m.trainer_spec, "treat_whitespace_as_suffix", True)),
    "white space as it is":      _parsed(lambda m: setattr(m.normalizer_spec, "escape_whitespaces", False)),
    "of characters":             _trained(model_type="char", vocab_size=40),
    "of words":                  _trained(model_type="word", vocab_size=15),
    "of pairs":                  _trained(model_type="bpe", vocab_size=60),
    "with other special pieces": _trained(control_symbols=["<s>", "</s>", "<mask>"]),
}
# fmt: on


@pytest.mark.parametrize("what", PROTOS)
def test_vocabularies(what: str, source: Callable[[str], Path], proto: bytes, refused: Refused) -> None:
    folder = source("albert_hub")
    changed = PROTOS[what](proto)
    assert changed != proto
    (folder / "spiece.model").write_bytes(changed)
    expect(refused(folder), "spiece.model")
