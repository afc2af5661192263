"""The heads: their names in every library, and their settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


HeadKind = Literal[
    "masked_lm",
    "pretraining",
    "sequence_classification",
    "token_classification",
    "multiple_choice",
    "question_answering",
]


@dataclass(frozen=True, slots=True)
class HeadClass:
    """A kind of head, and its class in each library."""

    description: str
    keras: str  # empty if KerasHub has no such class
    task: str  # transformers' name of the task, a part of all class names

    @property
    def albert_hub(self) -> str:
        """The class in this package."""
        return f"AlbertHubFor{self.task}"

    @property
    def albert(self) -> str:
        """The class in transformers."""
        return f"AlbertFor{self.task}"

    @property
    def auto(self) -> str:
        """The Auto class for both."""
        return f"AutoModelFor{self.task}"

    def name(self, dialect: Literal["keras", "albert_hub", "albert"]) -> str:
        """Return the name of the class in a dialect."""
        return getattr(self, dialect)  # type: ignore[no-any-return]


# fmt: off
HEADS: Mapping[HeadKind, HeadClass] = {
    "masked_lm":               HeadClass("masked-LM head",                     "AlbertMaskedLM",       "MaskedLM"),
    "pretraining":             HeadClass("masked-LM and sentence-order heads", "",                     "PreTraining"),
    "sequence_classification": HeadClass("text classifier",                    "AlbertTextClassifier", "SequenceClassification"),
    "token_classification":    HeadClass("token classifier",                   "",                     "TokenClassification"),
    "multiple_choice":         HeadClass("multiple-choice head",               "",                     "MultipleChoice"),
    "question_answering":      HeadClass("question-answering head",            "",                     "QuestionAnswering"),
}
# fmt: on

# The heads whose scores have names.
LABELED_HEADS: tuple[HeadKind, ...] = ("sequence_classification", "token_classification")
# Heads on the pooled output. The others read the states of all tokens.
NEED_POOLER: frozenset[HeadKind] = frozenset({"pretraining", "sequence_classification", "multiple_choice"})

KERAS_EPSILON = 1e-5  # layer norm of the masked-LM head. Source: keras_hub/src/layers/modeling/masked_lm_head.py

# The loss that follows from the activation of KerasHub's classifier. transformers' pipeline applies this activation.
IMPLIED_PROBLEM_TYPES = {None: None, "softmax": "single_label_classification", "sigmoid": "multi_label_classification"}

ClassifierActivation = Literal["softmax", "sigmoid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The head of a model.

    Args:
        kind: The kind of head.
        num_labels: Number of scores. The masked LM and multiple choice do not use it.
        labels: The names of the labels in order, or None.
        dropout: Rate before the classifier, in [0, 1); None for the rate of the encoder.
        activation: The activation of KerasHub's classifier, or None. Other libraries have none.
        problem_type: transformers' name of the loss, or None.
        layer_norm_epsilon: Epsilon of the masked-LM head's layer norm.
    """

    kind: HeadKind
    num_labels: int = 2
    labels: tuple[str, ...] | None = None
    dropout: float | None = 0.1
    activation: ClassifierActivation | None = None
    problem_type: str | None = None
    layer_norm_epsilon: float = KERAS_EPSILON

    @property
    def description(self) -> str:
        """A short description: "text classifier of 5 classes (softmax)"."""
        words = HEADS[self.kind].description
        if self.kind in LABELED_HEADS:
            words += f" of {self.num_labels} class{'es' if self.num_labels != 1 else ''}"
        return words + (f" ({self.activation})" if self.activation else "")

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the labels. The default is that of transformers: `LABEL_0`, `LABEL_1`, ..."""
        return self.labels or tuple(f"LABEL_{index}" for index in range(self.num_labels))


def kind_of_class(name: str) -> HeadKind | None:
    """Return the kind of head of a class in any dialect; None if it has no head."""
    for kind, row in HEADS.items():
        if name and name in (row.keras, row.albert_hub, row.albert):
            return kind
    return None
