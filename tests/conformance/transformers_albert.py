"""The same tests on transformers' own ALBERT, for comparison. pytest runs this file only by name."""

from __future__ import annotations

import unittest

import transformers

from . import sdist


sdist.make_importable()

from .family import Distributed, Family  # noqa: E402


CLASSES = (
    transformers.AlbertModel,
    transformers.AlbertForPreTraining,
    transformers.AlbertForMaskedLM,
    transformers.AlbertForMultipleChoice,
    transformers.AlbertForSequenceClassification,
    transformers.AlbertForTokenClassification,
    transformers.AlbertForQuestionAnswering,
)


class TestAlbert(Family, unittest.TestCase):
    config_class = transformers.AlbertConfig
    masked_lm_class = transformers.AlbertForMaskedLM
    all_model_classes = CLASSES
    sharing = {"num_hidden_groups": 2, "inner_group_num": 1}


class TestAlbertDistributed(Distributed, unittest.TestCase):
    config_class = transformers.AlbertConfig
    masked_lm_class = transformers.AlbertForMaskedLM
    all_model_classes = CLASSES


del Distributed, Family
