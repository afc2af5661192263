from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from albert_hub_bridge import convert, export_onnx, verify
from albert_hub_bridge.commands.recording import record_verification
from albert_hub_bridge.errors import AlbertHubBridgeError, SourceError, TargetError
from albert_hub_bridge.mapping.onnx_names import ONNX_FILES


for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package, reason="exporting to ONNX needs the extra 'onnx'")

FLOAT, INT8 = ONNX_FILES.values()


@pytest.fixture(scope="module")
def repository(preset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx") / "repository"
    report = convert(preset, folder, to="transformers", onnx=True, quantize="int8")
    assert report.onnx is not None
    assert [each.file for each in report.onnx.files] == [FLOAT, INT8]
    return folder


def test_convert_records_onnx_files_and_verify_computes_them(preset: Path, repository: Path) -> None:
    record = json.loads((repository / "conversion.json").read_text())
    assert record["command"].endswith("--to transformers --onnx --quantize int8")
    assert {FLOAT, INT8} <= set(record["target"]["files"])
    assert [(each["file"], each["precision"], each["opset"]) for each in record["onnx"]] == [
        (FLOAT, "float32", 18),
        (INT8, "int8", 18),
    ]
    report = verify(preset, repository)
    assert report.passed
    assert report.checks["onnx"].value is not None
    assert 0 < report.checks["onnx"].value < 1e-5
    assert "the quantization changes sequence_output by up to" in report.checks["onnx int8"].summary
    assert record_verification(repository, report, preset) == "recorded"
    card = ModelCard.load(repository / "README.md").content
    assert f"- `{INT8}`: int8, opset 18, from `input_ids`" in card
    assert 'await pipeline("feature-extraction", "repository", { dtype: "fp32" });' in card
    assert f"| outputs of `{INT8}` | its rounded weights change them by " in card


def test_a_file_of_another_model_is_found(preset: Path, repository: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    convert(preset, other, to="transformers")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-4000:] = weights[-8000:-4000]
    (other / "model.safetensors").write_bytes(weights)
    (other / "conversion.json").unlink()
    for name in (FLOAT, INT8):
        (other / name).parent.mkdir(exist_ok=True)
        (other / name).write_bytes((repository / name).read_bytes())
    assert {"onnx"} <= set(verify(other, other).failed_checks)
    (other / FLOAT).write_bytes(b"\n\x00" + bytes(100))
    with pytest.raises(AlbertHubBridgeError, match=r"model\.onnx"):
        verify(other, other)


def test_export_adds_files_to_a_folder_and_its_record(preset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    convert(preset, folder, to="albert_hub")
    assert record_verification(folder, verify(preset, folder), preset) == "recorded"
    export_onnx(folder, quantize="int8")
    record = json.loads((folder / "conversion.json").read_text())
    assert {FLOAT, INT8} <= set(record["target"]["files"])
    assert f"| outputs of `{INT8}` | not compared: run verify again |" in (folder / "README.md").read_text()
    with pytest.raises(TargetError, match=r"has onnx/model.onnx, onnx/model_quantized.onnx. Pass --overwrite"):
        export_onnx(folder)
    export_onnx(folder, overwrite=True)
    assert not (folder / INT8).exists()
    assert INT8 not in json.loads((folder / "conversion.json").read_text())["target"]["files"]
    assert record_verification(folder, verify(preset, folder), preset) == "recorded"


def test_wrong_folders_and_options_are_refused_and_stay(preset: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="There is no folder nowhere"):
        export_onnx("nowhere")
    with pytest.raises(SourceError, match="is no Hub repository, and only those have ONNX files"):
        export_onnx(preset)
    with pytest.raises(ValueError, match="quantize must be one of None, int8, not 'int4'"):
        export_onnx(preset, quantize="int4")  # type: ignore[arg-type]
    with pytest.raises(TargetError, match="KerasHub presets have no ONNX files"):
        convert(preset, tmp_path / "keras", to="keras", onnx=True)
    with pytest.raises(TargetError, match="Only ONNX files are quantized"):
        convert(preset, tmp_path / "other", to="transformers", quantize="int8")
    convert(preset, tmp_path / "changed", to="transformers")
    config = tmp_path / "changed" / "config.json"
    config.write_text(config.read_text() + "\n")
    with pytest.raises(TargetError, match=r"was changed since its conversion: config.json \(changed\)"):
        export_onnx(tmp_path / "changed")
    assert not (tmp_path / "changed" / "onnx").exists()
    assert [each.name for each in tmp_path.iterdir()] == ["changed"]
