"""How the models train with transformers' Trainer and with PEFT, and what torchao's integers cost afterwards."""

from __future__ import annotations

import copy
import gc
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import torchao.quantization
from transformers import (
    DataCollatorWithPadding,
    TorchAoConfig,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

import albert_hub_bridge
from albert_hub_bridge import AlbertHubConfig, AlbertHubTokenizer
from conversion.sample import SAMPLE_ARCHITECTURE


@pytest.fixture(autouse=True)
def _small_matters() -> Iterator[None]:
    """Compute on one core, as there is nothing to share in tensors this small; and hide what is there from gc.

    Trainer collects garbage whenever it starts, which takes most of the time with all libraries loaded.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(threads)


def _model(name: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    return getattr(albert_hub_bridge, name)(AlbertHubConfig(**{**asdict(SAMPLE_ARCHITECTURE), **changes}))


def _trainer(model: Any, folder: Path, rows: list[dict[str, Any]], arguments: dict[str, Any], **more: Any) -> Trainer:
    """Return a Trainer that leaves nothing behind and prints nothing."""
    quiet = {"report_to": "none", "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "seed": 0}
    return Trainer(
        model, TrainingArguments(output_dir=str(folder), **{**quiet, **arguments}), train_dataset=rows, **more
    )


# Trainer


TOPICS = (
    ("a river", "the boats", "the ferry", "the coast", "ice", "the island"),
    ("old maps", "the library", "numbers", "a reader", "the same text", "opinions"),
    ("bread", "the market", "tea", "3 €", "the tourists", "2.50 £"),
)
BEFORE = (
    "",
    "he said",
    "we measured",
    "in the morning",
    "nobody helps",
    "she counted",
    "a long road takes you to",
    "if",
)
AFTER = (
    "",
    "twice",
    "somewhere between",
    "in a hurry",
    "was too short",
    "and again the next day",
    "for a century",
    "!",
)


def _texts() -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Make texts to learn from and others to try, each with the number of the topic of the one thing that it names."""
    things = [(thing, topic) for topic, names in enumerate(TOPICS) for thing in names]
    texts = [(f"{one} {thing} {other}", topic) for thing, topic in things for one in BEFORE for other in AFTER]
    chance = random.Random(1)
    chance.shuffle(texts)
    return chance.choices(texts[100:], k=1600), texts[:100]


def test_an_epoch_of_trainer_learns_what_a_text_is_about(vocabulary_file: Path, tmp_path: Path) -> None:
    tokenizer = AlbertHubTokenizer(str(vocabulary_file))
    train, held_out = ([{**tokenizer(text), "labels": topic} for text, topic in texts] for texts in _texts())
    model = _model(
        "AlbertHubForSequenceClassification",
        num_labels=len(TOPICS),
        initializer_range=0.1,  # 0.02 is for widths of hundreds
        num_layers=2,
        num_groups=1,
        num_inner_repetitions=1,
        hidden_dim=64,
        embedding_dim=64,
        intermediate_dim=128,
    )
    trainer = _trainer(
        model,
        tmp_path,
        train,
        {"num_train_epochs": 1, "per_device_train_batch_size": 8, "learning_rate": 2e-3, "logging_steps": 20},
        eval_dataset=held_out,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda found: {"accuracy": np.mean(found.predictions.argmax(-1) == found.label_ids)},
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] > 0.9  # chance is log 3
    assert losses[-1] < losses[0] / 2
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] < losses[0] / 2
    assert metrics["eval_accuracy"] > 0.8  # chance is a third


def _rows(name: str, labels: Any) -> list[dict[str, Any]]:
    """Make four rows to learn from."""
    ids = torch.arange(4, 4 + 4 * 6).reshape(4, 6)
    tokens = torch.where(torch.arange(6) % 3 == 1, ids, -100)  # as many in each row
    if name == "AlbertHubForMultipleChoice":
        ids = ids[:, None].repeat(1, 3, 1) + torch.arange(3)[:, None]
    columns: dict[str, Any] = {"labels": tokens if labels is None else torch.tensor(labels)}
    if name == "AlbertHubForPreTraining":
        columns["sentence_order_label"] = torch.tensor([0, 1, 1, 0])
    if name == "AlbertHubForQuestionAnswering":
        columns = {"start_positions": torch.tensor([0, 1, 2, 3]), "end_positions": torch.tensor([5, 4, 3, 3])}
    return [{"input_ids": ids[row], **{key: value[row] for key, value in columns.items()}} for row in range(4)]


CASES: list[tuple[str, Any, dict[str, Any]]] = [
    ("MaskedLM", None, {}),
    ("PreTraining", None, {}),
    ("TokenClassification", None, {"num_labels": 30}),
    ("QuestionAnswering", None, {}),
    ("MultipleChoice", [0, 2, 1, 1], {}),
    ("SequenceClassification", [0, 1, 1, 0], {}),
    ("SequenceClassification", [0.5, -1.0, 2.0, 0.0], {"num_labels": 1}),
    ("SequenceClassification", [[0.5, 1.0], [2.0, 0.0], [1.0, 3.0], [0.0, 0.0]], {"problem_type": "regression"}),
    ("SequenceClassification", [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]], {}),
]


@pytest.mark.parametrize(("head", "labels", "changes"), CASES)
def test_accumulated_gradients_are_those_of_the_whole_batch(
    head: str, labels: Any, changes: dict[str, Any], tmp_path: Path
) -> None:
    name = f"AlbertHubFor{head}"
    rows, stepped, changes = _rows(name, labels), [], {**changes, "classifier_dropout": 0.0}
    for size in (4, 2, 1):
        model = _model(name, **changes)
        arguments = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 4 // size, "max_steps": 1}
        plain = {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0}  # the step is the gradient
        trainer = _trainer(model, tmp_path, rows, arguments | plain, data_collator=default_data_collator)
        loss = trainer.train().training_loss
        stepped.append({"loss": torch.tensor(loss)} | {key: value.detach() for key, value in model.named_parameters()})
    start = _model(name, **changes)
    with torch.no_grad():
        assert stepped[0].pop("loss") == pytest.approx(start(**default_data_collator(rows)).loss.item(), abs=1e-6)
    for found in stepped[1:]:
        for key, expected in stepped[0].items():
            torch.testing.assert_close(found[key], expected, msg=key, atol=1e-6, rtol=1e-5)
    moved = [key for key, value in start.named_parameters() if not torch.equal(value, stepped[0][key])]
    assert any("transformer_layers" in key for key in moved)


# PEFT


def _random(name: str, **changes: Any) -> Any:
    """Return a model whose biases and layer norms are not all alike, as after training."""
    model = _model(name, **changes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


CHOSEN = ("query_dense", "value_dense")
EVERY = (*CHOSEN, "key_dense", "output_dense", "feedforward_intermediate_dense", "feedforward_output_dense")
# What "all-linear" takes besides; not the classifier, which is trained as a whole, and not the decoder, which is tied.
OTHERS = {
    "SequenceClassification": {"backbone.embeddings_projection", "backbone.pooled_dense"},
    "MaskedLM": {"backbone.embeddings_projection", "masked_lm_head.intermediate_dense"},
}


@pytest.mark.parametrize("targets", [list(CHOSEN), "all-linear"], ids=["chosen", "all"])
@pytest.mark.parametrize("head", ["SequenceClassification", "MaskedLM"])
def test_lora_trains_nothing_else_and_merges_into_the_same(head: str, targets: Any, tmp_path: Path) -> None:
    name, classifies = f"AlbertHubFor{head}", head == "SequenceClassification"
    base = _random(name, classifier_dropout=0.0)
    before = {key: value.detach().clone() for key, value in base.named_parameters()}
    task = "SEQ_CLS" if classifies else None
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=16, target_modules=targets, task_type=task))
    every = targets == "all-linear"
    expected = {
        f"backbone.{key}"
        for key, module in base.backbone.named_modules()
        if key.startswith("transformer_layers.") and key.rpartition(".")[2] in (EVERY if every else CHOSEN)
    }
    assert len(expected) == 4 * (6 if every else 2)
    adapted = {key.partition(".lora_A")[0] for key, _ in base.named_parameters() if ".lora_A" in key}
    assert adapted == expected | (OTHERS[head] if every else set())

    rows = _rows(name, [0, 1, 1, 0] if classifies else None)
    trainer = _trainer(
        model,
        tmp_path / "trainer",
        rows,
        {"per_device_train_batch_size": 4, "num_train_epochs": 30, "learning_rate": 1e-2, "logging_steps": 1},
        data_collator=default_data_collator,
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.9 * losses[0]
    for key, value in model.named_parameters():
        if "lora_" not in key and "modules_to_save" not in key:
            plain = key.removeprefix("base_model.model.").replace(".base_layer", "").replace(".original_module", "")
            assert torch.equal(value, before[plain]), key

    inputs = {key: value for key, value in default_data_collator(rows).items() if key == "input_ids"}
    with torch.no_grad():
        trained = model.eval()(**inputs).logits
        assert not torch.allclose(trained, _random(name)(**inputs).logits, atol=1e-2)
        model.save_pretrained(tmp_path / "adapter")
        loaded = peft.PeftModel.from_pretrained(_random(name), tmp_path / "adapter").eval()
        torch.testing.assert_close(loaded(**inputs).logits, trained, atol=1e-6, rtol=0)
        merged = loaded.merge_and_unload()
        assert {key for key, _ in merged.named_parameters()} == set(before)
        torch.testing.assert_close(merged(**inputs).logits, trained, atol=1e-5, rtol=0)


def test_texts_of_a_batch_may_have_adapters_of_their_own() -> None:
    inputs = {
        "input_ids": torch.tensor([[2, 5, 6, 7, 3], [2, 8, 3, 0, 0], [2, 9, 4, 3, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]),
    }
    lora = peft.LoraConfig(r=4, target_modules=list(CHOSEN), init_lora_weights=False)
    model = peft.get_peft_model(_random("AlbertHubForSequenceClassification"), lora, "first")
    model.add_adapter("second", lora)
    model.eval()
    with torch.no_grad():
        found = model(**inputs, adapter_names=["first", "__base__", "second"]).logits
        alone = []
        for adapter in ("first", "second"):
            model.set_adapter(adapter)
            alone.append(model(**inputs).logits)
        with model.disable_adapter():
            base = model(**inputs).logits
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)
    assert not torch.allclose(alone[0], base, atol=1e-3)
    torch.testing.assert_close(found, torch.stack([alone[0][0], base[1], alone[1][2]]), atol=1e-5, rtol=0)


# torchao


def _bytes(model: torch.nn.Module) -> int:
    """Return the size of what a model's parameters hold, those that are tied counted once."""
    size = 0
    for parameter in model.parameters():
        held = parameter.__tensor_flatten__()[0] if hasattr(parameter, "__tensor_flatten__") else ()
        size += sum(getattr(parameter, name).nbytes for name in held) if held else parameter.nbytes
    return size


def _in_whole_numbers(model: Any) -> set[str]:
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and isinstance(module.weight, torchao.quantization.Int8Tensor)
    }


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM"])
def test_int8_weights_are_a_quarter_and_compute_nearly_the_same(head: str, tmp_path: Path) -> None:
    name = f"AlbertHub{head}"
    model = _random(name, hidden_dim=64, embedding_dim=32, intermediate_dim=256)
    model.save_pretrained(tmp_path / "float")
    ids = torch.randint(4, 400, (3, 20), generator=torch.Generator().manual_seed(0))
    inputs = {"input_ids": ids, "attention_mask": (torch.arange(20) < torch.tensor([[20], [9], [14]])).long()}
    settings = TorchAoConfig(torchao.quantization.Int8WeightOnlyConfig())
    quantized = type(model).from_pretrained(tmp_path / "float", quantization_config=settings).eval()
    linear = {key for key, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    assert _in_whole_numbers(quantized) == linear - {"masked_lm_head.decoder"}  # which is the token embedding

    # The only difference is that of the weights: half a step of 1/127 of the largest in a row.
    rounded = copy.deepcopy(model)
    for key in _in_whole_numbers(quantized):
        exact, whole = model.get_submodule(key).weight.detach(), quantized.get_submodule(key).weight.dequantize()
        assert ((whole - exact).abs() <= 0.501 / 127 * exact.abs().amax(1, keepdim=True)).all(), key
        rounded.get_submodule(key).weight.data = whole
    with torch.no_grad():
        found, same, exact = (each(**inputs)[0] for each in (quantized, rounded, model))
    torch.testing.assert_close(found, same, atol=1e-5 * float(same.abs().max()), rtol=0)
    assert 0 < (found - exact).norm() < 0.05 * exact.norm()
    weights = sum(model.get_submodule(key).weight.nbytes for key in _in_whole_numbers(quantized))
    assert _bytes(quantized) < _bytes(model) - 0.7 * weights  # a scale for each row besides

    quantized.save_pretrained(tmp_path / "int8")
    assert (tmp_path / "int8" / "model.safetensors").stat().st_size < 1.2 * _bytes(quantized)
    with torch.no_grad():
        assert torch.equal(type(model).from_pretrained(tmp_path / "int8").eval()(**inputs)[0], found)
        torchao.quantization.quantize_(model, torchao.quantization.Int8WeightOnlyConfig())
        torch.testing.assert_close(model(**inputs)[0], found, atol=0.05 * float(found.abs().max()), rtol=0)
