"""The six models with a head: their losses, and the outputs of transformers' own classes with the same weights."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from transformers import AlbertConfig, pipeline

import albert_hub_bridge
from albert_hub_bridge import AlbertHubConfig, convert, inspect, verify
from albert_hub_bridge.checkpoint import Checkpoint
from albert_hub_bridge.errors import CheckpointError, ConfigurationError, WeightsError
from albert_hub_bridge.formats.lazy_tensors import DTYPES
from albert_hub_bridge.layouts.hub.repository import write_repository
from albert_hub_bridge.layouts.registry import read_checkpoint
from albert_hub_bridge.mapping.heads import HEADS, Head, HeadKind
from conversion.sample import SAMPLE_ARCHITECTURE, random_checkpoint
from tests.conftest import albert_arguments


KINDS: list[HeadKind] = list(HEADS)
# With dropout, a rate that is not applied in evaluation would show.
ARCHITECTURE = replace(SAMPLE_ARCHITECTURE, dropout=0.1)
IDS = torch.tensor([[2, 17, 33, 8, 250, 3], [2, 9, 3, 0, 0, 0]])
INPUTS = {
    "input_ids": IDS,
    "attention_mask": (IDS != 0).long(),
    "token_type_ids": torch.tensor([[0, 0, 0, 1, 1, 1]] * 2),
}
LABELS: dict[HeadKind, dict[str, torch.Tensor]] = {
    "masked_lm": {"labels": torch.where(IDS == 8, IDS, -100)},
    "pretraining": {"labels": torch.where(IDS == 8, IDS, -100), "sentence_order_label": torch.tensor([0, 1])},
    "sequence_classification": {"labels": torch.tensor([2, 0])},
    "token_classification": {"labels": torch.where(IDS > 3, IDS % 3, -100)},
    "multiple_choice": {"labels": torch.tensor([1])},
    "question_answering": {"start_positions": torch.tensor([1, 99]), "end_positions": torch.tensor([4, 1])},
}


def _checkpoint(kind: HeadKind, **options: Any) -> Checkpoint:
    labels = 3 if kind in ("sequence_classification", "token_classification") else 2
    return random_checkpoint(ARCHITECTURE, head=Head(kind=kind, num_labels=labels, **options))


@pytest.fixture
def albert_folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Return a repository of the head that the test is about, as transformers itself writes it."""
    kind: HeadKind = request.getfixturevalue("kind")
    torch.manual_seed(0)
    labels = 3 if kind in ("sequence_classification", "token_classification") else 2
    config = AlbertConfig(**albert_arguments(ARCHITECTURE), num_labels=labels)
    model = getattr(transformers, HEADS[kind].albert)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "transformers")
    return tmp_path / "transformers"


def _batch(kind: HeadKind) -> dict[str, torch.Tensor]:
    return {name: value.unsqueeze(0) for name, value in INPUTS.items()} if kind == "multiple_choice" else INPUTS


@pytest.mark.parametrize("kind", KINDS)
def test_every_head_computes_what_transformers_computes(kind: HeadKind, albert_folder: Path, tmp_path: Path) -> None:
    convert(albert_folder, tmp_path / "albert_hub", to="albert_hub")
    auto = getattr(transformers, HEADS[kind].auto)
    theirs, ours = (auto.from_pretrained(folder).double().eval() for folder in (albert_folder, tmp_path / "albert_hub"))
    assert type(ours) is getattr(albert_hub_bridge, HEADS[kind].albert_hub)
    expected, found = (model(**_batch(kind), **LABELS[kind], output_hidden_states=True) for model in (theirs, ours))
    assert set(found) == set(expected)
    assert found.loss is not None
    for name in set(expected) - {"hidden_states"}:
        # Where transformers computes in float64, some losses are computed in float32 here, or the other way round.
        torch.testing.assert_close(
            found[name].double(), expected[name].double(), atol=1e-6 if name == "loss" else 1e-10, rtol=0, msg=name
        )
    assert ours(**_batch(kind)).loss is None
    as_tuple = ours(**_batch(kind), return_dict=False)
    assert isinstance(as_tuple, tuple)
    torch.testing.assert_close(as_tuple[0], next(value for name, value in found.items() if "logits" in name))


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_reaches_every_parameter(kind: HeadKind, albert_folder: Path, tmp_path: Path) -> None:
    convert(albert_folder, tmp_path / "albert_hub", to="albert_hub")
    model = getattr(transformers, HEADS[kind].auto).from_pretrained(tmp_path / "albert_hub").train()
    model(**_batch(kind), **LABELS[kind]).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # Softmax cancels the key's bias; every choice, and both spans, add the same bias to all their scores.
        if not name.endswith(("key_dense.bias", "qa_outputs.bias")) and (kind, name) != (
            "multiple_choice",
            "classifier.bias",
        ):
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_is_converted_and_loaded_again(kind: HeadKind, tmp_path: Path) -> None:
    config = AlbertHubConfig(**albert_arguments(ARCHITECTURE), num_labels=2)
    model = getattr(albert_hub_bridge, HEADS[kind].albert_hub)(config)
    model.save_pretrained(tmp_path / "saved")
    report = convert(tmp_path / "saved", tmp_path / "again", to="albert_hub")
    assert report.head == inspect(tmp_path / "again").head is not None
    again, info = type(model).from_pretrained(tmp_path / "again", output_loading_info=True)
    assert not any(info.values()), info
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, atol=0, rtol=0)


def test_token_scores_are_tied_to_the_token_embedding(tmp_path: Path) -> None:
    model = albert_hub_bridge.AlbertHubForMaskedLM(AlbertHubConfig(**albert_arguments(ARCHITECTURE)))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    model.resize_token_embeddings(410)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model(**INPUTS).logits.shape == (2, 6, 410)
    model.save_pretrained(tmp_path)
    assert not inspect(tmp_path).dropped
    assert inspect(tmp_path).architecture.vocabulary_size == 410


@pytest.mark.parametrize(
    ("problem_type", "labels", "num_labels"),
    [
        ("regression", torch.tensor([0.5, -1.0]), 1),
        ("single_label_classification", torch.tensor([2, 0]), 3),
        ("multi_label_classification", torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]), 3),
    ],
)
def test_the_problem_type_chooses_the_loss(problem_type: str, labels: torch.Tensor, num_labels: int) -> None:
    torch.manual_seed(0)
    config = AlbertHubConfig(**albert_arguments(ARCHITECTURE), num_labels=num_labels)
    model = albert_hub_bridge.AlbertHubForSequenceClassification(config).eval()
    outputs = model(**INPUTS, labels=labels)
    logits = outputs.logits
    expected = {
        "regression": lambda: (logits.squeeze() - labels).square().mean(),
        "single_label_classification": lambda: -logits.log_softmax(-1)[torch.arange(2), labels.long()].mean(),
        "multi_label_classification": lambda: (
            -(
                labels * torch.nn.functional.logsigmoid(logits) + (1 - labels) * torch.nn.functional.logsigmoid(-logits)
            ).mean()
        ),
    }[problem_type]()
    torch.testing.assert_close(outputs.loss, expected)
    assert model.config.problem_type == problem_type


def test_a_span_has_two_ends() -> None:
    with pytest.raises(ValueError, match="num_labels must be 2, not 3"):
        albert_hub_bridge.AlbertHubForQuestionAnswering(AlbertHubConfig(num_labels=3))


def test_choices_need_ids_or_embeddings() -> None:
    model = albert_hub_bridge.AlbertHubForMultipleChoice(AlbertHubConfig(**albert_arguments(ARCHITECTURE)))
    with pytest.raises(ValueError, match="exactly one of input_ids and inputs_embeds"):
        model()


def test_classifiers_have_their_own_dropout() -> None:
    for rate, expected in ((0.3, 0.3), (None, 0.1)):
        config = AlbertHubConfig(**{**albert_arguments(ARCHITECTURE), "classifier_dropout_prob": rate})
        assert albert_hub_bridge.AlbertHubForSequenceClassification(config).classifier_dropout.p == expected


@pytest.mark.parametrize(
    ("task", "kind", "call", "key"),
    [
        ("fill-mask", "masked_lm", {"inputs": "a bridge [MASK] two banks"}, "token_str"),
        ("text-classification", "sequence_classification", {"inputs": "a bridge"}, "label"),
        ("token-classification", "token_classification", {"inputs": "a bridge joins"}, "entity"),
        (
            "zero-shot-classification",
            "sequence_classification",
            {"sequences": "a bridge", "candidate_labels": ["stone", "wood"]},
            "labels",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*Failed to determine 'entailment' label.*")
def test_pipelines_run(
    task: Any, kind: HeadKind, call: dict[str, Any], key: str, vocabulary: bytes, tmp_path: Path
) -> None:
    head = _checkpoint(kind, labels=("no", "maybe", "entailment") if "sequence" in kind else None).head
    write_repository(random_checkpoint(ARCHITECTURE, vocabulary, head=head), tmp_path, "albert_hub")
    results = pipeline(task, model=str(tmp_path), tokenizer=str(tmp_path))(**call)
    first = results[0] if isinstance(results, list) else results
    assert first[key] is not None
    if task == "text-classification":
        assert first[key] in ("no", "maybe", "entailment")


def test_the_pipeline_returns_probabilities_of_keras_hub(vocabulary: bytes, tmp_path: Path) -> None:
    """KerasHub's activation is part of its model, and of transformers' pipeline."""
    for activation in ("softmax", "sigmoid"):
        head = _checkpoint("sequence_classification", activation=activation).head
        write = tmp_path / activation
        for layout in ("albert_hub", "transformers"):
            (write / layout).mkdir(parents=True)
            write_repository(random_checkpoint(ARCHITECTURE, vocabulary, head=head), write / layout, layout)
            classify = pipeline(
                "text-classification", model=str(write / layout), tokenizer=str(write / layout), top_k=None
            )
            inputs = classify.tokenizer("a bridge", return_tensors="pt")
            logits = classify.model(**inputs).logits[0]
            expected = logits.softmax(-1) if activation == "softmax" else logits.sigmoid()
            found = {row["label"]: row["score"] for row in classify(["a bridge"])[0]}
            assert found == pytest.approx({f"LABEL_{index}": value.item() for index, value in enumerate(expected)})


# What is kept, refused and dropped.


@pytest.mark.parametrize("kind", ["masked_lm", "sequence_classification"])
@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_labels_and_settings_survive_every_layout(kind: HeadKind, dtype: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"dropout": 0.25, "activation": "sigmoid", "labels": ("bad", "so so", "good")}
    checkpoint = _checkpoint(kind, **(options if kind == "sequence_classification" else {}))
    folder = tmp_path / "0"
    folder.mkdir()
    write_repository(checkpoint.cast(dtype), folder, "albert_hub")
    for step, layout in enumerate(
        ("transformers", "keras", "albert_hub", "keras", "transformers", "albert_hub"), start=1
    ):
        convert(folder, tmp_path / str(step), to=layout)  # type: ignore[arg-type]
        folder = tmp_path / str(step)
    with read_checkpoint(folder) as end:
        assert end.head is not None
        assert (end.head.kind, end.dtype) == (kind, dtype)
        if kind == "sequence_classification":
            assert end.head == replace(checkpoint.head, problem_type="multi_label_classification")
        for name, weight in checkpoint.cast(dtype).weights.items():
            assert weight.read().tobytes() == end.weights[name].read().tobytes(), name


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"activation": "relu"}, "activation +expected 'gelu_pytorch_tanh', found 'relu'"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon +expected 1e-12, found 1e-06"),
        ({"attention_dropout": 0.3}, "attention_dropout +expected None, found 0.3"),
    ],
)
def test_heads_that_keras_hub_lacks(setting: dict[str, Any], reason: str, tmp_path: Path) -> None:
    architecture = replace(ARCHITECTURE, **setting)
    arguments = albert_arguments(ARCHITECTURE) | {
        "hidden_act": architecture.activation,
        "layer_norm_eps": architecture.layer_norm_epsilon,
        "attention_probs_dropout_prob": ARCHITECTURE.dropout
        if architecture.attention_dropout is None
        else architecture.attention_dropout,
    }
    model = transformers.AlbertModel(AlbertConfig(**arguments)).eval()
    model.save_pretrained(tmp_path / "transformers")
    with pytest.raises(ConfigurationError, match=reason):
        convert(tmp_path / "transformers", tmp_path / "keras", to="keras", drop_head=True)
    assert not (tmp_path / "keras").exists()
    convert(tmp_path / "transformers", tmp_path / "albert_hub", to="albert_hub")
    convert(tmp_path / "albert_hub", tmp_path / "back", to="transformers")
    with read_checkpoint(tmp_path / "back") as back:
        assert back.architecture == architecture
    ours = transformers.AutoModel.from_pretrained(tmp_path / "albert_hub").eval()
    for name, value in model(**INPUTS).items():
        torch.testing.assert_close(ours(**INPUTS)[name], value, atol=1e-5, rtol=0)
    rate = architecture.attention_dropout if architecture.attention_dropout is not None else ARCHITECTURE.dropout
    assert ours.transformer_layers[0][0].self_attention_layer.dropout == rate
    with pytest.raises(ConfigurationError, match=reason):
        albert_hub_bridge.AlbertBackbone.from_preset(tmp_path / "albert_hub")


@pytest.mark.parametrize("kind", ["sequence_classification"])
def test_a_head_without_tensors_is_refused(kind: HeadKind, albert_folder: Path, tmp_path: Path) -> None:
    file = albert_folder / "model.safetensors"
    tensors = {k: v for k, v in safetensors.torch.load_file(file).items() if not k.startswith("classifier")}
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    with pytest.raises(
        ConfigurationError,
        match=r"expected the tensors of the head of AlbertFor\w+, found those of: none\n.*--drop-head",
    ):
        convert(albert_folder, tmp_path / "albert_hub", to="albert_hub")
    assert convert(albert_folder, tmp_path / "albert_hub", to="albert_hub", drop_head=True).head is None
    tensors["qa_outputs.weight"], tensors["qa_outputs.bias"] = torch.zeros(2, 32), torch.zeros(2)
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ConfigurationError, match="found those of: question-answering head"):
        convert(albert_folder, tmp_path / "again", to="albert_hub")
    report = convert(albert_folder, tmp_path / "again", to="albert_hub", drop_head=True)
    assert report.head is None
    assert {tensor.name for tensor in report.dropped} == {"qa_outputs.weight", "qa_outputs.bias"}


@pytest.mark.parametrize("kind", ["sequence_classification"])
def test_numbers_of_labels_that_disagree_are_refused(kind: HeadKind, albert_folder: Path) -> None:
    config = json.loads((albert_folder / "config.json").read_text())
    for changes, error, message in (
        ({"num_labels": 4}, ConfigurationError, "num_labels +expected 3, as id2label has, found 4"),
        (
            {"id2label": {"0": "a", "2": "b", "3": "c"}},
            ConfigurationError,
            "id2label +expected a text for each of 0, 1",
        ),
        ({"id2label": {"0": "a"}}, WeightsError, r"classifier.weight +expected \(1, 32\), found \(3, 32\)"),
    ):
        (albert_folder / "config.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(error, match=message):
            inspect(albert_folder)


@pytest.mark.parametrize("kind", ["masked_lm", "pretraining"])
def test_the_bias_of_a_masked_lm_has_both_of_its_names(kind: HeadKind, albert_folder: Path) -> None:
    """transformers 4.46 takes the decoder's name alone, newer versions take the other one too."""
    ours = albert_folder.parent / "ours"
    convert(albert_folder, ours, to="transformers")
    file = ours / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    torch.testing.assert_close(tensors["predictions.decoder.bias"], tensors["predictions.bias"], rtol=0, atol=0)
    assert inspect(ours).dropped == ()
    tensors["predictions.decoder.bias"] += 1
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"not tied +predictions.decoder.bias"):
        inspect(ours)


@pytest.mark.parametrize("kind", ["masked_lm"])
def test_a_masked_lm_that_is_not_tied_is_refused(kind: HeadKind, albert_folder: Path) -> None:
    file = albert_folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors["predictions.decoder.weight"] = tensors["albert.embeddings.word_embeddings.weight"].clone()
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    assert [tensor.name for tensor in inspect(albert_folder).dropped] == ["predictions.decoder.weight"]
    tensors["predictions.decoder.weight"] += 1
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"not tied +predictions.decoder.weight"):
        inspect(albert_folder)
    report = convert(albert_folder, albert_folder.parent / "alone", to="keras", drop_head=True)
    assert report.head is None
    assert "predictions.decoder.weight" in {tensor.name for tensor in report.dropped}


@pytest.mark.parametrize("kind", ["sequence_classification"])
def test_labels_that_are_numbers_become_texts(kind: HeadKind, albert_folder: Path) -> None:
    config = json.loads((albert_folder / "config.json").read_text())
    (albert_folder / "config.json").write_text(json.dumps({**config, "id2label": {"0": 0, "1": 1, "2": 2}}))
    with read_checkpoint(albert_folder) as checkpoint:
        assert checkpoint.head is not None
        assert checkpoint.head.labels == ("0", "1", "2")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("to", ["albert_hub", "transformers"])
def test_transformers_opens_written_heads_without_a_warning(kind: HeadKind, to: Any, tmp_path: Path) -> None:
    """The classifier's dropout of None is the encoder's; nothing is missing, and nothing is left over but a pooler."""
    checkpoint = _checkpoint(kind, dropout=None)
    write_repository(checkpoint, tmp_path, to)
    auto = getattr(transformers, HEADS[kind].auto)
    model, info = auto.from_pretrained(tmp_path, output_loading_info=True)
    unexpected = set(info.pop("unexpected_keys"))
    without_pooler = to == "transformers" and kind in ("masked_lm", "token_classification", "question_answering")
    assert unexpected == ({"albert.pooler.weight", "albert.pooler.bias"} if without_pooler else set())
    assert not any(info.values()), info
    dropouts = [module.p for name, module in model.named_modules() if name in ("dropout", "classifier_dropout")]
    assert all(rate == ARCHITECTURE.dropout for rate in dropouts)


def test_the_effect_of_another_epsilon_is_measured(vocabulary: bytes, tmp_path: Path) -> None:
    from albert_hub_bridge.verification.sample_texts import SAMPLE_TEXTS

    (tmp_path / "albert_hub").mkdir()
    write_repository(
        random_checkpoint(ARCHITECTURE, vocabulary, head=_checkpoint("masked_lm").head),
        tmp_path / "albert_hub",
        "albert_hub",
    )
    report = convert(tmp_path / "albert_hub", tmp_path / "transformers", to="transformers")
    stated = [re.search(r"by up to (\S+)\.", note) for note in report.notes]
    measured = next(float(match[1]) for match in stated if match)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "albert_hub")
    inputs = tokenizer(list(SAMPLE_TEXTS), padding=True, truncation=True, return_tensors="pt")
    inputs["token_type_ids"] *= 0
    scores = []
    for layout in ("albert_hub", "transformers"):
        model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / layout).eval()
        with torch.no_grad():
            scores.append(model(**inputs).logits)
    found = (scores[0] - scores[1]).abs().max().item()
    assert measured > 1e-6
    assert 0.5 < measured / found < 2  # the report has half of its texts in the second segment


def test_a_task_that_contradicts_its_backbone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "albert_hub").mkdir()
    write_repository(_checkpoint("sequence_classification"), tmp_path / "albert_hub", "albert_hub")
    preset = tmp_path / "keras"
    convert(tmp_path / "albert_hub", preset, to="keras")
    task = json.loads((preset / "task.json").read_text())

    def refused(change: Any, message: str) -> None:
        changed = json.loads(json.dumps(task))
        change(changed)
        (preset / "task.json").write_text(json.dumps(changed))
        with pytest.raises(CheckpointError, match=message):
            inspect(preset)

    backbone = lambda content: content["config"]["backbone"]["config"]  # noqa: E731
    refused(lambda c: backbone(c).update(num_heads=2), "backbone.num_heads +expected 4 as in config.json, found 2")
    refused(lambda c: backbone(c).update(rotary=True), "unknown key +backbone.rotary")
    refused(
        lambda c: c["config"].update(activation="relu"),
        "activation +expected null, 'softmax' or 'sigmoid', found 'relu'",
    )
    refused(lambda c: c["config"].update(num_classes=4), r"expected \(32, 4\), found \(32, 3\)")
    refused(lambda c: c.update(class_name="AlbertCausalLM"), "unknown task +class_name +expected AlbertMaskedLM")
    refused(lambda c: c.update(labels=["a"]), "labels +expected a list of 3 texts")
    (preset / "task.json").unlink()
    with pytest.raises(ConfigurationError, match=r"missing +task.json +expected beside task.weights.h5"):
        inspect(preset)
    (preset / "task.json").write_text(json.dumps(task))
    (preset / "task.weights.h5").unlink()
    with pytest.raises(ConfigurationError, match=r"missing +task.weights.h5 +expected the weights of the head"):
        inspect(preset)
    assert convert(preset, tmp_path / "alone", to="transformers", drop_head=True).head is None


@pytest.mark.parametrize(
    ("kind", "options", "field"),
    [
        ("sequence_classification", {"problem_type": "regression"}, "problem_type"),
        ("multiple_choice", {"dropout": 0.5}, "classifier_dropout"),
    ],
)
def test_verify_compares_settings_of_heads(kind: HeadKind, options: dict[str, Any], field: str, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder, changes in zip(folders, ({}, options), strict=True):
        folder.mkdir()
        write_repository(_checkpoint(kind, **changes), folder, "albert_hub")
    report = verify(*folders)
    assert set(report.different_fields) == {field}
    assert not report.passed
    assert verify(folders[0], folders[0]).passed


def test_verify_compares_masked_lms_with_one_epsilon(vocabulary: bytes, tmp_path: Path) -> None:
    (tmp_path / "albert_hub").mkdir()
    checkpoint = random_checkpoint(ARCHITECTURE, vocabulary, head=_checkpoint("masked_lm").head)
    write_repository(checkpoint, tmp_path / "albert_hub", "albert_hub")
    for layout in ("keras", "transformers"):
        convert(tmp_path / "albert_hub", tmp_path / layout, to=layout)  # type: ignore[arg-type]
    for one, other in (("keras", "transformers"), ("transformers", "keras"), ("albert_hub", "transformers")):
        report = verify(tmp_path / one, tmp_path / other)
        assert report.passed, report
        assert report.max_abs_difference["head_output"] < 1e-5
        assert "which the target's library requires; both sides were computed with 1e-05." in report.notes[0]
    report = verify(tmp_path / "albert_hub", tmp_path / "keras")
    assert report.passed
    assert not report.notes


def test_keras_hub_loads_a_task_with_labels(vocabulary: bytes, tmp_path: Path) -> None:
    import keras_hub

    head = _checkpoint("sequence_classification", labels=("a", "b", "c"), activation="softmax").head
    (tmp_path / "albert_hub").mkdir()
    write_repository(random_checkpoint(ARCHITECTURE, vocabulary, head=head), tmp_path / "albert_hub", "albert_hub")
    convert(tmp_path / "albert_hub", tmp_path / "keras", to="keras")
    classifier = keras_hub.models.TextClassifier.from_preset(str(tmp_path / "keras"))
    probabilities = classifier.predict(["a bridge joins two banks"], verbose=0)
    model = pipeline(
        "text-classification", model=str(tmp_path / "albert_hub"), tokenizer=str(tmp_path / "albert_hub"), top_k=None
    )
    found = {row["label"]: row["score"] for row in model(["a bridge joins two banks"])[0]}
    assert found == pytest.approx(dict(zip("abc", probabilities[0].tolist(), strict=True)), abs=1e-5)
