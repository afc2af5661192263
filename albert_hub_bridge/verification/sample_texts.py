"""The texts that `convert` tokenizes for its report, and that `verify` compares by default."""

from __future__ import annotations


# The texts show where tokenizers differ: case, accents, quotes, numbers, spaces, scripts and unknown characters.
SAMPLE_TEXTS = (
    "ALBERT shares one set of weights between all of its layers.",
    "the river rose by two feet overnight, and nobody slept.",
    "Prices went from £3.50 to €4.20 (about 20 % more).",
    "In 1984, 2001, and on May 7, 2010, 12,500 of 31,424 people paid 5, 6, or $1,250.75.",
    "Crème brûlée, façade, Ångström, naïve: accents everywhere!",
    "``Old quotes'' and \"new ones\" are not the same.",
    "two  spaces,\ta tab\nand a line break",
    "日本語と русский текст 🙂",
    "a",
)
