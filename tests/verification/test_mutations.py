"""A hundred wrong conversions, each with the checks of the verification that must fail.

The model has two groups of two inner layers. All matrices that can be square are, so that swapped or transposed
tensors still load. KerasHub computes each source once. Each target is loaded by its own library.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sentencepiece import sentencepiece_model_pb2 as proto_types

from albert_hub_bridge import convert, verify
from albert_hub_bridge.formats.lazy_tensors import DTYPES, LazyTensor
from albert_hub_bridge.layouts.keras.preset import write_preset
from albert_hub_bridge.mapping import weights as table
from albert_hub_bridge.mapping.axes import shape_of
from albert_hub_bridge.mapping.heads import Head
from albert_hub_bridge.model import modeling_albert_hub
from albert_hub_bridge.model.architecture import Architecture
from albert_hub_bridge.verification.engines import registry as engines
from albert_hub_bridge.verification.report import Verification
from conversion.sample import random_checkpoint


ARCHITECTURE = Architecture(
    vocabulary_size=400,
    num_layers=4,
    num_heads=4,
    embedding_dim=16,
    hidden_dim=16,
    intermediate_dim=32,
    num_groups=2,
    num_inner_repetitions=2,
    dropout=0.1,
    max_sequence_length=16,
)
HEADS = {
    "encoder": None,
    "classifier": Head(
        kind="sequence_classification", num_labels=3, labels=("good", "bad", "ugly"), activation="softmax"
    ),
    "masked LM": Head(kind="masked_lm"),
}

SETTINGS, TENSORS, REFERENCE, ENGINES, TEXTS = "configuration", "tensors", "reference", "engines", "texts"
NUMBERS = {REFERENCE, ENGINES, TEXTS}  # the checks that compute
Tensors = dict[str, np.ndarray]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Let torch compute these tiny models on one core, which is faster than on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folders(vocabulary: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the presets, `NAME`, and of their conversions, `NAME keras|albert_hub|transformers`."""
    parent = tmp_path_factory.mktemp("mutations")
    for name, head in HEADS.items():
        (parent / name).mkdir()
        checkpoint = random_checkpoint(ARCHITECTURE, vocabulary, head=head)
        weights = {**checkpoint.weights, BIASES[1]: with_a_zero(checkpoint.weights[BIASES[1]])}
        write_preset(replace(checkpoint, weights=weights), parent / name)
        for layout in ("keras", "albert_hub", "transformers"):
            convert(parent / name, parent / f"{name} {layout}", to=layout)  # type: ignore[arg-type]
    return parent


def with_a_zero(weight: LazyTensor) -> LazyTensor:
    """Return a weight whose third value is zero, so that its sign can change."""
    return replace(weight, load=lambda: np.where(np.arange(16) == 2, np.float32(0), weight.read()))


class CachedEngine:
    """An engine that computes the same inputs once."""

    def __init__(self, engine: Any) -> None:
        self._engine, self._outputs = engine, {}
        self.name, self.is_keras_hub, self.averages_padding = engine.name, engine.is_keras_hub, engine.averages_padding
        self.sides = engine.sides

    def tokenize(self, texts: Any) -> Any:
        return self._engine.tokenize(texts)

    def use_epsilon(self, epsilon: float) -> bool:
        return self._engine.use_epsilon(epsilon)

    def encode(self, first: Any, second: Any, length: int) -> Any:
        return self._engine.encode(first, second, length)

    def features(self, texts: Any, length: int) -> list[np.ndarray]:
        key = ("features", *texts, length)
        if key not in self._outputs:
            self._outputs[key] = self._engine.features(texts, length)
        return self._outputs[key]

    def compute(self, inputs: dict[str, np.ndarray], with_head: bool = True) -> dict[str, np.ndarray]:
        return self._once("compute", inputs, with_head)

    def compute_in_float64(self, inputs: dict[str, np.ndarray], with_head: bool = True) -> dict[str, np.ndarray]:
        return self._once("compute_in_float64", inputs, with_head)

    def hidden_states(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        return self._once("hidden_states", inputs)

    def _once(self, method: str, inputs: dict[str, np.ndarray], *options: bool) -> Any:
        key = (method, *options, *((name, array.shape, array.tobytes()) for name, array in inputs.items()))
        if key not in self._outputs:
            self._outputs[key] = getattr(self._engine, method)(inputs, *options)
        return self._outputs[key]


@pytest.fixture(scope="module")
def cached_engines() -> dict[Path, CachedEngine]:
    return {}


@pytest.fixture(autouse=True)
def sources_once(folders: Path, cached_engines: dict[Path, CachedEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let KerasHub load each source once. No test changes a source."""
    real = engines.open_engine

    def open_engine(checkpoint: Any, rounded: str | None = None) -> Any:
        if checkpoint.folder not in [folders / name for name in HEADS] or rounded is not None:
            return real(checkpoint, rounded)
        if checkpoint.folder not in cached_engines:
            cached_engines[checkpoint.folder] = CachedEngine(real(checkpoint))
        return cached_engines[checkpoint.folder]

    monkeypatch.setattr(engines, "open_engine", open_engine)


def failed(report: Verification) -> set[str]:
    assert report.passed == (not [check for check in report.checks.values() if check.outcome == "failed"])
    return {name for name, check in report.checks.items() if check.outcome == "failed"}


def copy(folders: Path, name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folders / name, tmp_path / "target"))


@pytest.mark.parametrize("layout", ["keras", "albert_hub", "transformers"])
@pytest.mark.parametrize("name", HEADS)
def test_verify_passes_right_conversions(name: str, layout: str, folders: Path) -> None:
    report = verify(folders / name, folders / f"{name} {layout}")
    assert failed(report) == set(), report
    assert [check.outcome for check in report.checks.values()] == ["passed"] * 5
    assert not [check.not_measured for check in report.checks.values() if check.not_measured]
    assert report.checks["reference"].value is not None
    assert report.checks["reference"].value < 1e-13
    assert "keras_hub" in report.source_engine


# Tensors that are wrong in the file. The names are those of the albert_hub layout, without the prefix of the encoder.


def swap(first: str, second: str) -> Callable[[Tensors], None]:
    """Swap all tensors of two layers."""

    def change(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith(first)]:
            twin = second + name.removeprefix(first)
            tensors[name], tensors[twin] = tensors[twin], tensors[name]

    return change


def repeat(source: str, target: str) -> Callable[[Tensors], None]:
    """Replace all tensors of the target layer by those of the source layer."""

    def change(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith(source)]:
            tensors[target + name.removeprefix(source)] = tensors[name]

    return change


def each(change: Callable[[np.ndarray], np.ndarray], *names: str) -> Callable[[Tensors], None]:
    """Change tensors one by one."""

    def change_all(tensors: Tensors) -> None:
        for name in names:
            changed = np.ascontiguousarray(change(tensors[name]))
            assert changed.tobytes() != tensors[name].tobytes(), "the mutation changes nothing"
            tensors[name] = changed

    return change_all


def both(*changes: Callable[[Tensors], None]) -> Callable[[Tensors], None]:
    return lambda tensors: [change(tensors) for change in changes] and None


def transposed(array: np.ndarray) -> np.ndarray:
    return array.T


def other_heads(array: np.ndarray) -> np.ndarray:
    """Permute heads: rows are (heads head_dim)."""
    return array.reshape(4, 4, -1)[[1, 0, 3, 2]].reshape(array.shape)


def dim_first(array: np.ndarray) -> np.ndarray:
    """Take (head_dim heads) for (heads head_dim)."""
    return array.reshape(4, 4, -1).swapaxes(0, 1).reshape(array.shape)


def columns(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: change(array.T).T


def one_ulp(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flat[7] = np.nextafter(array.flat[7], np.float32(np.inf))
    return array


def rounded(dtype: str) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: array.astype(DTYPES[dtype]).astype(np.float32)


def row_zeroed(index: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: np.where(np.arange(len(array))[:, None] == index % len(array), np.float32(0), array)


LAYER = "transformer_layers.1.0."
FIRST = "transformer_layers.0.0."
ATTENTION = LAYER + "self_attention_layer."
QKV = [ATTENTION + f"{part}_dense.weight" for part in ("query", "key", "value")]
BIASES = [ATTENTION + f"{part}_dense.bias" for part in ("query", "key", "value")]
OUTPUT = ATTENTION + "output_dense.weight"
INNER, OUTER = LAYER + "feedforward_intermediate_dense.", LAYER + "feedforward_output_dense."

ALL = {TENSORS, *NUMBERS}
ONLY_TENSORS = {TENSORS}  # no forward pass can see it, or not well enough
DEEP = {TENSORS, REFERENCE}  # float64 can see it, and float32 cannot

# fmt: off
WRONG_TENSORS: dict[str, tuple[Callable[[Tensors], None], set[str]]] = {
    "query transposed":                (each(transposed, QKV[0]), ALL),
    "key transposed":                  (each(transposed, QKV[1]), ALL),
    "value transposed":                (each(transposed, QKV[2]), ALL),
    "attention output transposed":     (each(transposed, OUTPUT), ALL),
    "projection transposed":           (each(transposed, "embeddings_projection.weight"), ALL),
    "pooler transposed":               (each(transposed, "pooled_dense.weight"), ALL),
    "query and key swapped":           (swap(ATTENTION + "query_dense", ATTENTION + "key_dense"), ALL),
    "key and value swapped":           (swap(ATTENTION + "key_dense", ATTENTION + "value_dense"), ALL),
    "value and output swapped":        (swap(ATTENTION + "value_dense", ATTENTION + "output_dense"), ALL),
    "projection and pooler swapped":   (swap("embeddings_projection", "pooled_dense"), ALL),
    "groups swapped":                  (swap("transformer_layers.0", "transformer_layers.1"), ALL),
    "one group for both":              (repeat("transformer_layers.0", "transformer_layers.1"), ALL),
    "inner layers swapped":            (swap(FIRST, "transformer_layers.0.1."), ALL),
    "inner layer off by one":          (both(repeat("transformer_layers.0.1.", LAYER), repeat(LAYER, "transformer_layers.1.1.")), ALL),
    "group and inner layer exchanged": (swap("transformer_layers.0.1.", "transformer_layers.1.0."), ALL),
    "heads of query permuted":         (each(other_heads, QKV[0], BIASES[0]), ALL),
    "heads of value permuted":         (each(other_heads, QKV[2], BIASES[2]), ALL),
    "heads of output permuted":        (each(columns(other_heads), OUTPUT), ALL),
    "all heads permuted":              (both(each(other_heads, *QKV, *BIASES), each(columns(other_heads), OUTPUT)), ONLY_TENSORS),
    "head_dim first in query":         (each(dim_first, QKV[0], BIASES[0]), ALL),
    "head_dim first in all three":     (each(dim_first, *QKV, *BIASES), ALL),
    "head_dim first in output":        (each(columns(dim_first), OUTPUT), ALL),
    "head_dim first in a bias":        (each(dim_first, BIASES[0]), ALL),
    "query doubled, key halved":       (both(each(lambda a: a * 2, QKV[0], BIASES[0]), each(lambda a: a / 2, QKV[1], BIASES[1])), ONLY_TENSORS),
    "neurons permuted":                (both(each(lambda a: a[::-1], INNER + "weight", INNER + "bias"), each(lambda a: a[:, ::-1], OUTER + "weight")), ONLY_TENSORS),
    "neurons permuted in one place":   (each(lambda a: a[::-1], INNER + "weight", INNER + "bias"), ALL),
    "positions shifted by one":        (each(lambda a: np.roll(a, 1, 0), "position_embedding.weight"), ALL),
    "positions begin at two":          (each(lambda a: a[[2, *range(1, 16)]], "position_embedding.weight"), ALL),
    "last position zeroed":            (each(row_zeroed(-1), "position_embedding.weight"), {TENSORS, ENGINES, TEXTS}),
    "segments swapped":                (each(lambda a: a[::-1], "segment_embedding.weight"), ALL),
    "pad row zeroed":                  (each(row_zeroed(0), "token_embedding.weight"), {TENSORS, TEXTS}),
    "token rows shifted by one":       (each(lambda a: np.roll(a, 1, 0), "token_embedding.weight"), ALL),
    "last token zeroed":               (each(row_zeroed(-1), "token_embedding.weight"), {TENSORS, ENGINES}),
    "query bias dropped":              (each(np.zeros_like, BIASES[0]), ALL),
    "key bias zeroed":                 (each(np.zeros_like, BIASES[1]), ONLY_TENSORS),
    "key bias of another layer":       (repeat(FIRST + "self_attention_layer.key_dense.bias", BIASES[1]), ONLY_TENSORS),
    "value bias dropped":              (each(np.zeros_like, BIASES[2]), ALL),
    "attention output bias dropped":   (each(np.zeros_like, ATTENTION + "output_dense.bias"), ALL),
    "intermediate bias dropped":       (each(np.zeros_like, INNER + "bias"), ALL),
    "feed-forward bias dropped":       (each(np.zeros_like, OUTER + "bias"), ALL),
    "projection bias dropped":         (each(np.zeros_like, "embeddings_projection.bias"), ALL),
    "pooler bias dropped":             (each(np.zeros_like, "pooled_dense.bias"), ALL),
    "pooler all zeros":                (each(np.zeros_like, "pooled_dense.weight", "pooled_dense.bias"), ALL),
    "embeddings beta dropped":         (each(np.zeros_like, "embeddings_layer_norm.bias"), ALL),
    "embeddings gamma dropped":        (each(np.ones_like, "embeddings_layer_norm.weight"), ALL),
    "gamma less one":                  (each(lambda a: a - 1, LAYER + "feedforward_layer_norm.weight"), ALL),
    "layer norms swapped":             (swap(LAYER + "self_attention_layer_norm", LAYER + "feedforward_layer_norm"), ALL),
    "gamma and beta swapped":          (swap(LAYER + "self_attention_layer_norm.weight", LAYER + "self_attention_layer_norm.bias"), ALL),
    "one ulp in one value":            (each(one_ulp, QKV[2]), DEEP),
    "one ulp in a key bias":           (each(one_ulp, BIASES[1]), ONLY_TENSORS),
    "minus zero":                      (each(lambda a: np.where(a == 0, np.float32(-0.0), a), ATTENTION + "key_dense.bias"), ONLY_TENSORS),
    "one tensor rounded to bfloat16":  (each(rounded("bfloat16"), INNER + "weight"), ALL),
    "one tensor rounded to float16":   (each(rounded("float16"), INNER + "weight"), ALL),
    "classifier's labels permuted":    (each(lambda a: a[[1, 0, 2]], "classifier.weight", "classifier.bias"), {TENSORS, ENGINES, TEXTS}),
    "classifier bias dropped":         (each(np.zeros_like, "classifier.bias"), {TENSORS, ENGINES, TEXTS}),
}
# fmt: on


@pytest.mark.parametrize("title", WRONG_TENSORS)
def test_verify_catches_a_wrong_tensor(title: str, folders: Path, tmp_path: Path) -> None:
    change, caught_by = WRONG_TENSORS[title]
    source = "classifier" if "classifier" in title else "encoder"
    target = copy(folders, f"{source} albert_hub", tmp_path)
    file = target / "model.safetensors"
    before = load_file(file)
    after = {name.removeprefix("backbone."): array for name, array in before.items()}
    change(after)
    names = {name.removeprefix("backbone."): name for name in before}
    wrong = {name for name, array in after.items() if array.tobytes() != before[names[name]].tobytes()}
    save_file({names[name]: np.ascontiguousarray(array) for name, array in after.items()}, file)
    report = verify(folders / source, target)
    assert wrong
    assert set(report.different_tensors) == wrong
    assert all(any(failure.startswith(name) for failure in report.checks[TENSORS].failures) for name in wrong)
    assert failed(report) == caught_by


# fmt: off
WRONG_IN_OTHER_LAYOUTS: dict[str, tuple[str, Callable[[Tensors], None], set[str]]] = {
    "transformers: query and key swapped":     ("transformers", swap("albert.encoder.albert_layer_groups.1.albert_layers.1.attention.query", "albert.encoder.albert_layer_groups.1.albert_layers.1.attention.key"), ALL),
    "transformers: groups swapped":            ("transformers", swap("albert.encoder.albert_layer_groups.0", "albert.encoder.albert_layer_groups.1"), ALL),
    "transformers: layer norms swapped":       ("transformers", swap("albert.encoder.albert_layer_groups.0.albert_layers.0.attention.LayerNorm", "albert.encoder.albert_layer_groups.0.albert_layers.0.full_layer_layer_norm"), ALL),
    "transformers: key bias zeroed":           ("transformers", each(np.zeros_like, "albert.encoder.albert_layer_groups.0.albert_layers.1.attention.key.bias"), ONLY_TENSORS),
    "transformers: pooler transposed":         ("transformers", each(transposed, "albert.pooler.weight"), ALL),
    "keras: query and key swapped":     ("keras", swap("layers/transformer_encoder_3/_self_attention_layer/query_dense", "layers/transformer_encoder_3/_self_attention_layer/key_dense"), ALL),
    "keras: counter by inner layer":    ("keras", swap("layers/transformer_encoder_1/", "layers/transformer_encoder_2/"), ALL),
    "keras: heads and head_dim swapped": ("keras", each(lambda a: a.swapaxes(1, 2), "layers/transformer_encoder_2/_self_attention_layer/query_dense/vars/0"), ALL),
    "keras: output heads and head_dim":  ("keras", each(lambda a: a.swapaxes(0, 1), "layers/transformer_encoder_2/_self_attention_layer/output_dense/vars/0"), ALL),
    "keras: kernel not transposed":     ("keras", each(transposed, "layers/dense/vars/0"), ALL),
    "keras: key bias zeroed":           ("keras", each(np.zeros_like, "layers/transformer_encoder/_self_attention_layer/key_dense/vars/1"), ONLY_TENSORS),
    "keras: positions shifted":         ("keras", each(lambda a: np.roll(a, -1, 0), "layers/position_embedding/vars/0"), ALL),
}
# fmt: on


@pytest.mark.parametrize("title", WRONG_IN_OTHER_LAYOUTS)
def test_verify_catches_a_wrong_tensor_in_other_layouts(title: str, folders: Path, tmp_path: Path) -> None:
    layout, change, caught_by = WRONG_IN_OTHER_LAYOUTS[title]
    target = copy(folders, f"encoder {layout}", tmp_path)
    if layout == "transformers":
        tensors = load_file(target / "model.safetensors")
        change(tensors)
        save_file(
            {n: np.ascontiguousarray(a) for n, a in tensors.items()}, target / "model.safetensors", {"format": "pt"}
        )
    else:
        with h5py.File(target / "model.weights.h5", "r+") as file:
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            tensors = {name: file[name][()] for name in names}
            change(tensors)
            for name, array in tensors.items():
                file[name][...] = array
    report = verify(folders / "encoder", target)
    assert failed(report) == caught_by
    assert report.different_tensors


@pytest.mark.parametrize("tensor", ["masked_lm_head.intermediate_dense.weight", "masked_lm_head.decoder.bias"])
def test_verify_catches_a_wrong_masked_lm_head(tensor: str, folders: Path, tmp_path: Path) -> None:
    target = copy(folders, "masked LM albert_hub", tmp_path)
    tensors = load_file(target / "model.safetensors")
    tensors[tensor] = np.ascontiguousarray(tensors[tensor].T[::-1])
    save_file(tensors, target / "model.safetensors")
    report = verify(folders / "masked LM", target)
    assert report.different_tensors == [tensor]
    assert failed(report) == {TENSORS, ENGINES, TEXTS}


# Settings that are wrong in the file.


def edit(file: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        inner = content.get("config", content)
        assert any(inner.get(key) != value for key, value in changes.items())
        inner.update(changes)
        (folder / file).write_text(json.dumps(content))

    return change


def truncate_differently(folder: Path) -> None:
    """Change the truncation of pairs in both files of a preset that store it; they must be equal."""
    edit("preprocessor.json", truncate="waterfall")(folder)
    task = json.loads((folder / "task.json").read_text())
    task["config"]["preprocessor"]["config"]["truncate"] = "waterfall"
    (folder / "task.json").write_text(json.dumps(task))


def edit_vocabulary(file: str, change: Callable[[Any], None]) -> Callable[[Path], None]:
    def change_file(folder: Path) -> None:
        model: Any = proto_types.ModelProto()
        model.ParseFromString((folder / file).read_bytes())
        change(model)
        (folder / file).write_bytes(model.SerializeToString())

    return change_file


SWAPPED = (156, 160)
PIECE = f"piece {SWAPPED[0]}"


def swap_pieces(model: Any) -> None:
    first, second = (model.pieces[index] for index in SWAPPED)
    first.piece, second.piece = second.piece, first.piece


def edit_score(model: Any) -> None:
    model.pieces[SWAPPED[0]].score -= 0.25


def edit_normalizer(**changes: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        for name, value in changes.items():
            setattr(model.normalizer_spec, name, value)

    return change


def edit_pipeline(change: Callable[[Any], None]) -> Callable[[Path], None]:
    def change_file(folder: Path) -> None:
        content = json.loads((folder / "tokenizer.json").read_text())
        change(content)
        (folder / "tokenizer.json").write_text(json.dumps(content))

    return change_file


def swap_in_pipeline(content: Any) -> None:
    pieces = content["model"]["vocab"]
    first, second = SWAPPED
    pieces[first][0], pieces[second][0] = pieces[second][0], pieces[first][0]


def swap_in_both(folder: Path) -> None:
    """Swap the pieces in both files. If only one had another order, the folder would be refused before the checks."""
    edit_vocabulary("spiece.model", swap_pieces)(folder)
    edit_pipeline(swap_in_pipeline)(folder)


def edit_score_in_pipeline(content: Any) -> None:
    content["model"]["vocab"][SWAPPED[0]][1] -= 0.25


def lower_case_in_pipeline(content: Any) -> None:
    content["normalizer"]["normalizers"].insert(0, {"type": "Lowercase"})


def drop_classifier(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({n: a for n, a in tensors.items() if not n.startswith("classifier")}, folder / "model.safetensors")
    edit("config.json", architectures=["AlbertHubModel"])(folder)


def drop_vocabulary(folder: Path) -> None:
    for name in ("spiece.model", "tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()


LABELS = {"0": "bad", "1": "good", "2": "ugly"}

# fmt: off
WRONG_SETTINGS: dict[str, tuple[str, Callable[[Path], None], str, set[str]]] = {
    # title: target, change, the setting that is reported, the other checks that fail
    "fewer heads":               ("classifier albert_hub", edit("config.json", num_heads=2), "num_heads", set()),
    "more heads":                ("classifier albert_hub", edit("config.json", num_heads=8), "num_heads", set()),
    "more layers":               ("classifier albert_hub", edit("config.json", num_layers=8), "num_layers", set()),
    "fewer layers":              ("classifier albert_hub", edit("config.json", num_layers=2), "num_layers", set()),
    "another epsilon":           ("classifier albert_hub", edit("config.json", layer_norm_epsilon=1e-5), "layer_norm_epsilon", {REFERENCE}),
    "an epsilon of 1e-11":       ("classifier albert_hub", edit("config.json", layer_norm_epsilon=1e-11), "layer_norm_epsilon", {REFERENCE}),
    "GELU with erf":             ("classifier albert_hub", edit("config.json", activation="gelu"), "activation", NUMBERS),
    "GELU by a sigmoid":         ("classifier albert_hub", edit("config.json", activation="quick_gelu"), "activation", NUMBERS),
    "ReLU":                      ("classifier albert_hub", edit("config.json", activation="relu"), "activation", NUMBERS),
    "another dropout":           ("classifier albert_hub", edit("config.json", dropout=0.2), "dropout", set()),
    "a second dropout":          ("classifier albert_hub", edit("config.json", attention_dropout=0.2), "attention_dropout", set()),
    "labels in another order":   ("classifier albert_hub", edit("config.json", id2label=LABELS), "labels", set()),
    "scores without softmax":    ("classifier albert_hub", edit("config.json", classifier_activation=None), "head", {ENGINES, TEXTS}),
    "sigmoid for softmax":       ("classifier albert_hub", edit("config.json", classifier_activation="sigmoid"), "head", {ENGINES, TEXTS}),
    "a classifier's dropout":    ("classifier albert_hub", edit("config.json", classifier_dropout=0.3), "classifier_dropout", set()),
    "no classifier":             ("classifier albert_hub", drop_classifier, "head", {TENSORS}),
    "a masked LM's epsilon":     ("masked LM albert_hub",  edit("config.json", masked_lm_layer_norm_epsilon=1e-12), "masked_lm_layer_norm_epsilon", {TEXTS}),
    "text in lower case":        ("classifier albert_hub", edit("tokenizer_config.json", do_lower_case=True), "text_normalization", {TEXTS}),
    "accents stripped":          ("classifier albert_hub", edit("tokenizer_config.json", strip_accents=True, keep_accents=False), "text_normalization", {TEXTS}),
    "quotes replaced":           ("classifier albert_hub", edit("tokenizer_config.json", replace_quotes=True), "text_normalization", {TEXTS}),
    "no vocabulary":             ("classifier albert_hub", drop_vocabulary, "", {TEXTS}),
    "two pieces swapped":        ("classifier albert_hub", swap_in_both, PIECE, set()),
    "another score":             ("classifier albert_hub", edit_vocabulary("spiece.model", edit_score), PIECE, set()),
    "no normalization":          ("classifier albert_hub", edit_vocabulary("spiece.model", edit_normalizer(precompiled_charsmap=b"")), "normalization", {TEXTS}),
    "no space in front":         ("classifier albert_hub", edit_vocabulary("spiece.model", edit_normalizer(add_dummy_prefix=False)), "add_dummy_prefix", {TEXTS}),
    "spaces kept":               ("classifier albert_hub", edit_vocabulary("spiece.model", edit_normalizer(remove_extra_whitespaces=False)), "remove_extra_whitespaces", {TEXTS}),
    "a shorter sequence":        ("classifier albert_hub", edit("tokenizer_config.json", model_max_length=9), "sequence_length", set()),
    "pairs cut otherwise":       ("classifier albert_hub", edit("tokenizer_config.json", truncate="waterfall"), "truncate", set()),
    "transformers: GELU with erf":      ("classifier transformers",  edit("config.json", hidden_act="gelu"), "activation", NUMBERS),
    "transformers: another epsilon":    ("classifier transformers",  edit("config.json", layer_norm_eps=1e-3), "layer_norm_epsilon", NUMBERS),
    "transformers: heads":              ("classifier transformers",  edit("config.json", num_attention_heads=2), "num_heads", set()),
    "transformers: labels":             ("classifier transformers",  edit("config.json", id2label=LABELS), "labels", set()),
    "transformers: another score":      ("classifier transformers",  edit_pipeline(edit_score_in_pipeline), "tokenizer.json", set()),
    "transformers: another score in spiece.model": ("classifier transformers", edit_vocabulary("spiece.model", edit_score), "tokenizer.json", set()),
    "transformers: lower case":         ("classifier transformers",  edit_pipeline(lower_case_in_pipeline), "tokenizer.json", {TEXTS}),
    "transformers: flag flipped":       ("classifier transformers",  edit("tokenizer_config.json", do_lower_case=True), "text_normalization", set()),
    "keras: another activation": ("classifier keras",  edit("task.json", activation="sigmoid"), "head", {ENGINES, TEXTS}),
    "keras: pieces swapped":     ("classifier keras",  edit_vocabulary("assets/tokenizer/vocabulary.spm", swap_pieces), PIECE, set()),
    "keras: pairs cut otherwise": ("classifier keras", truncate_differently, "truncate", set()),
}
# fmt: on


@pytest.mark.parametrize("title", WRONG_SETTINGS)
def test_verify_catches_a_wrong_setting(title: str, folders: Path, tmp_path: Path) -> None:
    name, change, setting, also = WRONG_SETTINGS[title]
    target = copy(folders, name, tmp_path)
    change(target)
    report = verify(folders / name.rpartition(" ")[0], target)
    if setting:
        assert setting in report.different_fields
        assert any(failure.startswith(f"{setting}: ") for failure in report.checks[SETTINGS].failures)
        also = also | {SETTINGS}
    assert failed(report) == also


# Wrong converters: the weight table is changed while a folder is converted, and right again when it is verified; or it
# is wrong both times, so that the mistake cancels out when the folder is read back.


def swap_names(first: str, second: str, dialect: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Swap the names of two layers in a dialect."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        rows = {rule.albert_hub: getattr(rule, dialect) for rule in table._LAYER}

        def twin(rule: Any) -> str:
            for a, b in ((first, second), (second, first)):
                if rule.albert_hub.startswith(a):
                    return rows[b + rule.albert_hub.removeprefix(a)]
            return rows[rule.albert_hub]

        changed = tuple(replace(rule, **{dialect: twin(rule)}) for rule in table._LAYER)
        monkeypatch.setattr(table, "_LAYER", changed)

    return patch


def other_axes(part: str, torch_axes: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Change the axes of parameters in torch's layout."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        changed = tuple(
            replace(rule, torch_axes=torch_axes)
            if part in rule.albert_hub and rule.albert_hub.endswith("weight")
            else rule
            for rule in table._LAYER
        )
        assert changed != table._LAYER
        monkeypatch.setattr(table, "_LAYER", changed)

    return patch


def counter_by_inner_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    real = table._in_layer

    def in_layer(rule: Any, encoder: str, group: str, inner: str) -> Any:
        count = int(inner) * 2 + int(group)
        return real(rule, f"transformer_encoder_{count}" if count else "transformer_encoder", group, inner)

    monkeypatch.setattr(table, "_in_layer", in_layer)


def changed_values(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[pytest.MonkeyPatch], None]:
    """Change values when they are moved from the Keras layout to torch's."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        real = table.WeightRule.move

        def move(self: Any, array: np.ndarray, source: Any, target: Any, sizes: Any) -> np.ndarray:
            moved = real(self, array, source, target, sizes)
            return (
                change(moved)
                if self.albert_hub.endswith(name) and (source, target) == ("keras", "albert_hub")
                else moved
            )

        monkeypatch.setattr(table.WeightRule, "move", move)

    return patch


def untransposed_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    real = table.rearrange

    def rearrange(array: np.ndarray, source: str, target: str, sizes: Any) -> np.ndarray:
        square = array.ndim == 2 and array.shape[0] == array.shape[1]
        return array.reshape(shape_of(target, sizes)) if square else real(array, source, target, sizes)

    monkeypatch.setattr(table, "rearrange", rearrange)


QUERY, KEY, VALUE, OUT = (f"self_attention_layer.{part}_dense" for part in ("query", "key", "value", "output"))

# fmt: off
WRONG_CONVERTERS: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None], set[str], set[str]]] = {
    # title: layout, patch, the checks that fail if it is wrong once, and if it is wrong both times
    "query and key swapped in KerasHub's names": ("albert_hub", swap_names(QUERY, KEY, "keras"), ALL, NUMBERS),
    "key and value swapped in transformers' names": ("transformers", swap_names(KEY, VALUE, "albert"), ALL, NUMBERS),
    "layer norms swapped in KerasHub's names": ("albert_hub", swap_names("self_attention_layer_norm", "feedforward_layer_norm", "keras"), ALL, NUMBERS),
    "KerasHub's counter by inner layer":       ("transformers",  counter_by_inner_layer, ALL, NUMBERS),
    "head_dim before heads in query":          ("albert_hub", other_axes(QUERY, "(head_dim heads) hidden"), ALL, NUMBERS),
    "head_dim before heads in output":         ("transformers",  other_axes(OUT, "hidden (head_dim heads)"), ALL, NUMBERS),
    "query not transposed":                    ("albert_hub", other_axes(QUERY, "hidden (heads head_dim)"), ALL, NUMBERS),
    "square matrices not transposed":          ("transformers",  untransposed_squares, ALL, ALL),
    "key biases lost":                         ("albert_hub", changed_values("key_dense.bias", np.zeros_like), ONLY_TENSORS, ONLY_TENSORS),
    "value biases lost":                       ("albert_hub", changed_values("value_dense.bias", np.zeros_like), ALL, ALL),
    "a pooler of zeros":                       ("transformers",  changed_values("pooled_dense.weight", np.zeros_like), ALL, ALL),
    "kernels rounded on the way":              ("albert_hub", changed_values("feedforward_output_dense.weight", rounded("bfloat16")), ALL, ALL),
}
# fmt: on


@pytest.mark.parametrize("both_times", [False, True], ids=["once", "both times"])
@pytest.mark.parametrize("title", WRONG_CONVERTERS)
def test_verify_catches_a_wrong_converter(
    title: str, both_times: bool, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, patch, once, twice = WRONG_CONVERTERS[title]
    with monkeypatch.context() as wrong:
        patch(wrong)
        convert(folders / "encoder", tmp_path / "target", to=layout)  # type: ignore[arg-type]
        report = verify(folders / "encoder", tmp_path / "target") if both_times else None
    if report is None:
        report = verify(folders / "encoder", tmp_path / "target")
    assert failed(report) == (twice if both_times else once)


# Wrong models of this package: the folder is right, and the outputs are wrong.


def in_every_model(change: Callable[[Any], None]) -> Callable[[pytest.MonkeyPatch], None]:
    """Change each encoder after it is created."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        real = modeling_albert_hub.AlbertHubModel.__init__

        def init(self: Any, *arguments: Any, **options: Any) -> None:
            real(self, *arguments, **options)
            change(self)

        monkeypatch.setattr(modeling_albert_hub.AlbertHubModel, "__init__", init)

    return patch


def exact_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(modeling_albert_hub.ACT2FN, "gelu_pytorch_tanh", torch.nn.GELU)


def no_scaling(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, modeling_albert_hub.AlbertHubAttention):
            module.scaling = 1.0


def other_epsilon(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-10


def no_residual(model: Any) -> None:
    def subtract_residual(_: Any, inputs: Any, outputs: Any) -> Any:
        query_states = inputs[2] if len(inputs) > 2 else inputs[0]
        return outputs[0] - query_states, *outputs[1:]

    for module in model.modules():
        if isinstance(module, modeling_albert_hub.AlbertHubAttention):
            module.register_forward_hook(subtract_residual)


def linear_pooler(model: Any) -> None:
    if model.pooled_dense is not None:
        model.pooled_dense.register_forward_hook(lambda _, inputs, output: output.clamp(-1, 1).atanh())


def no_embeddings_norm(model: Any) -> None:
    model.embeddings_layer_norm.register_forward_hook(lambda _, inputs, output: inputs[0])


def next_position(model: Any) -> None:
    model.position_embedding.register_forward_pre_hook(lambda _, inputs: ((inputs[0] + 1).clamp(max=15),))


def one_segment(model: Any) -> None:
    model.segment_embedding.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 0,))


def no_mask(model: Any) -> None:
    def remove_mask(_: Any, inputs: Any, options: dict[str, Any]) -> Any:
        return inputs, {name: value for name, value in options.items() if name != "attention_mask"}

    model.register_forward_pre_hook(remove_mask, with_kwargs=True)


WRONG_MODELS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], set[str]]] = {
    "GELU with erf": (exact_gelu, NUMBERS),
    "scores not divided": (in_every_model(no_scaling), NUMBERS),
    "an epsilon of 1e-10": (in_every_model(other_epsilon), {REFERENCE}),
    "a residual dropped": (in_every_model(no_residual), NUMBERS),
    "a pooler of another activation": (in_every_model(linear_pooler), NUMBERS),
    "embeddings not normalized": (in_every_model(no_embeddings_norm), NUMBERS),
    "positions from one": (in_every_model(next_position), NUMBERS),
    "segments ignored": (in_every_model(one_segment), NUMBERS),
    "padding ignored": (in_every_model(no_mask), NUMBERS),
}


@pytest.mark.parametrize("title", WRONG_MODELS)
def test_verify_catches_a_wrong_model(title: str, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, caught_by = WRONG_MODELS[title]
    patch(monkeypatch)
    report = verify(folders / "encoder", folders / "encoder albert_hub")
    assert failed(report) == caught_by
    assert report.different_tensors == []


def test_there_are_at_least_100_mutations() -> None:
    kinds = WRONG_TENSORS, WRONG_IN_OTHER_LAYOUTS, WRONG_SETTINGS, WRONG_CONVERTERS, WRONG_CONVERTERS, WRONG_MODELS
    assert sum(map(len, kinds)) >= 100
