"""Presets with the real English vocabulary that keras_hub wrote, with the outputs that it computed.

They are not part of the repository: the tests are skipped where the folder `shared` beside the checkout is absent.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from transformers import AlbertModel, AutoModel, AutoTokenizer

from albert_hub_bridge import AlbertBackbone, AlbertHubModel, convert, inspect


SHARED = Path(__file__).parents[3] / "shared" / "presets"

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the folder shared/presets is not here")


def _recorded(name: str) -> dict[str, np.ndarray]:
    with np.load(SHARED / f"{name}_io.npz") as file:
        return dict(file)


def _tensors(recorded: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    names = {"input_ids": "token_ids", "attention_mask": "padding_mask", "token_type_ids": "segment_ids"}
    return {theirs: torch.from_numpy(recorded[ours]).long() for theirs, ours in names.items()}


def _masked_lm_logits(preset: Path, hidden: np.ndarray) -> np.ndarray:
    """Compute KerasHub's masked-LM head from its own file, in float64: dense, GELU, layer norm (1e-5), embedding."""
    with h5py.File(preset / "task.weights.h5") as head, h5py.File(preset / "model.weights.h5") as backbone:
        dense, norm = (head[f"layers/masked_lm_head/_intermediate_{part}/vars"] for part in ("dense", "layer_norm"))
        x = hidden.astype(np.float64) @ dense["0"][()] + dense["1"][()]
        x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        x = x * norm["0"][()] + norm["1"][()]
        embedding = backbone["layers/reversible_embedding/vars/0"][()]
        return np.asarray(x @ embedding.T + head["layers/masked_lm_head/vars/0"][()])


@pytest.mark.parametrize("layout", ["albert_hub", "transformers"])
def test_the_classifiers_backbone_gives_the_recorded_outputs(layout: Any, tmp_path: Path) -> None:
    recorded = _recorded("cls_english")
    report = convert(SHARED / "cls_english", tmp_path / layout, to=layout)
    assert (report.source.architecture.num_groups, report.source.architecture.num_inner_repetitions) == (2, 2)
    assert report.source.head == "text classifier of 5 classes (softmax)"
    model = AutoModel.from_pretrained(tmp_path / layout)
    assert type(model) is (AlbertHubModel if layout == "albert_hub" else AlbertModel)
    with torch.no_grad():
        outputs = model(**_tensors(recorded))
    found = {"sequence": outputs.last_hidden_state, "pooled": outputs.pooler_output}
    assert (recorded["padding_mask"] == 0).any()
    for name, value in found.items():
        np.testing.assert_allclose(value.numpy(), recorded[f"backbone_{name}_output"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("layout", ["albert_hub", "transformers"])
def test_the_masked_lms_backbone_gives_the_recorded_logits(layout: Any, tmp_path: Path) -> None:
    recorded = _recorded("mlm_english")
    convert(SHARED / "mlm_english", tmp_path / layout, to=layout)
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(tmp_path / layout)(**_tensors(recorded)).last_hidden_state.numpy()
    rows = np.arange(len(hidden))[:, None]
    logits = _masked_lm_logits(SHARED / "mlm_english", hidden[rows, recorded["mask_positions"]])
    np.testing.assert_allclose(logits, recorded["logits"], atol=1e-5, rtol=0)


def test_transformers_alone_gives_the_recorded_outputs(tmp_path: Path) -> None:
    convert(SHARED / "cls_english", tmp_path / "transformers", to="transformers")
    script = """
import sys, numpy, torch
sys.modules["albert_hub_bridge"] = None
from transformers import AutoModel, AutoTokenizer
recorded = numpy.load(sys.argv[2])
model, tokenizer = AutoModel.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
inputs = tokenizer(
    recorded["texts"].tolist(), padding="max_length", max_length=48, truncation=True, return_tensors="pt"
)
assert (inputs["input_ids"].numpy() == recorded["token_ids"]).all()
with torch.no_grad():
    outputs = model(**inputs)
print(numpy.abs(outputs.last_hidden_state.numpy() - recorded["backbone_sequence_output"]).max())
print(numpy.abs(outputs.pooler_output.numpy() - recorded["backbone_pooled_output"]).max())
"""
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        script,
        str(tmp_path / "transformers"),
        str(SHARED / "cls_english_io.npz"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    differences = [float(line) for line in result.stdout.split()]
    assert len(differences) == 2
    assert max(differences) <= 1e-5


@pytest.mark.parametrize("name", ["cls_english", "mlm_english"])
def test_transformers_to_preset_is_computed_by_keras_hub(name: str, tmp_path: Path) -> None:
    import keras_hub

    recorded = _recorded(name)
    convert(SHARED / name, tmp_path / "transformers", to="transformers")
    convert(tmp_path / "transformers", tmp_path / "keras", to="keras")
    theirs, original = (
        keras_hub.models.AlbertBackbone.from_preset(str(folder)) for folder in (tmp_path / "keras", SHARED / name)
    )
    inputs = {key: recorded[key] for key in ("token_ids", "segment_ids", "padding_mask")}
    for key, expected in original.predict(inputs, verbose=0).items():
        np.testing.assert_allclose(theirs.predict(inputs, verbose=0)[key], expected, atol=1e-5, rtol=0)
    importer = keras_hub.models.AlbertBackbone.from_preset(str(tmp_path / "transformers"))
    for weight, expected in zip(importer.weights, original.weights, strict=True):
        np.testing.assert_array_equal(weight.value.detach().numpy(), expected.value.detach().numpy())


@pytest.mark.parametrize("name", ["cls_english", "mlm_english", "bf16"])
def test_texts_have_the_recorded_ids(name: str, tmp_path: Path) -> None:
    recorded = _recorded(name)
    convert(SHARED / name, tmp_path / "albert_hub", to="albert_hub")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "albert_hub")
    packed = tokenizer(recorded["texts"].tolist(), padding="max_length", max_length=48, truncation=True)
    for theirs, ours in (
        ("input_ids", "token_ids"),
        ("attention_mask", "padding_mask"),
        ("token_type_ids", "segment_ids"),
    ):
        np.testing.assert_array_equal(packed[theirs], recorded[ours])


def test_the_bfloat16_preset_keeps_its_bits(tmp_path: Path) -> None:
    recorded = _recorded("bf16")
    convert(SHARED / "bf16", tmp_path / "albert_hub", to="albert_hub")
    convert(tmp_path / "albert_hub", tmp_path / "keras", to="keras")
    assert inspect(tmp_path / "keras").dtype == "bfloat16"
    with (
        h5py.File(SHARED / "bf16" / "model.weights.h5") as before,
        h5py.File(tmp_path / "keras" / "model.weights.h5") as after,
    ):
        names = _datasets(before)
        assert len(names) == 73
        for name in names:
            assert before[name][()].tobytes() == after[name][()].tobytes(), name
            assert dict(before[name].attrs) == dict(after[name].attrs)
    backbone = AlbertBackbone.from_preset(tmp_path / "albert_hub", dtype="bfloat16")
    with torch.no_grad():
        outputs = backbone({name: recorded[name] for name in ("token_ids", "segment_ids", "padding_mask")})
    for name, value in outputs.items():
        # Outputs reach 4, where bfloat16 counts in steps of 2^-6; the two sides round in another order in 8 layers.
        np.testing.assert_allclose(value.float().numpy(), recorded[name], atol=8 * 2**-6, rtol=0)


def _datasets(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names
