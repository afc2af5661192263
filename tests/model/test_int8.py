"""The int8 layers compute what Keras' quantized layers compute, bit for bit."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from albert_hub_bridge import AlbertHubConfig, AlbertHubForMaskedLM, AlbertHubModel
from albert_hub_bridge.model.int8 import (
    METHOD,
    Int8Embedding,
    Int8Linear,
    KerasInt8Config,
    KerasInt8Quantizer,
    multiply_int8,
    use_int8_layers,
)
from conversion.sample import SAMPLE_ARCHITECTURE


os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")


def _states(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).standard_normal(shape).astype(np.float32))


def _as_array(value: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value))


def _linear(kernel: Any, scale: Any, bias: Any, rows: int) -> Int8Linear:
    """Return the layer with the variables of one of Keras: its kernel is transposed, and may have several axes."""
    matrix = _as_array(kernel).reshape(-1, rows).T
    layer = Int8Linear(matrix.shape[1], rows)
    layer.weight.copy_(torch.from_numpy(matrix.copy()))
    layer.weight_scale.copy_(torch.from_numpy(_as_array(scale).reshape(-1).copy()))
    layer.bias.data.copy_(torch.from_numpy(_as_array(bias).reshape(-1).copy()))
    return layer


def _equals(found: torch.Tensor, expected: Any) -> None:
    """Compare bits where Keras computes with torch. Other backends may round a division in another way."""
    tolerance = 0 if keras.backend.backend() == "torch" else 1e-6
    np.testing.assert_allclose(found.numpy(), _as_array(expected).reshape(found.shape), rtol=0, atol=tolerance)


def _quantized(layer: Any, inputs: np.ndarray) -> Any:
    layer(inputs)
    layer.bias.assign(np.random.default_rng(5).standard_normal(layer.bias.shape))
    layer.quantize("int8")
    return layer


def test_a_linear_layer_is_a_quantized_dense() -> None:
    states = _states(3, 7, 24)
    dense = _quantized(keras.layers.Dense(40), states.numpy())
    layer = _linear(dense._kernel, dense.kernel_scale, dense.bias, 40)
    _equals(layer(states), dense(states.numpy()))
    assert not np.allclose(_as_array(dense(states.numpy())), _dequantized(dense, states.numpy()), atol=1e-4)


def _dequantized(dense: Any, states: np.ndarray) -> np.ndarray:
    return states @ (_as_array(dense._kernel) / _as_array(dense.kernel_scale)) + _as_array(dense.bias)


def test_a_linear_layer_is_a_projection_of_attention() -> None:
    states = _states(2, 5, 24)
    query = _quantized(keras.layers.EinsumDense("abc,cde->abde", (None, 4, 6), bias_axes="de"), states.numpy())
    layer = _linear(query._kernel, query.kernel_scale, query.bias, 24)
    _equals(layer(states), query(states.numpy()))

    heads = states.unflatten(-1, (4, 6))
    output = _quantized(keras.layers.EinsumDense("abcd,cde->abe", (None, 24), bias_axes="e"), heads.numpy())
    layer = _linear(output._kernel, output.kernel_scale, output.bias, 24)
    _equals(layer(states), output(heads.numpy()))


def test_an_embedding_is_a_quantized_embedding_and_its_table_gives_the_scores() -> None:
    ids = torch.tensor([[0, 7, 29], [3, 3, 1]])
    theirs = keras.layers.ReversibleEmbedding(30, 24)
    theirs(ids.numpy())
    theirs.quantize("int8")
    table, scale = _as_array(theirs._embeddings), _as_array(theirs.embeddings_scale)
    ours = Int8Embedding(30, 24)
    ours.weight.copy_(torch.from_numpy(table.copy()))
    ours.weight_scale.copy_(torch.from_numpy(scale.copy()))
    _equals(ours(ids), theirs(ids.numpy()))

    states = _states(2, 5, 24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras transposes the scales in a way that torch deprecates
        scores = theirs(states.numpy(), reverse=True)
    decoder = _linear(table.T, scale, np.zeros(30, np.float32), 30)
    _equals(decoder(states), scores)


@pytest.mark.parametrize("rows", [0, 1, 3, 200])
def test_the_product_of_integers_is_exact(rows: int) -> None:
    random = np.random.default_rng(0)
    left, right = (random.integers(-127, 128, shape).astype(np.int8) for shape in ((rows, 3072), (40, 3072)))
    left[:1] = right[0] = 127  # the largest sum
    found = multiply_int8(torch.from_numpy(left), torch.from_numpy(right))
    assert found.dtype == torch.int32
    np.testing.assert_array_equal(found.numpy(), left.astype(np.int64) @ right.T.astype(np.int64))


def test_a_row_of_zeros_and_large_numbers_give_finite_outputs() -> None:
    layer = Int8Linear(4, 3)
    layer.weight.fill_(127)
    states = torch.tensor([[0.0] * 4, [1e30, -1e30, 0, 0], [1e-30] * 4])
    assert torch.isfinite(layer(states)).all()
    assert torch.equal(layer(states)[0], layer.bias)


def test_other_dtypes_compute_in_float32_and_float64_stays() -> None:
    layer = Int8Linear(24, 8)
    layer.weight.copy_(torch.arange(-96, 96).reshape(8, 24))
    states = _states(5, 24)
    assert layer(states.double()).dtype == torch.float64
    half = states.bfloat16()
    assert torch.equal(layer(half), layer(half.float()).bfloat16())


def test_gradients_are_refused() -> None:
    layer = Int8Linear(4, 3)
    states = torch.ones(2, 4, requires_grad=True)
    with pytest.raises(RuntimeError, match="A model with int8 weights has no gradients"):
        layer(states)
    with torch.no_grad():
        layer(states)


def _config(**fields: Any) -> AlbertHubConfig:
    return AlbertHubConfig(**{**SAMPLE_ARCHITECTURE.keras_arguments, **fields})


def test_layers_are_replaced_by_name_and_the_decoder_shares_its_table() -> None:
    model = AlbertHubForMaskedLM(_config())
    use_int8_layers(model, ["token_embedding", "masked_lm_head.intermediate_dense", "pooled_dense"])
    int8 = {name for name, module in model.named_modules() if isinstance(module, Int8Linear | Int8Embedding)}
    assert int8 == {"backbone.token_embedding", "masked_lm_head.decoder", "masked_lm_head.intermediate_dense"}
    assert model.all_tied_weights_keys["masked_lm_head.decoder.weight_scale"] == "backbone.token_embedding.weight_scale"
    assert isinstance(model.backbone.segment_embedding, nn.Embedding)
    with pytest.raises(TypeError, match="Only linear layers and embeddings can be int8, and found LayerNorm"):
        use_int8_layers(model, ["embeddings_layer_norm"])


def test_transformers_knows_the_method() -> None:
    from transformers.quantizers import AutoHfQuantizer, AutoQuantizationConfig

    config = AutoQuantizationConfig.from_dict({"quant_method": METHOD, "modules": ["pooled_dense"]})
    assert type(config) is KerasInt8Config
    assert config.to_dict() == {"quant_method": METHOD, "modules": ["pooled_dense"]}
    quantizer = AutoHfQuantizer.from_config(config, pre_quantized=True)
    assert type(quantizer) is KerasInt8Quantizer
    assert quantizer.is_serializable()
    assert not quantizer.is_trainable
    with pytest.raises(ValueError, match="does require the model to be pre-quantized"):
        AutoHfQuantizer.from_config(config, pre_quantized=False)


@pytest.mark.parametrize("modules", [5, None, "pooled_dense", [1]])
def test_a_wrong_list_of_modules_is_refused(modules: Any) -> None:
    with pytest.raises(ValueError, match="modules of quantization_config must be a list of names of layers, not "):
        KerasInt8Config(modules)


@pytest.mark.filterwarnings("default")  # torch's own, while it compiles
def test_torch_compile_gives_the_same() -> None:
    torch.manual_seed(0)
    model = AlbertHubModel(_config()).eval()
    use_int8_layers(model, ["transformer_layers.0.0.feedforward_intermediate_dense"])
    layer: Any = model.transformer_layers[0][0].feedforward_intermediate_dense
    layer.weight.random_(-127, 128)
    layer.weight_scale.fill_(500)
    inputs = torch.randint(5, SAMPLE_ARCHITECTURE.vocabulary_size, (2, 9))
    with torch.inference_mode():
        expected = model(inputs).last_hidden_state
        found = torch.compile(model, fullgraph=True)(inputs).last_hidden_state
    # A state that is rounded to another integer changes the outputs by a step of 1/500.
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)
