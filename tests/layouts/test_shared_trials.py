"""Repositories as people publish them, with what transformers 5.23 computes of them.

They are not part of the repository: the tests are skipped where the folder `shared` beside the checkout is absent.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from albert_hub_bridge import convert
from albert_hub_bridge.errors import ConfigurationError


TRIALS = Path(__file__).parents[3] / "shared" / "trials"

pytestmark = pytest.mark.skipif(not TRIALS.is_dir(), reason="the folder shared/trials is not here")

# A trial, and the class that computes its recorded outputs.
CLASSES = {
    "xxlarge_layers_to_keep": "AutoModelForMaskedLM",
    "crossencoder_v5": "AutoModelForSequenceClassification",
    "regression": "AutoModelForSequenceClassification",
    "ner_no_architectures": "AutoModel",  # its file names no class
    "user_defined_symbols": "AutoModelForSequenceClassification",
    "zh_vocab_txt": "AutoModelForMaskedLM",
    "unigram_recipe": "AutoModelForMaskedLM",
    "generic_fast_cased": "AutoModelForMaskedLM",
    "added_tokens_fast": "AutoModelForMaskedLM",
    "sides": "AutoModelForSequenceClassification",
    "st_small": "AutoModel",
}
# Without tokenizer.json, the ids are those of ALBERT's rules, which transformers 5 does not follow.
TOKENIZED = [*(name for name in CLASSES if name != "xxlarge_layers_to_keep"), "number_comma_english", "regression"]
HELD_BY_KERAS_HUB = (
    "crossencoder_v5",
    "sides",
    "st_small",
    "number_comma_english",
    "regression",
    "user_defined_symbols",
)


def _recorded(name: str) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads((TRIALS / name / "transformers_5.23.0.json").read_text())
    return recorded


@pytest.mark.parametrize("to", ["transformers", "albert_hub"])
@pytest.mark.parametrize("name", CLASSES)
def test_a_repository_keeps_outputs(name: str, to: Any, tmp_path: Path) -> None:
    convert(TRIALS / name / "repo", tmp_path / "target", to=to)
    recorded = _recorded(name)
    model = getattr(transformers, CLASSES[name]).from_pretrained(tmp_path / "target").eval()
    for ids, expected in zip(recorded["ids"], recorded["first_outputs"], strict=False):
        with torch.no_grad():
            found = model(torch.tensor([ids]))[0].flatten()
        np.testing.assert_allclose(found[: len(expected)].numpy(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("to", ["transformers", "albert_hub"])
@pytest.mark.parametrize("name", TOKENIZED)
def test_a_repository_keeps_ids(name: str, to: Any, tmp_path: Path) -> None:
    report = convert(TRIALS / name / "repo", tmp_path / "target", to=to)
    assert report.changed_texts == 0
    recorded = _recorded(name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "target")
    for options, key in (({}, "ids"), ({"add_special_tokens": False}, "plain_ids")):
        assert [tokenizer(text, **options)["input_ids"] for text in recorded["texts"]] == recorded[key]
    pairs = zip(*recorded["pairs"], strict=True)
    packed = tokenizer(*map(list, pairs), max_length=recorded["pairs_cut_to"], truncation=True, padding="max_length")
    assert packed["input_ids"] == recorded["pair_ids"]
    if recorded["pair_segments"] is not None:
        assert packed["token_type_ids"] == recorded["pair_segments"]


@pytest.mark.parametrize("name", TOKENIZED)
def test_a_preset_has_the_ids_or_is_refused(name: str, tmp_path: Path) -> None:
    import keras_hub

    source, recorded = TRIALS / name / "repo", _recorded(name)
    if name not in HELD_BY_KERAS_HUB:
        option = "--drop-head" if name == "ner_no_architectures" else "--drop-tokenizer"
        with pytest.raises(ConfigurationError, match=rf"1 problem .*\n.*\n.* pass {option}"):
            convert(source, tmp_path / "preset", to="keras")
        return
    convert(source, tmp_path / "preset", to="keras")
    tokenizer = keras_hub.models.AlbertTokenizer.from_preset(str(tmp_path / "preset"))
    texts = list(zip(recorded["texts"], recorded["plain_ids"], strict=True))
    if name == "user_defined_symbols":  # old quotes become pieces that transformers would cut out, but does not
        texts = [(text, ids) for text, ids in texts if "``" not in text and "''" not in text]
    assert len(texts) >= 5
    assert [[int(index) for index in tokenizer(text)] for text, _ in texts] == [ids for _, ids in texts]
