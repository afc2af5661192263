"""Lines to which transformers.js gives other ids than Python: `python -m tests.clients.count_transformers_js`.

It prints the table of docs/guides/other-programs.md: of 100,000 lines, those that differ, for each kind of vocabulary
and each text normalization. The English vocabulary is not part of the repository: its rows need the folder `shared`
beside the checkout.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from albert_hub_bridge.mapping.vocabulary import bake_normalization
from albert_hub_bridge.model.sentencepiece_unigram import NAMED_NORMALIZATIONS
from tests import corpus
from tests.clients.node import run_transformers_js
from tests.clients.test_transformers_js import VOCABULARIES, write_tokenizer


ENGLISH = Path(__file__).parents[3] / "shared" / "vocab" / "albert-english-30k.model"
EXAMPLES = 3


def lines() -> list[str]:
    """Return 100,000 lines, a quarter of them random characters of every category."""
    return [
        *corpus.documentation(40_000),
        *corpus.scripts(20_000),
        *corpus.numbers(15_000),
        *corpus.unicode(25_000, 0.5),
    ]


def vocabularies() -> dict[str, Callable[[], bytes]]:
    """Return what makes each vocabulary: Google's English one, if it is here, and those of the tests."""
    english = {
        "English": ENGLISH.read_bytes,
        "English, baked-uncased": lambda: bake_normalization(ENGLISH.read_bytes(), NAMED_NORMALIZATIONS["uncased"]),
    }
    return {**(english if ENGLISH.exists() else {}), **VOCABULARIES}


def main() -> None:
    """Print the table, and the first lines that differ."""
    texts = lines()
    assert len(texts) == 100_000
    names = list(NAMED_NORMALIZATIONS)
    print(f"| vocabulary | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    examples = []
    for vocabulary, make in vocabularies().items():
        counts = []
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                expected = write_tokenizer(make(), name, Path(folder), texts)
                (found,) = run_transformers_js([{"ids": folder, "texts": texts}])
            wrong = [text for text, ours, theirs in zip(texts, expected, found, strict=True) if ours != theirs]
            counts.append(f"{len(wrong):,}")
            examples += [f"{vocabulary}, {name}: {text!a}" for text in wrong[:EXAMPLES]]
        print(f"| {vocabulary} | {' | '.join(counts)} |", flush=True)
    print(*examples, sep="\n")


if __name__ == "__main__":
    main()
