"""Linear layers computed by oneDNN.

torch computes a float32 linear layer with MKL. On AMD processors MKL does not use AVX-512. oneDNN comes with torch as
well. It uses AVX-512 on all processors that have it, and it is as precise as MKL. On two AMD EPYCs it is 1.1 and 2.2
times as fast (`python -m benchmarks.encoder`: "products"). It also applies GELU to the result at no extra cost.

There are two paths. The plain path calls the modules. The fast path calls operators of oneDNN, which are private in
torch. `fast_linear` and `feed_forward` take the fast path if it gives the same result, up to rounding:

- The processor is an x86, and the dtype is float32 or bfloat16.
- Gradients and autocast are disabled. Products of float32 have full precision, which is the default of torch.
- The layer is a plain `nn.Linear`. It is not hooked, wrapped, quantized or distributed.
- No hook, mode or transform watches all operations. No tracer records them for an exported program.
- A probe has passed.

The probe runs when the fast path is first needed for a dtype, once in each process. It computes small layers on both
paths and compares the results. It takes milliseconds. If a private name is missing in this version of torch,
if an operator raises an error, or if a result differs, this dtype takes the plain path from then on.

Set the environment variable `ALBERT_HUB_FAST_LINEAR=0` to take the plain path always. The probe reads it, so set it
before the first call.
"""

from __future__ import annotations

import functools
import os
import platform
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules import module as nn_module
from transformers.activations import GELUTanh
from transformers.utils import logging
from transformers.utils.import_utils import is_tracing

from .packed_weights import packed_weight


if TYPE_CHECKING:
    from torch import Tensor

    try:  # as in modeling_albert_hub.py
        from jaxtyping import Float
    except ImportError:
        raise


logger = logging.get_logger(__name__)


def fast_linear(
    linear: nn.Module, states: Float[Tensor, "*batch in"], activation: nn.Module | None = None, checked: bool = False
) -> Float[Tensor, "*batch out"]:
    """Return `activation(linear(states))`. Compute it with oneDNN where this is faster and gives the same result.

    Args:
        linear: An `nn.Linear`, or a module that replaces one (PEFT and quantization do this).
        states: The input of the layer.
        activation: A module that is applied to the result. By default there is none.
        checked: Whether `takes_fast_path` has returned True for this layer in this forward pass.
    """
    if not checked and not takes_fast_path(states, [linear]):
        outputs = linear(states)
        return outputs if activation is None else activation(outputs)
    if _is_plain(activation, GELUTanh):
        return _run_linear(linear, states, "gelu", "tanh")
    outputs = _run_linear(linear, states, "none", "")
    return outputs if activation is None else activation(outputs)


def feed_forward(
    first: nn.Module,
    activation: nn.Module,
    second: nn.Module,
    states: Float[Tensor, "*batch in"],
    checked: bool = False,
) -> Float[Tensor, "*batch out"]:
    """Return `second(activation(first(states)))`. The fast path computes a part of the rows at a time.

    The result of the first layer is four times as wide as the states. A part of it fits into the processor's cache,
    and the next part reuses its memory.

    Args:
        first: The first layer, as in `fast_linear`.
        activation: A module that is applied to the result of the first layer.
        second: The second layer.
        states: The input of the first layer.
        checked: Whether `takes_fast_path` has returned True for both layers in this forward pass.
    """
    if _is_plain(activation, GELUTanh) and (checked or takes_fast_path(states, [first, second])):
        return _run_feed_forward(first, second, states)
    return fast_linear(second, fast_linear(first, states, activation, checked), None, checked)


# When the fast path is taken.


def takes_fast_path(states: Tensor, linears: Sequence[Any]) -> bool:
    """Return whether oneDNN computes these layers.

    The answer holds for a forward pass. A model asks once for all its layers, because asking takes as long as a product
    with a few rows.

    Args:
        states: The input of a layer, or states of the same dtype and device.
        linears: The layers. They may have different shapes.
    """
    return bool(
        not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.enabled
        and type(states) is torch.Tensor
        and states.device.type == "cpu"
        and not _is_recorded(states)  # before shapes are compared, because a tracer warns of comparisons
        and all(
            _is_plain(linear, nn.Linear) and _are_plain_tensors(linear.weight, linear.bias, states)
            for linear in linears
        )
        and _passes_probe(states.dtype)
        and not _is_watched()  # after the probe, because it uses private names
    )


def _is_plain(module: Any, kind: type[nn.Module]) -> bool:
    """Return whether a module is exactly of this class, and has no hooks and no replaced `forward`."""
    return type(module) is kind and not (
        module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__
    )


def _are_plain_tensors(weight: Any, bias: Any, states: Tensor) -> bool:
    """Return whether oneDNN can read the parameters, and whether they fit the states."""
    return bool(
        type(weight) is nn.Parameter  # not quantized, not distributed
        and type(bias) is nn.Parameter
        and weight.device == bias.device == states.device  # not offloaded
        and weight.dtype == bias.dtype == states.dtype
        and weight.layout is torch.strided  # not sparse
        and bias.shape == weight.shape[:1]
        and bias.is_contiguous()  # oneDNN ignores the strides of a bias
    )


# torch 2.6 has no `is_exporting`. In torch 2.7 to 2.11 it is also true while torch.compile traces. With these versions
# compiled graphs take the plain path, as exported ones do.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def _is_recorded(states: Tensor) -> bool:
    """Return whether a tracer records operations that others will read, as `torch.export` does.

    `torch.compile` is not such a tracer. Its graphs stay in this process and may have the operators of this module.
    """
    return is_tracing(states) and (not torch.compiler.is_compiling() or _is_exporting())


def _is_watched() -> bool:
    """Return whether something watches or transforms all modules or all operations.

    Hooks, modes and transforms do not know the operators of this module. For example, a counter of operations would
    miss them, and a forward derivative would be lost.
    """
    return (
        _has_global_hook()
        or _has_forward_derivative()
        or (not torch.compiler.is_compiling() and _has_mode())  # torch.compile has modes of its own
    )


def _has_global_hook() -> bool:
    """Return whether a hook is registered for all modules."""
    hooks = (
        nn_module._global_forward_pre_hooks,
        nn_module._global_forward_hooks,
        nn_module._global_backward_pre_hooks,
        nn_module._global_backward_hooks,
    )
    return any(len(each) > 0 for each in hooks)


def _has_forward_derivative() -> bool:
    """Return whether forward-mode differentiation is active."""
    return forward_ad._current_level >= 0


def _has_mode() -> bool:
    """Return whether a mode or a transform of torch is active. A default device does not count: it changes nothing."""
    modes = torch.overrides._get_current_function_mode_stack()
    return (
        torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or any(type(mode).__module__ != "torch.utils._device" for mode in modes)
    )


# The probe.


@torch.compiler.assume_constant_result  # torch.compile calls this function instead of tracing it
def _passes_probe(dtype: torch.dtype) -> bool:
    """Return whether the fast path gives the result of the plain path in this dtype."""
    return _is_full_precision(dtype) and _run_probe(dtype)


def _is_full_precision(dtype: torch.dtype) -> bool:
    """Return whether torch computes products in the full precision of the dtype.

    `torch.set_float32_matmul_precision` lowers the precision of float32. Then the two paths may round in different
    ways. In torch 2.9 oneDNN even crashes with some reordered weights.
    """
    if dtype != torch.float32:
        return True
    if hasattr(torch.backends.mkldnn, "matmul"):  # since torch 2.9
        return torch.backends.mkldnn.matmul.fp32_precision in {"none", "ieee"}
    return torch.get_float32_matmul_precision() == "highest"


@functools.cache
def _run_probe(dtype: torch.dtype) -> bool:
    """Return whether the probe passes. Never raise."""
    if os.environ.get("ALBERT_HUB_FAST_LINEAR") == "0":
        return False
    try:
        # Gradients, inference mode, default device, tracing and other modes belong to a thread. A new thread has none
        # of the caller's modes, so they cannot change the result of the probe.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(_probe, dtype).result()
    except Exception as error:  # private parts of torch may fail in any way
        logger.debug("Linear layers in %s do not use oneDNN: %s: %s", dtype, type(error).__name__, error)
        return False
    return True


def _probe(dtype: torch.dtype) -> None:
    """Check that the fast path works in this dtype.

    Raises:
        Exception: The fast path does not work. An `AttributeError` means that a private name is missing.
    """
    _require(platform.machine() in {"x86_64", "AMD64"}, "the processor is not an x86")
    _require(torch.backends.mkldnn.is_available(), "this torch comes without oneDNN")
    _require(dtype in {torch.float32, torch.bfloat16}, "oneDNN is not used for this dtype")
    if dtype == torch.bfloat16:
        _require(torch.ops.mkldnn._is_mkldnn_bf16_supported(), "the processor does not compute bfloat16")
    # These functions use private names. Here only a missing name matters, not what they return.
    _has_global_hook()
    _has_forward_derivative()
    _has_mode()
    with torch.no_grad():
        _check_linear(dtype)
        _check_feed_forward(dtype)


def _check_linear(dtype: torch.dtype) -> None:
    """Check single layers: with few and with many rows, with and without GELU."""
    weight, bias = _numbers(40, 24, dtype=dtype) / 4, _numbers(40, dtype=dtype) / 4
    for shape in ((24,), (0, 24), (3, 24), (2, _FEW_ROWS, 24)):
        states = _numbers(*shape, dtype=dtype)
        expected = nn.functional.linear(states, weight, bias)
        found = _compute(states, weight, bias, "none", "")
        _require(torch.equal(found, expected), f"states of shape {shape} give another result")
        expected = nn.functional.gelu(expected, approximate="tanh")
        found = _compute(states, weight, bias, "gelu", "tanh")
        # Both paths round GELU to the dtype, so they may differ by one rounding. For negative numbers GELU has the
        # factor 1 + tanh. It is nearly 0 there, but it has the rounding error of numbers near 1, which is about 1e-7.
        same = found.dtype == dtype and torch.allclose(found, expected, rtol=torch.finfo(dtype).eps, atol=1e-6)
        _require(same, f"states of shape {shape} give another GELU")


def _check_feed_forward(dtype: torch.dtype) -> None:
    """Check feed-forward blocks, in one part and in several parts."""
    # The first layer gives multiples of 16. Their GELU is exact: positive numbers stay, and negative numbers become 0.
    weight, bias = 16 * _numbers(40, 24, dtype=dtype), 16 * _numbers(40, dtype=dtype)
    second_weight, second_bias = _numbers(24, 40, dtype=dtype), 16 * _numbers(24, dtype=dtype)
    states = _numbers(2, _FEW_ROWS, 24, dtype=dtype)
    between = nn.functional.gelu(nn.functional.linear(states, weight, bias), approximate="tanh")
    expected = nn.functional.linear(between, second_weight, second_bias)
    for count in (1, 3):  # weights are reordered for more than two parts
        found = _compute_feed_forward(states, weight, bias, second_weight, second_bias, count)
        _require(torch.equal(found, expected), f"a feed-forward block in {count} parts gives another result")


def _numbers(*shape: int, dtype: torch.dtype) -> Tensor:
    """Return numbers -1, 0 and 1 that look random. Do not use torch's random generators.

    Sums of their products are small whole numbers. Both dtypes hold them exactly, in any order of summation. So both
    paths must give equal results.
    """
    index = torch.arange(torch.Size(shape).numel(), device="cpu")
    return (index * index % 1009 % 3 - 1).reshape(shape).to(dtype)


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise RuntimeError(otherwise)


# How oneDNN computes.


def _run_linear(linear: Any, states: Tensor, activation: str, algorithm: str) -> Tensor:
    if torch.compiler.is_compiling():
        return _onednn_linear(states, linear.weight, linear.bias, activation, algorithm)
    return _compute(states, packed_weight(linear), linear.bias, activation, algorithm)


def _run_feed_forward(first: Any, second: Any, states: Tensor) -> Tensor:
    if torch.compiler.is_compiling():
        return _onednn_feed_forward(states, first.weight, first.bias, second.weight, second.bias)
    weights = packed_weight(first), first.bias, packed_weight(second), second.bias
    return _compute_feed_forward(states, *weights, _parts(states, first.weight))


_FEW_ROWS = 64  # with this many rows both orders of a product take the same time
_PART = 2**21  # how many numbers of the first layer's result are a part: 8 MB in float32


def _compute(states: Tensor, weight: Tensor, bias: Tensor, activation: str, algorithm: str) -> Tensor:
    compute = torch.ops.mkldnn._linear_pointwise.default
    states = states.contiguous()  # oneDNN takes 100 times as long for rows with gaps between them
    rows = states.shape[:-1].numel()
    if states.dtype != torch.float32 or weight.is_mkldnn or not 0 < rows < _FEW_ROWS:
        return compute(states, weight, bias, activation, [], algorithm)
    # oneDNN copies its second matrix into another order in every call. With few rows the states are the smaller one,
    # so they are the second matrix here.
    swapped = compute(weight, states.reshape(rows, -1), None, "none", [], "")
    outputs = torch.add(swapped.t(), bias, out=states.new_empty(rows, len(weight)))
    if activation == "gelu":
        outputs = nn.functional.gelu(outputs, approximate=algorithm)
    return outputs.reshape(*states.shape[:-1], len(weight))


def _parts(states: Tensor, weight: Tensor) -> int:
    """Return in how many parts the rows of a feed-forward block are computed."""
    return 1 + states.shape[:-1].numel() * len(weight) // _PART


def _compute_plainly(states: Tensor, weight: Tensor, bias: Tensor, activation: str, algorithm: str) -> Tensor:
    outputs = nn.functional.linear(states, weight, bias)
    return nn.functional.gelu(outputs, approximate=algorithm) if activation == "gelu" else outputs


def _compute_feed_forward(
    states: Tensor, weight: Tensor, bias: Tensor, second_weight: Tensor, second_bias: Tensor, count: int
) -> Tensor:
    rows = states.reshape(-1, states.shape[-1])
    parts = rows.chunk(count)
    first, second = weight, second_weight
    if len(parts) > 2:  # oneDNN would copy the weights into another order for every part
        first, second = (
            each if each.is_mkldnn else torch.ops.mkldnn._reorder_linear_weight.default(each, len(parts[0]))
            for each in (first, second)
        )
    outputs = [_compute(_compute(part, first, bias, "gelu", "tanh"), second, second_bias, "none", "") for part in parts]
    whole = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return whole.reshape(*states.shape[:-1], len(second_weight))


# torch.compile cannot trace oneDNN's operators, so they are wrapped into operators of this module. Their namespace is
# the name of this module. A repository may have a copy of this file, and its name may have characters that an operator
# may not have.
_NAMESPACE = re.sub(r"\W", lambda found: f"_{ord(found[0]):x}_", __name__.replace(".", "_"), flags=re.ASCII)


@torch.library.custom_op(f"{_NAMESPACE}::onednn_linear", mutates_args=())
def _onednn_linear(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, activation: str, algorithm: str
) -> torch.Tensor:
    if not _is_full_precision(states.dtype):  # it may have changed since torch.compile
        return _compute_plainly(states, weight, bias, activation, algorithm)
    return _compute(states, weight, bias, activation, algorithm)


@_onednn_linear.register_fake
def _(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, activation: str, algorithm: str) -> torch.Tensor:
    return states.new_empty((*states.shape[:-1], weight.shape[0]))


@torch.library.custom_op(f"{_NAMESPACE}::onednn_feed_forward", mutates_args=())
def _onednn_feed_forward(
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    second_weight: torch.Tensor,
    second_bias: torch.Tensor,
) -> torch.Tensor:
    if not _is_full_precision(states.dtype):
        between = _compute_plainly(states, weight, bias, "gelu", "tanh")
        return nn.functional.linear(between, second_weight, second_bias)
    return _compute_feed_forward(states, weight, bias, second_weight, second_bias, _parts(states, weight))


@_onednn_feed_forward.register_fake
def _(
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    second_weight: torch.Tensor,
    second_bias: torch.Tensor,
) -> torch.Tensor:
    return states.new_empty((*states.shape[:-1], second_weight.shape[0]))
