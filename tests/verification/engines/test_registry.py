from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from albert_hub_bridge import convert
from albert_hub_bridge.errors import EngineError
from albert_hub_bridge.layouts.registry import read_checkpoint
from albert_hub_bridge.verification.engines.registry import open_engine
from albert_hub_bridge.verification.engines.transformers import TransformersEngine
from tests.conftest import KerasPreset


METHODS: dict[str, tuple[Any, ...]] = {
    "tokenize": (["a text"],),
    "encode": (["a text"], None, 8),
    "features": (["a text"], 8),
    "compute": ({},),
    "compute_in_float64": ({},),
    "hidden_states": ({},),
    "use_epsilon": (1e-5,),
    "round_weights": ("bfloat16",),
}


@pytest.mark.parametrize("method", METHODS)
def test_engine_methods_raise_engine_errors_that_name_the_folder(
    method: str, keras_preset: KerasPreset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise ZeroDivisionError("broken")

    convert(keras_preset.folder, tmp_path / "target", to="albert_hub")
    monkeypatch.setattr(TransformersEngine, method, fail)
    with read_checkpoint(tmp_path / "target") as checkpoint:
        engine = open_engine(checkpoint)
    with pytest.raises(EngineError, match="target fails in its own library: ZeroDivisionError: broken"):
        getattr(engine, method)(*METHODS[method])


def test_open_engine_rounds_the_weights_and_says_so(keras_preset: KerasPreset, tmp_path: Path) -> None:
    convert(keras_preset.folder, tmp_path / "target", to="albert_hub")
    with read_checkpoint(tmp_path / "target") as checkpoint:
        exact, rounded = open_engine(checkpoint), open_engine(checkpoint, rounded="bfloat16")
    assert rounded.name == f"{exact.name}, its weights rounded to bfloat16"
    outputs = [engine.compute(dict(keras_preset.inputs))["sequence_output"] for engine in (exact, rounded)]
    assert 1e-4 < abs(outputs[0] - outputs[1]).max() < 1
