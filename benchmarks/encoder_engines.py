"""The engines that compute the encoder, and the models that they load. See `encoder.py`."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.formats.lazy_tensors import Int8Weight, LazyTensor
from benchmarks.encoder_products import (
    BFLOAT16,
    INT8,
    Product,
    Run,
    int8_product,
    numpy_products,
    onednn_product,
    packed_mkl_product,
    packed_onednn_product,
    products,
    torch_product,
)


@dataclass(frozen=True)
class Engine:
    """One way to compute the encoder."""

    make: Callable[[Path, str], Run]
    environment: tuple[tuple[str, str], ...] = ()
    dtype: str = "float32"


def _torch_engine(
    activation: str | None,
    device: str,
    dtype: str = "float32",
    attention: str = "sdpa",
    compiled: bool = False,
    mode: str | None = None,
    packed: bool = False,
    layout: str = "albert_hub",
    **call: Any,
) -> Run:
    """Make an engine of torch: transformers' model with an activation, or ours without one."""
    import torch
    from transformers import AlbertModel

    from albert_hub_bridge import AlbertHubModel

    options: dict[str, Any] = {"dtype": getattr(torch, dtype), "attn_implementation": attention}
    folder = Path(os.environ["CHECKPOINTS"])
    if activation is not None:
        model = AlbertModel.from_pretrained(folder / "transformers", hidden_act=activation, **options)
    else:
        model = AlbertHubModel.from_pretrained(folder / layout, **options)
    model = model.eval().to(device)
    if packed:
        model.optimize_for_inference()
    forward = torch.compile(model, dynamic=True, mode=mode) if compiled else model

    @torch.inference_mode()
    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        inputs = (torch.from_numpy(array).to(device) for array in (ids, mask))
        return forward(*inputs, **call).last_hidden_state[:, 0].float().cpu().numpy()

    return run


def _keras_hub(folder: Path, _device: str, dtype: str, mode: str | None) -> Run:
    import keras_hub

    model = keras_hub.models.AlbertBackbone.from_preset(str(folder / "keras"), dtype=dtype)
    if mode is not None:
        model.quantize(mode)

    def run(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        inputs = {"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}
        return np.asarray(model.predict_on_batch(inputs)["sequence_output"])[:, 0].astype(np.float32)

    return run


def _onnx(folder: Path) -> Path:
    import torch

    from albert_hub_bridge import AlbertHubModel

    path = folder / "model.onnx"
    if not path.exists():
        model = AlbertHubModel.from_pretrained(folder / "albert_hub").eval()
        batch, length = torch.export.Dim("batch", max=64), torch.export.Dim("length", max=512)
        example = torch.ones(2, 8, dtype=torch.long)
        torch.onnx.export(
            model,
            (example, example.clone()),  # one tensor twice would be one input
            path,
            dynamo=True,
            dynamic_shapes=({0: batch, 1: length}, {0: batch, 1: length}),
            input_names=["ids", "mask"],
            output_names=["sequence", "pooled"],
            verbose=False,
        )
    return path


def _onnx_runtime(folder: Path, _device: str) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(_onnx(folder), providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(["sequence"], {"ids": ids, "mask": mask})[0][:, 0]


def _openvino(folder: Path, _device: str) -> Run:
    import openvino

    # Where the processor has bfloat16, OpenVINO would use it unasked.
    model = openvino.compile_model(_onnx(folder), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda ids, mask: model({"ids": ids, "mask": mask})["sequence"][:, 0]


def _transformers(activation: str, dtype: str = "float32", **options: Any) -> Engine:
    """Return transformers' own model as an engine."""
    return Engine(lambda _folder, device: _torch_engine(activation, device, dtype, **options), dtype=dtype)


def _ours(dtype: str = "float32", **options: Any) -> Engine:
    return Engine(lambda _folder, device: _torch_engine(None, device, dtype, **options), dtype=dtype)


def _linear(make: Product, dtype: str = "float32") -> Engine:
    return Engine(lambda _folder, device: products(device, dtype, make), dtype=dtype)


def _keras(backend: str, mode: str | None = None, dtype: str = "float32") -> Engine:
    # JAX would take most of a GPU's memory, which the engines share.
    environment = ("KERAS_BACKEND", backend), ("TF_CPP_MIN_LOG_LEVEL", "3"), ("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return Engine(functools.partial(_keras_hub, dtype=dtype, mode=mode), environment, mode or dtype)


def _ours_in_int8(**options: Any) -> Engine:
    return Engine(
        lambda _folder, device: _torch_engine(None, device, layout=INT8, **options),  # its floats are float32
        dtype=INT8,
    )


GELU_NEW, GELU_TANH = "transformers, gelu_new", "transformers, gelu_pytorch_tanh"
OURS, PRODUCTS = "ours", "products"
# fmt: off
CPU_ENGINES = {
    "products, torch":                           _linear(torch_product),
    "products, MKL, packed":                     _linear(packed_mkl_product),
    "products, oneDNN":                          _linear(onednn_product),
    "products, oneDNN, packed":                  _linear(packed_onednn_product),
    "products, NumPy":                           Engine(numpy_products),
    GELU_NEW:                                    _transformers("gelu_new"),
    GELU_TANH:                                   _transformers("gelu_pytorch_tanh"),
    OURS:                                        _ours(),
    "ours, packed":                              _ours(packed=True),
    'ours, packed, "unmasked"':                  _ours(packed=True, positions="unmasked"),
    'ours, packed, "first"':                     _ours(packed=True, positions="first"),
    "ours, compiled":                            _ours(compiled=True),
    "keras_hub on torch":                        _keras("torch"),
    "keras_hub on JAX":                          _keras("jax"),
    "keras_hub on TensorFlow":                   _keras("tensorflow"),
    "ONNX Runtime":                              Engine(_onnx_runtime),
    "OpenVINO":                                  Engine(_openvino),
    "products, torch, bfloat16":                 _linear(torch_product, BFLOAT16),
    "products, oneDNN, bfloat16":                _linear(onednn_product, BFLOAT16),
    "products, oneDNN, packed, bfloat16":        _linear(packed_onednn_product, BFLOAT16),
    f"{GELU_NEW}, bfloat16":                     _transformers("gelu_new", BFLOAT16),
    f"{GELU_TANH}, bfloat16":                    _transformers("gelu_pytorch_tanh", BFLOAT16),
    "ours, bfloat16":                            _ours(BFLOAT16),
    "ours, packed, bfloat16":                    _ours(BFLOAT16, packed=True),
    "ours, compiled, bfloat16":                  _ours(BFLOAT16, compiled=True),
    "products, torch, int8":                     _linear(int8_product, INT8),
    "keras_hub on torch, int8":                  _keras("torch", INT8),
    "keras_hub on JAX, int8":                    _keras("jax", INT8),
    "ours, int8":                                _ours_in_int8(),
    "ours, compiled, int8":                      _ours_in_int8(compiled=True),
}
GPU_ENGINES = {
    "products, torch, bfloat16":                 _linear(torch_product, BFLOAT16),
    f"{GELU_NEW}, bfloat16":                     _transformers("gelu_new", BFLOAT16),
    f"{GELU_TANH}, bfloat16":                    _transformers("gelu_pytorch_tanh", BFLOAT16),
    f"{GELU_TANH}, bfloat16, compiled":          _transformers("gelu_pytorch_tanh", BFLOAT16, compiled=True),
    OURS:                                        _ours(BFLOAT16),
    'ours, "unmasked"':                          _ours(BFLOAT16, positions="unmasked"),
    'ours, "first"':                             _ours(BFLOAT16, positions="first"),
    "ours, compiled":                            _ours(BFLOAT16, compiled=True),
    "ours, CUDA graphs":                         _ours(BFLOAT16, compiled=True, mode="reduce-overhead"),
    "keras_hub on torch":                        _keras("torch", dtype=BFLOAT16),
    "keras_hub on JAX":                          _keras("jax", dtype=BFLOAT16),
    "ours, flash_attn":                          _ours(BFLOAT16, attention="flash_attention_2"),
}
# fmt: on
ENGINES = {"cpu": CPU_ENGINES, "cuda": GPU_ENGINES}


def make_checkpoints(folder: Path) -> None:
    """Write a random base model in every layout, and once more in int8."""
    from albert_hub_bridge.layouts.registry import write_checkpoint
    from conversion.recipes import read_entries
    from conversion.sample import random_checkpoint, train_vocabulary

    checkpoint = random_checkpoint(
        read_entries("keras")["albert_base_en_uncased"].architecture, train_vocabulary(), std=0.02
    )
    for layout in ("keras", "transformers", "albert_hub"):
        (folder / layout).mkdir()
        write_checkpoint(checkpoint, folder / layout, layout)
    (folder / INT8).mkdir()
    write_checkpoint(quantized(checkpoint).in_int8(), folder / INT8, "albert_hub")


def quantized(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint with the int8 weights that KerasHub's `quantize` gives it."""
    int8 = {}
    for name, weight in checkpoint.weights.items():
        if len(weight.shape) == 2 and name != "position_embedding.weight":
            values = weight.load()
            scales = np.float32(127) / (np.abs(values).max(1) + np.float32(1e-7))
            integers = np.round(values * scales[:, None]).astype(np.int8)
            int8[name] = Int8Weight(
                LazyTensor(weight.shape, INT8, functools.partial(np.asarray, integers)),
                LazyTensor(scales.shape, "float32", functools.partial(np.asarray, scales)),
            )
    return replace(checkpoint, int8=int8)
