"""The heads: what each is called in every library, and what it needs of the encoder."""

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
    """A kind of head, and the class that has it in each library."""

    description: str
    keras: str  # empty where KerasHub has none
    task: str  # transformers' name of the task, from which all class names are made

    @property
    def albert_hub(self) -> str:
        """The class of this package."""
        return f"AlbertHubFor{self.task}"

    @property
    def albert(self) -> str:
        """The class of transformers."""
        return f"AlbertFor{self.task}"

    @property
    def auto(self) -> str:
        """The Auto class that finds either."""
        return f"AutoModelFor{self.task}"

    def name(self, dialect: Literal["keras", "albert_hub", "albert"]) -> str:
        """Return the class in a dialect."""
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

KERAS_EPSILON = 1e-5  # of the masked-LM head's layer norm: keras_hub/src/layers/modeling/masked_lm_head.py

# The loss, and the activation of transformers' pipeline, that go with KerasHub's activation of a classifier.
IMPLIED_PROBLEM_TYPES = {None: None, "softmax": "single_label_classification", "sigmoid": "multi_label_classification"}

ClassifierActivation = Literal["softmax", "sigmoid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What sits on the encoder.

    Args:
        kind: Which head it is.
        num_labels: Number of its scores; unused by the masked LM and by multiple choice, which has one a choice.
        labels: Their names, in order, or None where nobody named them.
        dropout: Rate before the classifier, in [0, 1); None for the encoder's rate.
        activation: What KerasHub's classifier does to its scores; None for nothing, which is all that others do.
        problem_type: transformers' name for the loss, or None.
        layer_norm_epsilon: Of the masked-LM head.
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
        """What it is, in words: "text classifier of 5 classes (softmax)"."""
        words = HEADS[self.kind].description
        if self.kind in ("sequence_classification", "token_classification"):
            words += f" of {self.num_labels} class{'es' if self.num_labels != 1 else ''}"
        return words + (f" ({self.activation})" if self.activation else "")

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the labels; transformers' `LABEL_0`, `LABEL_1`, ... where nobody named them."""
        return self.labels or tuple(f"LABEL_{index}" for index in range(self.num_labels))


def kind_of_class(name: str) -> HeadKind | None:
    """Tell which kind of head a class of any dialect has; None for others."""
    for kind, row in HEADS.items():
        if name and name in (row.keras, row.albert_hub, row.albert):
            return kind
    return None
