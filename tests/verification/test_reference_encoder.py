from __future__ import annotations

from dataclasses import asdict, replace

import h5py
import numpy as np
import pytest
import torch

from albert_hub_bridge import AlbertHubConfig, AlbertHubModel
from albert_hub_bridge.model.architecture import ACTIVATIONS, Architecture
from albert_hub_bridge.verification import reference_encoder as reference
from albert_hub_bridge.verification.generated_inputs import (
    LENGTHS,
    SEEDS,
    SHORT,
    generate_probes,
    padding_masks,
    probe_of_every_padding,
)
from albert_hub_bridge.verification.reference_encoder import ReferenceEncoder
from conversion.sample import SAMPLE_ARCHITECTURE
from tests.conftest import KerasPreset


def _reference(architecture: Architecture, read: reference.ReadTensor, **options: object) -> ReferenceEncoder:
    names = ("num_layers", "num_heads", "num_groups", "num_inner_repetitions")
    return ReferenceEncoder(read=read, **{name: getattr(architecture, name) for name in names}, **options)  # type: ignore[arg-type]


def test_reference_encoder_imports_nothing_of_the_package() -> None:
    with open(reference.__file__, encoding="utf-8") as file:
        imports = [line for line in file if line.startswith(("import ", "from "))]
    assert [line for line in imports if "albert" in line or "torch" in line] == []


def test_reference_encoder_matches_keras_hub(keras_preset: KerasPreset) -> None:
    with h5py.File(keras_preset.folder / "model.weights.h5") as file:
        found = _reference(keras_preset.architecture, lambda name: file[name][()], dialect="keras").encode(
            **keras_preset.inputs
        )
    for name, expected in keras_preset.outputs.items():
        assert found[name].dtype == np.float64
        np.testing.assert_allclose(found[name], expected, atol=1e-5, rtol=0)


def test_reference_encoder_matches_keras_hub_on_every_padding(keras_preset: KerasPreset) -> None:
    inputs = probe_of_every_padding(400, 2, 12).inputs
    assert not inputs["padding_mask"][-1].any()
    expected = keras_preset.backbone.predict(inputs, verbose=0)
    with h5py.File(keras_preset.folder / "model.weights.h5") as file:
        found = _reference(keras_preset.architecture, lambda name: file[name][()], dialect="keras").encode(**inputs)
    for name, value in found.items():
        np.testing.assert_allclose(value, np.asarray(expected[name]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_reference_encoder_matches_this_packages_model_in_float64(activation: str) -> None:
    torch.manual_seed(0)
    model = AlbertHubModel(
        AlbertHubConfig(**asdict(replace(SAMPLE_ARCHITECTURE, activation=activation, layer_norm_epsilon=1e-6)))
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model = model.double().eval()
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    settings = {"dialect": "albert_hub", "activation": activation, "epsilon": 1e-6}
    inputs = probe_of_every_padding(400, 2, 12).inputs
    found = _reference(SAMPLE_ARCHITECTURE, state.__getitem__, **settings).encode(**inputs)
    with torch.no_grad():
        ids, segments, mask = (torch.from_numpy(array).long() for array in inputs.values())
        outputs = model(ids, attention_mask=mask, token_type_ids=segments)
    np.testing.assert_allclose(outputs.last_hidden_state, found["sequence_output"], atol=1e-13, rtol=0)
    np.testing.assert_allclose(outputs.pooler_output, found["pooled_output"], atol=1e-13, rtol=0)


@pytest.mark.parametrize("max_length", [1, 2, 64, 512])
def test_generate_probes_has_every_length_and_padding(max_length: int) -> None:
    found = list(generate_probes(400, 2, max_length))
    lengths = sorted({min(length, max_length) for length in LENGTHS})
    assert sorted({probe.length for probe in found}) == lengths
    for length in lengths:
        here = [probe for probe in found if probe.length == length]
        rows = [row for probe in here for row in probe.rows]
        assert len(rows) == len(set(rows))
        kinds = {257: {"no padding"}, 512: {"holes"}}.get(length, {"right padding", "left padding", "holes"})
        if length > 2:
            assert kinds <= {row.split(", ")[1] for row in rows}
        if length <= SHORT:
            assert all(any(row.endswith(f"seed {seed}") for row in rows) for seed in range(SEEDS))
            assert any("no padding" in row for row in rows)
        for probe in here:
            assert {array.shape for array in probe.inputs.values()} == {(len(probe.rows), length)}
            assert {array.dtype for array in probe.inputs.values()} == {np.dtype(np.int32)}
            assert probe.inputs["padding_mask"].any(-1).all()
    segments = np.concatenate([probe.inputs["segment_ids"].ravel() for probe in found])
    assert set(segments.tolist()) == {0, 1}
    again = [probe.inputs["token_ids"].tolist() for probe in generate_probes(400, 2, max_length)]
    assert again == [probe.inputs["token_ids"].tolist() for probe in found]


def test_padding_masks_match_their_names() -> None:
    for seed in range(20):
        masks = padding_masks(8, np.random.default_rng(seed))
        assert np.diff(masks["right padding"]).tolist().count(-1) == 1
        assert masks["right padding"][0] == 1
        assert np.diff(masks["left padding"]).tolist().count(1) == 1
        assert masks["left padding"][-1] == 1
        assert (masks["holes"][0], masks["holes"][-1]) == (1, 1)
        assert 0 in masks["holes"]
