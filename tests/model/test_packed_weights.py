from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers.utils import logging

from albert_hub_bridge import AlbertHubConfig, AlbertHubForSequenceClassification, AlbertHubModel
from albert_hub_bridge.model.packed_weights import pack, packed_weight
from tests.model.test_fast_linear import DTYPES, HAS_ONEDNN


pytestmark = pytest.mark.skipif(not HAS_ONEDNN, reason="torch has no oneDNN on this machine")


@pytest.fixture
def linear() -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(24, 40)
    pack(layer)
    return layer


@pytest.fixture
def model() -> AlbertHubModel:
    torch.manual_seed(0)
    config = AlbertHubConfig(
        vocabulary_size=50, num_layers=4, num_heads=2, num_groups=2, embedding_dim=16, hidden_dim=48,
        intermediate_dim=96, max_sequence_length=32,
    )  # fmt: skip
    return AlbertHubModel(config).eval()


IDS = torch.arange(5, 37).reshape(2, 16)
MASK = (torch.arange(16) < torch.tensor([[16], [9]])).long()


def _states(model: AlbertHubModel, positions: str = "all") -> torch.Tensor:
    with torch.inference_mode():
        return model(IDS, MASK, positions=positions).last_hidden_state


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("positions", ["all", "unmasked", "first"])
def test_a_packed_model_gives_the_same(model: AlbertHubModel, dtype: torch.dtype, positions: str) -> None:
    model.to(dtype)
    expected = _states(model, positions)
    assert model.optimize_for_inference() is model
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert len(linears) == 2 * 6 + 2
    assert all(packed_weight(linear).is_mkldnn for linear in linears)
    found = _states(model, positions)
    # States have a variance of 1. Sums of 96 products may be added in another order, in four layers.
    torch.testing.assert_close(found, expected, atol=3e-6 if dtype == torch.float32 else 0.05, rtol=0)


def test_the_encoder_of_a_task_is_packed(model: AlbertHubModel) -> None:
    task = AlbertHubForSequenceClassification(AlbertHubConfig(**{**model.config.to_dict(), "num_labels": 3})).eval()
    with torch.inference_mode():
        expected = task(IDS, MASK).logits
        found = task.optimize_for_inference()(IDS, MASK).logits
    assert packed_weight(task.backbone.pooled_dense).is_mkldnn
    torch.testing.assert_close(found, expected, atol=3e-6, rtol=0)


def _step(layer: nn.Linear) -> None:
    layer(torch.ones(24)).sum().backward()
    torch.optim.SGD(layer.parameters(), lr=1.0).step()


def _replace(layer: nn.Linear) -> None:
    layer.weight = nn.Parameter(layer.weight.detach().clone())


@torch.no_grad()
def _add(layer: nn.Linear) -> None:
    layer.weight.add_(1)


@torch.inference_mode()
def _add_in_inference_mode(layer: nn.Linear) -> None:
    layer.weight.add_(1)


CHANGES: list[Callable[[nn.Linear], object]] = [
    _step,
    _replace,
    _add,
    _add_in_inference_mode,
    lambda layer: layer.load_state_dict(nn.Linear(24, 40).state_dict()),
    lambda layer: layer.load_state_dict(nn.Linear(24, 40).state_dict(), assign=True),
    lambda layer: layer.to(torch.float64),
    lambda layer: layer.to("meta"),
    lambda layer: setattr(layer.weight, "data", torch.zeros(40, 24)),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_weight_is_not_packed(linear: nn.Linear, change: Callable[[nn.Linear], object]) -> None:
    assert packed_weight(linear).is_mkldnn
    change(linear)
    assert packed_weight(linear) is linear.weight


def test_a_changed_model_gives_what_a_new_one_gives(model: AlbertHubModel) -> None:
    model.optimize_for_inference()
    before = _states(model)
    other = AlbertHubModel(model.config).eval()
    model.load_state_dict(other.state_dict())
    found = _states(model)
    torch.testing.assert_close(found, _states(other), atol=0, rtol=0)
    assert (found - before).abs().max() > 0.1


def test_a_change_through_data_needs_another_call(model: AlbertHubModel) -> None:
    model.optimize_for_inference()
    model.pooled_dense.weight.data.zero_()
    model.optimize_for_inference()
    with torch.inference_mode():
        pooled = model(IDS, MASK).pooler_output
    torch.testing.assert_close(pooled, model.pooled_dense.bias.tanh().expand(2, -1), atol=1e-7, rtol=0)


def test_the_address_of_a_packed_weight_is_not_used_again(linear: nn.Linear) -> None:
    address = linear.weight.data_ptr()
    linear.weight.data = torch.zeros(1)
    assert all(torch.empty(40, 24).data_ptr() != address for _ in range(10))


def test_copies_and_files_have_the_weights_alone(model: AlbertHubModel, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.optimize_for_inference()
    model.save_pretrained(tmp_path)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), AlbertHubModel.from_pretrained(tmp_path)):
        assert {name: tensor.equal(before[name]) for name, tensor in other.state_dict().items()} == dict.fromkeys(
            before, True
        )
        assert packed_weight(other.pooled_dense) is other.pooled_dense.weight
    assert torch.load(buffer).keys() == before.keys()


def test_layers_that_onednn_does_not_compute_are_left(
    model: AlbertHubModel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.get_logger("albert_hub_bridge"), "propagate", True)
    model.to(torch.float64)
    expected = _states(model)
    with caplog.at_level("WARNING"):
        model.optimize_for_inference()
    assert "changes nothing here: oneDNN does not compute" in caplog.text
    torch.testing.assert_close(_states(model), expected, atol=0, rtol=0)


def test_weights_made_in_inference_mode_are_left(model: AlbertHubModel) -> None:
    with torch.inference_mode():
        other = copy.deepcopy(model)
    other.optimize_for_inference()
    assert not any(packed_weight(module).is_mkldnn for module in other.modules() if isinstance(module, nn.Linear))
    torch.testing.assert_close(_states(other), _states(model), atol=0, rtol=0)
