"""Texts that tell tokenizers apart: real ones from the documentation of installed packages, and generated ones."""

from __future__ import annotations

import random
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import torch
import transformers

from albert_hub_bridge.model.sentencepiece_unigram import SPECIAL_PIECES


WHITE = " \t\n\r\x0b\x0c\x00\x1c\x85\xa0\u1680\u2000\u2001\u2009\u200b\u2028\u2029\u202f\u205f\u3000\ufeff▁"


@cache
def _documentation() -> list[str]:
    texts = [package.read_text("METADATA") or "" for package in distributions()]
    texts += [file.read_text("utf-8") for file in sorted(Path(torch.__file__).parent.glob("_*docs.py"))]
    texts += [file.read_text("utf-8") for file in sorted(Path(transformers.__file__).parent.glob("*.py"))]
    # One line in a hundred is a prompt, `>>>`. Tests train vocabularies on this corpus, and `>>` is a piece of some.
    # There each prompt is a tie: a text with two splits of the same score.
    lines = sorted({line for text in texts for line in text.splitlines() if ">>>" not in line})
    random.Random(0).shuffle(lines)
    return lines


def documentation(count: int) -> list[str]:
    """Return lines of the descriptions of installed packages."""
    return _documentation()[:count]


@cache
def _by_category() -> dict[str, list[str]]:
    found = defaultdict(list)
    for code in range(0x110000):
        if (category := unicodedata.category(chr(code))) != "Cs":
            found[category].append(chr(code))
    return found


CATEGORIES = tuple(sorted(_by_category()))


@cache
def unicode(count: int, ascii_share: float) -> list[str]:
    """Return texts of characters of every general category, with a share of ASCII between them."""
    draw, characters = random.Random(1), _by_category()

    def character() -> str:
        if draw.random() < ascii_share:
            return chr(draw.randint(32, 126))
        return draw.choice(characters[draw.choice(CATEGORIES)])

    return ["".join(character() for _ in range(draw.randint(0, 30))) for _ in range(count)]


def from_pieces(count: int, pieces: Sequence[str]) -> list[str]:
    """Return random rows of pieces, with and without spaces, and with control pieces spelled out among them."""
    draw, special = random.Random(2), list(SPECIAL_PIECES.values())
    rows = [
        "".join(draw.choice(special if draw.random() < 0.02 else pieces) for _ in range(draw.randint(0, 20)))
        for _ in range(count)
    ]
    return [row.replace("▁", " ") if index % 2 else row for index, row in enumerate(rows)]


def white(count: int) -> list[str]:
    """Return texts with white space of every kind."""
    draw = random.Random(3)
    return [
        "".join(
            draw.choice(WHITE) if draw.random() < 0.5 else draw.choice("abé日.()3") for _ in range(draw.randint(0, 30))
        )
        for _ in range(count)
    ]


# First and last letters of blocks of Unicode.
SCRIPTS = {
    "Latin": (0xC0, 0x17F), "Greek": (0x391, 0x3C9), "Cyrillic": (0x410, 0x44F), "Hebrew": (0x5D0, 0x5EA),
    "Arabic": (0x621, 0x64A), "Devanagari": (0x904, 0x939), "Thai": (0xE01, 0xE2E), "Hangul": (0xAC00, 0xD7A3),
    "kana": (0x3041, 0x30F6), "Han": (0x4E00, 0x9FA5), "full width": (0xFF01, 0xFF5E),
}  # fmt: skip


def scripts(count: int) -> list[str]:
    """Return lines of words of eleven scripts among English words, numbers and quotes."""
    draw = random.Random(4)
    words = ["the", "The", "river,", "3.14", "1,984", "(a)", "“q”", "''q``", "İstanbul", "ΟΔΟΣ", "Straße", "e\u0301"]

    def word() -> str:
        first, last = draw.choice(list(SCRIPTS.values()))
        return "".join(chr(draw.randint(first, last)) for _ in range(draw.randint(1, 6)))

    return [
        (" " * draw.randint(1, 2)).join(word() if draw.random() < 0.6 else draw.choice(words) for _ in range(6))
        for _ in range(count)
    ]


LONG = ["a" * 5000, "é" * 3000, " " * 1000, "日" * 2000, "ab " * 2000, ""]


def numbers(count: int) -> list[str]:
    """Return lines of numbers, dates, prices, versions and times among words, many of them before a comma."""
    draw = random.Random(4)
    kinds: tuple[Callable[[], str], ...] = (
        lambda: f"{draw.randrange(10 ** draw.randint(1, 9)):,}",
        lambda: str(draw.randint(1500, 2100)),
        lambda: f"{draw.randint(1, 31)}.{draw.randint(1, 12)}.{draw.randint(1900, 2030)}",
        lambda: f"{draw.choice(('Jan', 'March', 'October'))} {draw.randint(1, 31)}, {draw.randint(1800, 2030)}",
        lambda: f"{draw.choice('$£€')}{draw.randrange(10 ** draw.randint(1, 7)):,}.{draw.randrange(100):02}",
        lambda: f"v{draw.randrange(20)}.{draw.randrange(30)}.{draw.randrange(10)}",
        lambda: f"{1000 * draw.random():.3f}",
        lambda: f"{draw.randrange(24)}:{draw.randrange(60):02}",
        lambda: f"{draw.choice(('covid', 'MP', 'Win', 'b'))}{draw.randrange(100)}",
        lambda: str(draw.randrange(100)),
    )
    words = (
        "the",
        "river",
        "in",
        "of",
        "paid",
        "cost",
        "and",
        "on",
        "version",
        "year",
        "about",
        "from",
        "(see)",
        '"old"',
    )

    def word() -> str:
        found = draw.choice(kinds)() if draw.random() < 0.5 else draw.choice(words)
        return found + (draw.choice((",", ", ", ";", ".", ',"', "',", ",,", ",and")) if draw.random() < 0.4 else "")

    return [" ".join(word() for _ in range(draw.randint(3, 25))) for _ in range(count)]
