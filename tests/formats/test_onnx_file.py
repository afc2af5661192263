from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albert_hub_bridge.errors import FileError
from albert_hub_bridge.formats.onnx_file import read_onnx


onnx = pytest.importorskip("onnx", reason="ONNX files need the extra 'onnx'")


def _model(*nodes: Any) -> Any:
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(name, number, [1]) for name in ("x", "y")]
    weight = onnx.numpy_helper.from_array(np.ones(1, np.float32), "w")
    graph = helper.make_graph(
        list(nodes) or [helper.make_node("Add", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight]
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    )


def _with_external_data() -> Any:
    model = _model()
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "/etc/passwd")
    return model


def _with_external_constant() -> Any:
    tensor = onnx.numpy_helper.from_array(np.ones(1, np.float32), "c")
    onnx.external_data_helper.set_external_data(tensor, "../secret")
    return _model(onnx.helper.make_node("Constant", [], ["y"], value=tensor))


def _with_a_branch() -> Any:
    branch = _model().graph
    return _model(onnx.helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch))


def test_a_graph_that_needs_nothing_else_is_read(tmp_path: Path) -> None:
    content = _model().SerializeToString()
    (tmp_path / "model.onnx").write_bytes(content)
    assert read_onnx(tmp_path / "model.onnx") == content


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (_with_external_data, "external data of 'w'"),
        (_with_external_constant, "external data inside 'Constant'"),
        (_with_a_branch, "a graph or a sparse tensor inside 'If'"),
        (lambda: _model(onnx.helper.make_node("Mine", ["x"], ["y"], domain="evil.com")), "an operator of 'evil.com'"),
    ],
)
def test_what_no_export_has_is_refused(make: Any, found: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(make().SerializeToString())
    with pytest.raises(FileError, match=re.escape(f"expected a graph that needs nothing else, found {found}")) as error:
        read_onnx(tmp_path / "model.onnx")
    assert "albert-hub-bridge export-onnx FOLDER --overwrite" in str(error.value)


def test_other_content_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(FileError, match="expected an ONNX model, found"):
        read_onnx(tmp_path / "model.onnx")
