"""Google's files under the names that people give them, TF-Hub modules, and heads that no library has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albert_hub_bridge import convert, inspect, verify
from albert_hub_bridge.checkpoint import DROPPED_HEAD, DROPPED_UNKNOWN
from albert_hub_bridge.errors import SourceError, WeightsError
from albert_hub_bridge.layouts.layout import ReadOptions
from albert_hub_bridge.layouts.registry import read_checkpoint


Unpacked = Callable[[str], Path]
BEST = "model.ckpt-best"


@pytest.fixture
def release(unpacked: Unpacked, tmp_path: Path) -> Path:
    """Return a copy of a fine-tuned classifier."""
    return Path(shutil.copytree(unpacked("google_classifier"), tmp_path / "release"))


@pytest.fixture
def module(unpacked: Unpacked, tmp_path: Path) -> Path:
    """Return a copy of a TF-Hub module."""
    return Path(shutil.copytree(unpacked("google_tfhub_module"), tmp_path / "module"))


def _copy(folder: Path, name: str, *, move: bool = False) -> None:
    """Give a second name to the checkpoint of a release, or another one."""
    for file in list(folder.glob(f"{BEST}.*")):
        other = folder / file.name.replace(BEST, name)
        _ = shutil.move(file, other) if move else shutil.copy(file, other)


def _refusal(folder: Path) -> str:
    with pytest.raises(SourceError) as refusal:
        inspect(folder)
    message = str(refusal.value)
    assert message.startswith(str(folder))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ["bert_model.ckpt", "model.ckpt-1234", "albert_model"])
def test_a_checkpoint_may_have_any_name(name: str, release: Path) -> None:
    _copy(release, name, move=True)
    assert inspect(release).head == "text classifier of 3 classes"


@pytest.mark.parametrize("name", ["albert_config_tiny_g.json", "albert_config_base.json", "config.json"])
def test_a_configuration_may_have_other_names(name: str, release: Path) -> None:
    (release / "albert_config.json").rename(release / name)
    report = inspect(release)
    assert report.layout == "google"
    assert report.head == "text classifier of 3 classes"


def test_of_several_checkpoints_the_best_one_is_read(release: Path) -> None:
    _copy(release, "model.ckpt-10")
    (release / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-10"\n')
    assert f"Of 2 checkpoints, {BEST}.index was read, the best one, by its name." in inspect(release).notes


@pytest.mark.parametrize("path", ["model.ckpt-20", "/home/user/model.ckpt-20", "gs://bucket/model.ckpt-20"])
def test_of_several_checkpoints_the_one_that_tensorflow_names_is_read(path: str, release: Path) -> None:
    for name in ("model.ckpt-10", "model.ckpt-20", "model.ckpt-30"):
        _copy(release, name)
    _copy(release, "model.ckpt-0", move=True)
    (release / "checkpoint").write_text(f'model_checkpoint_path: "{path}"\nall_model_checkpoint_paths: "{path}"\n')
    for file in release.glob("model.ckpt-30.*"):
        file.write_bytes(b"not read")
    report = inspect(release)
    assert "Of 4 checkpoints, model.ckpt-20.index was read, which the file checkpoint names." in report.notes


@pytest.mark.parametrize("content", [None, 'model_checkpoint_path: "model.ckpt-99"', "model_checkpoint_path: x"])
def test_several_checkpoints_without_a_name_are_refused(content: str | None, release: Path) -> None:
    _copy(release, "model.ckpt-10")
    _copy(release, "model.ckpt-20", move=True)
    if content is not None:
        (release / "checkpoint").write_text(content)
    message = _refusal(release)
    assert "has several checkpoints: model.ckpt-10.index, model.ckpt-20.index. Leave the files of one" in message
    (release / "checkpoint").write_text(message.partition("as TensorFlow does: ")[2])  # what the message says
    assert inspect(release).head == "text classifier of 3 classes"


def test_a_missing_configuration_is_named(release: Path) -> None:
    (release / "albert_config.json").unlink()
    message = _refusal(release)
    assert f"has no albert_config.json, which says what the variables of {BEST}.index are." in message


def test_several_configurations_are_refused(release: Path) -> None:
    for name in ("base", "large"):
        shutil.copy(release / "albert_config.json", release / f"albert_config_{name}.json")
    assert inspect(release).layout == "google"  # albert_config.json itself is the one
    (release / "albert_config.json").unlink()
    expected = "has several configurations: albert_config_base.json, albert_config_large.json. Rename the right one"
    assert expected in _refusal(release)


def test_a_missing_index_is_named(release: Path) -> None:
    (release / f"{BEST}.index").unlink()
    assert f"expected {BEST}.index, found {BEST}.data-00000-of-00001 alone." in _refusal(release)


def test_missing_values_are_named(release: Path) -> None:
    (release / f"{BEST}.data-00000-of-00001").unlink()
    with pytest.raises(WeightsError, match=rf"no {BEST}\.data-00000-of-00001 in its folder"):
        inspect(release)


def test_a_vocabulary_by_its_usual_name_comes_first(release: Path) -> None:
    (release / "other.model").write_bytes(b"no vocabulary")
    assert inspect(release).vocabulary is not None
    (release / "30k-clean.model").rename(release / "one.model")
    (note,) = [note for note in inspect(release).notes if "no tokenizer" in note]
    assert "Expected one SentencePiece model, such as 30k-clean.model, found one.model, other.model" in note


def test_a_chinese_release_says_what_to_do_with_its_vocabulary(release: Path, tmp_path: Path) -> None:
    import transformers

    (release / "30k-clean.model").unlink()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##b"]
    (release / "vocab_chinese.txt").write_text("\n".join(pieces))
    report = convert(release, tmp_path / "target", to="transformers")
    (note,) = [note for note in report.notes if "no tokenizer" in note]
    assert "here vocab_chinese.txt" in note
    assert "Copy it into the result as vocab.txt, and load it by transformers' BertTokenizer." in note
    shutil.copy(release / "vocab_chinese.txt", tmp_path / "target" / "vocab.txt")
    tokenizer = transformers.BertTokenizer.from_pretrained(tmp_path / "target")
    assert tokenizer("A bb")["input_ids"] == [2, 5, 6, 7, 3]


def test_a_repository_with_a_checkpoint_beside_it_stays_a_repository(unpacked: Unpacked, tmp_path: Path) -> None:
    folder = shutil.copytree(unpacked("transformers_masked_lm"), tmp_path / "repository")
    for file in unpacked("google_pretraining").iterdir():
        shutil.copy(file, folder)
    assert inspect(folder).layout == "transformers"


def test_a_module_is_verified(module: Path, tmp_path: Path) -> None:
    convert(module, tmp_path / "target", to="transformers")
    assert verify(module, tmp_path / "target").passed
    assert not [note for note in inspect(module).notes if "not converted" in note]


def test_a_module_needs_its_configuration(module: Path) -> None:
    (module / "assets" / "albert_config.json").rename(module / "albert_config.json")
    assert inspect(module).head == "masked-LM and sentence-order heads"
    (module / "albert_config.json").unlink()
    assert "has no albert_config.json, which says what the variables of variables/variables.index" in _refusal(module)


def test_a_module_without_variables_is_refused(module: Path) -> None:
    shutil.rmtree(module / "variables")
    assert "expected model.ckpt-best.index or another .index, found none." in _refusal(module)


@pytest.mark.parametrize("name", ["variables/variables.index", "variables/variables.data-00000-of-00001"])
def test_the_variables_of_a_module_are_its_own(name: str, module: Path, tmp_path: Path) -> None:
    shutil.move(module / name, tmp_path / "outside")
    (module / name).symlink_to(tmp_path / "outside")
    with pytest.raises(Exception, match=r"expected a regular file of this folder, found a link to .*outside of it"):
        inspect(module)


def test_the_folder_of_variables_is_its_own(module: Path, tmp_path: Path) -> None:
    shutil.move(module / "variables", tmp_path / "outside")
    (module / "variables").symlink_to(tmp_path / "outside")
    with pytest.raises(Exception, match=r"expected a regular file of this folder, found a link to .*outside of it"):
        inspect(module)


def test_fine_tuning_from_a_module_leaves_heads_that_are_named(unpacked: Unpacked, tmp_path: Path) -> None:
    report = convert(unpacked("google_tfhub_classifier"), tmp_path / "target", to="albert_hub")
    unused = [each for each in report.dropped if "which the fine-tuned model does not use" in each.reason]
    assert len(unused) == 7
    assert {each.name.partition(".")[0] for each in unused} == {"predictions", "sop_classifier"}


def _save_with_tensorflow_2(folder: Path, *, as_module: bool) -> None:
    import tensorflow as tf

    model = tf.Module()
    model.embeddings = tf.Variable(np.zeros((9, 4), "float32"))
    if as_module:
        tf.saved_model.save(model, str(folder))
    else:
        tf.train.Checkpoint(model=model).write(str(folder / "bert_model.ckpt"))


@pytest.mark.parametrize("as_module", [True, False])
@pytest.mark.parametrize("has_configuration", [True, False])
def test_a_checkpoint_of_tensorflow_2_is_refused(
    as_module: bool, has_configuration: bool, release: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "of_tensorflow_2"
    folder.mkdir()
    _save_with_tensorflow_2(folder, as_module=as_module)
    if has_configuration:
        shutil.copy(release / "albert_config.json", folder)
    message = _refusal(folder)
    assert message.startswith(str(folder / ("variables/variables.index" if as_module else "bert_model.ckpt.index")))
    assert "is an object-based checkpoint of TensorFlow 2" in message
    assert "https://storage.googleapis.com/albert_models/albert_base_v2.tar.gz" in message


def test_a_config_json_of_something_else_stays_what_it_is(release: Path) -> None:
    content = json.loads((release / "albert_config.json").read_text())
    (release / "albert_config.json").unlink()
    (release / "config.json").write_text(json.dumps({**content, "model_type": "bert"}))
    with pytest.raises(SourceError, match="describes something else"):
        inspect(release)


# Google's squad_utils.py (v2): the answer's start, its end given the start, and whether there is one. Hidden size 8.
SQUAD_2 = {
    "start_logits/dense/kernel": (8, 1),
    "start_logits/dense/bias": (1,),
    "end_logits/dense_0/kernel": (16, 8),
    "end_logits/dense_0/bias": (8,),
    "end_logits/LayerNorm/gamma": (8,),
    "end_logits/LayerNorm/beta": (8,),
    "end_logits/dense_1/kernel": (8, 1),
    "end_logits/dense_1/bias": (1,),
    "answer_class/dense_0/kernel": (16, 8),
    "answer_class/dense_0/bias": (8,),
    "answer_class/dense_1/kernel": (8, 1),
}


def _save_with(release: Path, more: dict[str, tuple[int, ...]], without: tuple[str, ...] = ()) -> None:
    """Let TensorFlow 1 save the variables of a release again, with more of them."""
    import tensorflow.compat.v1 as tf

    reader = tf.train.load_checkpoint(str(release / BEST))
    shapes = reader.get_variable_to_shape_map()
    random = np.random.default_rng(7)
    values = {name: reader.get_tensor(name) for name in shapes if name not in without}
    values |= {name: random.normal(size=shape).astype("float32") for name, shape in more.items()}
    with tf.Graph().as_default(), tf.Session() as session:
        variables = [tf.get_variable(name, initializer=value, use_resource=False) for name, value in values.items()]
        session.run(tf.variables_initializer(variables))
        tf.train.Saver(variables).save(session, str(release / BEST), write_meta_graph=False)


def _weights(folder: Path, **options: Any) -> dict[str, np.ndarray]:
    with read_checkpoint(folder, ReadOptions(**options)) as checkpoint:
        return {name: weight.load().copy() for name, weight in checkpoint.weights.items()}


def test_squad_2_is_refused_and_its_encoder_converted(release: Path, tmp_path: Path) -> None:
    encoder = {name: value for name, value in _weights(release).items() if not name.startswith("classifier")}
    _save_with(release, SQUAD_2, without=("output_weights", "output_bias"))
    with pytest.raises(WeightsError, match=r"found that of SQuAD 2 \(11 variables\)\nPass --drop-head"):
        convert(release, tmp_path / "target", to="transformers")
    assert not (tmp_path / "target").exists()
    for to in ("keras", "transformers", "albert_hub"):
        report = convert(release, tmp_path / to, to=to, drop_head=True)
        assert report.head is None
        assert sorted(each.reason for each in report.dropped if each.reason == DROPPED_HEAD) == [DROPPED_HEAD] * 11
        found = _weights(tmp_path / to)
        assert found.keys() == encoder.keys()
        assert all(np.array_equal(found[name], value) for name, value in encoder.items())
    assert verify(release, tmp_path / "keras").passed


def test_variables_that_no_albert_has_are_named(release: Path, tmp_path: Path) -> None:
    before = _weights(release)
    _save_with(release, {"crf/transitions": (3, 3), "extra/kernel": (2, 5)})
    with pytest.raises(WeightsError, match=r"unexpected +crf.transitions .*\n(.*\n)*.*--drop-unknown NAME"):
        convert(release, tmp_path / "target", to="transformers")
    with pytest.raises(WeightsError, match=r"unexpected +extra.weight"):
        convert(release, tmp_path / "target", to="transformers", drop_unknown=["crf.transitions"])
    names = ["crf.transitions", "extra.weight"]
    report = convert(release, tmp_path / "target", to="transformers", drop_unknown=names)
    assert [each.name for each in report.dropped if each.reason == DROPPED_UNKNOWN] == names
    found = _weights(tmp_path / "target")
    assert all(np.array_equal(found[name], value) for name, value in before.items())
    assert verify(release, tmp_path / "target").passed
    with pytest.raises(WeightsError, match=r"needed +pooler.weight .*one of its own"):
        convert(release, tmp_path / "other", to="transformers", drop_unknown=[*names, "pooler.weight"])


SQUAD_2_TRIAL = Path(__file__).parents[4] / "shared" / "trials" / "google_squad2"


@pytest.mark.skipif(not SQUAD_2_TRIAL.is_dir(), reason="the folder shared/trials is not here")
def test_a_checkpoint_of_googles_own_code_has_these_variables() -> None:
    with pytest.raises(WeightsError, match=r"found that of SQuAD 2 \(11 variables\)"):
        inspect(SQUAD_2_TRIAL / "repo")
    with read_checkpoint(SQUAD_2_TRIAL / "repo", ReadOptions(drop_head=True)) as checkpoint:
        dropped = {each.name for each in checkpoint.dropped if each.reason == DROPPED_HEAD}
    assert len(dropped) == len(SQUAD_2)
