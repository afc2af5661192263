"""Every format, written by the real library of its time: the target computes what the library computed.

`tests/fixtures/README.md` says who wrote what. Each fixture is converted to every layout that can hold it, and the
layout's own library computes what the writer recorded: within 1e-5 in float32, half-precision weights included, since
those are exact in float32.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from albert_hub_bridge import convert, verify
from albert_hub_bridge.errors import CheckpointError
from albert_hub_bridge.layouts.layout import ReadOptions
from albert_hub_bridge.layouts.registry import read_checkpoint
from albert_hub_bridge.mapping.heads import HEADS, HeadKind
from tests.conftest import FIXTURES, TEXTS


TOLERANCE = 1e-5

# name -> head
KERAS: dict[str, HeadKind | None] = {
    "keras_nlp_0_6_4": None,
    "keras_nlp_0_7_0": None,
    "keras_nlp_0_7_0_classifier": "sequence_classification",
    "keras_nlp_0_7_0_masked_lm": "masked_lm",
    "keras_nlp_0_9_3": None,
    "keras_nlp_0_9_3_classifier": "sequence_classification",
    "keras_nlp_0_12_1_classifier": "sequence_classification",
    "keras_nlp_0_15_1_masked_lm": "masked_lm",
    "keras_hub_0_18_1_classifier": "sequence_classification",
    "keras_hub_0_24_0_masked_lm": "masked_lm",
    "keras_hub_classifier": "sequence_classification",
    "keras_hub_classifier_sigmoid": "sequence_classification",
    "keras_hub_masked_lm": "masked_lm",
    "keras_hub_float16": None,
    "keras_hub_bfloat16": None,
    "keras_hub_bfloat16_classifier": "sequence_classification",
    "keras_hub_mixed_float16": None,
    "keras_hub_mixed_bfloat16": None,
    "keras_hub_sharded": None,
    "keras_hub_int8": None,
    "keras_hub_int8_classifier": "sequence_classification",
    "keras_hub_int8_masked_lm": "masked_lm",
    "keras_hub_lora_enabled": None,
}
TRANSFORMERS: dict[str, HeadKind | None] = {
    "transformers_model": None,
    "transformers_model_without_pooler": None,
    "transformers_masked_lm": "masked_lm",
    "transformers_pretraining": "pretraining",
    "transformers_sequence_classification": "sequence_classification",
    "transformers_token_classification": "token_classification",
    "transformers_question_answering": "question_answering",
    "transformers_multiple_choice": "multiple_choice",
    "transformers_sharded": "masked_lm",
    "transformers_bfloat16": "sequence_classification",
    "transformers_float16": None,
    "transformers_4_bin": None,
    "transformers_4_bin_masked_lm": "masked_lm",
    "transformers_4_bin_sharded": "pretraining",
    "transformers_4_safetensors": "sequence_classification",
    "transformers_4_tf": None,
    "transformers_4_tf_classifier": "sequence_classification",
    "transformers_4_tf_masked_lm": "masked_lm",
    "transformers_4_tf_pretraining": "pretraining",
    "transformers_4_tf_safetensors": "masked_lm",
    "transformers_4_tf_sharded": "masked_lm",
    "transformers_4_flax": None,
    "transformers_4_flax_classifier": "sequence_classification",
    "transformers_4_flax_masked_lm": "masked_lm",
    "transformers_4_flax_pretraining": "pretraining",
    "transformers_4_flax_sharded": "masked_lm",
    "transformers_2": None,
    "transformers_2_classifier": "sequence_classification",
    "transformers_2_masked_lm": "masked_lm",
    "transformers_2_tf_masked_lm": "masked_lm",
    "google_pretraining": "pretraining",
    "google_classifier": "sequence_classification",
    "google_tfhub_module": "pretraining",
    "google_tfhub_classifier": "sequence_classification",
}
ALL = {**KERAS, **TRANSFORMERS}
# transformers 2.2 wrote no architectures, and this classifier could also be one of tokens.
UNNAMED: dict[str, HeadKind] = {"transformers_2_classifier": "sequence_classification"}
# The masked LM's layer norm had KerasHub's epsilon in transformers' PyTorch code too, at first.
EPSILON_OF_KERAS = {*KERAS, "transformers_2_masked_lm"}
Source = Callable[[str], Path]


def test_every_fixture_is_tested() -> None:
    adapters = {"keras_hub_lora", "peft_model", "peft_model_every", "peft_classifier"}  # tests/lora/test_convert.py
    assert {path.stem for path in FIXTURES.glob("*.zip")} == {*ALL, *adapters}


@pytest.fixture
def source(unpacked: Source) -> Source:
    """Return what unpacks a fixture, without what no reader takes."""

    def unpack(name: str) -> Path:
        folder = unpacked(name)
        if name == "keras_nlp_0_6_4":
            # It had no presets to save; its tokenizer has the vocabulary inside, which is not read.
            (folder / "tokenizer.json").unlink(missing_ok=True)
        return folder

    return unpack


def _recorded(name: str) -> dict[str, np.ndarray]:
    """Return what a writer recorded; of a half-precision one, what it computed in float32 with the same weights."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        recorded = dict(file)
    exact = {key[8:]: value for key, value in recorded.items() if key.startswith("float32_")}
    rounded = {key for key in recorded if key.endswith(("output", "logits", "hidden_state"))} if exact else set()
    return {key: value for key, value in recorded.items() if key not in rounded} | exact


def _expected(recorded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what was computed, under one set of names."""
    if "start_logits" in recorded:
        recorded = {**recorded, "logits": np.stack((recorded["start_logits"], recorded["end_logits"]), -1)}
    names = {
        "sequence": ("sequence_output", "last_hidden_state"),
        "pooled": ("pooled_output", "pooler_output"),
        "head": ("output", "logits", "prediction_logits"),
        "order": ("sop_logits",),
        "log head": ("log_probabilities",),
        "log order": ("sentence_order_log_probabilities",),
    }
    return {ours: recorded[name] for ours, theirs in names.items() for name in theirs if name in recorded}


def _by_transformers(folder: Path, kind: HeadKind | None, recorded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Compute the recorded inputs with AutoModel and, for a head, with its AutoModelFor..., in float32."""
    twins = {
        "input_ids": ("input_ids", "token_ids"),
        "token_type_ids": ("token_type_ids", "segment_ids"),
        "attention_mask": ("attention_mask", "padding_mask", "input_mask"),
    }
    inputs = {
        name: torch.from_numpy(next(recorded[twin] for twin in names if twin in recorded)).long()
        for name, names in twins.items()
    }
    flat = {name: value.reshape(-1, value.shape[-1]) for name, value in inputs.items()}
    with torch.no_grad():
        encoded = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)(**flat)
        found = {"sequence": encoded.last_hidden_state, "pooled": encoded.pooler_output}
        if kind is not None:
            outputs = getattr(transformers, HEADS[kind].auto).from_pretrained(folder, dtype=torch.float32)(**inputs)
            found["head"] = {
                "pretraining": lambda: outputs.prediction_logits,
                "question_answering": lambda: torch.stack((outputs.start_logits, outputs.end_logits), -1),
            }.get(kind, lambda: outputs.logits)()
            if kind == "pretraining":
                found["order"] = outputs.sop_logits
                found["log order"] = outputs.sop_logits.log_softmax(-1)
    if "mask_positions" in recorded:
        rows = torch.arange(len(flat["input_ids"]))[:, None]
        found["head"] = found["head"][rows, torch.from_numpy(recorded["mask_positions"]).long()]
        found["log head"] = found["head"].log_softmax(-1)
    if (activation := json.loads((folder / "config.json").read_text()).get("classifier_activation")) is not None:
        found["head"] = found["head"].softmax(-1) if activation == "softmax" else found["head"].sigmoid()
    return {name: value.numpy() for name, value in found.items()}


def _by_keras_hub(folder: Path, recorded: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Compute the recorded inputs with the real keras_hub: the backbone, and the task where there is one."""
    import keras_hub

    twins = {
        "token_ids": ("token_ids", "input_ids"),
        "segment_ids": ("segment_ids", "token_type_ids"),
        "padding_mask": ("padding_mask", "attention_mask", "input_mask"),
    }
    inputs = {
        name: next(recorded[twin] for twin in names if twin in recorded).astype("int32")
        for name, names in twins.items()
    }
    inputs = {name: value.reshape(-1, value.shape[-1]) for name, value in inputs.items()}
    outputs = keras_hub.models.AlbertBackbone.from_preset(str(folder), dtype="float32").predict(inputs, verbose=0)
    found = {"sequence": outputs["sequence_output"], "pooled": outputs["pooled_output"]}
    if (folder / "task.json").is_file():
        class_name = json.loads((folder / "task.json").read_text())["class_name"]
        if class_name == "AlbertMaskedLM":
            inputs["mask_positions"] = recorded["mask_positions"]
        task = getattr(keras_hub.models, class_name).from_preset(str(folder), dtype="float32", preprocessor=None)
        found["head"] = task.predict(inputs, verbose=0)
    return {name: np.asarray(value) for name, value in found.items()}


def _assert_equal(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert "sequence" in expected or "head" in expected
    for name, value in expected.items():
        np.testing.assert_allclose(found[name].reshape(value.shape), value, atol=TOLERANCE, rtol=0, err_msg=name)


@pytest.mark.parametrize("name", ALL)
def test_the_albert_hub_layout_computes_what_the_writer_computed(name: str, source: Source, tmp_path: Path) -> None:
    recorded = _recorded(name)
    report = convert(source(name), tmp_path / "albert_hub", to="albert_hub", allow_pickle=True, head=UNNAMED.get(name))
    assert (report.head is None) == (ALL[name] is None)
    assert not [note for note in report.notes if "epsilon" in note]
    _assert_equal(_by_transformers(tmp_path / "albert_hub", ALL[name], recorded), _expected(recorded))


@pytest.mark.parametrize("name", ALL)
def test_the_transformers_layout_computes_what_the_writer_computed(name: str, source: Source, tmp_path: Path) -> None:
    recorded = _recorded(name)
    expected = _expected(recorded)
    report = convert(
        source(name), tmp_path / "transformers", to="transformers", allow_pickle=True, head=UNNAMED.get(name)
    )
    pooled = ALL[name] in (None, "sequence_classification", "pretraining", "multiple_choice")
    has_pooler = "The source has no pooler." not in report.notes
    assert any("has no pooler, and reports" in note for note in report.notes) == (has_pooler and not pooled)
    if (
        name in EPSILON_OF_KERAS and ALL[name] == "masked_lm"
    ):  # another epsilon in its layer norm, which the report measures
        assert [note for note in report.notes if "has epsilon 1e-05" in note and "it is 1e-12" in note]
        del expected["head"]
    _assert_equal(_by_transformers(tmp_path / "transformers", ALL[name], recorded), expected)


@pytest.mark.parametrize("name", ALL)
def test_keras_hub_computes_what_the_writer_computed(name: str, source: Source, tmp_path: Path) -> None:
    recorded, kind, theirs = _recorded(name), ALL[name], name not in EPSILON_OF_KERAS
    no_place = kind is not None and not HEADS[kind].keras
    if no_place:
        with pytest.raises(CheckpointError, match=r"KerasHub's ALBERT has no .*\n(.*\n)*.*drop_head"):
            convert(source(name), tmp_path / "keras", to="keras", allow_pickle=True)
    report = convert(
        source(name),
        tmp_path / "keras",
        to="keras",
        allow_pickle=True,
        drop_head=no_place,
        head=UNNAMED.get(name),
    )
    if name.startswith("transformers_") and name[13].isalpha():  # written by transformers 5
        assert [note for note in report.notes if "out of a text first, and begins a word after each" in note]
    if no_place:
        assert report.head == ("masked-LM head" if kind == "pretraining" else None)
        assert [tensor for tensor in report.dropped if tensor.reason == "unsupported by KerasHub"]
    expected, found = _expected(recorded), _by_keras_hub(tmp_path / "keras", recorded)
    if theirs and kind in ("masked_lm", "pretraining"):  # another epsilon, which the report measures
        assert [note for note in report.notes if "has epsilon 1e-12" in note and "it is 1e-05" in note]
    if theirs and kind != "sequence_classification":
        expected = {key: value for key, value in expected.items() if key in ("sequence", "pooled")}
    if any("pooled_output will be zeros" in note for note in report.notes):
        assert not found["pooled"].any()
        assert "pooled" not in expected
    for key, value in expected.items():
        np.testing.assert_allclose(found[key].reshape(value.shape), value, atol=TOLERANCE, rtol=0, err_msg=key)
    assert expected or kind == "masked_lm"


@pytest.mark.parametrize("name", [name for name in KERAS if "int8" in name])
def test_int8_is_dequantized_to_the_values_that_keras_computes(name: str, source: Source) -> None:
    with np.load(FIXTURES / f"{name}.npz") as file:
        theirs = {key: file[key] for key in file if key.startswith("dequantized/")}
    assert len(theirs) >= 28
    with read_checkpoint(source(name), ReadOptions(allow_pickle=True)) as checkpoint:
        ours = [checkpoint.read(rule, "keras") for rule in (*checkpoint.encoder_rules, *checkpoint.head_rules)]
    for key, value in theirs.items():
        assert any(value.shape == array.shape and np.array_equal(value, array) for array in ours), key


@pytest.mark.parametrize("name", ["keras_nlp_0_7_0", "keras_nlp_0_7_0_classifier"])
def test_the_dtype_policy_is_that_of_the_backbone(name: str, source: Source, tmp_path: Path) -> None:
    folder = shutil.copytree(source(name), tmp_path / name)
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    content["config"].get("backbone", content)["config"]["dtype"] = "mixed_bfloat16"
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    with read_checkpoint(folder) as checkpoint:
        assert [note for note in checkpoint.notes if "mixed_bfloat16 computes in bfloat16" in note]


@pytest.mark.parametrize("name", [name for name in ALL if name.endswith("float16")])
def test_half_precision_computes_the_same_but_for_its_rounding(name: str, source: Source, tmp_path: Path) -> None:
    with np.load(FIXTURES / f"{name}.npz") as file:
        recorded = dict(file)
    dtype = torch.float16 if "bfloat" not in name else torch.bfloat16
    convert(
        source(name),
        tmp_path / "albert_hub",
        to="albert_hub",
        allow_pickle=True,
        dtype=str(dtype).removeprefix("torch."),
    )
    model = transformers.AutoModel.from_pretrained(tmp_path / "albert_hub")
    assert model.dtype == dtype
    keys = {"input_ids": "token_ids", "token_type_ids": "segment_ids", "attention_mask": "padding_mask"}
    inputs = {key: torch.from_numpy(recorded[key if key in recorded else twin]).long() for key, twin in keys.items()}
    with torch.no_grad():
        outputs = model(**inputs)
    expected = recorded.get("sequence_output", recorded.get("last_hidden_state"))
    # Eight layers round in another order on each side; each may be off by a unit in the last place.
    bound = 8 * torch.finfo(dtype).eps * np.abs(expected).max()
    np.testing.assert_allclose(outputs.last_hidden_state.float().numpy(), expected, atol=bound, rtol=0)


@pytest.mark.parametrize(
    "name",
    ["keras_hub_classifier_sigmoid", "keras_nlp_0_7_0_masked_lm", "keras_hub_int8_classifier", "google_classifier"],
)
def test_verify_compares_the_head_too(name: str, source: Source, tmp_path: Path) -> None:
    convert(source(name), tmp_path / "albert_hub", to="albert_hub", allow_pickle=True)
    if name != "keras_nlp_0_7_0_masked_lm":  # today's KerasHub does not load what keras-nlp wrote in one piece
        report = verify(source(name), tmp_path / "albert_hub", texts=TEXTS, allow_pickle=True)
        assert report.passed, report
        assert report.max_abs_difference["head_output"] <= TOLERANCE
    convert(tmp_path / "albert_hub", tmp_path / "keras", to="keras")
    report = verify(tmp_path / "albert_hub", tmp_path / "keras", texts=TEXTS)
    assert report.passed, report
    assert "keras_hub" in report.target_engine
    assert report.max_abs_difference["head_output"] <= TOLERANCE
