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


TRIALS = Path(__file__).parents[3] / "shared" / "trials"

pytestmark = pytest.mark.skipif(not TRIALS.is_dir(), reason="the folder shared/trials is not here")

# A trial, and the class that computes its recorded outputs.
CLASSES = {
    "xxlarge_layers_to_keep": "AutoModelForMaskedLM",
    "crossencoder_v5": "AutoModelForSequenceClassification",
}


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
