"""The model on a GPU: the values of a CPU, and the padding that is not computed.

Tests marked `needs_gpu` are skipped where there is none. The others put a function of their own in place of the kernel.
"""

import logging
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from albert_hub_bridge import AlbertHubConfig, AlbertHubModel
from albert_hub_bridge.model import packed_sequences
from albert_hub_bridge.model.packed_sequences import PackedRow


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


def sequences_alone(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_bounds: torch.Tensor,
    key_bounds: torch.Tensor,
    longest_query: int,
    longest_key: int,
    *,
    scale: float,
) -> torch.Tensor:
    """Compute what torch's `varlen_attn` does, sequence by sequence. Like it, ask for bounds in int32."""
    assert (query_bounds.dtype, key_bounds.dtype) == (torch.int32, torch.int32)
    assert (longest_query, longest_key) == (int(query_bounds.diff().max()), int(key_bounds.diff().max()))
    places = (map(slice, bounds[:-1].tolist(), bounds[1:].tolist()) for bounds in (query_bounds, key_bounds))
    outputs = []
    for queries, keys in zip(*places, strict=True):
        scores = torch.einsum("qhd,khd->hqk", query[queries], key[keys]) * scale
        outputs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), value[keys]))
    return torch.cat(outputs)


@pytest.fixture
def kernel_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Take `sequences_alone` for the kernel, on a CPU too, so that its arguments are tested on every machine."""
    calls: list[int] = []

    def kernel(*arguments: Any, **options: Any) -> torch.Tensor:
        calls.append(len(arguments[0]))
        return sequences_alone(*arguments, **options)

    monkeypatch.setattr(packed_sequences, "_flash_attention", lambda: kernel)
    monkeypatch.setattr(packed_sequences, "has_flash_attention", lambda _states, _head_dim: True)
    return calls


@pytest.fixture
def packed_tokens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the number of tokens of each row that is packed on a GPU."""
    found: list[int] = []

    def pack_and_count(row: PackedRow, states: torch.Tensor) -> torch.Tensor:
        if states.is_cuda:
            found.append(sum(row.lengths))
        return pack(row, states)

    pack = PackedRow.pack
    monkeypatch.setattr(PackedRow, "pack", pack_and_count)
    return found


@pytest.mark.parametrize("positions", ["unmasked", "first"])
def test_one_kernel_for_all_sequences_computes_what_the_loop_does(kernel_calls: list[int], positions: str) -> None:
    """A text without tokens is left out. The last layer of `first` has one query for each text."""
    ids, mask = make_batch()
    mask[2] = 0
    model = AlbertHubModel(CONFIG, add_pooling_layer=False).eval()
    ids, mask = (ids, mask) if positions == "unmasked" else (ids[[0, 1, 3, 4]], mask[[0, 1, 3, 4]])
    with torch.inference_mode():
        found = model(ids, mask, positions=positions).last_hidden_state
        assert kernel_calls == [234] * 3 + [234 if positions == "unmasked" else 4]
        expected = model(ids, mask).last_hidden_state
    expected = expected * mask[..., None] if positions == "unmasked" else expected[:, :1]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_one_kernel_takes_packed_sequences(kernel_calls: list[int]) -> None:
    """They are marked by positions that begin again."""
    ids, mask = make_batch()
    row = ids[mask.bool()].unsqueeze(0)
    places = torch.cat([torch.arange(length) for length in LENGTHS]).unsqueeze(0)
    model = make_model(device="cpu")
    with torch.inference_mode():
        found = model(row, position_ids=places).last_hidden_state
        assert kernel_calls == [sum(LENGTHS)] * 4
        expected = model(ids, mask).last_hidden_state[mask.bool()].unsqueeze(0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_dropout_and_other_attention_functions_are_computed_one_by_one(kernel_calls: list[int]) -> None:
    """The kernel knows neither."""
    row = PackedRow.from_mask(make_batch()[1])
    states = torch.randn(3, 1, 4, sum(LENGTHS), 64)
    module = torch.nn.Module()
    module.is_causal = False
    seen: list[int] = []

    def attend(_module: torch.nn.Module, query: torch.Tensor, *_: Any, **_options: Any) -> tuple[torch.Tensor, None]:
        seen.append(query.shape[2])
        return query.transpose(1, 2), None

    row.attend(attend, module, *states, scaling=0.125)
    assert seen == LENGTHS
    row.attend(sdpa_attention_forward, module, *states, scaling=0.125, dropout=0.1)
    assert kernel_calls == []
    row.attend(sdpa_attention_forward, module, *states, scaling=0.125)
    assert kernel_calls == [sum(LENGTHS)]


@pytest.fixture
def forget_the_kernel() -> Iterator[None]:
    """Look for torch's kernel again, before and after a test."""
    packed_sequences._flash_attention.cache_clear()
    yield
    packed_sequences._flash_attention.cache_clear()


@pytest.mark.usefixtures("forget_the_kernel")
def test_an_older_torch_has_no_such_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that a repository carries also run there. torch 2.9 has no such module, and 2.10 no scale."""
    assert packed_sequences._flash_attention() is not None
    for module in (None, ModuleType("varlen")):
        if module is not None:
            module.varlen_attn = lambda query, key, value, is_causal=False: None  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module)
        packed_sequences._flash_attention.cache_clear()
        assert packed_sequences._flash_attention() is None


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
    packed_tokens: list[int], positions: str, dtype: torch.dtype
) -> None:
    """Both are compared with float32. Rounding differs, so neither is always the smaller one."""
    ids, mask = make_batch()
    with torch.inference_mode():
        expected = make_model(device="cpu")(ids, mask, positions=positions).last_hidden_state
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
def test_packed_sequences_attend_to_themselves(packed_tokens: list[int]) -> None:
    """A row of several sequences gives what they give one by one."""
    ids, mask = make_batch()
    row = ids[mask.bool()].unsqueeze(0)
    places = torch.cat([torch.arange(length) for length in LENGTHS]).unsqueeze(0)
    with torch.inference_mode():
        found = make_model(torch.bfloat16)(row.cuda(), position_ids=places.cuda()).last_hidden_state
        expected = make_model(device="cpu")(ids, mask).last_hidden_state[mask.bool()].unsqueeze(0)
    assert packed_tokens == [sum(LENGTHS)]
    assert relative_error(found, expected) < 1e-2


@needs_gpu
def test_gradients_without_padding_are_those_with_padding(packed_tokens: list[int]) -> None:
    """In bfloat16, up to its rounding."""
    ids, mask = (each.cuda() for each in make_batch())
    gradients = []
    for positions in ("all", "unmasked"):
        model = make_model(torch.bfloat16)
        states = model(ids, mask, positions=positions).last_hidden_state * mask[..., None]
        states.float().square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert packed_tokens == [sum(LENGTHS)]
    assert relative_error(gradients[1], gradients[0]) < 3e-2


@needs_gpu
def test_training_computes_the_padding(packed_tokens: list[int]) -> None:
    """The kernel has no dropout."""
    ids, mask = (each.cuda() for each in make_batch())
    make_model(torch.bfloat16).train()(ids, mask, positions="unmasked")
    assert packed_tokens == []


@needs_gpu
def test_a_mask_may_be_on_the_cpu(packed_tokens: list[int]) -> None:
    """It is moved."""
    ids, mask = make_batch()
    model = make_model(torch.bfloat16)
    with torch.inference_mode():
        found, expected = (model(ids.cuda(), each, positions="unmasked")[0] for each in (mask, mask.cuda()))
    assert packed_tokens == [sum(LENGTHS)] * 2
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


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
