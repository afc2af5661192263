"""`verify` on right conversions: what the report says was compared, and what was not."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from albert_hub_bridge import convert, inspect, verify
from albert_hub_bridge.cli import app
from albert_hub_bridge.formats.lazy_tensors import DTYPES
from albert_hub_bridge.layouts.hub.repository import write_repository
from albert_hub_bridge.layouts.keras.preset import write_preset
from albert_hub_bridge.layouts.registry import read_checkpoint
from albert_hub_bridge.mapping.heads import Head
from albert_hub_bridge.mapping.weights import POOLER
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint
from tests.conftest import KerasPreset


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("to", ["keras", "transformers"])
def test_verify_rounds_the_source_like_the_target(
    dtype: str, to: Any, keras_preset: KerasPreset, tmp_path: Path
) -> None:
    convert(keras_preset.folder, tmp_path / "target", to=to, dtype=dtype)
    report = verify(keras_preset.folder, tmp_path / "target")
    assert report.passed, report
    assert f"after the source's values were float32 rounded to {dtype}" in report.checks["tensors"].summary
    assert report.source_engine.startswith("keras_hub")
    assert report.source_engine.endswith(f"its weights rounded to {dtype}")
    back = verify(tmp_path / "target", keras_preset.folder)
    assert not back.passed
    assert "values differ, the first at [0" in back.checks["tensors"].failures[0]
    convert(tmp_path / "target", tmp_path / "wide", to="albert_hub", dtype="float32")
    wide = verify(tmp_path / "target", tmp_path / "wide")
    assert wide.passed, wide
    assert f"{dtype} widened to float32" in wide.checks["tensors"].summary


def test_check_tensors_allows_only_a_pooler_of_zeros_on_one_side(vocabulary: bytes, tmp_path: Path) -> None:
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary, head=Head(kind="masked_lm"))
    weights = {name: weight for name, weight in checkpoint.weights.items() if name not in POOLER}
    (tmp_path / "transformers").mkdir()
    write_repository(replace(checkpoint, weights=weights), tmp_path / "transformers", "transformers")
    convert(tmp_path / "transformers", tmp_path / "keras", to="keras")
    report = verify(tmp_path / "transformers", tmp_path / "keras")
    assert report.passed, report
    assert report.checks["tensors"].not_measured == (
        "pooled_dense.weight: zeros on one side, absent on the other",
        "pooled_dense.bias: zeros on one side, absent on the other",
    )
    (tmp_path / "whole").mkdir()
    write_preset(checkpoint, tmp_path / "whole")
    report = verify(tmp_path / "whole", tmp_path / "transformers")
    assert report.checks["tensors"].failures == (
        "pooled_dense.bias: only in the source",
        "pooled_dense.weight: only in the source",
    )


def test_verify_reports_what_was_not_measured(
    keras_preset: KerasPreset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(keras_preset.folder, tmp_path / "albert_hub", to="albert_hub")
    assert not verify(keras_preset.folder, tmp_path / "albert_hub").checks["engines"].not_measured
    (tmp_path / "preset").mkdir()
    write_preset(random_checkpoint(SAMPLE_ARCHITECTURE), tmp_path / "preset")  # no dropout
    convert(tmp_path / "preset", tmp_path / "transformers", to="transformers")
    report = verify(tmp_path / "preset", tmp_path / "transformers")
    assert report.passed
    (padding,) = report.checks["engines"].not_measured
    assert padding.startswith("rows with only padding tokens: they differ by ")
    assert report.checks["texts"].not_measured == ("ids: neither side has a vocabulary",)
    assert report.checks["texts"].summary == "on generated ids"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    report = verify(tmp_path / "preset", tmp_path / "transformers")
    assert report.passed
    assert report.checks["engines"].not_measured == ("KerasHub: it was not used for either side",)


def test_check_texts_says_which_ids_the_outputs_were_computed_with(keras_preset: KerasPreset, tmp_path: Path) -> None:
    convert(keras_preset.folder, tmp_path / "target", to="albert_hub")
    check = verify(keras_preset.folder, tmp_path / "target").checks["texts"]
    assert (check.outcome, check.summary) == ("passed", "on 9 texts and 8 pairs, all with the same ids")
    settings = tmp_path / "target" / "tokenizer_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "do_lower_case": True}))
    check = verify(keras_preset.folder, tmp_path / "target").checks["texts"]
    assert (check.outcome, check.summary) == ("failed", "on 9 texts and 8 pairs, computed with the source's ids")
    assert "of 9 texts have different ids, the first is 'ALBERT shares" in check.failures[0]
    for name in ("spiece.model", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "target" / name).unlink()
    check = verify(tmp_path / "target", keras_preset.folder).checks["texts"]
    assert (check.summary, check.failures) == (
        "on 9 texts and 8 pairs, computed with the target's ids",
        ("only the target has a vocabulary",),
    )


def test_verify_dequantizes_an_int8_preset(unpacked: Any, tmp_path: Path) -> None:
    source = unpacked("keras_hub_int8_classifier")
    convert(source, tmp_path / "albert_hub", to="albert_hub")
    report = verify(source, tmp_path / "albert_hub")
    assert report.passed, report
    assert "after the source's values were int8 divided by its scales" in report.checks["tensors"].summary


def test_verify_command_names_each_failure_and_exits_with_1(keras_preset: KerasPreset, tmp_path: Path) -> None:
    target = tmp_path / "target"
    convert(keras_preset.folder, target, to="albert_hub")
    tensors = load_file(target / "model.safetensors")
    name = "transformer_layers.1.1.self_attention_layer.key_dense.bias"
    tensors[name][5] += 1
    save_file(tensors, target / "model.safetensors")
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, "activation": "gelu"}))
    result = CliRunner().invoke(app, ["verify", str(keras_preset.folder), str(target)])
    assert result.exit_code == 1
    for line in ("configuration  failed", "tensors        failed", "reference      failed", "texts          failed"):
        assert line in result.stdout
    text = " ".join(result.stdout.split())
    assert "activation: 'gelu_pytorch_tanh' in the source, 'gelu' in the target" in text
    assert f"{name}: 1 of 32 values differ, the first at [0, 5] of the source:" in text
    assert "FAILED: source and target differ. Failed checks: configuration, tensors, reference, " in text


def test_record_and_card_have_every_check(keras_preset: KerasPreset, tmp_path: Path) -> None:
    target = tmp_path / "target"
    convert(keras_preset.folder, target, to="transformers")
    assert CliRunner().invoke(app, ["verify", str(keras_preset.folder), str(target)]).exit_code == 0
    checks = json.loads((target / "conversion.json").read_text())["verification"]["checks"]
    assert list(checks) == ["configuration", "tensors", "reference", "engines", "texts"]
    assert {check["outcome"] for check in checks.values()} == {"passed"}
    assert 0 < checks["reference"]["value"] < checks["reference"]["limit"] == 1e-12
    assert 0 < checks["engines"]["value"] < checks["engines"]["limit"] == pytest.approx(1e-5)
    card = (target / "README.md").read_text()
    assert "| weights | equal; 73 tensors of 43,264 values, compared bit for bit |" in card
    for name in ("reference", "engines", "texts"):
        assert f"they differ by at most {checks[name]['absolute']:.1e}" in card
    assert "only padding" not in card


# The digests of all tensors in `conversion.json`.


def _digests(folder: Path) -> dict[str, str]:
    return dict(json.loads((folder / "conversion.json").read_text())["target"]["tensors"])


def test_digests_are_the_same_in_every_layout(keras_preset: KerasPreset, tmp_path: Path) -> None:
    for layout in ("keras", "albert_hub", "transformers"):
        convert(keras_preset.folder, tmp_path / layout, to=layout)  # type: ignore[arg-type]
    convert(tmp_path / "transformers", tmp_path / "sharded", to="keras", max_shard_size="40KB")
    digests = _digests(tmp_path / "albert_hub")
    for folder in ("keras", "transformers", "sharded"):
        assert _digests(tmp_path / folder) == digests
    tensors = load_file(tmp_path / "albert_hub" / "model.safetensors")
    assert set(tensors) == set(digests)
    for name, tensor in tensors.items():
        header = f"{name}\nfloat32\n{' '.join(str(size) for size in tensor.shape)}\n"
        assert digests[name] == hashlib.sha256(header.encode() + tensor.tobytes()).hexdigest()
    convert(keras_preset.folder, tmp_path / "half", to="albert_hub", dtype="bfloat16")
    assert not set(_digests(tmp_path / "half").values()) & set(digests.values())
    assert inspect(tmp_path / "half").dtype == "bfloat16"


def test_digests_are_of_the_written_values(vocabulary: bytes, tmp_path: Path) -> None:
    """The target has half precision, a head, and a pooler of zeros that the source does not have."""
    head = Head(kind="masked_lm")
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, vocabulary, "bfloat16", head=head)
    weights = {name: weight for name, weight in checkpoint.weights.items() if name not in POOLER}
    (tmp_path / "transformers").mkdir()
    write_repository(replace(checkpoint, weights=weights), tmp_path / "transformers", "transformers")
    convert(tmp_path / "transformers", tmp_path / "keras", to="keras")
    digests = _digests(tmp_path / "keras")
    with read_checkpoint(tmp_path / "keras") as written:
        assert set(digests) == set(written.weights) > set(weights)
        for name, weight in written.weights.items():
            values = np.ascontiguousarray(weight.read())
            assert values.dtype == DTYPES["bfloat16"]
            header = f"{name}\nbfloat16\n{' '.join(str(size) for size in values.shape)}\n"
            assert digests[name] == hashlib.sha256(header.encode() + values.tobytes()).hexdigest()
