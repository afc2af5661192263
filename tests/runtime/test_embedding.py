from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event
from threading import enumerate as enumerate_threads
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer, BertJapaneseTokenizer

from albert_hub_bridge import Embedder, convert
from albert_hub_bridge.errors import ConfigurationError, SourceError
from albert_hub_bridge.layouts.registry import write_checkpoint
from albert_hub_bridge.runtime.fingerprint import fingerprint
from albert_hub_bridge.runtime.loading import load_model
from albert_hub_bridge.runtime.tokens import Text, length_buckets
from conversion.sample import CORPUS, SAMPLE_ARCHITECTURE, random_checkpoint
from tests.conftest import TEXTS, KerasPreset


LONG = "tie two ropes together and test the knot " * 30
MANY = [*TEXTS, "", *CORPUS, LONG, "ice", *[line[:length] for line in CORPUS for length in (20, 40)]]
PAIRS = [(first, second) for first, second in zip(CORPUS, reversed(CORPUS), strict=True)] + [("a", ""), ("", LONG)]
POOLINGS = ("mean", "cls", "pooler", "none")


@pytest.fixture(scope="module")
def repository(vocabulary: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedding") / "repository"
    folder.mkdir()
    write_checkpoint(random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary), folder, "transformers")
    return folder


@pytest.fixture(scope="module")
def alone(repository: Path) -> Callable[[Text, str], np.ndarray]:
    """Return what computes a text alone, with transformers."""
    model, tokenizer = AutoModel.from_pretrained(repository), AutoTokenizer.from_pretrained(repository)

    def compute(text: Text, pooling: str) -> np.ndarray:
        # In lists, because transformers takes an empty second text for none only outside of a list.
        texts = [[text]] if isinstance(text, str) else [[each] for each in text]
        with torch.inference_mode():
            outputs = model(**tokenizer(*texts, truncation=True, max_length=64, return_tensors="pt"))
        states = outputs.last_hidden_state[0]
        vectors = {"mean": states.mean(0), "cls": states[0], "pooler": outputs.pooler_output[0], "none": states}
        return vectors[pooling].numpy()

    return compute


def assert_close(
    found: Sequence[np.ndarray] | np.ndarray, expected: Sequence[np.ndarray], tolerance: float = 1e-5
) -> None:
    """Compare vectors, relative to the largest value of each text."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == np.float32
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_vectors_are_those_of_one_text_at_a_time(
    repository: Path, alone: Callable[[Text, str], np.ndarray], pooling: Any
) -> None:
    embedder = Embedder(repository, pooling=pooling, device="cpu", batch_tokens=200)
    for texts in (MANY, PAIRS):
        assert_close(embedder.encode(texts), [alone(text, pooling) for text in texts])


def test_vectors_of_a_preset_are_those_of_keras_hub(keras_preset: KerasPreset) -> None:
    found = Embedder(keras_preset.folder, pooling="pooler", device="cpu", max_length=40).encode(TEXTS)
    assert_close(found, list(keras_preset.outputs["pooled_output"]))


def test_every_layout_has_the_same_vectors(preset: Path, tmp_path: Path) -> None:
    expected = Embedder(preset, device="cpu").encode(MANY)
    for layout in ("albert_hub", "transformers"):
        convert(preset, tmp_path / layout, to=layout)  # type: ignore[arg-type]
        assert_close(Embedder(tmp_path / layout, device="cpu").encode(MANY), list(expected))


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_defaults_are_those_of_sentence_transformers(preset: Path, tmp_path: Path, pooling: Any) -> None:
    folder = tmp_path / "repository"
    convert(preset, folder, to="transformers", sentence_transformers=pooling)
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    settings |= {"prompts": {"query": "a bridge: "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20, "do_lower_case": False}))
    modules = json.loads((folder / "modules.json").read_text())
    kind = "sentence_transformers.sentence_transformer.modules.normalize.Normalize"
    (folder / "modules.json").write_text(json.dumps([*modules, {"idx": 2, "name": "2", "path": "", "type": kind}]))

    embedder = Embedder(folder, device="cpu")
    found = embedder.settings
    assert (found.pooling, found.normalize, found.prompt, found.max_length) == (pooling, True, "a bridge: ", 20)
    assert_close(embedder.encode(MANY), list(SentenceTransformer(str(folder), device="cpu").encode(MANY)))
    other = Embedder(folder, device="cpu", pooling="none", prompt="", max_length=30).settings
    assert (other.pooling, other.normalize, other.prompt, other.max_length) == ("none", False, "", 30)


def test_another_pooling_of_sentence_transformers_is_refused(preset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    convert(preset, folder, to="transformers", sentence_transformers="mean")
    (folder / "1_Pooling/config.json").write_text(json.dumps({"embedding_dimension": 32, "pooling_mode": "max"}))
    with pytest.raises(SourceError, match=r"another pooling than mean and cls .*pooling max.*--pooling mean"):
        Embedder(folder, device="cpu")
    assert Embedder(folder, device="cpu", pooling="mean").settings.pooling == "mean"


def test_a_prompt_that_pooling_leaves_out_is_refused(preset: Path, tmp_path: Path) -> None:
    """sentence-transformers does not pool the tokens of the prompt, if `include_prompt` is false."""
    folder = tmp_path / "repository"
    convert(preset, folder, to="transformers", sentence_transformers="mean")
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    settings |= {"prompts": {"query": "a bridge: "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    pooling = json.loads((folder / "1_Pooling/config.json").read_text())
    (folder / "1_Pooling/config.json").write_text(json.dumps({**pooling, "include_prompt": False}))
    for prompt in (None, "another: "):
        with pytest.raises(SourceError, match="pooling without the tokens of the prompt"):
            Embedder(folder, device="cpu", prompt=prompt)
    without = SentenceTransformer(str(folder), device="cpu").encode(MANY, prompt="")
    assert_close(Embedder(folder, device="cpu", prompt="").encode(MANY), list(without))
    assert Embedder(folder, device="cpu", pooling="mean").settings.prompt == "a bridge: "


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompts": ["a"]}', r"prompts +expected texts by name, found \['a'\]"),
        ('{"prompts": {"query": 1, "passage": null}}', "prompts.query +expected a text, found 1"),
        ('{"prompts": {}, "default_prompt_name": []}', "default_prompt_name +expected the name of a prompt or null"),
        (
            '{"prompts": {"query": "q"}, "default_prompt_name": "passage"}',
            "unknown +default_prompt_name +expected one of query, found 'passage'",
        ),
        ("{", "expected an object in UTF-8"),
        ("[]", "expected an object, found list"),
    ],
)
def test_wrong_prompts_of_sentence_transformers_are_refused(
    content: str, message: str, vocabulary: bytes, tmp_path: Path
) -> None:
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary)
    write_checkpoint(checkpoint, tmp_path, "transformers", sentence_transformers="mean")
    (tmp_path / "config_sentence_transformers.json").write_text(content)
    with pytest.raises(ConfigurationError, match=message) as caught:
        Embedder(tmp_path, device="cpu")
    assert len(caught.value.problems) == 1


def test_what_cannot_be_computed_is_refused(repository: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ({"max_length": 65}, "max_length is at most 64"),
        ({"max_length": 0}, "max_length must be at least"),
        ({"threads": -1}, "threads must be at least 1, not -1"),
        ({"pooling": "max"}, "pooling must be one of mean, cls, pooler, none, not 'max'"),
        ({"pooling": "none", "normalize": True}, "normalize is for one vector"),
        ({"dtype": "int8"}, "dtype must be one of"),
        ({"device": "cuda"} if not torch.cuda.is_available() else {"device": "tpu"}, "no GPU|device must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            Embedder(repository, **arguments)  # type: ignore[arg-type]
    folder = tmp_path / "without-texts"
    folder.mkdir()
    write_checkpoint(random_checkpoint(SAMPLE_ARCHITECTURE), folder, "transformers")
    with pytest.raises(SourceError, match="has no vocabulary"):
        Embedder(folder)


def test_long_texts_are_cut_and_counted(repository: Path, alone: Callable[[Text, str], np.ndarray]) -> None:
    embedder = Embedder(repository, device="cpu")
    line = "if the rope is too short, "
    (found,) = embedder.encode_chunks([["a", line * 40_000, ("b", line * 100)]])
    assert list(found.truncated) == [1, 2]
    assert found.tokens == 3 + 2 * 64
    assert_close(found.vectors, [alone(text, "mean") for text in ("a", line * 100, ("b", line * 100))])


def test_normalized_vectors_have_length_one(repository: Path) -> None:
    plain = Embedder(repository, device="cpu").encode(CORPUS)
    found = Embedder(repository, device="cpu", normalize=True).encode(CORPUS)
    assert_close(found, list(plain / np.linalg.norm(plain, axis=1, keepdims=True)))


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.1), ("float16", 0.02)])
def test_other_dtypes_are_near(repository: Path, dtype: Any, tolerance: float) -> None:
    expected = Embedder(repository, device="cpu").encode(CORPUS)
    found = Embedder(repository, device="cpu", dtype=dtype).encode(CORPUS)
    assert_close(found, list(expected), tolerance)
    assert not np.array_equal(found, expected)


def test_one_text_is_no_list_of_texts(repository: Path) -> None:
    with pytest.raises(TypeError, match=r"encode takes a list of texts, not one text\. Pass encode\(\[text\]\)"):
        Embedder(repository, device="cpu").encode("a text")


def test_no_texts_give_no_vectors(repository: Path) -> None:
    assert Embedder(repository, device="cpu").encode([]).shape == (0, 32)
    assert Embedder(repository, device="cpu", pooling="none").encode([]) == []


def test_chunks_are_read_as_they_are_needed(repository: Path) -> None:
    """An input that is larger than memory streams: a few chunks are read ahead, and no more."""
    read = 0

    def chunks() -> Iterator[list[str]]:
        nonlocal read
        while True:
            read += 1
            yield ["a", "bridge"]

    vectors = Embedder(repository, device="cpu").encode_chunks(chunks())
    for number in range(1, 20):
        assert next(vectors).vectors.shape == (2, 32)
        assert read <= number + 3
        assert not torch.is_inference_mode_enabled()  # of the caller
    vectors.close()


def test_an_error_of_the_texts_reaches_the_caller(repository: Path) -> None:
    def chunks() -> Iterator[list[str]]:
        yield ["a"]
        raise OSError("the disk fails")

    vectors = Embedder(repository, device="cpu").encode_chunks(chunks())
    assert len(next(vectors).vectors) == 1
    with pytest.raises(OSError, match="the disk fails"):
        next(vectors)


def test_nobody_waits_for_texts_that_do_not_come(repository: Path) -> None:
    """A caller that stops does not wait for the thread that reads: a pipe may stay open forever."""
    is_read, may_go_on = Event(), Event()

    def chunks() -> Iterator[list[str]]:
        yield ["a"]
        is_read.set()
        may_go_on.wait(60)
        yield ["b"]

    vectors = Embedder(repository, device="cpu").encode_chunks(chunks())
    assert len(next(vectors).vectors) == 1
    assert is_read.wait(60)
    (reader,) = (thread for thread in enumerate_threads() if thread.name == "ahead")
    vectors.close()
    assert reader.is_alive()  # so nobody waited for it
    may_go_on.set()
    reader.join(60)
    assert not reader.is_alive()


def test_a_tokenizer_in_python_has_a_fingerprint(tmp_path: Path) -> None:
    encoder = load_model(random_checkpoint(SAMPLE_ARCHITECTURE))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]

    def found(name: str, pieces: Sequence[str] = pieces, **settings: Any) -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces))
        settings = {"word_tokenizer_type": "basic", "subword_tokenizer_type": "wordpiece", **settings}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return fingerprint(encoder, BertJapaneseTokenizer.from_pretrained(folder))

    first = found("first")
    assert len({first, found("piece", [*pieces, "c"]), found("setting", do_lower_case=True)}) == 3
    assert found("second", transformers_version="4.30.0", name_or_path="another") == first


def test_buckets_hold_every_text_once_and_waste_little() -> None:
    lengths = [int(length) for length in np.random.default_rng(3).integers(3, 512, 4000)]
    buckets = list(length_buckets(lengths, 4096))
    assert sorted(place for bucket in buckets for place in bucket) == list(range(4000))
    computed = [len(bucket) * max(lengths[place] for place in bucket) for bucket in buckets]
    assert max(computed) <= 4096
    assert sum(lengths) > 0.98 * sum(computed)
    assert list(length_buckets([600, 500], 512)) == [[0], [1]]  # a text that is longer than the budget is alone
