from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModel

from albert_hub_bridge import AlbertHubConfig, AlbertHubModel
from albert_hub_bridge.model.modeling_albert_hub import AlbertHubLayer
from conversion.sample import SAMPLE_ARCHITECTURE


def _model(**changes: object) -> AlbertHubModel:
    torch.manual_seed(0)
    model = AlbertHubModel(AlbertHubConfig(**{**asdict(SAMPLE_ARCHITECTURE), **changes}))
    with torch.no_grad():  # biases and layer norms are not all alike after training either
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.double().eval()  # in float64 two ways to compute the same thing agree to the last digits


EXACT = {"atol": 1e-12, "rtol": 0}


INPUT_IDS = torch.tensor([[2, 17, 33, 8, 250, 3], [2, 9, 3, 0, 0, 0]])
MASK = (INPUT_IDS != 0).long()


def test_outputs_have_the_documented_shapes() -> None:
    outputs = _model()(INPUT_IDS, attention_mask=MASK, output_hidden_states=True)
    assert outputs.last_hidden_state.shape == (2, 6, 32)
    assert outputs.pooler_output.shape == (2, 32)
    assert len(outputs.hidden_states) == 4 * 2 + 1  # layers run, and their input
    torch.testing.assert_close(outputs.hidden_states[-1], outputs.last_hidden_state)


def test_every_group_runs_its_share_of_layers_in_turn() -> None:
    model, order = _model(), []
    for name, module in model.named_modules():
        if isinstance(module, AlbertHubLayer):
            module.register_forward_hook(lambda *_, name=name: order.append(name))
    model(INPUT_IDS)
    first, second = ([f"transformer_layers.{group}.0", f"transformer_layers.{group}.1"] for group in (0, 1))
    assert order == first * 2 + second * 2


def test_eager_attention_gives_what_sdpa_gives_and_its_probabilities() -> None:
    model = _model()
    expected = model(INPUT_IDS, attention_mask=MASK)
    model.set_attn_implementation("eager")
    found = model(INPUT_IDS, attention_mask=MASK, output_attentions=True)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, **EXACT)
    assert len(found.attentions) == 8
    for probabilities in found.attentions:
        assert probabilities.shape == (2, 4, 6, 6)
        torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, 4, 6, dtype=torch.float64))
        assert (probabilities[1, :, :, 3:] == 0).all()


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_padding_changes_nothing(implementation: str) -> None:
    model = _model()
    model.set_attn_implementation(implementation)
    padded = model(INPUT_IDS, attention_mask=MASK)
    alone = model(INPUT_IDS[1:, :3])
    torch.testing.assert_close(padded.last_hidden_state[1:, :3], alone.last_hidden_state, **EXACT)
    torch.testing.assert_close(padded.pooler_output[1:], alone.pooler_output, **EXACT)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_row_that_is_all_padding_attends_to_nothing(implementation: str) -> None:
    model = _model()
    model.set_attn_implementation(implementation)
    attention = model.transformer_layers[0][0].self_attention_layer
    seen = []
    attention.register_forward_hook(lambda _module, _inputs, outputs: seen.append(outputs[0]))
    outputs = model(INPUT_IDS, attention_mask=torch.zeros_like(MASK))
    assert outputs.last_hidden_state.isfinite().all()
    torch.testing.assert_close(seen[0], attention.output_dense.bias.expand_as(seen[0]))


def test_positions_and_segments_have_their_defaults() -> None:
    model = _model()
    explicit = model(
        INPUT_IDS,
        token_type_ids=torch.zeros_like(INPUT_IDS),
        position_ids=torch.arange(6).expand(2, 6),
        attention_mask=torch.ones_like(INPUT_IDS),
    )
    torch.testing.assert_close(model(INPUT_IDS).last_hidden_state, explicit.last_hidden_state, atol=0, rtol=0)
    other = model(INPUT_IDS, token_type_ids=torch.ones_like(INPUT_IDS))
    assert (other.last_hidden_state - explicit.last_hidden_state).abs().max() > 0.1


def test_embeddings_can_be_passed_instead_of_ids() -> None:
    model = _model()
    embeddings = model.get_input_embeddings()(INPUT_IDS)
    torch.testing.assert_close(
        model(inputs_embeds=embeddings).last_hidden_state, model(INPUT_IDS).last_hidden_state, atol=0, rtol=0
    )
    for arguments in ({}, {"input_ids": INPUT_IDS, "inputs_embeds": embeddings}):
        with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
            model(**arguments)


def test_a_sequence_that_is_too_long_is_refused_with_both_lengths() -> None:
    with pytest.raises(ValueError, match=r"65 tokens.*max_sequence_length=64"):
        _model()(torch.ones((1, 65), dtype=torch.long))


def test_new_weights_are_drawn_as_keras_hub_draws_them() -> None:
    torch.manual_seed(0)
    model = AlbertHubModel(AlbertHubConfig(num_groups=2))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert (parameter == (1 if name.endswith("weight") else 0)).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0).all(), name
        else:
            # TruncatedNormal(0.02) is cut at two standard deviations, which leaves 0.8796 of the deviation.
            assert parameter.abs().max() <= 0.04, name
            error = 0.02 * 0.88 * 5 / math.sqrt(2 * parameter.numel())
            assert abs(parameter.std() - 0.02 * 0.8796) < error, name
            assert (parameter[0] != 0).any(), name  # <pad> is a row like any other


def test_dropout_is_where_keras_hub_has_it() -> None:
    model = _model(dropout=0.4).train()
    rates = {name: module.p for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    inner = [f"transformer_layers.{group}.{layer}" for group in (0, 1) for layer in (0, 1)]
    expected = ["embeddings_dropout"] + [
        f"{name}.{part}_dropout" for name in inner for part in ("self_attention", "feedforward")
    ]
    assert rates == dict.fromkeys(expected, 0.4)
    calls = []
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda _module, inputs, outputs: calls.append((outputs == 0).float().mean()))
    model(INPUT_IDS)
    assert len(calls) == 1 + 8 * 2
    assert 0.3 < torch.stack(calls).mean() < 0.5


def test_attention_probabilities_are_dropped_in_training_only() -> None:
    model = _model(dropout=0.4)
    model.set_attn_implementation("eager")
    assert (model(INPUT_IDS, output_attentions=True).attentions[0] > 0).all()
    dropped = model.train()(INPUT_IDS, output_attentions=True).attentions[0]
    assert 0.3 < (dropped == 0).float().mean() < 0.5


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = _model().train()
        if checkpointing:
            model.activation_checkpointing_enable()
        model(INPUT_IDS, attention_mask=MASK).pooler_output.square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
        assert gradient.abs().sum() > 0 or name.endswith("key_dense.bias"), name  # softmax cancels the key's bias


def test_low_precision_stays_close_to_float32() -> None:
    expected = _model()(INPUT_IDS, attention_mask=MASK).last_hidden_state.float()
    for dtype, unit in ((torch.bfloat16, 2**-8), (torch.float16, 2**-11)):
        found = _model().to(dtype)(INPUT_IDS, attention_mask=MASK).last_hidden_state
        assert found.dtype == dtype
        # Outputs are layer-normed, of size one; each of 8 layers rounds a few times.
        assert (found.float() - expected).abs().max() < 32 * unit


def test_a_model_without_a_pooler_has_none() -> None:
    model = AlbertHubModel(AlbertHubConfig(**asdict(SAMPLE_ARCHITECTURE)), add_pooling_layer=False)
    assert model(INPUT_IDS).pooler_output is None
    assert not [name for name in model.state_dict() if name.startswith("pooled_dense")]


def test_the_auto_class_makes_it() -> None:
    assert type(AutoModel.from_config(AlbertHubConfig(**asdict(SAMPLE_ARCHITECTURE)))) is AlbertHubModel


MASKS = {
    "right": [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]],
    "left": [[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1]],
    "holes": [[1, 0, 1, 1, 0, 1], [1, 1, 1, 0, 0, 1], [1, 0, 0, 0, 0, 1]],
    "a row of padding": [[1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]],
    "padding alone": [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]],
    "nothing hidden": [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]],
}
THREE_ROWS = torch.tensor([[2, 17, 33, 8, 250, 3], [2, 9, 3, 44, 21, 7], [5, 6, 7, 8, 9, 10]])


@pytest.mark.parametrize("add_pooling_layer", [True, False])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MASKS)
def test_fewer_positions_are_those_of_all(name: str, implementation: str, add_pooling_layer: bool) -> None:
    model, mask = _model(), torch.tensor(MASKS[name])
    model.set_attn_implementation(implementation)
    if not add_pooling_layer:
        model.pooled_dense = None
    expected = model(THREE_ROWS, mask)
    visible = model(THREE_ROWS, mask, positions="unmasked")
    torch.testing.assert_close(visible.last_hidden_state, expected.last_hidden_state * mask.unsqueeze(-1), **EXACT)
    first = model(THREE_ROWS, mask, positions="first")
    torch.testing.assert_close(first.last_hidden_state, expected.last_hidden_state[:, :1], **EXACT)
    if add_pooling_layer:
        torch.testing.assert_close(visible.pooler_output, expected.pooler_output, **EXACT)
        torch.testing.assert_close(first.pooler_output, expected.pooler_output, **EXACT)


@pytest.mark.filterwarnings("default::DeprecationWarning")  # torch's, about itself and about transformers' calls
def test_fewer_positions_are_those_of_all_on_flex_attention() -> None:
    model, mask = _model().float(), torch.tensor(MASKS["right"])
    model.set_attn_implementation("flex_attention")
    with torch.no_grad():
        expected = model(THREE_ROWS, mask).last_hidden_state
        first = model(THREE_ROWS, mask, positions="first").last_hidden_state
        visible = model(THREE_ROWS, mask, positions="unmasked").last_hidden_state
    torch.testing.assert_close(first, expected[:, :1], rtol=0, atol=0)
    torch.testing.assert_close(visible, expected * mask.unsqueeze(-1), rtol=0, atol=0)


def _widths_of(model: nn.Module, run: Callable[[], object]) -> list[tuple[int, ...]]:
    """Return for how many rows and tokens each layer computed its feed-forward block."""
    seen: list[tuple[int, ...]] = []

    def watch(module: nn.Module) -> None:  # not by a hook, for which all is computed
        forward = module.forward
        module.forward = lambda states: (seen.append(tuple(states.shape[:2])), forward(states))[1]  # type: ignore[method-assign]

    watched = [module for name, module in model.named_modules() if name.endswith("feedforward_output_dense")]
    for module in watched:
        watch(module)
    run()
    for module in watched:
        del module.forward
    return seen


def test_padding_is_not_computed_where_it_is_not_wanted() -> None:
    model, mask = _model(), torch.tensor(MASKS["right"])
    assert _widths_of(model, lambda: model(THREE_ROWS, mask)) == [(3, 6)] * 8
    assert _widths_of(model, lambda: model(THREE_ROWS, mask, positions="unmasked")) == [(1, 10)] * 8
    assert _widths_of(model, lambda: model(THREE_ROWS, mask, positions="first")) == [(1, 10)] * 7 + [(1, 3)]
    assert _widths_of(model, lambda: model(THREE_ROWS, positions="first")) == [(3, 6)] * 7 + [(3, 1)]


def test_all_is_computed_where_hidden_states_are_asked_for() -> None:
    model, mask = _model(), torch.tensor(MASKS["right"])
    expected = model(THREE_ROWS, mask, output_hidden_states=True)
    found = model(THREE_ROWS, mask, positions="first", output_hidden_states=True)
    for state, other in zip(found.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(state, other, **EXACT)
    assert found.last_hidden_state.shape == (3, 6, 32)


def test_hooks_on_layers_see_whole_batches() -> None:
    model, mask = _model(), torch.tensor(MASKS["right"])

    def steer(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        return output + (torch.arange(6) == 1).unsqueeze(-1)  # the second token of each text

    hooks = [group[0].register_forward_hook(steer) for group in model.transformer_layers]
    expected = model(THREE_ROWS, mask)
    for positions, wanted in (
        ("first", expected.last_hidden_state[:, :1]),
        ("unmasked", expected.last_hidden_state * mask.unsqueeze(-1)),
    ):
        found = model(THREE_ROWS, mask, positions=positions)
        torch.testing.assert_close(found.last_hidden_state, wanted, **EXACT)
        torch.testing.assert_close(found.pooler_output, expected.pooler_output, **EXACT)
    starts = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5], [0, 1, 0, 1, 2, 3]])
    steered = model(THREE_ROWS, position_ids=starts).last_hidden_state
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(steered[0, 3:], model(THREE_ROWS, position_ids=starts).last_hidden_state[0, 3:], **EXACT)


def test_padding_is_left_out_after_hidden_states_were_asked_for() -> None:
    model, mask = _model(), torch.tensor(MASKS["right"])
    model(THREE_ROWS, mask, output_hidden_states=True)  # transformers leaves its hooks where they are
    assert _widths_of(model, lambda: model(THREE_ROWS, mask, positions="unmasked")) == [(1, 10)] * 8


@pytest.mark.parametrize("shape", [(1, 6), (2, 6), (3, 5), (3, 8)], ids=str)
@pytest.mark.parametrize("positions", ["all", "unmasked", "first"])
def test_a_mask_of_another_shape_is_refused(positions: str, shape: tuple[int, int]) -> None:
    mask = torch.ones(shape, dtype=torch.long)
    mask[:, 3:] = 0
    with pytest.raises((IndexError, RuntimeError), match=r"out of bounds|must match"):
        _model()(THREE_ROWS, mask, positions=positions)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_minus_infinity_hides_what_a_boolean_hides(implementation: str) -> None:
    model, visible = _model(), torch.tensor(MASKS["right"]).bool()
    model.set_attn_implementation(implementation)
    visible = visible[:, None, :, None] & visible[:, None, None]  # padding attends to nothing
    added = torch.zeros(visible.shape, dtype=torch.float64).masked_fill(~visible, -torch.inf)
    expected = model(THREE_ROWS, visible).last_hidden_state
    torch.testing.assert_close(model(THREE_ROWS, added).last_hidden_state, expected, **EXACT)


def test_a_default_device_is_not_where_the_batch_is() -> None:
    model, mask = _model(), torch.tensor(MASKS["right"])
    positions = torch.tensor([[0, 1, 2, 0, 1, 0]]).expand(3, 6)
    first = model(THREE_ROWS, mask, positions="first").last_hidden_state
    packed = model(THREE_ROWS, position_ids=positions).last_hidden_state
    with torch.device("meta"):
        found = model(THREE_ROWS, mask, positions="first").last_hidden_state
        torch.testing.assert_close(found, first, **EXACT)
        torch.testing.assert_close(model(THREE_ROWS, position_ids=positions).last_hidden_state, packed, **EXACT)


def test_fewer_positions_have_the_same_gradients() -> None:
    model, mask = _model(), torch.tensor(MASKS["right"])
    gradients = []
    for positions in ("all", "first"):
        model.zero_grad()
        model(THREE_ROWS, mask, positions=positions).pooler_output.square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    torch.testing.assert_close(gradients[1], gradients[0], **EXACT)


def test_packed_rows_are_computed_sequence_by_sequence() -> None:
    model = _model()
    positions = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5], [0, 1, 0, 1, 2, 3]])
    packed = model(THREE_ROWS, position_ids=positions)
    for row, start, end in ((0, 0, 3), (0, 3, 5), (0, 5, 6), (1, 0, 6), (2, 0, 2), (2, 2, 6)):
        alone = model(THREE_ROWS[row : row + 1, start:end]).last_hidden_state
        torch.testing.assert_close(packed.last_hidden_state[row : row + 1, start:end], alone, **EXACT)
    first = model(THREE_ROWS, position_ids=positions, positions="first").last_hidden_state
    torch.testing.assert_close(first, packed.last_hidden_state[:, :1], **EXACT)
    recorded = model(THREE_ROWS, position_ids=positions, output_hidden_states=True)
    assert {states.shape for states in recorded.hidden_states} == {packed.last_hidden_state.shape}
    torch.testing.assert_close(recorded.last_hidden_state, packed.last_hidden_state, **EXACT)


@pytest.mark.parametrize(
    "options", [{"is_causal": True}, {"position_bias": torch.randn(1, 1, 6, 6, dtype=torch.float64)}]
)
def test_options_of_sdpa_mean_the_same_for_fewer_positions(options: dict[str, Any]) -> None:
    """sdpa is causal only without a mask and for all queries, and a bias has the length of the batch."""
    model, mask = _model(), torch.ones_like(THREE_ROWS)
    mask[0, 4:] = 0
    expected = model(THREE_ROWS, mask, **options).last_hidden_state
    found = model(THREE_ROWS, mask, positions="unmasked", **options).last_hidden_state
    torch.testing.assert_close(found, expected * mask[..., None], **EXACT)
    for each in (mask, None):
        expected = model(THREE_ROWS, each, **options)
        found = model(THREE_ROWS, each, positions="first", **options)
        torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state[:, :1], **EXACT)
        torch.testing.assert_close(found.pooler_output, expected.pooler_output, **EXACT)


def test_sdpa_refuses_softcap_for_fewer_positions_too() -> None:
    mask = torch.tensor(MASKS["right"])
    for positions in ("all", "unmasked", "first"):
        with pytest.raises(ValueError, match="does not support `softcap`"):
            _model()(THREE_ROWS, mask, positions=positions, softcap=1.0)


def test_positions_are_named() -> None:
    with pytest.raises(ValueError, match='positions must be "all", "unmasked" or "first", not \'last\''):
        _model()(THREE_ROWS, positions="last")
