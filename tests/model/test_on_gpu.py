"""The model on a GPU: the values of a CPU, and the padding that is not computed. Skipped where there is none."""

import logging

import pytest
import torch

from albert_hub_bridge import AlbertHubConfig, AlbertHubModel
from albert_hub_bridge.model.packing import PackedRow


CONFIG = AlbertHubConfig(
    vocabulary_size=1000, num_layers=4, num_heads=4, embedding_dim=32, hidden_dim=256, intermediate_dim=512,
    max_sequence_length=128, dropout=0.0,
)  # fmt: skip
LENGTHS = [5, 70, 1, 31, 128]

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")


def make_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and a padding mask."""
    mask = (torch.arange(128) < torch.tensor(LENGTHS)[:, None]).long()
    draw = torch.Generator().manual_seed(0)
    return torch.randint(5, 1000, mask.shape, generator=draw), mask


def make_model(dtype: torch.dtype = torch.float32, device: str = "cuda") -> AlbertHubModel:
    """Return a model with random weights, always the same."""
    torch.manual_seed(0)
    return AlbertHubModel(CONFIG).eval().to(device, dtype)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the norm of the difference, as a part of the norm."""
    found, expected = found.double().cpu(), expected.double().cpu()
    return float((found - expected).norm() / expected.norm())


def sequences_alone(query, key, value, query_bounds, key_bounds, _max_query, _max_key, *, scale):
    """Compute what torch's `varlen_attn` does, sequence by sequence."""
    outputs = []
    places = (map(slice, bounds[:-1].tolist(), bounds[1:].tolist()) for bounds in (query_bounds, key_bounds))
    for queries, keys in zip(*places, strict=True):
        scores = torch.einsum("qhd,khd->hqk", query[queries], key[keys]) * scale
        outputs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), value[keys]))
    return torch.cat(outputs)


@pytest.mark.parametrize("is_whole", [True, False])
def test_one_kernel_for_all_sequences_computes_what_the_loop_does(
    monkeypatch: pytest.MonkeyPatch, is_whole: bool
) -> None:
    """The kernel needs a GPU. What it is given is tried on any machine."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", sequences_alone)
    row = PackedRow.of_mask(make_batch()[1])
    draw = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, 4, sum(LENGTHS), 64, generator=draw).unbind()
    query = query if is_whole else query[:, :, row.firsts]

    def attend(_module, query, key, value, _mask, scaling):
        attended = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=scaling)
        return attended.transpose(1, 2), None

    expected = row.attend(attend, torch.nn.Module(), query, key, value, scaling=0.125)
    torch.testing.assert_close(row._flash_attention(query, key, value, 0.125, is_whole), expected)


@needs_gpu
@pytest.mark.parametrize("positions", ["all", "unmasked", "first"])
def test_float32_is_that_of_the_cpu(positions: str) -> None:
    """torch's products are exact in float32 on a GPU unless TensorFloat-32 is asked for."""
    ids, mask = make_batch()
    with torch.inference_mode():
        expected = make_model(device="cpu")(ids, mask, positions=positions)
        found = make_model()(ids.cuda(), mask.cuda(), positions=positions)
    hidden, expected_hidden = found.last_hidden_state.cpu(), expected.last_hidden_state
    if positions == "all":  # what padding gives is nobody's value
        hidden, expected_hidden = hidden * mask[..., None], expected_hidden * mask[..., None]
    torch.testing.assert_close(hidden, expected_hidden, atol=2e-5, rtol=0)
    torch.testing.assert_close(found.pooler_output.cpu(), expected.pooler_output, atol=2e-5, rtol=0)


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("positions", ["unmasked", "first"])
def test_without_padding_the_error_is_that_with_padding(
    monkeypatch: pytest.MonkeyPatch, positions: str, dtype: torch.dtype
) -> None:
    """Both are compared with float32. Rounding differs, so neither is always the smaller one."""
    ids, mask = make_batch()
    packed_tokens: list[int] = []

    def pack_and_count(row: PackedRow, states: torch.Tensor) -> torch.Tensor:
        packed_tokens.append(sum(row.lengths))
        return pack(row, states)

    pack = PackedRow.pack
    with torch.inference_mode():
        expected = make_model(device="cpu")(ids, mask, positions=positions).last_hidden_state
        monkeypatch.setattr(PackedRow, "pack", pack_and_count)
        model = make_model(dtype)
        found = model(ids.cuda(), mask.cuda(), positions=positions).last_hidden_state
        padded = model(ids.cuda(), mask.cuda()).last_hidden_state
    assert packed_tokens == [sum(LENGTHS)]
    padded = padded[:, :1] if positions == "first" else padded * mask[..., None].cuda()
    error = relative_error(found, expected)
    assert error < 1.2 * relative_error(padded, expected)
    assert error < {torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    assert found.shape == expected.shape


@needs_gpu
def test_packed_sequences_attend_to_themselves() -> None:
    """A row of several sequences gives what they give one by one."""
    ids, mask = make_batch()
    row = ids[mask.bool()].unsqueeze(0)
    places = torch.cat([torch.arange(length) for length in LENGTHS]).unsqueeze(0)
    with torch.inference_mode():
        found = make_model(torch.bfloat16)(row.cuda(), position_ids=places.cuda()).last_hidden_state
        expected = make_model(device="cpu")(ids, mask).last_hidden_state[mask.bool()].unsqueeze(0)
    assert relative_error(found, expected) < 1e-2


@needs_gpu
def test_gradients_without_padding_are_those_with_padding() -> None:
    """In bfloat16, up to its rounding."""
    ids, mask = (each.cuda() for each in make_batch())
    gradients = []
    for positions in ("all", "unmasked"):
        model = make_model(torch.bfloat16)
        states = model(ids, mask, positions=positions).last_hidden_state * mask[..., None]
        states.float().square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert relative_error(gradients[1], gradients[0]) < 3e-2


@needs_gpu
def test_training_with_dropout_computes_the_padding() -> None:
    """Flash attention of torch has no dropout for sequences of different lengths."""
    ids, mask = (each.cuda() for each in make_batch())
    model = make_model(torch.bfloat16).train()
    assert model(ids, mask, positions="unmasked").last_hidden_state.isfinite().all()
    assert not PackedRow.is_attended(torch.empty(1, device="cuda", dtype=torch.bfloat16), 64, training=True)


@needs_gpu
def test_only_a_warning_where_packed_weights_are_not_used(caplog: pytest.LogCaptureFixture) -> None:
    """`optimize_for_inference` is for oneDNN."""
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        make_model().optimize_for_inference()
    finally:
        logger.removeHandler(caplog.handler)
    assert "changes nothing here" in caplog.text
