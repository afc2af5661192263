"""transformers' own common tests, run on our classes: `make conformance`."""

from __future__ import annotations

import unittest

import pytest

from . import sdist


try:
    sdist.make_importable()
except sdist.UnavailableError as error:
    pytest.skip(str(error), allow_module_level=True)

from albert_hub_bridge import (
    AlbertHubConfig,
    AlbertHubForMaskedLM,
    AlbertHubForMultipleChoice,
    AlbertHubForPreTraining,
    AlbertHubForQuestionAnswering,
    AlbertHubForSequenceClassification,
    AlbertHubForTokenClassification,
    AlbertHubModel,
)

from .family import Distributed, Family


CLASSES = (
    AlbertHubModel,
    AlbertHubForPreTraining,
    AlbertHubForMaskedLM,
    AlbertHubForMultipleChoice,
    AlbertHubForSequenceClassification,
    AlbertHubForTokenClassification,
    AlbertHubForQuestionAnswering,
)


class TestAlbertHub(Family, unittest.TestCase):
    config_class = AlbertHubConfig
    masked_lm_class = AlbertHubForMaskedLM
    all_model_classes = CLASSES
    sharing = {"num_hidden_groups": 1, "inner_group_num": 1}  # both layers are one

    test_can_init_all_missing_weights_before_2023 = True  # the year is looked for in a copyright line
    test_resize_position_embeddings = True


class TestAlbertHubDistributed(Distributed, unittest.TestCase):
    config_class = AlbertHubConfig
    masked_lm_class = AlbertHubForMaskedLM
    all_model_classes = CLASSES


del Distributed, Family  # or they would be collected as well
