"""How the model runs: less memory, compiled, exported, on every attention backend, in low precision, resized."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

import albert_hub_bridge
from albert_hub_bridge import AlbertHubConfig, AlbertHubForMaskedLM, AlbertHubForPreTraining, AlbertHubModel
from conversion.sample import SAMPLE_ARCHITECTURE


INPUT_IDS = torch.tensor([[2, 17, 33, 8, 250, 3], [2, 9, 3, 0, 0, 0]])
MASK = (INPUT_IDS != 0).long()
CLOSE = {"atol": 1e-5, "rtol": 0}

CLASSES = [name for name in albert_hub_bridge.__all__ if name.startswith("AlbertHubFor") or name == "AlbertHubModel"]

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")


def _model(name: str = "AlbertHubModel", **changes: object) -> Any:
    torch.manual_seed(0)
    model = getattr(albert_hub_bridge, name)(AlbertHubConfig(**{**asdict(SAMPLE_ARCHITECTURE), **changes}))
    with torch.no_grad():  # biases and layer norms are not all alike after training either
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def _inputs(batch: int, length: int, *choices: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(batch * length)
    shape = (batch, *choices, length)
    mask = torch.ones(shape, dtype=torch.long)
    mask[-1, ..., length // 2 :] = 0
    ids = torch.randint(4, 400, shape, generator=random)
    return {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "token_type_ids": torch.randint(2, shape, generator=random),
    }


# Memory


@contextmanager
def _saved_for_backward(model: nn.Module) -> Iterator[dict[int, int]]:
    """Collect the sizes, in bytes, of what a forward pass keeps besides the parameters."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


def test_gradient_checkpointing_keeps_a_fraction_of_the_activations() -> None:
    inputs, kept = _inputs(4, 48), []
    for checkpointing in (False, True):
        model = _model(num_layers=12, num_groups=1, num_inner_repetitions=1).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        with _saved_for_backward(model) as sizes:
            output = model(**inputs).last_hidden_state
        kept.append(sum(sizes.values()))
        output.sum().backward()
    assert kept[1] < kept[0] / 5
    # Of each layer its input, and embeddings, projection and pooler as before.
    assert kept[1] < (12 + 10) * 4 * 48 * 32 * 4


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_drops_what_was_dropped(use_reentrant: bool) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = _model("AlbertHubForMaskedLM", dropout=0.3).train()
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": use_reentrant})
        torch.manual_seed(1)
        model(INPUT_IDS, attention_mask=MASK, labels=INPUT_IDS).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


# Compiled and exported


@needs_compiler
@pytest.mark.filterwarnings("default")  # torch's own, while it compiles
def test_compiled_whole_it_takes_every_shape_and_gives_the_same() -> None:
    model = _model()
    compiled = torch.compile(model, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for number, (batch, length) in enumerate([(3, 11), (2, 7), (5, 64), (8, 30)]):
            inputs = _inputs(batch, length)
            with torch._dynamo.config.patch(error_on_recompile=number > 0):
                found = compiled(**inputs)
            expected = model(**inputs)
            torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, **CLOSE)
            torch.testing.assert_close(found.pooler_output, expected.pooler_output, **CLOSE)


def _dynamic_shapes(inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    batch, length = Dim("batch", max=1024), Dim("length")
    return {name: {0: batch, tensor.ndim - 1: length} for name, tensor in inputs.items()}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", CLASSES)
def test_exported_it_takes_every_shape_and_gives_the_same(name: str) -> None:
    model, choices = _model(name), (4,) if name.endswith("MultipleChoice") else ()
    inputs = _inputs(3, 11, *choices)
    program = torch.export.export(model, (), inputs, dynamic_shapes=_dynamic_shapes(inputs))
    for batch, length in ((2, 7), (5, 64)):
        inputs = _inputs(batch, length, *choices)
        with torch.no_grad():
            found, expected = program.module()(**inputs), model(**inputs)
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, msg=key, **CLOSE)


# Attention backends


BACKENDS = ["eager", "sdpa", pytest.param("flex_attention", marks=needs_compiler)]


def _blocks(*sizes: int) -> torch.Tensor:
    """Return who attends to whom when each of several sequences keeps to itself."""
    return torch.block_diag(*(torch.ones(size, size) for size in sizes)).bool()[None, None]


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("backend", BACKENDS)
def test_every_backend_hides_the_same(backend: str) -> None:
    model = _model()
    alone = [model(INPUT_IDS[:1]).last_hidden_state, model(INPUT_IDS[1:, :3]).last_hidden_state]
    packed_ids = torch.cat([INPUT_IDS[:1], INPUT_IDS[1:, :3]], dim=1)
    positions = torch.tensor([[*range(6), *range(3)]])
    own = _blocks(6, 3)
    added = torch.zeros(own.shape).masked_fill(~own, torch.finfo(torch.float32).min)

    model.set_attn_implementation(backend)
    with torch.no_grad():
        padded = model(INPUT_IDS, attention_mask=MASK).last_hidden_state
        torch.testing.assert_close(padded[:1], alone[0], **CLOSE)
        torch.testing.assert_close(padded[1:, :3], alone[1], **CLOSE)
        for mask in (None, own, own.long(), added):
            if backend == "flex_attention" and mask is added:
                with pytest.raises(ValueError, match="needs a boolean mask"):
                    model(packed_ids, attention_mask=mask)
                continue
            packed = model(packed_ids, attention_mask=mask, position_ids=positions).last_hidden_state
            torch.testing.assert_close(packed[:, :6], alone[0], **CLOSE)
            torch.testing.assert_close(packed[:, 6:], alone[1], **CLOSE)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_that_is_all_padding_attends_to_nothing_on_every_backend(backend: str) -> None:
    model, mask = _model(), torch.zeros_like(MASK)
    expected = model(INPUT_IDS, attention_mask=mask).last_hidden_state
    model.set_attn_implementation(backend)
    with torch.no_grad():  # flex attention cannot go back on a CPU
        found = model(INPUT_IDS, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(found, expected, **CLOSE)


def test_rows_can_be_packed_differently() -> None:
    model = _model()
    ids = INPUT_IDS[:, :3].repeat(1, 2)
    positions = torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 0, 1]])
    packed = model(ids, position_ids=positions).last_hidden_state
    parts = [(0, slice(0, 3)), (0, slice(3, 6)), (1, slice(0, 4)), (1, slice(4, 6))]
    for row, part in parts:
        alone = model(ids[row : row + 1, part]).last_hidden_state
        torch.testing.assert_close(packed[row : row + 1, part], alone, **CLOSE)


@pytest.mark.filterwarnings("default")
def test_packed_rows_can_be_traced() -> None:
    model, positions = _model(), torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 0, 1]])
    expected = model(INPUT_IDS, position_ids=positions).last_hidden_state
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    torch.testing.assert_close(compiled(INPUT_IDS, position_ids=positions).last_hidden_state, expected, **CLOSE)
    program = torch.export.export(model, (INPUT_IDS,), {"position_ids": positions})
    torch.testing.assert_close(program.module()(INPUT_IDS, position_ids=positions).last_hidden_state, expected, **CLOSE)


def test_flash_attention_takes_one_packed_row() -> None:
    model = _model()
    model.config._attn_implementation_internal = "flash_attention_2"  # it cannot be set where it is not installed
    with pytest.raises(ValueError, match="one packed row"):
        model(INPUT_IDS, position_ids=torch.tensor([[0, 1, 2, 0, 1, 2]] * 2))
    with pytest.raises(ValueError, match="begins at position 0"):
        model(INPUT_IDS[:1], position_ids=torch.tensor([[3, 4, 5, 0, 1, 2]]))
    with pytest.raises(ValueError, match=r"of shape \(batch, seq\)"):
        model(INPUT_IDS, attention_mask=torch.ones(2, 1, 6, 6, dtype=torch.bool).tril())


# Precision


LOW = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", LOW)
def test_softmax_runs_in_float32(dtype: torch.dtype) -> None:
    model = _model().to(dtype)
    model.set_attn_implementation("eager")
    attention, seen = model.transformer_layers[0][0].self_attention_layer, {}
    for name in ("query_dense", "key_dense"):
        getattr(attention, name).register_forward_hook(lambda _, __, output, name=name: seen.setdefault(name, output))
    found = model(**_inputs(2, 60), output_attentions=True).attentions[0][0]  # the row without padding
    query, key = (seen[name][0].view(60, 4, 8).transpose(0, 1) for name in ("query_dense", "key_dense"))
    scores = torch.matmul(query, key.transpose(1, 2)) * attention.scaling
    assert torch.equal(found, scores.float().softmax(-1).to(dtype))
    assert not torch.equal(found, _softmax_of_steps(scores))  # a softmax in low precision would show


def _softmax_of_steps(scores: torch.Tensor) -> torch.Tensor:
    raised = (scores - scores.amax(-1, keepdim=True)).exp()
    return raised / raised.sum(-1, keepdim=True)


@pytest.mark.parametrize("dtype", LOW)
def test_layer_norm_runs_in_float32(dtype: torch.dtype) -> None:
    model = _model().to(dtype)
    for norm in (module for module in model.modules() if isinstance(module, nn.LayerNorm)):
        states = 3 * torch.randn(50, *norm.normalized_shape).to(dtype)
        exact = nn.functional.layer_norm(
            states.float(), norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps
        )
        # Rounded once, at the end. The last digit of float32 may tip that over.
        torch.testing.assert_close(norm(states), exact.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)
        assert (norm(states) == exact.to(dtype)).float().mean() > 0.99


@pytest.mark.parametrize("dtype", LOW)
def test_backends_agree_in_low_precision(dtype: torch.dtype) -> None:
    model, outputs = _model().to(dtype), []
    for backend in ("eager", "sdpa"):
        model.set_attn_implementation(backend)
        outputs.append(model(**_inputs(2, 40)).last_hidden_state)
    torch.testing.assert_close(*outputs, atol=16 * torch.finfo(dtype).eps, rtol=0)


# What comes out, and other sizes


def test_hidden_states_can_be_counted_from_the_end() -> None:
    model = _model()
    states = model(INPUT_IDS, output_hidden_states=True).hidden_states
    chosen = model(INPUT_IDS, output_hidden_states=[0, -2]).hidden_states
    assert [index for index, state in enumerate(chosen) if state is not None] == [0, 7]
    torch.testing.assert_close(chosen[7], states[7])


@pytest.mark.parametrize("size", [380, 450])
@pytest.mark.parametrize("name", ["AlbertHubModel", "AlbertHubForMaskedLM", "AlbertHubForPreTraining"])
def test_the_vocabulary_can_be_resized(name: str, size: int, tmp_path: Path) -> None:
    model = _model(name)
    before, expected = {key: tensor.clone() for key, tensor in model.state_dict().items()}, model(INPUT_IDS)[0]
    model.resize_token_embeddings(size)
    assert model.config.vocabulary_size == size
    kept = min(size, 400)
    for key, tensor in model.state_dict().items():
        if "token_embedding" in key or "decoder" in key:
            assert tensor.shape[0] == size, key
            assert torch.equal(tensor[:kept], before[key][:kept]), key
        else:
            assert torch.equal(tensor, before[key]), key
    width = None if name == "AlbertHubModel" else kept
    torch.testing.assert_close(model(INPUT_IDS)[0][..., :width], expected[..., :width])
    if isinstance(model, AlbertHubForMaskedLM | AlbertHubForPreTraining):
        decoder = model.masked_lm_head.decoder
        assert decoder.weight is model.backbone.token_embedding.weight
        assert decoder.bias.shape == (size,)
        assert decoder.out_features == size
    model.save_pretrained(tmp_path)
    reloaded = type(model).from_pretrained(tmp_path)
    torch.testing.assert_close(reloaded(INPUT_IDS)[0], model(INPUT_IDS)[0])


def test_sequences_may_be_made_longer_and_shorter() -> None:
    model = _model("AlbertHubForMaskedLM", dropout=0.1).double()
    weight = model.get_position_embeddings().weight.clone()
    model.resize_position_embeddings(100)
    assert model.config.max_sequence_length == 100
    resized = model.get_position_embeddings().weight
    assert resized.dtype == torch.float64
    assert torch.equal(resized[:64], weight)
    assert 0 < resized[64:].abs().max() <= 0.04
    assert model(**_inputs(2, 100)).logits.shape == (2, 100, 400)
    model.resize_position_embeddings(8)
    assert torch.equal(model.backbone.position_embedding.weight, weight[:8])
    with pytest.raises(ValueError, match=r"9 tokens.*max_sequence_length=8"):
        model(**_inputs(2, 9))


def test_plans_name_what_is_there() -> None:
    config = AlbertHubConfig(**asdict(SAMPLE_ARCHITECTURE))
    names = {name for name, _ in AlbertHubModel(config).named_modules()}
    for plan in (config.base_model_tp_plan, config.base_model_fsdp_plan):
        for group in range(config.num_groups):
            assert {name.replace("*", str(group)) for name in plan} <= names
    assert "plan" not in config.to_json_string()
