"""Time the encoder next to its peers, in one run: `python -m benchmarks.encoder [--json FILE] [--png FILE]`.

Each engine is a separate process that loads the base model in its own format, from one checkpoint. The engines compute
the same batches in turns, so that other load slows all of them. The lower quartile of the times counts. All outputs are
compared with those of `AlbertHubModel`.

transformers' ALBERT runs with both activations: `gelu_new`, which the published repositories name, and
`gelu_pytorch_tanh`, which `convert --to transformers` writes. They are the same function; the second one is fused. A
ratio is that to transformers in the same dtype.

"Products" are not engines but the reference for the rate: the linear layers of the model alone, in all their shapes, by
torch (MKL), by oneDNN and by NumPy, and by the first two with weights that were packed before. "% of fastest" is the
share of the fastest of them.

The int8 engines have the weights of the model as KerasHub quantizes them. Their ratio is that to transformers in
float32, and their products are those of integers. See `model/int8.py`.

`--device cuda` measures the engines that run on a GPU, in bfloat16, and their memory, also on larger batches. "% of
peak" is the share of what one large product reaches on that GPU. For one core: `taskset -c 0`.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.formats.lazy_tensors import Int8Weight, LazyTensor
from benchmarks.machine import describe_gpu, describe_machine
from benchmarks.results import add_outputs, bars, write_json


PEAK_SIZE = 8192  # of the square matrices whose product shows the rate of a GPU
LAYERS, HIDDEN, INTERMEDIATE, VOCABULARY = 12, 768, 3072, 30000  # of the base model

Batch = tuple[np.ndarray, np.ndarray]  # token ids and padding mask, (batch, seq)
Run = Callable[[np.ndarray, np.ndarray], np.ndarray | None]  # gives the first positions, (batch, hidden)


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


SHAPES = [(HIDDEN, HIDDEN)] * 4 + [(HIDDEN, INTERMEDIATE), (INTERMEDIATE, HIDDEN)]  # of the linear layers of one run


def _torch_product(layer: Any, _rows: int) -> Callable[[Any], Any]:
    return layer


def _onednn_product(layer: Any, _rows: int) -> Callable[[Any], Any]:
    from albert_hub_bridge.model.fast_linear import fast_linear

    return lambda states: fast_linear(layer, states)


def _packed_onednn_product(layer: Any, _rows: int) -> Callable[[Any], Any]:
    from albert_hub_bridge.model.packed_weights import pack

    pack(layer)
    return _onednn_product(layer, _rows)


def _packed_mkl_product(layer: Any, rows: int) -> Callable[[Any], Any]:
    import torch

    packed = torch.ops.mkl._mkl_reorder_linear_weight(layer.weight.detach(), rows)  # for so many rows only
    return lambda states: torch.ops.mkl._mkl_linear(
        states.flatten(0, -2), packed, layer.weight, layer.bias, rows
    ).unflatten(0, states.shape[:-1])


def _int8_product(layer: Any, rows: int) -> Callable[[Any], Any]:
    """Return a product of integers of the same shapes. Rounding the states is not part of it."""
    import torch

    from albert_hub_bridge.model.int8 import multiply_int8

    states = torch.ones(rows, layer.in_features, dtype=torch.int8)
    weight = torch.ones(layer.out_features, layer.in_features, dtype=torch.int8)
    return lambda each: multiply_int8(states, weight).unflatten(0, each.shape[:-1])


def _products(device: str, dtype: str, make: Callable[[Any, int], Callable[[Any], Any]]) -> Run:
    """Make an engine of the linear layers alone. `make` makes a product of a layer and the number of rows."""
    import torch

    # The int8 product has states and weights of its own, in the shapes of the layers.
    options: dict[str, Any] = {"device": device, "dtype": getattr(torch, "float32" if dtype == INT8 else dtype)}
    layers = [torch.nn.Linear(*shape, **options) for shape in SHAPES]

    @functools.cache
    def products(rows: int) -> list[Callable[[Any], Any]]:
        with torch.inference_mode(mode=False), torch.no_grad():
            return [make(layer, rows) for layer in layers]

    @torch.inference_mode()
    def run(ids: np.ndarray, _mask: np.ndarray) -> None:
        states = {width: torch.ones(*ids.shape, width, **options) for width in (HIDDEN, INTERMEDIATE)}
        for _ in range(LAYERS):
            for (width, _), product in zip(SHAPES, products(ids.size), strict=True):
                outputs = product(states[width])
        outputs[0, 0, 0].item()  # waits for a GPU

    return run


def _numpy_products(_folder: Path, _device: str) -> Run:
    weights = [np.ones(shape, dtype=np.float32) for shape in SHAPES]

    def run(ids: np.ndarray, _mask: np.ndarray) -> None:
        states = {width: np.ones((ids.size, width), dtype=np.float32) for width in (HIDDEN, INTERMEDIATE)}
        for _ in range(LAYERS):
            for weight in weights:
                states[len(weight)] @ weight

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


def _stock(activation: str, dtype: str = "float32", **options: Any) -> Engine:
    """Return transformers' own model as an engine."""
    return Engine(lambda _folder, device: _torch_engine(activation, device, dtype, **options), dtype=dtype)


def _ours(dtype: str = "float32", **options: Any) -> Engine:
    return Engine(lambda _folder, device: _torch_engine(None, device, dtype, **options), dtype=dtype)


def _linear(make: Callable[[Any, int], Callable[[Any], Any]], dtype: str = "float32") -> Engine:
    return Engine(lambda _folder, device: _products(device, dtype, make), dtype=dtype)


def _keras(backend: str, mode: str | None = None, dtype: str = "float32") -> Engine:
    # JAX would take most of a GPU's memory, which the engines share.
    environment = ("KERAS_BACKEND", backend), ("TF_CPP_MIN_LOG_LEVEL", "3"), ("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return Engine(functools.partial(_keras_hub, dtype=dtype, mode=mode), environment, mode or dtype)


def _ours_in_int8(**options: Any) -> Engine:
    return Engine(
        lambda _folder, device: _torch_engine(None, device, layout=INT8, **options),  # its floats are float32
        dtype=INT8,
    )


BFLOAT16, INT8 = "bfloat16", "int8"
GELU_NEW, GELU_TANH = "transformers, gelu_new", "transformers, gelu_pytorch_tanh"
OURS, PRODUCTS = "ours", "products"
# fmt: off
CPU_ENGINES = {
    "products, torch":                           _linear(_torch_product),
    "products, MKL, packed":                     _linear(_packed_mkl_product),
    "products, oneDNN":                          _linear(_onednn_product),
    "products, oneDNN, packed":                  _linear(_packed_onednn_product),
    "products, NumPy":                           Engine(_numpy_products),
    GELU_NEW:                                    _stock("gelu_new"),
    GELU_TANH:                                   _stock("gelu_pytorch_tanh"),
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
    "products, torch, bfloat16":                 _linear(_torch_product, BFLOAT16),
    "products, oneDNN, bfloat16":                _linear(_onednn_product, BFLOAT16),
    "products, oneDNN, packed, bfloat16":        _linear(_packed_onednn_product, BFLOAT16),
    f"{GELU_NEW}, bfloat16":                     _stock("gelu_new", BFLOAT16),
    f"{GELU_TANH}, bfloat16":                    _stock("gelu_pytorch_tanh", BFLOAT16),
    "ours, bfloat16":                            _ours(BFLOAT16),
    "ours, packed, bfloat16":                    _ours(BFLOAT16, packed=True),
    "ours, compiled, bfloat16":                  _ours(BFLOAT16, compiled=True),
    "products, torch, int8":                     _linear(_int8_product, INT8),
    "keras_hub on torch, int8":                  _keras("torch", INT8),
    "keras_hub on JAX, int8":                    _keras("jax", INT8),
    "ours, int8":                                _ours_in_int8(),
    "ours, compiled, int8":                      _ours_in_int8(compiled=True),
}
GPU_ENGINES = {
    "products, torch, bfloat16":                 _linear(_torch_product, BFLOAT16),
    f"{GELU_NEW}, bfloat16":                     _stock("gelu_new", BFLOAT16),
    f"{GELU_TANH}, bfloat16":                    _stock("gelu_pytorch_tanh", BFLOAT16),
    f"{GELU_TANH}, bfloat16, compiled":          _stock("gelu_pytorch_tanh", BFLOAT16, compiled=True),
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
CLOSE = {"float32": 5e-5, "bfloat16": 0.2, "int8": 0.2}  # the largest difference; eight bits lose much in 12 layers


SIZES = {"cpu": [(1, 16), (8, 128), (8, 512)], "cuda": [(1, 16), (8, 128), (8, 512), (256, 128), (64, 512)]}


def batches(device: str) -> dict[str, Batch]:
    """Return the batches that everybody computes: some without padding, one of texts as long as texts are.

    For a GPU there is one more, of texts of all lengths, in which half of the positions are padding.
    """
    from benchmarks.tokenize import read_lines

    draw = np.random.default_rng(0)
    found: dict[str, Batch] = {}
    for batch, length in SIZES[device]:
        ids = draw.integers(5, VOCABULARY, (batch, length))
        found[f"{batch} x {length}"] = ids, np.ones_like(ids)
    texts = 32 if device == "cpu" else 512
    # Four letters make a token of ALBERT's English vocabulary, more or less; two tokens are added.
    lengths = [np.array([min(len(line) // 4 + 3, 128) for line in draw.choice(read_lines(10_000), texts)])]
    if device != "cpu":
        lengths.append(draw.integers(5, 513, 128))
    for each in lengths:
        mask = (np.arange(each.max()) < each[:, None]).astype(np.int64)
        found[f"{len(each)} x {each.min()} to {each.max()}"] = draw.integers(5, VOCABULARY, mask.shape) * mask, mask
    return found


def flops(mask: np.ndarray) -> float:
    """Return the operations of all layers for the tokens that the mask shows."""
    lengths = mask.sum(1).astype(float)
    linear = lengths.sum() * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INTERMEDIATE)
    return 2 * LAYERS * (linear + 2 * HIDDEN * (lengths**2).sum())


def serve(name: str, device: str, folder: str, pipe: Connection) -> None:
    """Be an engine: say what went wrong in the beginning, or None, then compute each batch that is sent."""
    warnings.simplefilter("ignore")
    engine = ENGINES[device][name]
    os.environ.update(engine.environment, CHECKPOINTS=folder)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        run = engine.make(Path(folder), device)
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}".splitlines()[0])
        return
    pipe.send(None)
    while True:
        ids, mask = pipe.recv()
        start = time.perf_counter()
        outputs = run(ids, mask)
        pipe.send((time.perf_counter() - start, outputs, _memory(device)))


def peak_rate(device: str) -> float | None:
    """Return the operations per second of one large product on a GPU, in bfloat16."""
    if device == "cpu":
        return None
    import torch

    matrices = torch.randn(2, PEAK_SIZE, PEAK_SIZE, device=device, dtype=torch.bfloat16)
    seconds = []
    for _ in range(20):
        torch.cuda.synchronize()
        start = time.perf_counter()
        matrices[0] @ matrices[1]
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return float(2 * PEAK_SIZE**3 / np.median(seconds))


def _memory(device: str) -> int:
    if device == "cpu":
        return 0
    import torch

    peak = torch.cuda.max_memory_allocated()  # 0 for an engine that is not of torch
    torch.cuda.reset_peak_memory_stats()
    return peak


@contextmanager
def engines(names: list[str], device: str, folder: Path, console: Console) -> Iterator[dict[str, Connection]]:
    """Start the engines, one after the other; those that cannot are named and left out."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for name in track(names, "starting", console=console, transient=True):
        pipes[name], theirs = context.Pipe()
        processes.append(context.Process(target=serve, args=(name, device, str(folder), theirs), daemon=True))
        processes[-1].start()
        theirs.close()
        if problem := pipes[name].recv():
            console.print(f"{name}: {problem}", highlight=False)
            del pipes[name]
    try:
        yield pipes
    finally:
        for process in processes:
            process.terminate()


@dataclass(frozen=True)
class Measurement:
    """What one engine did with one batch."""

    seconds: float
    difference: float  # from ours, the largest
    memory: int


def measure(pipes: dict[str, Connection], batch: Batch, rounds: int) -> dict[str, Measurement]:
    """Let all engines compute a batch in turn; two rounds more, first, for those that compile."""
    seconds: dict[str, list[float]] = {name: [] for name in pipes}
    outputs, memory = {}, {}
    for turn in range(rounds + 2):
        for name, pipe in pipes.items():
            time.sleep(0.02)  # some let their threads spin a while
            pipe.send(batch)
            spent, outputs[name], memory[name] = pipe.recv()
            if turn >= 2:
                seconds[name].append(spent)
    ours = outputs[OURS]
    differences = {name: 0.0 if found is None else float(np.abs(found - ours).max()) for name, found in outputs.items()}
    return {
        name: Measurement(float(np.quantile(seconds[name], 0.25)), differences[name], memory[name]) for name in pipes
    }


def stock(activation: str, dtype: str) -> str:
    """Return the name of transformers' engine in a dtype. It has none in int8, and that in float32 counts."""
    return activation if dtype in ("float32", INT8) else f"{activation}, {dtype}"


def rows_of(mask: np.ndarray, found: dict[str, Measurement], device: str, peak: float | None) -> list[dict[str, Any]]:
    """Return the rows of the table of one batch."""
    dtypes = {name: ENGINES[device][name].dtype for name in found}
    # The products compute the padding too; their rate is that of all the positions.
    everything = 2 * LAYERS * mask.size * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INTERMEDIATE)
    rates = {
        name: (everything if name.startswith(PRODUCTS) else flops(mask)) / each.seconds for name, each in found.items()
    }
    rows = []
    for name, measured in found.items():
        dtype, is_product = dtypes[name], name.startswith(PRODUCTS)
        fastest = max(rate for other, rate in rates.items() if other.startswith(PRODUCTS) and dtypes[other] == dtype)
        gelu_new, gelu_tanh = (
            None if is_product else found[stock(activation, dtype)].seconds / measured.seconds
            for activation in (GELU_NEW, GELU_TANH)
        )
        rows.append(
            {
                "engine": name,
                "dtype": dtype,
                "ms": 1e3 * measured.seconds,
                "x gelu_new": gelu_new,
                "x gelu_tanh": gelu_tanh,
                "GFLOP/s": rates[name] / 1e9,
                "% of fastest": 100 * rates[name] / fastest,
                "% of peak": None if peak is None else 100 * rates[name] / peak,
                "difference": None if is_product or name == OURS else measured.difference,
                "peak MB": measured.memory / 1e6 if measured.memory else None,
            }
        )
    return rows


FORMATS = {
    "ms": "{:,.1f}", "x gelu_new": "{:.2f}", "x gelu_tanh": "{:.2f}", "GFLOP/s": "{:,.0f}", "% of fastest": "{:,.0f}",
    "% of peak": "{:,.0f}",
    "difference": "{:.0e}", "peak MB": "{:,.0f}",
}  # fmt: skip


def table_of(title: str, rows: list[dict[str, Any]]) -> Table:
    """Return the table of one batch as it is printed. Columns without a value are left out."""
    columns = [name for name in ("engine", *FORMATS) if any(row[name] is not None for row in rows)]
    table = Table(*columns, title=title)
    for row in rows:
        cells = ["" if row[name] is None else FORMATS.get(name, "{}").format(row[name]) for name in columns]
        if (row["difference"] or 0) > CLOSE[row["dtype"]]:
            cells[columns.index("difference")] += " (!)"
        table.add_row(*cells)
    return table


def draw(path: Path, machine: str, tables: dict[str, list[dict[str, Any]]]) -> None:
    """Draw how much faster than transformers with gelu_pytorch_tanh each engine is, in float32 if there is any."""
    dtype = "float32" if any(row["dtype"] == "float32" for rows in tables.values() for row in rows) else BFLOAT16
    groups = {
        title: {row["engine"]: row["x gelu_tanh"] for row in rows if row["x gelu_tanh"] and row["dtype"] == dtype}
        for title, rows in tables.items()
    }
    bars(path, machine, groups, f"x {stock(GELU_TANH, dtype)}", reference=1)


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


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="Time the encoder beside its peers.")
    parser.add_argument("--device", choices=ENGINES, default="cpu")
    parser.add_argument(
        "--engines", nargs="+", metavar="ENGINE", help="some of them; ours, transformers and the products always run"
    )
    parser.add_argument("--batches", nargs="+", type=int, help="some of them, by their numbers from 1 (default all)")
    parser.add_argument("--seconds", type=float, default=8, help="of each engine on each batch, about (default 8)")
    add_outputs(parser)
    options = parser.parse_args()
    console = Console(width=130)
    machine = describe_machine("torch", "transformers")
    peak = peak_rate(options.device)
    if peak is not None:
        machine += (
            f"\n{describe_gpu()}, {peak / 1e12:.0f} TFLOP/s in a product of {PEAK_SIZE} x {PEAK_SIZE} in bfloat16"
        )
    console.print(machine, highlight=False)
    chosen = [
        name
        for name in ENGINES[options.device]
        if not options.engines or name in options.engines or name == OURS or name.startswith((PRODUCTS, "transformers"))
    ]
    tables: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoints(Path(folder))
        with engines(chosen, options.device, Path(folder), console) as pipes:
            for number, (title, (ids, mask)) in enumerate(batches(options.device).items(), start=1):
                if options.batches and number not in options.batches:
                    continue
                # As many rounds as the slowest, KerasHub on torch, lets pass: about 60 GFLOP/s.
                rounds = int(np.clip(options.seconds / (flops(mask) / 60e9), 3, 60))
                if peak is not None:
                    rounds = 20
                tables[title] = rows_of(mask, measure(pipes, (ids, mask), rounds), options.device, peak)
                console.print(table_of(title, tables[title]))
    if options.json:
        write_json(options.json, machine, tables)
    if options.png:
        draw(options.png, machine, tables)


if __name__ == "__main__":
    main()
