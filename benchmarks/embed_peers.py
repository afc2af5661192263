"""What `benchmarks/embed.py` compares. Each peer is a process: `python -m benchmarks.embed_peers NAME FOLDER SOCKET`.

A peer may run in another environment, with libraries that do not install beside this package, so this module imports
nothing but NumPy at first.
"""

from __future__ import annotations

import os
import resource
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import numpy as np


BATCH = 32  # texts of a batch of the peers
Encode = Callable[[Sequence[str]], np.ndarray]  # texts to vectors: the mean of the tokens' states


def _pipeline(batch_size: int) -> Callable[[Path], Encode]:
    def make(folder: Path) -> Encode:
        from transformers import pipeline

        compute = pipeline("feature-extraction", model=str(folder / "transformers"), device="cpu")
        tokenizer, options = compute.tokenizer, {"truncation": True, "max_length": 512}

        def encode(texts: Sequence[str]) -> np.ndarray:
            lengths = [len(row) for row in tokenizer(list(texts), **options)["input_ids"]]
            found = compute(list(texts), batch_size=batch_size, tokenize_kwargs=options, return_tensors=True)
            pairs = zip(found, lengths, strict=True)
            return np.stack([states[0, :length].mean(0).numpy() for states, length in pairs])

        return encode

    return make


def _sentence_transformers(backend: str = "torch", **model_kwargs: Any) -> Callable[[Path], Encode]:
    def make(folder: Path) -> Encode:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(
            str(folder / "transformers"), device="cpu", backend=backend, model_kwargs=model_kwargs
        )
        return lambda texts: model.encode(list(texts), batch_size=BATCH, show_progress_bar=False)

    return make


def _fastembed(folder: Path) -> Encode:
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model="user/encoder",
        pooling=PoolingType.MEAN,
        normalization=False,
        sources=ModelSource(hf="user/encoder"),
        dim=768,
        model_file="onnx/model.onnx",
    )
    model = TextEmbedding("user/encoder", specific_model_path=str(folder / "transformers"))
    return lambda texts: np.array(list(model.embed(list(texts), batch_size=BATCH)))


def _by_length(folder: Path, run: Callable[[dict[str, np.ndarray]], np.ndarray]) -> Encode:
    """Return what embeds batches of texts that are sorted by length, as fastembed and sentence-transformers do."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder / "transformers")

    def encode(texts: Sequence[str]) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        vectors: Any = [None] * len(texts)
        for start in range(0, len(texts), BATCH):
            places = order[start : start + BATCH]
            inputs = tokenizer(
                [texts[place] for place in places], padding=True, truncation=True, max_length=512, return_tensors="np"
            )
            mask = inputs["attention_mask"][:, :, None]
            means = (run(dict(inputs)) * mask).sum(1) / mask.sum(1)
            for place, vector in zip(places, means, strict=True):
                vectors[place] = vector
        return np.stack(vectors)

    return encode


def _onnx(folder: Path) -> Path:
    return folder / "transformers" / "onnx" / "model.onnx"


def _onnx_runtime(folder: Path) -> Encode:
    import onnxruntime

    session = onnxruntime.InferenceSession(_onnx(folder), providers=["CPUExecutionProvider"])
    return _by_length(folder, lambda inputs: session.run(["last_hidden_state"], inputs)[0])


def _openvino(folder: Path) -> Encode:
    import openvino

    # Where the processor has bfloat16, OpenVINO would use it unasked.
    model = openvino.compile_model(_onnx(folder), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return _by_length(folder, lambda inputs: model(inputs)["last_hidden_state"])


def _keras_hub(folder: Path) -> Encode:
    import keras_hub

    backbone = keras_hub.models.AlbertBackbone.from_preset(str(folder / "keras"))

    def run(inputs: dict[str, np.ndarray]) -> np.ndarray:
        names = {"token_ids": "input_ids", "padding_mask": "attention_mask", "segment_ids": "token_type_ids"}
        arrays = {ours: inputs[theirs] for ours, theirs in names.items()}
        longer = -arrays["token_ids"].shape[1] % 32  # JAX compiles each length anew
        padded = {name: np.pad(array, ((0, 0), (0, longer))) for name, array in arrays.items()}
        states = np.asarray(backbone.predict(padded, batch_size=BATCH, verbose=0)["sequence_output"])
        return states[:, : states.shape[1] - longer]

    return _by_length(folder, run)


class _Ours:
    """This package's `Embedder`. It notes the share of padding, and the time in which nothing was computed."""

    def __init__(self, folder: Path, chunk: int, **options: Any) -> None:
        from albert_hub_bridge import Embedder

        self._embedder = Embedder(folder / "transformers", device="cpu", pooling="mean", **options)
        self._chunk = chunk
        self.padding = self.not_overlapped = 0.0

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        computing, compute, start = 0.0, self._embedder.compute, time.perf_counter()

        def timed(chunk: Any) -> Any:
            nonlocal computing
            begin = time.perf_counter()
            found = compute(chunk)
            computing += time.perf_counter() - begin
            return found

        self._embedder.compute = timed  # type: ignore[method-assign]
        found = list(self._embedder.encode_chunks(_chunks(texts, self._chunk)))
        self._embedder.compute = compute  # type: ignore[method-assign]
        self.padding = 1 - sum(each.tokens for each in found) / sum(each.positions for each in found)
        self.not_overlapped = 1 - computing / (time.perf_counter() - start)
        return np.concatenate([each.vectors for each in found])


def _ours(chunk: int = 4096, **options: Any) -> Callable[[Path], Encode]:
    return lambda folder: _Ours(folder, chunk, **options)


def _on_ray(actors: int, threads: int) -> Callable[[Path], Encode]:
    def make(folder: Path) -> Encode:
        from albert_hub_bridge.runtime.ray_cluster import Cluster
        from albert_hub_bridge.runtime.ray_embedding import ray_embedder

        os.environ["RAY_OVERRIDE_RESOURCES"] = f'{{"CPU": {actors * threads}}}'
        cluster = Cluster("local", actors)
        context = ray_embedder(folder / "transformers", cluster, threads=threads, pooling="mean")
        embedder = until_the_end.enter_context(context)
        return lambda texts: np.concatenate(
            [each.vectors for each in embedder.encode_chunks(_chunks(texts, SMALL_CHUNK))]
        )

    return make


def _chunks(texts: Sequence[str], size: int) -> list[Sequence[str]]:
    return [texts[first : first + size] for first in range(0, len(texts), size)]


until_the_end = ExitStack()
SMALL_CHUNK = 25  # texts: some chunks for each actor
ALONE, PIPELINE, OURS = "pipeline, 1 text", f"pipeline, batches of {BATCH}", "ours"
OURS_IN_CHUNKS = f"ours, 2 threads, chunks of {SMALL_CHUNK} texts"
PEERS: dict[str, Callable[[Path], Encode]] = {
    ALONE: _pipeline(1),
    PIPELINE: _pipeline(BATCH),
    "sentence-transformers": _sentence_transformers(),
    "sentence-transformers, onnx": _sentence_transformers("onnx", provider="CPUExecutionProvider"),
    # Where the processor has bfloat16, OpenVINO would use it unasked.
    "sentence-transformers, openvino": _sentence_transformers(
        "openvino", ov_config={"INFERENCE_PRECISION_HINT": "f32"}
    ),
    "fastembed": _fastembed,
    "ONNX Runtime, by length": _onnx_runtime,
    "OpenVINO, by length": _openvino,
    "keras_hub on JAX, by length": _keras_hub,
    OURS: _ours(),
    "ours, compiled": _ours(compile=True),
    "ours, bfloat16": _ours(dtype="bfloat16"),
}
# On the same chunks: a process, and Ray.
RAY_PEERS: dict[str, Callable[[Path], Encode]] = {
    OURS_IN_CHUNKS: _ours(SMALL_CHUNK, threads=2),
    "Ray, 1 actor of 2 threads": _on_ray(1, 2),
    "Ray, 2 actors of 1 thread": _on_ray(2, 1),
}
# They do not install beside this package's transformers: `--python` names another environment.
ELSEWHERE = ("sentence-transformers, onnx", "sentence-transformers, openvino", "fastembed")


def serve(name: str, folder: Path, socket: str) -> None:
    """Be a peer: say what went wrong in the beginning, or None, then embed each list of texts that is sent."""
    warnings.simplefilter("ignore")
    os.environ["KERAS_BACKEND"] = "jax"
    with until_the_end, Client(socket, "AF_UNIX") as pipe:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        try:
            encode = {**PEERS, **RAY_PEERS}[name](folder)
        except Exception as error:
            pipe.send(_first_line(error))
            return
        pipe.send(None)
        while True:
            try:
                texts = pipe.recv()
            except EOFError:
                return
            start = time.perf_counter()
            try:
                vectors = encode(texts)
            except Exception as error:
                pipe.send((_first_line(error),))
                return
            seconds = time.perf_counter() - start
            notes = [getattr(encode, note, None) for note in ("padding", "not_overlapped")]
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            pipe.send((seconds, vectors, *notes, peak))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
