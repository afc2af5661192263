"""How the models train with transformers' Trainer and with PEFT, and what torchao's integers cost afterwards."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, default_data_collator

import albert_hub_bridge
from albert_hub_bridge import (
    AlbertHubConfig,
    AlbertHubTokenizer,
)
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
FRAMES = ("{} is somewhere between", "in the morning she counted {}", "nobody who is in a hurry helps {}", "he said {}")


def _texts(number: int, seed: int) -> list[tuple[str, int]]:
    """Make texts that each name a thing of one topic, with the number of the topic; all topics are equally frequent."""
    chance = random.Random(seed)
    labels = [index % len(TOPICS) for index in range(number)]
    chance.shuffle(labels)
    return [(chance.choice(FRAMES).format(chance.choice(TOPICS[label])), label) for label in labels]


def test_an_epoch_of_trainer_learns_what_a_text_is_about(vocabulary_file: Path, tmp_path: Path) -> None:
    tokenizer = AlbertHubTokenizer(str(vocabulary_file))
    train, held_out = (
        [{**tokenizer(text), "labels": label} for text, label in _texts(number, seed)]
        for number, seed in ((960, 1), (120, 2))
    )
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
    assert losses[-1] < 0.3
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] < 0.3
    assert metrics["eval_accuracy"] > 0.9  # chance is a third


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
