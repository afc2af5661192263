"""Untrusted `tokenizer.json` files of any kind: what is checked before other libraries load them.

The tokenizers library takes many times the memory of a file, and runs the regular expressions in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from albert_hub_bridge.mapping.tokenizer_json import parse_tokenizer
from albert_hub_bridge.text import first_few, short_repr


# Patterns of GPT-2 and Llama 3 have no repeated groups, and at most two repetitions without an end in a branch. The
# time of a pattern within these limits grows with a small power of the length of the text.
_MAX_REPETITIONS = 3
_ESCAPED = re.compile(r"\\[pP]\{[^}]*\}|\\.|\[(?:\\.|[^\]\\])*\]")
_REPEATED_GROUP = re.compile(r"\)[*+{]")
_REPETITION = re.compile(r"[*+]|\{\d*,\}")


def tokens_of(content: Mapping[str, Any], max_tokens: int, max_bytes: int) -> dict[str, int]:
    """Return the ids of all tokens of a `tokenizer.json`, after checking that a library can load it.

    Args:
        content: The parsed file.
        max_tokens: The number of rows of the token embedding.
        max_bytes: The largest size of all tokens, in bytes.

    Raises:
        ValueError: The tokenizers library rejects the file or gives an added token another id, there are too many
            tokens, or a regular expression may take forever.
    """
    added = _added(content)
    check_size([*_vocabulary(content), *(row["content"] for row in added)], max_tokens, max_bytes)
    if wrong := [pattern for pattern in _patterns(content) if may_take_forever(pattern)]:
        raise ValueError(f"regular expressions that may take forever, such as {short_repr(wrong[0])}")
    model = content["model"]
    if isinstance(model["vocab"], list) and not 0 <= _index(model.get("unk_id")) < len(model["vocab"]):
        raise ValueError("a model that has no unknown piece")  # an unknown character would be an error of the library
    ids: dict[str, int] = parse_tokenizer(content).get_vocab(with_added_tokens=True)
    check_ids({row["content"]: row["id"] for row in added}, ids)
    return ids


def check_size(tokens: Iterable[str], max_tokens: int, max_bytes: int) -> None:
    """Check that a vocabulary is no larger than a model allows.

    Raises:
        ValueError: There are too many tokens, or they are too long.
    """
    distinct = set(tokens)
    if len(distinct) > max_tokens:
        raise ValueError(f"{len(distinct)} tokens, and the token embedding has {max_tokens} rows")
    if (size := sum(len(token.encode()) for token in distinct)) > max_bytes:
        raise ValueError(f"{size:,} bytes of tokens, and the limit is {max_bytes:,}")


def check_ids(found: Mapping[str, Any], expected: Mapping[str, int]) -> None:
    """Check that tokens have the ids that a library gives them.

    Raises:
        ValueError: A token is unknown, or has another id.
    """
    if unknown := [short_repr(token) for token in sorted(set(found) - set(expected))]:
        raise ValueError(f"tokens beyond the vocabulary, such as {first_few(unknown, 10)}")
    if wrong := [
        f"{short_repr(token)} has {short_repr(index)} instead of {expected[token]}"
        for token, index in found.items()
        if type(index) is not int or index != expected[token]
    ]:
        raise ValueError(f"ids that differ from the vocabulary: {first_few(wrong, 10)}")


def may_take_forever(pattern: str) -> bool:
    """Return whether the time of a regular expression may grow faster than a small power of the length of a text."""
    plain = _ESCAPED.sub("x", pattern)
    if _REPEATED_GROUP.search(plain):
        return True
    return any(len(_REPETITION.findall(branch)) > _MAX_REPETITIONS for branch in plain.split("|"))


def _index(value: Any) -> int:
    return value if type(value) is int else -1


def _vocabulary(content: Mapping[str, Any]) -> list[str]:
    model = content.get("model")
    rows = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(rows, list) and all(isinstance(row, list) and row and isinstance(row[0], str) for row in rows):
        return [row[0] for row in rows]
    if isinstance(rows, dict):
        return list(rows)
    raise ValueError("no vocabulary")


def _added(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = content.get("added_tokens") or []
    keys = {"id": int, "content": str}
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and all(type(row.get(key)) is kind for key, kind in keys.items()) for row in rows
    ):
        raise ValueError("added_tokens is not a list of tokens")
    return rows


def _patterns(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        yield from (str(value) for key, value in part.items() if key == "Regex")
        part = [value for key, value in part.items() if key not in ("vocab", "merges")]
    if isinstance(part, list):
        for value in part:
            yield from _patterns(value)
