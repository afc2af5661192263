"""Int8 layers, as KerasHub's quantized presets have them, and their registration in transformers.

A weight is stored as integers, with one float32 scale for each row: each value is an integer divided by its scale. A
linear layer also rounds its inputs to integers while it runs, with one scale for each token. So its product is one of
integers, which a processor computes several times as fast as one of float32.

`config.json` of such a repository has a `quantization_config`. transformers then calls `KerasInt8Quantizer`, before it
reads the weights.

Source:
    keras/src/layers/core/{dense,einsum_dense,embedding,reversible_embedding}.py, `_int8_call`;
    keras/src/quantizers/quantizers.py, `abs_max_quantize`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING
from transformers.quantizers.base import HfQuantizer
from transformers.utils import logging
from transformers.utils.quantization_config import QuantizationConfigMixin


if TYPE_CHECKING:
    from torch import Tensor

    try:  # see modeling_albert_hub
        from jaxtyping import Float, Int, Int8
    except ImportError:
        raise


logger = logging.get_logger(__name__)

METHOD = "keras_int8"
_LARGEST = 127.0
_EPSILON = 1e-7  # `keras.config.epsilon()`


def _constant(values: Tensor) -> nn.Parameter:
    """Return a parameter without gradient: transformers ties no buffers."""
    return nn.Parameter(values, requires_grad=False)


class Int8Linear(nn.Module):
    """A linear layer with int8 weights, which rounds its inputs to int8: KerasHub's quantized `Dense`.

    It has no gradients: rounding has none.

    Args:
        in_features: Size of the inputs.
        out_features: Size of the outputs.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight_scale = _constant(torch.ones(out_features, dtype=torch.float32))
        self.weight = _constant(torch.zeros(out_features, in_features, dtype=torch.int8))
        self.bias = _constant(torch.zeros(out_features))

    def forward(self, inputs: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Round the inputs, multiply integers, and divide by both scales.

        Raises:
            RuntimeError: The inputs need a gradient.
        """
        if inputs.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                "A model with int8 weights has no gradients. Train the model that was quantized, or load it with "
                'from_preset(..., dtype="float32").'
            )
        precision = torch.promote_types(inputs.dtype, torch.float32)  # float32 under bfloat16 and float16
        rows = inputs.reshape(-1, self.in_features).to(precision)
        # Both are tensors: torch divides a number by a tensor as the number times the reciprocal, which rounds twice.
        scales = rows.new_full((), _LARGEST) / (rows.abs().amax(-1, keepdim=True) + _EPSILON)
        # Keras clips to 127 and -127. The epsilon keeps the rounded values within them.
        product = multiply_int8(torch.round(rows * scales).to(torch.int8), self.weight)
        outputs = product.to(precision).div_(scales * self.weight_scale.to(precision)).add_(self.bias)
        return outputs.reshape(*inputs.shape[:-1], self.out_features).to(inputs.dtype)

    def extra_repr(self) -> str:
        """Describe the layer, as `nn.Linear` does."""
        return f"in_features={self.in_features}, out_features={self.out_features}, int8"


def multiply_int8(rows: Int8[Tensor, "rows in"], weight: Int8[Tensor, "out in"]) -> Tensor:
    """Return the product of rows with the transposed weight: int32 on a CPU, and float32 on other devices.

    In float32, sums of more than 1,000 products may be rounded, by less than 1e-7 of their size.
    """
    if rows.device.type == "cpu":
        return torch._int_mm(rows, weight.t())
    with torch.autocast(rows.device.type, enabled=False):  # half precision does not hold such sums
        return nn.functional.linear(rows.float(), weight.float())


class Int8Embedding(nn.Module):
    """An embedding with int8 weights: KerasHub's quantized `Embedding`.

    Args:
        num_embeddings: Number of ids.
        embedding_dim: Size of a vector.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        # First: sentence-transformers takes the dtype of a model's first parameter for that of its outputs.
        self.weight_scale = _constant(torch.ones(num_embeddings, dtype=torch.float32))
        self.weight = _constant(torch.zeros(num_embeddings, embedding_dim, dtype=torch.int8))

    def forward(self, ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch embedding"]:
        """Look the ids up, and divide each vector by its scale. The result has the dtype of the scales."""
        dtype = self.weight_scale.dtype
        precision = torch.promote_types(dtype, torch.float32)
        scales = self.weight_scale[ids].unsqueeze(-1).to(precision)
        return (nn.functional.embedding(ids, self.weight).to(precision) / scales).to(dtype)

    def extra_repr(self) -> str:
        """Describe the layer, as `nn.Embedding` does."""
        return f"{self.num_embeddings}, {self.embedding_dim}, int8"


def use_int8_layers(model: Any, modules: Sequence[str]) -> None:
    """Replace layers of a model by int8 layers without values, on the same device.

    If the token embedding is among them, the masked LM's decoder is replaced too, and has the same weight.

    Args:
        model: A model of this package.
        modules: The names of the layers, without the `backbone.` that a model with a head puts before some of them.
            Names that the model does not have are those of a pooler or a head, and are skipped.
    """
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    tied = {target: source for target, source in model.all_tied_weights_keys.items() if source.endswith(".weight")}
    scales: dict[str, str] = {}
    for name, module in list(model.named_modules()):
        weight = tied.get(f"{name}.weight", f"{name}.weight")
        if weight.removesuffix(".weight").removeprefix(prefix) not in modules:
            continue
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, _int8_layer(module))
        if weight != f"{name}.weight":
            scales[f"{name}.weight_scale"] = f"{weight}_scale"
    if scales:
        model._tied_weights_keys = {**model._tied_weights_keys, **scales}  # for later calls of `tie_weights`
        model.all_tied_weights_keys.update(scales)


def _int8_layer(module: Any) -> nn.Module:
    with torch.device(module.weight.device):
        if isinstance(module, nn.Linear):
            return Int8Linear(module.in_features, module.out_features)
        if isinstance(module, nn.Embedding):
            return Int8Embedding(module.num_embeddings, module.embedding_dim)
    raise TypeError(f"Only linear layers and embeddings can be int8, and found {type(module).__name__}.")


class KerasInt8Config(QuantizationConfigMixin):
    """The `quantization_config` of a model with int8 layers.

    Args:
        modules: The names of the int8 layers, as in `use_int8_layers`.

    Raises:
        ValueError: `modules` is no list of names.
    """

    def __init__(self, modules: Sequence[str] = (), **_: Any) -> None:
        if not isinstance(modules, list | tuple) or not all(isinstance(name, str) for name in modules):
            raise ValueError(f"modules of quantization_config must be a list of names of layers, not {modules!r}.")
        self.quant_method: Any = METHOD
        self.modules = list(modules)


class KerasInt8Quantizer(HfQuantizer):
    """Makes int8 layers before transformers reads their weights, which are quantized already."""

    requires_calibration = True  # transformers says so where the weights are floats

    quantization_config: KerasInt8Config

    def update_dtype(self, dtype: Any) -> torch.dtype:
        """Return float32: the scales and the other weights stay as they are in the file."""
        if dtype not in (None, torch.float32):
            logger.warning("A model with int8 weights is loaded in float32, not in %s.", dtype)
        return torch.float32

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        use_int8_layers(model, self.quantization_config.modules)

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        """Freeze what comes before an int8 layer. A new head of floats on the encoder can be trained."""
        encoder = set(model.base_model.modules())
        has_int8_head = any(isinstance(each, Int8Linear) and each not in encoder for each in model.modules())
        (model if has_int8_head else model.base_model).requires_grad_(False)
        return model

    def is_serializable(self) -> bool:
        """Return True: `save_pretrained` writes the integers and the scales."""
        return True

    @property
    def is_trainable(self) -> bool:
        """False: rounding has no gradient."""
        return False

    @property
    def is_compileable(self) -> bool:
        """True: torch.compile traces all operations."""
        return True


# Not by transformers' decorators: they refuse a second registration, and a repository may carry a copy of this file.
AUTO_QUANTIZATION_CONFIG_MAPPING.setdefault(METHOD, KerasInt8Config)
AUTO_QUANTIZER_MAPPING.setdefault(METHOD, KerasInt8Quantizer)
