"""What is exported to ONNX: names, shapes, stored weights, bytes; and that ONNX Runtime computes the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from albert_hub_bridge.errors import AlbertHubBridgeError
from albert_hub_bridge.mapping.heads import Head, HeadKind
from albert_hub_bridge.mapping.onnx_names import INPUTS
from albert_hub_bridge.runtime import onnx_export
from albert_hub_bridge.runtime.loading import load_model
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint


onnx = pytest.importorskip("onnx", reason="exporting to ONNX needs the extra 'onnx'")
onnxruntime = pytest.importorskip("onnxruntime", reason="exporting to ONNX needs the extra 'onnx'")
pytest.importorskip("onnxscript", reason="exporting to ONNX needs the extra 'onnx'")

# One group that all layers share, as the published checkpoints have it.
SHARED = replace(
    SAMPLE_ARCHITECTURE, num_layers=3, num_groups=1, num_inner_repetitions=1, hidden_dim=96, intermediate_dim=128
)


def _inputs(*shape: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(shape)
    mask = np.ones(shape, np.int64)
    mask[0, ..., shape[-1] // 2 + 1 :] = 0
    ids, segments = random.integers(0, 400, shape), random.integers(0, 2, shape)
    return dict(zip(INPUTS, (ids, mask, segments), strict=True))


def _session(content: bytes) -> Any:
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def test_shared_weights_are_stored_once_and_nothing_tells_where_it_was_made() -> None:
    checkpoint = random_checkpoint(SHARED, std=0.05)
    content = onnx_export.export_model(checkpoint)
    assert content == onnx_export.export_model(checkpoint)
    model = onnx.load_model_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", onnx_export.OPSET)]
    stored = sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer)
    assert stored < 1.01 * checkpoint.nbytes  # a few constants besides
    # Older versions of ONNX Runtime cannot quantize a model with the shapes of its weights.
    assert not {each.name for each in model.graph.value_info} & {each.name for each in model.graph.initializer}
    assert str(Path.cwd()).encode() not in content
    assert b".py" not in content
    quantized = onnx_export.quantize_model(content)
    assert len(quantized) < 0.6 * len(content)  # a small model is names to a large part
    matrices = [node for node in onnx.load_model_from_string(quantized).graph.node if node.op_type == "MatMulInteger"]
    assert len(matrices) == 6 * SHARED.num_layers + 1 + 1  # of each layer, the embeddings' projection, the pooler
    inputs = _inputs(3, 9)
    found, exact = (_session(each).run(None, inputs) for each in (quantized, content))
    for ours, theirs in zip(found, exact, strict=True):
        assert 0 < np.abs(ours - theirs).max() < 0.1 * np.abs(theirs).max()


OUTPUTS = {
    None: ["last_hidden_state", "pooler_output"],
    "masked_lm": ["logits"],
    "pretraining": ["logits", "sop_logits"],
    "sequence_classification": ["logits"],
    "token_classification": ["logits"],
    "multiple_choice": ["logits"],
    "question_answering": ["start_logits", "end_logits"],
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_every_head_has_the_names_of_optimum_and_any_shape(kind: HeadKind | None) -> None:
    head = Head(kind=kind, num_labels=2 if kind == "question_answering" else 3) if kind is not None else None
    checkpoint = random_checkpoint(SAMPLE_ARCHITECTURE, head=head)
    session = _session(onnx_export.export_model(checkpoint))
    axes = ["batch_size", *["num_choices"] * (kind == "multiple_choice"), "sequence_length"]
    assert {each.name: each.shape for each in session.get_inputs()} == dict.fromkeys(INPUTS, axes)
    assert [each.name for each in session.get_outputs()] == OUTPUTS[kind]
    model = load_model(checkpoint)
    for batch, length in ((1, 1), (3, 11), (5, 64)):
        inputs = _inputs(batch, *[2] * (kind == "multiple_choice"), length)
        with torch.inference_mode():
            expected = model(**{name: torch.from_numpy(array) for name, array in inputs.items()}).to_tuple()
        found = session.run(None, inputs)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(ours), theirs, atol=1e-5, rtol=1e-5)


def test_a_model_beyond_two_gigabytes_and_a_missing_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "MAX_BYTES", 1000)
    with pytest.raises(AlbertHubBridgeError, match="holds at most 2 GB, and the weights of random have 173,056 bytes"):
        onnx_export.export_model(random_checkpoint(SAMPLE_ARCHITECTURE))
    monkeypatch.setattr(onnx_export, "_NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(
        AlbertHubBridgeError, match=r"needs no_such_package. Run: pip install 'albert-hub-bridge\[onnx\]'"
    ):
        onnx_export.require_onnx()
