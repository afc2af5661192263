from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode
from transformers.activations import ACT2FN

from albert_hub_bridge.model import fast_linear as module
from albert_hub_bridge.model.fast_linear import fast_linear, feed_forward


pytestmark = pytest.mark.skipif(not module._DTYPES, reason="torch has no oneDNN on this machine")


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def computed_by_onednn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Note what oneDNN is asked for."""
    asked: list[tuple[str, str]] = []
    original = module._onednn_linear

    def noted(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *activation: str) -> torch.Tensor:
        asked.append(activation)
        return original(states, weight, bias, *activation)

    monkeypatch.setattr(module, "_onednn_linear", noted)
    return asked


def _linear(dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(24, 40, dtype=dtype)


@pytest.mark.parametrize("shape", [(3, 24), (2, 5, 24), (5, 20, 24), (0, 24), (1, 24), (24,)], ids=str)
@pytest.mark.parametrize("name", [None, "gelu_pytorch_tanh", "gelu", "relu"])
def test_gives_what_the_module_gives(
    name: str | None, shape: tuple[int, ...], computed_by_onednn: list[tuple[str, str]]
) -> None:
    linear, states = _linear(), torch.randn(shape)
    activation = None if name is None else ACT2FN[name]
    expected = linear(states) if activation is None else activation(linear(states))
    # Sums of 24 products of numbers near 1, added in another order: a few units of 6e-8.
    torch.testing.assert_close(fast_linear(linear, states, activation), expected, atol=1e-6, rtol=0)
    assert computed_by_onednn == [("gelu", "tanh") if name == "gelu_pytorch_tanh" else ("none", "")]


@pytest.mark.parametrize("shape", [(3, 24), (2, 5, 24), (5, 20, 24), (0, 24), (7, 31, 24), (2017, 24)], ids=str)
def test_feeds_forward_in_parts_as_the_modules_do_at_once(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PART", 40 * 50)  # 50 rows
    first, activation, second, states = _linear(), ACT2FN["gelu_pytorch_tanh"], nn.Linear(40, 24), torch.randn(shape)
    expected = second(activation(first(states)))
    torch.testing.assert_close(feed_forward(first, activation, second, states), expected, atol=1e-6, rtol=0)


def test_feeds_forward_through_what_stands_for_a_layer() -> None:
    activation, states = ACT2FN["gelu_pytorch_tanh"], torch.randn(3, 24)
    for first, second in ((_hooked(), nn.Linear(40, 24)), (_linear(), nn.Sequential(nn.Linear(40, 24), nn.Tanh()))):
        expected = second(activation(first(states)))
        torch.testing.assert_close(feed_forward(first, activation, second, states), expected, atol=1e-6, rtol=0)


def test_takes_states_that_are_not_contiguous(computed_by_onednn: list[tuple[str, str]]) -> None:
    linear, states = _linear(), torch.randn(4, 24, 3).transpose(1, 2)[:, 1]
    torch.testing.assert_close(fast_linear(linear, states), linear(states), atol=1e-6, rtol=0)
    assert computed_by_onednn


@pytest.mark.skipif(torch.bfloat16 not in module._DTYPES, reason="this processor does not compute bfloat16")
def test_bfloat16_is_rounded_once(computed_by_onednn: list[tuple[str, str]]) -> None:
    linear, states = _linear(torch.bfloat16), torch.randn(64, 24, dtype=torch.bfloat16)
    activation = ACT2FN["gelu_pytorch_tanh"]
    exact = activation(nn.functional.linear(states.double(), linear.weight.double(), linear.bias.double()))
    # Half a unit in the last of eight bits.
    torch.testing.assert_close(fast_linear(linear, states, activation).double(), exact, rtol=2**-8, atol=1e-6)
    assert computed_by_onednn


class _Doubled(nn.Linear):
    """As others derive their layers."""

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(states)


def _hooked() -> nn.Linear:
    linear = _linear()
    linear.register_forward_hook(lambda _module, _inputs, outputs: 2 * outputs)
    return linear


def _hooked_before() -> nn.Linear:
    linear = _linear()
    linear.register_forward_pre_hook(lambda _module, inputs: (2 * inputs[0],))
    return linear


def _wrapped() -> nn.Linear:
    """As accelerate wraps modules."""
    linear = _linear()
    forward = linear.forward
    linear.forward = lambda states: 2 * forward(states)  # type: ignore[method-assign]
    return linear


def _biased(bias: torch.Tensor) -> nn.Linear:
    linear = _linear()
    linear.bias = nn.Parameter(bias)
    return linear


def _sparse() -> nn.Linear:
    linear = _linear()
    linear.weight = nn.Parameter(linear.weight.detach().to_sparse_csr())
    return linear


@contextmanager
def _hooked_everywhere() -> Iterator[None]:
    """Double what any linear layer is given."""
    hook = register_module_forward_pre_hook(
        lambda called, inputs: (2 * inputs[0],) if isinstance(called, nn.Linear) else None
    )
    try:
        yield
    finally:
        hook.remove()


class _Doubling(TorchFunctionMode):
    """Double what any linear layer gives."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = function(*args, **(kwargs or {}))
        return 2 * outputs if function is nn.functional.linear else outputs


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")  # torch's, about a flag that it sets itself
@pytest.mark.parametrize(
    ("make", "states", "context"),
    [
        (_hooked, torch.ones(3, 24), nullcontext),
        (_hooked_before, torch.ones(3, 24), nullcontext),
        (_wrapped, torch.ones(3, 24), nullcontext),
        (lambda: _Doubled(24, 40), torch.ones(3, 24), nullcontext),
        (lambda: nn.Sequential(_linear()), torch.ones(3, 24), nullcontext),
        (lambda: nn.Linear(24, 40, bias=False), torch.ones(3, 24), nullcontext),
        (lambda: _linear(torch.float64), torch.ones(3, 24, dtype=torch.float64), nullcontext),
        (lambda: _linear().to("meta"), torch.ones(3, 24, device="meta"), nullcontext),
        (_linear, torch.ones(3, 24), torch.enable_grad),
        (_linear, torch.ones(3, 24), lambda: torch.autocast("cpu", torch.bfloat16)),
        (_linear, torch.ones(3, 24), lambda: torch.backends.mkldnn.flags(enabled=False)),
        (lambda: _biased(torch.arange(120.0)[::3]), torch.ones(3, 24), nullcontext),
        (lambda: _biased(torch.ones(1).expand(40)), torch.ones(3, 24), nullcontext),
        (lambda: _biased(torch.ones(1)), torch.ones(3, 24), nullcontext),
        (_sparse, torch.ones(3, 24), nullcontext),
        (_linear, torch.ones(3, 24), _hooked_everywhere),
        (_linear, torch.ones(3, 24), _Doubling),
    ],
    ids=[
        "hook", "hook before", "wrapped", "derived", "another module", "no bias", "float64", "meta", "gradients",
        "autocast", "oneDNN switched off", "bias with gaps", "bias repeated", "one bias", "sparse",
        "hook on all", "mode",
    ],
)  # fmt: skip
def test_the_module_itself_is_called_where_more_hangs_on_it(
    make: Callable[[], nn.Module],
    states: torch.Tensor,
    context: Callable[[], AbstractContextManager[None]],
    computed_by_onednn: list[tuple[str, str]],
) -> None:
    linear = make()
    with context():
        expected, found = linear(states), fast_linear(linear, states)
    assert not computed_by_onednn
    assert found.requires_grad == expected.requires_grad
    if states.device.type != "meta":
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def _tanh_gelu_hooked() -> nn.Module:
    activation = ACT2FN["gelu_pytorch_tanh"]
    activation.register_forward_hook(lambda _module, _inputs, outputs: 2 * outputs)
    return activation


def _tanh_gelu_wrapped() -> nn.Module:
    activation = ACT2FN["gelu_pytorch_tanh"]
    forward = activation.forward
    activation.forward = lambda states: 2 * forward(states)
    return activation


@pytest.mark.parametrize("make", [_tanh_gelu_hooked, _tanh_gelu_wrapped], ids=["hook", "wrapped"])
def test_the_activation_itself_is_called_where_more_hangs_on_it(make: Callable[[], nn.Module]) -> None:
    first, activation, second, states = _linear(), make(), nn.Linear(40, 24), torch.randn(3, 24)
    torch.testing.assert_close(fast_linear(first, states, activation), activation(first(states)), atol=1e-6, rtol=0)
    expected = second(activation(first(states)))
    torch.testing.assert_close(feed_forward(first, activation, second, states), expected, atol=1e-6, rtol=0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's, about itself
def test_derivatives_go_forward_without_gradients_too() -> None:
    linear, states, tangent = _linear(), torch.randn(3, 24), torch.randn(3, 24)
    activation, second = ACT2FN["gelu_pytorch_tanh"], nn.Linear(40, 24)

    def call(states: torch.Tensor) -> torch.Tensor:
        return feed_forward(linear, activation, second, states)

    def modules(states: torch.Tensor) -> torch.Tensor:
        return second(activation(linear(states)))

    with torch.enable_grad():
        _, expected = torch.autograd.functional.jvp(modules, states, tangent)
    torch.testing.assert_close(torch.func.jvp(call, (states,), (tangent,))[1], expected, atol=1e-5, rtol=0)
    with torch.autograd.forward_ad.dual_level():
        found = torch.autograd.forward_ad.unpack_dual(call(torch.autograd.forward_ad.make_dual(states, tangent)))
    torch.testing.assert_close(found.tangent, expected, atol=1e-5, rtol=0)


def test_operations_are_counted() -> None:
    with FlopCounterMode(display=False) as counter:
        fast_linear(_linear(), torch.randn(3, 24))
    assert counter.get_total_flops() == 2 * 3 * 24 * 40


def test_a_default_device_is_no_reason_to_do_without(computed_by_onednn: list[tuple[str, str]]) -> None:
    with torch.device("cpu"):
        fast_linear(_linear(), torch.randn(3, 24))
    assert computed_by_onednn


def test_a_dtype_that_does_not_fit_is_refused_as_the_module_refuses_it() -> None:
    with pytest.raises(RuntimeError, match="same dtype"):
        fast_linear(_linear(), torch.ones(3, 24, dtype=torch.bfloat16))


@pytest.mark.parametrize("name", ["models.my model (1)", "models.модель", "models.a+b"])
def test_a_repository_that_carries_it_may_have_any_name(name: str) -> None:
    spec = importlib.util.spec_from_file_location(f"{name}.fast_linear", module.__file__)
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    linear, states = _linear(), torch.randn(3, 24)
    torch.testing.assert_close(copy.fast_linear(linear, states), linear(states), atol=1e-6, rtol=0)


def test_exported_programs_have_torch_s_own_operator() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = _linear()

        def forward(self, states: torch.Tensor) -> torch.Tensor:
            return fast_linear(self.linear, states)

    program = torch.export.export(Model(), (torch.ones(3, 24),))
    assert [str(node.target) for node in program.graph.nodes if node.op == "call_function"] == ["aten.linear.default"]


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_a_compiled_graph_asks_onednn_too() -> None:
    linear, states = _linear(), torch.randn(3, 24)
    graphs = []

    def keep(graph: torch.fx.GraphModule, _inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(lambda states: fast_linear(linear, states), fullgraph=True, backend=keep)
    torch.testing.assert_close(compiled(states), linear(states), atol=1e-6, rtol=0)
    assert ["onednn_linear" in str(node.target) for node in graphs[0].graph.nodes if node.op == "call_function"] == [
        True
    ]
