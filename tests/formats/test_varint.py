from __future__ import annotations

import pytest
from google.protobuf.descriptor_pb2 import UninterpretedOption
from hypothesis import given
from hypothesis import strategies as st

from albert_hub_bridge.formats.varint import read_varint


@given(st.integers(0, (1 << 64) - 1), st.binary(max_size=12))
def test_read_varint_reads_what_protobuf_writes(number: int, after: bytes) -> None:
    tag = b"\x20"  # of field 4, a 64-bit integer
    content = UninterpretedOption(positive_int_value=number).SerializeToString()
    assert content.startswith(tag)
    assert read_varint(content + after, 1) == (number, len(content))


@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"\xff" * 9, b"\xff" * 10, b"\xff" * 9 + b"\x02", b"\x80" * 10 + b"\1"]
)
def test_read_varint_refuses_damage(content: bytes) -> None:
    with pytest.raises(ValueError, match="a number without an end, or of more than 64 bits, at byte 0"):
        read_varint(content, 0)
