from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch

from albert_hub_bridge import AlbertHubModel, convert, inspect, verify
from albert_hub_bridge.disk import staging as staging_directories
from albert_hub_bridge.errors import AlbertHubBridgeError, TargetError, WeightsError
from albert_hub_bridge.layouts.hub import repository as hf_repository
from conversion.sample import write_sample_preset
from tests.conftest import KerasPreset


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    write_sample_preset(tmp_path / "sample")
    return tmp_path / "sample"


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("to", ["keras", "albert_hub", "transformers"])
def test_every_layout_passes_verify(to: Any, keras_preset: KerasPreset, tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    report = convert(keras_preset.folder, tmp_path / "target", to=to, progress=lambda *step: progress.append(step))
    assert (report.layout, report.source.layout) == (to, "keras")
    assert inspect(tmp_path / "target").layout == to
    assert progress == sorted(progress)
    assert len(progress) == 73
    assert progress[-1] == (report.source.bytes, report.source.bytes)
    verification = verify(keras_preset.folder, tmp_path / "target")
    assert verification.passed
    assert verification.max_abs_difference["sequence_output"] <= 1e-5
    assert verification.source_engine.startswith("keras_hub 0.")
    expected = {"keras": "keras_hub", "albert_hub": "AlbertHubModel", "transformers": " AlbertModel"}[to]
    assert expected in verification.target_engine


def test_keras_hub_computes_a_converted_repository(keras_preset: KerasPreset, tmp_path: Path) -> None:
    import keras_hub

    convert(keras_preset.folder, tmp_path / "transformers", to="transformers")
    convert(tmp_path / "transformers", tmp_path / "keras", to="keras")
    backbone = keras_hub.models.AlbertBackbone.from_preset(str(tmp_path / "keras"))
    for name, found in backbone.predict(keras_preset.inputs, verbose=0).items():
        np.testing.assert_allclose(np.asarray(found), keras_preset.outputs[name], atol=1e-5, rtol=0)
    assert verify(tmp_path / "transformers", tmp_path / "keras").passed


def test_existing_target_is_refused(sample: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "precious.txt").write_text("mine")
    with pytest.raises(TargetError, match=r"exists\. Pass --overwrite"):
        convert(sample, target, to="albert_hub")
    assert _tree(target) == {"precious.txt": b"mine"}
    with pytest.raises(TargetError, match="neither a preset nor a repository, and nothing else is replaced"):
        convert(sample, target, to="albert_hub", overwrite=True)
    assert _tree(target) == {"precious.txt": b"mine"}


def test_existing_repository_is_replaced_as_a_whole(sample: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    convert(sample, target, to="transformers")
    (target / "old.txt").write_text("old")
    (target / "flax_model.msgpack").write_text("{}")  # repositories have it, but nothing here writes it
    (target / ".git").mkdir()
    (target / ".git" / "HEAD").write_text("main")
    before = _tree(target)
    with pytest.raises(TargetError, match=r"has \.git/HEAD, flax_model\.msgpack, old\.txt, which nothing here writes"):
        convert(sample, target, to="keras", overwrite=True)
    assert _tree(target) == before
    (target / "old.txt").unlink()
    (target / "flax_model.msgpack").unlink()
    shutil.rmtree(target / ".git")
    convert(sample, target, to="keras", overwrite=True)
    assert _tree(target).keys() == _tree(sample).keys() | {"conversion.json", "README.md"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sample", "target"]


def test_target_around_the_source_is_refused(sample: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = _tree(tmp_path)
    with pytest.raises(TargetError, match=r"has sample/assets/tokenizer/vocabulary\.spm"):
        convert(sample, tmp_path, to="albert_hub", overwrite=True)
    assert _tree(tmp_path) == before


def test_current_folder_is_not_replaced(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(TargetError, match="the current folder"):
        convert(sample, ".", to="albert_hub")


def test_target_is_checked_before_the_source(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    with pytest.raises(TargetError):
        convert(tmp_path / "nowhere", tmp_path / "target", to="albert_hub")


@pytest.mark.parametrize("failing", [1, 2, 3])
@pytest.mark.parametrize("error", [OSError(5, "Input/output error", "target"), KeyboardInterrupt()])
def test_failed_move_restores_the_old_target(
    error: BaseException, failing: int, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(staging_directories, "_exchange", cannot)
    convert(sample, tmp_path / "target", to="albert_hub")
    before = _tree(tmp_path)
    rename, calls = os.rename, []

    def fail(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == failing:
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(type(error)):
        convert(sample, tmp_path / "target", to="transformers", overwrite=True)
    assert _tree(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sample", "target"]
    assert len(calls) == 2 * failing - 1
    convert(sample, tmp_path / "target", to="transformers", overwrite=True)
    assert inspect(tmp_path / "target").layout == "transformers"


def test_card_without_record_is_not_replaced(sample: Path, tmp_path: Path) -> None:
    convert(sample, tmp_path / "target", to="transformers")
    (tmp_path / "target" / "conversion.json").unlink()
    with pytest.raises(TargetError, match=r"has README\.md, which nothing here writes"):
        convert(sample, tmp_path / "target", to="transformers", overwrite=True)


def test_unknown_layout_is_refused(sample: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError,
        match=r"to must be one of keras, albert_hub, transformers, universal, not 'Kerras'\. Did you mean keras\?",
    ):
        convert(sample, tmp_path / "target", to="Kerras")  # type: ignore[arg-type]


def test_empty_target_is_filled(sample: Path, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    convert(sample, tmp_path / "target", to="transformers")
    assert inspect(tmp_path / "target").layout == "transformers"


@pytest.mark.parametrize("kind", ["file", "link", "no parent"])
def test_target_that_cannot_be_a_folder_is_refused(kind: str, sample: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    if kind == "file":
        target.write_text("mine")
    elif kind == "link":
        target.symlink_to(sample)
    else:
        target = tmp_path / "nowhere" / "target"
    before = _tree(tmp_path)
    with pytest.raises(TargetError):
        convert(sample, target, to="albert_hub", overwrite=True)
    assert _tree(tmp_path) == before


def test_folder_is_not_converted_in_place(sample: Path) -> None:
    before = _tree(sample)
    with pytest.raises(TargetError, match="is the source itself"):
        convert(sample, sample, to="albert_hub", overwrite=True)
    assert _tree(sample) == before


def test_failure_while_writing_changes_nothing(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(sample, tmp_path / "target", to="albert_hub")
    before = _tree(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hf_repository, "write_weights", full)
    for overwrite, target in ((True, tmp_path / "target"), (False, tmp_path / "other")):
        with pytest.raises(OSError, match="No space left"):
            convert(sample, target, to="transformers", overwrite=overwrite)
    assert _tree(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sample", "target"]


def test_wrong_source_writes_nothing(sample: Path, tmp_path: Path) -> None:
    with h5py.File(sample / "model.weights.h5", "r+") as file:
        del file["layers/dense/vars/0"]
    with pytest.raises(WeightsError, match=r"missing +layers/dense/vars/0"):
        convert(sample, tmp_path / "target", to="albert_hub")
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


def test_errors_are_one_tree() -> None:
    from albert_hub_bridge import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) == 12
    assert all(issubclass(kind, AlbertHubBridgeError) for kind in kinds)
    assert all(kind.__name__ in str(errors.__doc__) for kind in kinds)


def test_new_folder_follows_the_umask(sample: Path, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        convert(sample, tmp_path / "target", to="albert_hub")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "target").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "target" / "model.safetensors").stat().st_mode) == 0o640


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_all_values_that_are_not_finite_are_listed(value: float, dtype: str, sample: Path, tmp_path: Path) -> None:
    convert(sample, tmp_path / "transformers", to="transformers", dtype=dtype)
    tensors = safetensors.torch.load_file(tmp_path / "transformers" / "model.safetensors")
    tensors["albert.embeddings.LayerNorm.bias"][-1] = value
    tensors["albert.encoder.embedding_hidden_mapping_in.weight"][3, 4:6] = value
    safetensors.torch.save_file(tensors, tmp_path / "transformers" / "model.safetensors")
    for refused in (
        lambda: convert(tmp_path / "transformers", tmp_path / "target", to="keras"),
        lambda: convert(tmp_path / "transformers", tmp_path / "target", to="albert_hub", dtype="float32"),
        lambda: verify(tmp_path / "transformers", sample),
        lambda: AlbertHubModel.from_preset(tmp_path / "transformers"),
    ):
        with pytest.raises(WeightsError, match=r"not finite +albert\.\S+ +expected finite values, found") as error:
            refused()
        assert not (tmp_path / "target").exists()
    with pytest.raises(WeightsError) as error:
        convert(tmp_path / "transformers", tmp_path / "target", to="transformers")
    assert f"found 1 that are not, the first {value} at (15,)" in str(error.value)
    assert f"found 2 that are not, the first {value} at (3, 4)" in str(error.value)
    assert error.value.where == tmp_path / "transformers" / "model.safetensors"


def test_report_names_the_origin_of_the_text_normalization(sample: Path, tmp_path: Path) -> None:
    assert (
        convert(sample, tmp_path / "transformers", to="transformers").text_normalization_from
        == "KerasHub applies only the vocabulary's own"
    )
    assert (
        convert(sample, tmp_path / "repaired", to="transformers", normalize="uncased").text_normalization_from
        == "the option normalize"
    )

    def origin(folder: Path) -> str:
        vocabulary = inspect(folder).vocabulary
        assert vocabulary is not None
        return vocabulary.text_normalization_from

    assert origin(tmp_path / "repaired") == "tokenizer_config.json"
    convert(tmp_path / "repaired", tmp_path / "keras", to="keras")
    assert origin(tmp_path / "keras") == "the vocabulary itself"
    (tmp_path / "repaired" / "tokenizer_config.json").unlink()
    assert origin(tmp_path / "repaired") == "what AlbertTokenizer does by default; tokenizer_config.json does not say"
    (tmp_path / "repaired" / "spiece.model").unlink()
    assert origin(tmp_path / "repaired") == "tokenizer.json"
