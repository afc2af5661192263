"""Variable-length integers, as protobuf and LevelDB write them. protobuf's own reader is not public."""

from __future__ import annotations


_MAX_BYTES = 10  # 64 bits


def read_varint(content: bytes, position: int) -> tuple[int, int]:
    """Read an integer of at most 64 bits: seven bits per byte, the lowest first.

    Args:
        content: Bytes that have the integer.
        position: Index of its first byte.

    Returns:
        The integer, and the index of the byte after it.

    Raises:
        ValueError: The content ends within the integer, or the integer has more than 64 bits.

    Source:
        https://protobuf.dev/programming-guides/encoding/#varints.
    """
    if position < len(content) and (byte := content[position]) < 0x80:  # most are one byte
        return byte, position + 1
    value = 0
    for index, byte in enumerate(content[position : position + _MAX_BYTES]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80 and value < 1 << 64:
            return value, position + index + 1
    raise ValueError(f"a number without an end, or of more than 64 bits, at byte {position:,}")
