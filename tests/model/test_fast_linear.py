from __future__ import annotations

import importlib
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils import _device as device_module
from torch.utils.flop_counter import FlopCounterMode
from transformers.activations import ACT2FN

import albert_hub_bridge
from albert_hub_bridge.model import fast_linear as module
from albert_hub_bridge.model.fast_linear import fast_linear, feed_forward
from tests.servers.local_server import run_client


HAS_ONEDNN = platform.machine() in {"x86_64", "AMD64"} and torch.backends.mkldnn.is_available()
pytestmark = pytest.mark.skipif(not HAS_ONEDNN, reason="torch has no oneDNN on this machine")
DTYPES = [torch.float32]
if HAS_ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported():
    DTYPES.append(torch.bfloat16)


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def computed_by_onednn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Note what oneDNN is asked for."""
    asked: list[tuple[str, str]] = []
    original = module._run_linear

    def noted(linear: nn.Linear, states: torch.Tensor, *activation: str) -> torch.Tensor:
        asked.append(activation)
        return original(linear, states, *activation)

    monkeypatch.setattr(module, "_run_linear", noted)
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


@pytest.mark.skipif(torch.bfloat16 not in DTYPES, reason="this processor does not compute bfloat16")
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


@pytest.mark.filterwarnings("ignore:`torch.jit:Warning")  # torch's, about itself
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
    copy = _copied(name)
    linear, states = _linear(), torch.randn(3, 24)
    torch.testing.assert_close(copy.fast_linear(linear, states), linear(states), atol=1e-6, rtol=0)


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = _linear()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return fast_linear(self.linear, states)


def test_exported_programs_have_torch_s_own_operator() -> None:
    program = torch.export.export(_Model(), (torch.ones(3, 24),))
    assert [str(node.target) for node in program.graph.nodes if node.op == "call_function"] == ["aten.linear.default"]


def _operators_of_compiled(function: Callable[[torch.Tensor], torch.Tensor], states: torch.Tensor) -> list[str]:
    graphs = []

    def keep(graph: torch.fx.GraphModule, _inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    compiled = torch.compile(function, fullgraph=True, backend=keep)
    torch.testing.assert_close(compiled(states), function(states), atol=1e-6, rtol=0)
    return [str(node.target) for node in graphs[0].graph.nodes if node.op == "call_function"]


def _is_exporting_when_compiled() -> bool:
    """Return what torch up to 2.11 says wrongly."""
    is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    compiled = torch.compile(lambda states: states + 1 if is_exporting() else states, fullgraph=True, backend="eager")
    return bool(compiled(torch.zeros(1)).item())


@pytest.mark.filterwarnings("ignore:`torch.jit:Warning")
def test_a_compiled_graph_asks_onednn_too() -> None:
    linear, states = _linear(), torch.randn(3, 24)
    operators = _operators_of_compiled(lambda states: fast_linear(linear, states), states)
    assert ["onednn_linear" in name for name in operators] == [not _is_exporting_when_compiled()]


# The probe


@pytest.fixture
def unprobed() -> Iterator[None]:
    """Let the next call be the first of the process."""
    module._run_probe.cache_clear()
    yield
    module._run_probe.cache_clear()


def _assert_plain_path(copy: Any = module, dtypes: list[torch.dtype] = DTYPES) -> None:
    """Compare with the modules, bit for bit: oneDNN adds in another order."""
    activation = ACT2FN["gelu_pytorch_tanh"]
    for dtype in dtypes:
        first, second = _linear(dtype), nn.Linear(40, 24, dtype=dtype)
        for states in (torch.randn(3, 24, dtype=dtype), torch.randn(2, 100, 24, dtype=dtype)):
            expected = activation(first(states))
            torch.testing.assert_close(copy.fast_linear(first, states), first(states), atol=0, rtol=0)
            torch.testing.assert_close(copy.fast_linear(first, states, activation), expected, atol=0, rtol=0)
            found = copy.feed_forward(first, activation, second, states)
            torch.testing.assert_close(found, second(expected), atol=0, rtol=0)


def _copied(package: str = "models.copied") -> Any:
    """Import the module and what it imports once more, as a repository that carries it does."""
    parent = ModuleType(package)
    parent.__path__ = [str(Path(module.__file__).parent)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, package, parent)
        try:
            return importlib.import_module(f"{package}.fast_linear")
        finally:
            for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
                del sys.modules[name]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_probe_passes_here(dtype: torch.dtype, unprobed: None) -> None:
    module._probe(dtype)  # which says why it does not
    assert module._passes_probe(dtype)


def test_the_probe_fails_for_other_dtypes() -> None:
    assert not module._passes_probe(torch.float64)


def _bfloat16_products() -> None:
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"


@pytest.fixture(
    params=[
        lambda: torch.set_float32_matmul_precision("high"),
        lambda: torch.set_float32_matmul_precision("medium"),
        pytest.param(
            _bfloat16_products,
            marks=pytest.mark.skipif(not hasattr(torch.backends.mkldnn, "matmul"), reason="since torch 2.9"),
        ),
    ],
    ids=["high", "medium", "oneDNN's own"],
)
def less_precise(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let products of float32 be less precise."""
    request.param()
    yield
    torch.set_float32_matmul_precision("highest")
    if hasattr(torch.backends.mkldnn, "matmul"):
        torch.backends.mkldnn.matmul.fp32_precision = "none"


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
def test_less_precise_products_are_left_to_torch(
    unprobed: None, less_precise: None, computed_by_onednn: list[tuple[str, str]]
) -> None:
    _assert_plain_path(dtypes=[torch.float32])
    assert not computed_by_onednn
    assert not module._run_probe.cache_info().currsize  # it decides for later, when they may be precise again


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
def test_less_precise_products_are_left_to_torch_in_what_was_compiled_before(less_precise: None) -> None:
    first, activation, second, states = _linear(), ACT2FN["gelu_pytorch_tanh"], nn.Linear(40, 24), torch.randn(3, 24)
    found = module._onednn_linear(states, first.weight, first.bias, "gelu", "tanh")
    torch.testing.assert_close(found, activation(first(states)), atol=0, rtol=0)
    found = module._onednn_feed_forward(states, first.weight, first.bias, second.weight, second.bias)
    torch.testing.assert_close(found, second(activation(first(states))), atol=0, rtol=0)


def test_the_probe_runs_once_and_leaves_the_random_generator_alone(
    monkeypatch: pytest.MonkeyPatch, unprobed: None
) -> None:
    probed = []
    monkeypatch.setattr(module, "_probe", probed.append)
    linear, states = _linear(), torch.randn(3, 24)
    before = torch.get_rng_state()
    for _ in range(3):
        fast_linear(linear, states)
    assert probed == [torch.float32]
    monkeypatch.undo()
    module._probe(torch.float32)
    assert torch.equal(torch.get_rng_state(), before)


def test_threads_may_call_first_at_the_same_time(unprobed: None, computed_by_onednn: list[tuple[str, str]]) -> None:
    linear, states = _linear(), torch.randn(3, 24)
    start = threading.Barrier(4)

    def call(_number: int) -> torch.Tensor:
        start.wait()
        with torch.no_grad():
            return fast_linear(linear, states)

    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(call, range(4)):
            torch.testing.assert_close(found, linear(states), atol=1e-6, rtol=0)
    assert len(computed_by_onednn) == 4


OPERATORS = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
if HAS_ONEDNN:
    LINEAR_POINTWISE = torch.ops.mkldnn._linear_pointwise.default
    REORDER = torch.ops.mkldnn._reorder_linear_weight.default


def _raise(*_arguments: Any) -> torch.Tensor:
    raise RuntimeError("could not create a primitive")


def _without_bias(states: Any, weight: Any, _bias: Any, *activation: Any) -> torch.Tensor:
    return LINEAR_POINTWISE(states, weight, None, *activation)


def _without_activation(states: Any, weight: Any, bias: Any, *_activation: Any) -> torch.Tensor:
    return LINEAR_POINTWISE(states, weight, bias, "none", [], "")


def _with_other_activation(states: Any, weight: Any, bias: Any, activation: Any, *_algorithm: Any) -> torch.Tensor:
    return LINEAR_POINTWISE(states, weight, bias, activation, [], "none" if activation == "gelu" else "")


def _a_little_more(*arguments: Any) -> torch.Tensor:
    outputs = LINEAR_POINTWISE(*arguments)
    return outputs * (1 + torch.finfo(outputs.dtype).eps)


def _in_another_dtype(*arguments: Any) -> torch.Tensor:
    return LINEAR_POINTWISE(*arguments).double()


def _in_another_shape(*arguments: Any) -> torch.Tensor:
    return LINEAR_POINTWISE(*arguments).unsqueeze(0)


def _only_for_matrices(states: Any, *arguments: Any) -> torch.Tensor:
    if states.ndim != 2:
        raise NotImplementedError
    return LINEAR_POINTWISE(states, *arguments)


def _only_without_reordering(states: Any, weight: Any, *arguments: Any) -> torch.Tensor:
    outputs = LINEAR_POINTWISE(states, weight, *arguments)
    return 2 * outputs if weight.is_mkldnn else outputs


def _reorder_wrongly(weight: torch.Tensor, rows: int) -> torch.Tensor:
    return REORDER(weight.flip(0), rows)


@pytest.mark.parametrize(
    ("name", "replacement"),
    [
        ("_linear_pointwise", None),
        ("_reorder_linear_weight", None),
        ("_linear_pointwise", _raise),
        ("_reorder_linear_weight", _raise),
        ("_linear_pointwise", _only_for_matrices),
        ("_linear_pointwise", _without_bias),
        ("_linear_pointwise", _without_activation),
        ("_linear_pointwise", _with_other_activation),
        ("_linear_pointwise", _a_little_more),
        ("_linear_pointwise", _in_another_dtype),
        ("_linear_pointwise", _in_another_shape),
        ("_linear_pointwise", _only_without_reordering),
        ("_reorder_linear_weight", _reorder_wrongly),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)).strip("_"),
)
def test_an_operator_that_does_not_do_what_it_does_today_is_not_used(
    name: str,
    replacement: Callable[..., torch.Tensor] | None,
    unprobed: None,
    monkeypatch: pytest.MonkeyPatch,
    computed_by_onednn: list[tuple[str, str]],
) -> None:
    operators = {each: getattr(torch.ops.mkldnn, each) for each in OPERATORS}
    del operators[name]
    if replacement is not None:
        operators[name] = SimpleNamespace(default=replacement)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(**operators))
    _assert_plain_path()
    assert not computed_by_onednn
    assert not any(module._passes_probe(dtype) for dtype in DTYPES)


@pytest.mark.parametrize("support", [None, False, _raise], ids=["missing", "no", "raises"])
def test_without_bfloat16_float32_is_computed_by_onednn(
    support: Any, unprobed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    operators = {each: getattr(torch.ops.mkldnn, each) for each in OPERATORS}
    del operators["_is_mkldnn_bf16_supported"]
    if support is not None:
        operators["_is_mkldnn_bf16_supported"] = support or (lambda: False)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(**operators))
    assert module._passes_probe(torch.float32)
    assert not module._passes_probe(torch.bfloat16)
    linear, states = _linear(torch.bfloat16), torch.randn(3, 24, dtype=torch.bfloat16)
    torch.testing.assert_close(fast_linear(linear, states), linear(states), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (nn.modules.module, "_global_forward_pre_hooks"),
        (nn.modules.module, "_global_forward_hooks"),
        (nn.modules.module, "_global_backward_pre_hooks"),
        (nn.modules.module, "_global_backward_hooks"),
        (torch.autograd.forward_ad, "_current_level"),
        (torch.overrides, "_get_current_function_mode_stack"),
        (torch._C, "_are_functorch_transforms_active"),
        (torch._C, "_len_torch_dispatch_stack"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_without_a_private_name_it_is_imported_and_takes_the_plain_path(owner: Any, name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(owner, name)
        copy = _copied()
        assert not any(copy._passes_probe(dtype) for dtype in DTYPES)
        if owner is not nn.modules.module:  # which cannot call modules without it
            _assert_plain_path(copy)
    _assert_plain_path(copy)


@pytest.mark.parametrize(
    ("owner", "name"),
    [(nn.modules.module, "_has_any_global_hook"), (device_module, "DeviceContext")],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_names_that_some_versions_of_torch_lack_are_not_needed(
    owner: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(owner, name, raising=False)
    copy = _copied()
    assert copy._passes_probe(torch.float32)
    linear, states = _linear(), torch.randn(3, 24)
    torch.testing.assert_close(copy.fast_linear(linear, states), linear(states), atol=1e-6, rtol=0)


@pytest.mark.parametrize("value", [None, "1", "0"])
def test_a_variable_of_the_environment_switches_it_off(value: str | None) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ALBERT_HUB_FAST_LINEAR"}
    environment["PYTHONPATH"] = str(Path(albert_hub_bridge.__file__).parent.parent)
    if value is not None:
        environment["ALBERT_HUB_FAST_LINEAR"] = value
    code = """
    import torch
    from albert_hub_bridge.model import fast_linear as module

    asked = []
    original = module._run_linear
    module._run_linear = lambda *arguments: asked.append(1) or original(*arguments)
    linear, states = torch.nn.Linear(24, 40), torch.randn(3, 24)
    with torch.no_grad():
        found, expected = module.fast_linear(linear, states), linear(states)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    result = len(asked), torch.equal(found, expected)
    """
    asked, equal = run_client(code, environment)
    assert asked == (0 if value == "0" else 1)
    assert equal or asked


# The first call of a process


class _Watching(TorchFunctionMode):
    """Change nothing."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


def _traced(model: nn.Module, states: torch.Tensor) -> Any:
    return torch.jit.trace(model, (states,))(states)


def _made_a_graph(model: nn.Module, states: torch.Tensor) -> Any:
    return make_fx(model, tracing_mode="fake", _allow_non_fake_inputs=True)(states)(states)


def _exported(model: nn.Module, states: torch.Tensor, strict: bool = False) -> Any:
    return torch.export.export(model, (states,), strict=strict).module()(states)


def _mapped(model: nn.Module, states: torch.Tensor) -> Any:
    return torch.func.vmap(model)(states)


def _compiled(model: nn.Module, states: torch.Tensor) -> Any:
    return torch.compile(model, fullgraph=True, backend="eager")(states)


def _within(context: Callable[[], AbstractContextManager[Any]], run: Callable[..., Any] | None = None) -> Any:
    def call(model: nn.Module, states: torch.Tensor) -> Any:
        with context():
            return model(states) if run is None else run(model, states)

    return call


@pytest.mark.filterwarnings("ignore:`torch.jit:Warning")  # torch's, about itself
@pytest.mark.parametrize(
    "run",
    [
        _within(nullcontext),
        _within(torch.inference_mode),
        _within(lambda: torch.device("meta")),
        _within(lambda: FlopCounterMode(display=False)),
        _within(_Watching),
        _within(torch.autograd.forward_ad.dual_level),
        _traced,
        _made_a_graph,
        _exported,
        partial(_exported, strict=True),
        _mapped,
        _compiled,
        _within(torch.inference_mode, _compiled),
        _within(lambda: torch.device("meta"), _compiled),
    ],
    ids=[
        "eager", "inference", "default device", "counter", "mode", "forward derivatives", "jit", "make_fx", "export",
        "strict export", "vmap", "compile", "compile, inference", "compile, default device",
    ],
)  # fmt: skip
def test_the_first_call_may_be_anywhere(run: Callable[..., Any], unprobed: None) -> None:
    model, states = _Model(), torch.randn(3, 24)
    expected, state = model.linear(states), torch.get_rng_state()
    torch.testing.assert_close(run(model, states), expected, atol=1e-6, rtol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert module._passes_probe(torch.float32)


@pytest.mark.filterwarnings("ignore:`torch.jit:Warning")
@pytest.mark.parametrize("works", [True, False])
def test_the_probe_decides_what_a_first_call_compiles(
    works: bool, unprobed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not works:
        monkeypatch.setattr(module, "_probe", _raise)
    linear, states = _linear(), torch.randn(3, 24)
    operators = _operators_of_compiled(lambda states: fast_linear(linear, states), states)
    assert ["onednn_linear" in name for name in operators] == [works and not _is_exporting_when_compiled()]
