"""TensorFlow is the oracle: it and we read the same tensors from its checkpoints, bit for bit."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albert_hub_bridge.formats.lazy_tensors import DTYPES
from albert_hub_bridge.formats.tensor_bundle import read_bundle, read_index
from albert_hub_bridge.layouts.registry import read_checkpoint


OTHERS = ("int8", "uint8", "int16", "uint16", "uint32", "uint64", "complex64", "complex128")


@pytest.fixture(scope="module")
def tf() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    return tensorflow


def _tensors(tf: Any) -> dict[str, Any]:
    random = np.random.default_rng(11)
    normal = random.standard_normal
    return {
        "bert/pooler/dense/kernel": tf.constant(normal((8, 8)), tf.float32),
        "bert/pooler/dense/bias": tf.constant(normal(8), tf.float32),
        "a_flag": tf.constant(True),  # after it, nothing is aligned
        "a_scalar": tf.constant(2.5),
        "a_text": tf.constant(["a bridge", "", "joins two banks" * 20]),
        "an_empty_one": tf.zeros((0, 3)),
        "bfloat16": tf.cast(tf.constant(normal((3, 5, 2))), tf.bfloat16),
        "double": tf.constant(normal(4)),
        "float16": tf.constant(normal((1, 7)), tf.float16),
        "global_step": tf.constant(1 << 40, tf.int64),
        "integers": tf.constant([[1, -2], [3, 4]]),
        "large": tf.constant(normal((1500, 1000)), tf.float32),  # more than one block of the checksum
        "zeros": tf.zeros((4, 0)),
        **{f"zeros/{dtype}": tf.zeros((2, 3), dtype) for dtype in OTHERS},
    }


def _save(tf: Any, prefix: Path, tensors: Mapping[str, Any], slices: Mapping[str, str] | None = None) -> None:
    names = list(tensors)
    parts = [(slices or {}).get(name, "") for name in names]
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=names, shape_and_slices=parts, tensors=list(tensors.values()))


def _assert_same(tf: Any, prefix: Path, count: int) -> None:
    reader = tf.train.load_checkpoint(str(prefix))
    shapes, dtypes = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    found = read_bundle(prefix.with_name(f"{prefix.name}.index"))
    assert len(found) == count
    assert {name: list(each.shape) for name, each in found.items()} == shapes
    assert {name: each.dtype for name, each in found.items()} == {name: each.name for name, each in dtypes.items()}
    for name, variable in found.items():
        if variable.dtype in DTYPES:
            values, theirs = variable.load(), reader.get_tensor(name)
            assert isinstance(values, np.memmap)
            assert (values.shape, values.dtype) == (theirs.shape, theirs.dtype)
            assert values.tobytes() == theirs.tobytes(), name


def test_one_file_of_values_is_read(tf: Any, tmp_path: Path) -> None:
    tensors = _tensors(tf)
    _save(tf, tmp_path / "model.ckpt-best", tensors)
    _assert_same(tf, tmp_path / "model.ckpt-best", len(tensors))


def test_several_files_of_values_are_read(tf: Any, tmp_path: Path) -> None:
    tensors = _tensors(tf)
    parts = [tmp_path / "parts" / name for name in "abc"]
    for at, part in enumerate(parts):
        _save(tf, part, dict(list(tensors.items())[at::3]))
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(part) for part in parts], destination_prefix=str(tmp_path / "model.ckpt")
    )
    assert len(list(tmp_path.glob("model.ckpt.data-0000?-of-00003"))) == 3
    _assert_same(tf, tmp_path / "model.ckpt", len(tensors))


def test_several_blocks_of_names_are_read(tf: Any, tmp_path: Path) -> None:
    """TensorFlow begins another block of the index after 256 kB."""
    random = np.random.default_rng(12)
    tensors = {f"{random.bytes(60).hex()}/kernel": tf.constant(float(number)) for number in range(4000)}
    _save(tf, tmp_path / "many", tensors)
    assert (tmp_path / "many.index").stat().st_size > 500_000
    _assert_same(tf, tmp_path / "many", 4000)


def test_a_checkpoint_of_a_version_1_saver_is_read(tf: Any, tmp_path: Path) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        for name, shape in (("bert/a/kernel", (3, 4)), ("bert/a/kernel/adam_m", (3, 4)), ("bert/b/bias", (5,))):
            v1.get_variable(name, shape, initializer=v1.random_normal_initializer(seed=3))
        v1.train.get_or_create_global_step()
        session.run(v1.global_variables_initializer())
        v1.train.Saver(sharded=True).save(session, str(tmp_path / "model.ckpt"), global_step=7)
    _assert_same(tf, tmp_path / "model.ckpt-7", 4)


def test_a_partitioned_variable_is_refused(tf: Any, tmp_path: Path) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        partitioner = tf.compat.v1.fixed_size_partitioner(2)
        tf.compat.v1.get_variable("bert/embeddings/word_embeddings", (6, 4), partitioner=partitioner)
        tf.compat.v1.get_variable("bert/pooler/dense/bias", (4,))
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    with pytest.raises(ValueError, match=r"^bert/embeddings/word_embeddings in parts: a partitioned variable"):
        read_index(tmp_path / "model.ckpt.index")


def test_a_release_in_bfloat16_and_two_files_is_read(tf: Any, unpacked: Callable[[str], Path], tmp_path: Path) -> None:
    valid, folder = unpacked("google_classifier"), tmp_path / "release"
    shutil.copytree(valid, folder, ignore=shutil.ignore_patterns("model.ckpt*"))
    reader = tf.train.load_checkpoint(str(valid / "model.ckpt-best"))
    names = sorted(reader.get_variable_to_shape_map())
    values = {name: tf.constant(reader.get_tensor(name)) for name in names}
    values = {name: tf.cast(each, tf.bfloat16) if each.dtype == tf.float32 else each for name, each in values.items()}
    for part, some in (("one", names[::2]), ("two", names[1::2])):
        _save(tf, tmp_path / part, {name: values[name] for name in some})
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=[str(tmp_path / "one"), str(tmp_path / "two")],
        destination_prefix=str(folder / "model.ckpt-best"),
    )
    with read_checkpoint(valid) as before, read_checkpoint(folder) as after:
        assert after.dtype == "bfloat16"
        assert before.weights.keys() == after.weights.keys()
        assert before.dropped == after.dropped
        for name, weight in before.weights.items():
            assert np.array_equal(weight.read().astype(DTYPES["bfloat16"]), after.weights[name].read()), name
