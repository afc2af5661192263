"""Model classes as transformers' common tests need them: a tester for our classes and for transformers' ALBERT."""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from transformers import AutoModelForMaskedLM
from transformers.models.auto import modeling_auto
from transformers_tests import test_fsdp_mixin, test_tensor_parallel_mixin
from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_modeling_common import ModelTesterMixin, ids_tensor, random_attention_mask
from transformers_tests.test_training_mixin import TrainingTesterMixin


# Under transformers' names, which both configurations take.
SIZES = {
    "vocab_size": 41,  # no two processes hold as much of it
    "embedding_size": 16,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 64,
}

MAPPINGS = {
    "": "MODEL_MAPPING_NAMES",
    "ForMaskedLM": "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "ForMultipleChoice": "MODEL_FOR_MULTIPLE_CHOICE_MAPPING_NAMES",
    "ForPreTraining": "MODEL_FOR_PRETRAINING_MAPPING_NAMES",
    "ForQuestionAnswering": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "ForSequenceClassification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "ForTokenClassification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
}


class Tester:
    """What the common tests call a model tester: a small configuration, and inputs for it."""

    is_training = True
    batch_size = 3
    seq_length = 7
    num_choices = 4
    sequence_classification_class = None

    def __init__(self, config_class: type, masked_lm_class: type, sharing: dict[str, int]) -> None:
        self.config_class = config_class
        self.causal_lm_class = masked_lm_class  # the common tests' word for what scores every token
        self.changes = sharing
        for name, value in SIZES.items():
            setattr(self, name, value)

    def get_config(self) -> Any:
        return self.config_class(**{**SIZES, **self.changes})

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        shape = [self.batch_size, self.seq_length]
        inputs = {
            "input_ids": ids_tensor(shape, SIZES["vocab_size"]),
            "token_type_ids": ids_tensor(shape, 2),
            "attention_mask": random_attention_mask(shape),
        }
        return self.get_config(), inputs


class Tests:
    """What the tests of one family share; subclasses say which. `all_model_classes` has the base model first."""

    config_class: type
    masked_lm_class: type
    all_model_classes: tuple[type, ...]
    sharing: dict[str, int] = {}  # groups and inner layers
    model_tester = None

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.addClassCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)  # there is nothing to share in tensors this small

    @classmethod
    def patch(cls, patch: Any) -> None:
        """Apply a patch until the tests of this class are over."""
        patch.start()
        cls.addClassCleanup(patch.stop)

    def setUp(self) -> None:
        super().setUp()
        self.model_tester = Tester(self.config_class, self.masked_lm_class, self.sharing)


class Family(Tests, ModelTesterMixin, TrainingTesterMixin):
    """One process: every common test of models, and what each class returns."""

    training_overfit_learning_rate = 5e-3  # their own is for larger models
    training_overfit_log_freq = 300

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        # The tests tell heads apart by the names of the classes that come with transformers.
        model_type, prefix = cls.config_class.model_type, cls.all_model_classes[0].__name__.removesuffix("Model")
        for model_class in cls.all_model_classes:
            head = model_class.__name__.removeprefix(prefix)
            names = getattr(modeling_auto, MAPPINGS["" if head == "Model" else head])
            cls.patch(mock.patch.dict(names, {model_type: model_class.__name__}))

    def _prepare_for_class(self, inputs: dict[str, Any], model_class: type, return_labels: bool = False) -> Any:
        inputs = super()._prepare_for_class(inputs, model_class, return_labels)
        if return_labels and model_class.__name__.endswith("ForPreTraining"):
            inputs["labels"] = torch.zeros_like(inputs["input_ids"])
            inputs["sentence_order_label"] = torch.zeros_like(inputs["input_ids"][:, 0])
        return inputs

    def test_config(self) -> None:
        width = self.config_class.attribute_map.get("hidden_size", "hidden_size")
        ConfigTester(self, config_class=self.config_class, **{width: 36}).run_common_tests()

    def test_shapes_of_outputs(self) -> None:
        sizes = (self.model_tester.batch_size, self.model_tester.seq_length)
        shapes = {
            "last_hidden_state": (*sizes, SIZES["hidden_size"]),
            "pooler_output": (sizes[0], SIZES["hidden_size"]),
            "logits": {
                "ForMaskedLM": (*sizes, SIZES["vocab_size"]),
                "ForMultipleChoice": (sizes[0], self.model_tester.num_choices),
                "ForSequenceClassification": (sizes[0], 2),
                "ForTokenClassification": (*sizes, 2),
            },
            "prediction_logits": (*sizes, SIZES["vocab_size"]),
            "sop_logits": (sizes[0], 2),
            "start_logits": sizes,
            "end_logits": sizes,
            "loss": (),
        }
        for model_class in self.all_model_classes:
            config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
            inputs = self._prepare_for_class(inputs, model_class, return_labels=True)
            with self.subTest(model_class.__name__):
                for name, found in model_class(config)(**inputs).items():
                    expected = shapes[name]
                    if isinstance(expected, dict):
                        expected = next(
                            shape for head, shape in expected.items() if model_class.__name__.endswith(head)
                        )
                    assert tuple(found.shape) == expected, name


class Distributed(Tests, test_tensor_parallel_mixin.TensorParallelTesterMixin, test_fsdp_mixin.FSDPTesterMixin):
    """Several processes: tensor parallelism, and data parallelism with cut parameters."""

    test_tp_generation = None  # ALBERT generates nothing
    test_tp_generation_quantized = None

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        # Models are picked for these tests by hand; None stands for all of them.
        cls.patch(mock.patch.object(test_tensor_parallel_mixin, "TP_DISTRIBUTED_TEST_MODEL_TYPES", None))
        cls.patch(mock.patch.object(test_fsdp_mixin, "FSDP_DISTRIBUTED_TEST_MODEL_TYPES", None))
        cls.patch(mock.patch.object(test_fsdp_mixin, "AutoModelForCausalLM", AutoModelForMaskedLM))

    def setUp(self) -> None:
        super().setUp()
        # Several groups and several inner layers, all of them the same in every process.
        self.model_tester.changes = {
            "num_hidden_groups": 2,
            "inner_group_num": 2,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }
