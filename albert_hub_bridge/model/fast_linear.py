"""Linear layers at the rate of the processor.

torch computes a linear layer in float32 with MKL, which leaves AVX-512 unused on processors that are not Intel's.
oneDNN, which comes with torch as well and computes its bfloat16, uses it, and is as precise: on an AMD EPYC of 2024 it
reaches 2.2 times MKL's rate, and applies GELU on the way out, for nothing (`python -m benchmarks.encoder`).

oneDNN is asked only where nothing can be lost by it: without gradients, for plain parameters, for modules that nobody
hooked, wrapped or quantized, while nobody watches or transforms what torch does. Everywhere else, and in exported
programs, the module itself is called.
"""

from __future__ import annotations

import platform
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from transformers.activations import GELUTanh
from transformers.utils.import_utils import is_tracing


if TYPE_CHECKING:
    from torch import Tensor

    try:  # as in modeling_albert_hub.py
        from jaxtyping import Float
    except ImportError:
        raise


def fast_linear(
    linear: nn.Module, states: Float[Tensor, "*batch in"], activation: nn.Module | None = None
) -> Float[Tensor, "*batch out"]:
    """Return `activation(linear(states))`, computed by oneDNN where that gives the same and is faster.

    Args:
        linear: A `nn.Linear`, or what PEFT, quantization and others put in its place.
        states: What it is called with.
        activation: What is applied to the result; nothing by default.
    """
    if not _onednn_may_compute(linear, states):
        outputs = linear(states)
        return outputs if activation is None else activation(outputs)
    weight, bias = linear.weight, linear.bias
    if _is_plain(activation, GELUTanh):
        return _onednn_linear(states, weight, bias, "gelu", "tanh")
    outputs = _onednn_linear(states, weight, bias, "none", "")
    return outputs if activation is None else activation(outputs)


def feed_forward(
    first: nn.Module, activation: nn.Module, second: nn.Module, states: Float[Tensor, "*batch in"]
) -> Float[Tensor, "*batch out"]:
    """Return `second(activation(first(states)))`, a part of the rows after the other where that gives the same.

    What is between the two layers is four times as wide as the states. In parts it stays in the processor's cache, and
    needs no fresh pages from the system for every layer.
    """
    if _is_plain(activation, GELUTanh) and _onednn_may_compute(first, states) and _onednn_may_compute(second, states):
        return _onednn_feed_forward(states, first.weight, first.bias, second.weight, second.bias)
    return fast_linear(second, fast_linear(first, states, activation))


def _dtypes_of_onednn() -> tuple[torch.dtype, ...]:
    if platform.machine() not in {"x86_64", "AMD64"} or not torch.backends.mkldnn.is_available():
        return ()
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return ()
    return (torch.float32, torch.bfloat16) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (torch.float32,)


_DTYPES = _dtypes_of_onednn()


def _is_plain(module: Any, kind: type[nn.Module]) -> bool:
    """Tell whether a module is of this class, not of one derived from it, and nobody hooked or wrapped it."""
    return type(module) is kind and not (
        module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    )


def _somebody_watches() -> bool:
    """Tell whether something watches or transforms all modules or operations.

    Operators of ours mean nothing to it: a counter would leave them out, and a forward derivative be lost, silently. A
    default device is a mode too, but changes nothing here.
    """
    return (
        _has_any_global_hook()
        or forward_ad._current_level >= 0
        or (
            not torch.compiler.is_compiling()  # which has modes of its own
            and (
                torch._C._are_functorch_transforms_active()
                or torch._C._len_torch_dispatch_stack() > 0
                or any(type(mode) is not DeviceContext for mode in _get_current_function_mode_stack())
            )
        )
    )


def _onednn_may_compute(linear: Any, states: Tensor) -> bool:
    return bool(
        _is_plain(linear, nn.Linear)
        and not torch.is_grad_enabled()
        and states.device.type == "cpu"
        and states.dtype in _DTYPES
        and type(linear.weight) is nn.Parameter  # not quantized, not distributed
        and type(linear.bias) is nn.Parameter
        and linear.weight.device == linear.bias.device == states.device  # not offloaded
        and linear.weight.dtype == linear.bias.dtype == states.dtype
        and linear.weight.layout is torch.strided  # not sparse
        and linear.bias.shape == linear.weight.shape[:1]
        and linear.bias.is_contiguous()  # oneDNN reads its numbers one after the other, whatever the strides say
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.enabled
        and (not is_tracing(states) or (torch.compiler.is_compiling() and not torch.compiler.is_exporting()))
        and not _somebody_watches()
    )


_FEW_ROWS = 64  # from there on both orders take the same time
_PART = 2**21  # numbers between the two layers of a part: 8 MB in float32


def _compute(states: Tensor, weight: Tensor, bias: Tensor, activation: str, algorithm: str) -> Tensor:
    compute = torch.ops.mkldnn._linear_pointwise.default
    states = states.contiguous()  # rows with gaps between them, as first positions have, take 100 times as long
    rows = states.shape[:-1].numel()
    if states.dtype != torch.float32 or weight.is_mkldnn or not 0 < rows < _FEW_ROWS:
        return compute(states, weight, bias, activation, [], algorithm)
    # oneDNN brings its second matrix into an order of its own, every time. Let that be the small one.
    swapped = compute(weight, states.reshape(rows, -1), None, "none", [], "")
    outputs = torch.add(swapped.t(), bias, out=states.new_empty(rows, len(weight)))
    if activation == "gelu":
        outputs = nn.functional.gelu(outputs, approximate=algorithm)
    return outputs.reshape(*states.shape[:-1], len(weight))


# Operators, because torch.compile can neither see into oneDNN's nor has to. Their names have the module's: a repository
# may carry a copy of this file, and be called what no operator can be called.
_NAMESPACE = re.sub(r"\W", lambda found: f"_{ord(found[0]):x}_", __name__.replace(".", "_"), flags=re.ASCII)


@torch.library.custom_op(f"{_NAMESPACE}::onednn_linear", mutates_args=())
def _onednn_linear(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, activation: str, algorithm: str
) -> torch.Tensor:
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
    rows = states.reshape(-1, states.shape[-1])
    parts = rows.chunk(1 + len(rows) * len(weight) // _PART)
    first, second = weight, second_weight
    if len(parts) > 2:  # in an order of its own, which oneDNN would make for each part
        first, second = (torch.ops.mkldnn._reorder_linear_weight(each, len(parts[0])) for each in (first, second))
    outputs = [_compute(_compute(part, first, bias, "gelu", "tanh"), second, second_bias, "none", "") for part in parts]
    whole = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return whole.reshape(*states.shape[:-1], len(second_weight))


@_onednn_feed_forward.register_fake
def _(
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    second_weight: torch.Tensor,
    second_bias: torch.Tensor,
) -> torch.Tensor:
    return states.new_empty((*states.shape[:-1], second_weight.shape[0]))
