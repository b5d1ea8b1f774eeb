"""ProcessorTesterMixin and ImageProcessingTestMixin of Transformers, against the processors of this package."""

import unittest

import pytest
from transformers_suite.test_image_processing_common import (
    ImageProcessingTester,
    ImageProcessingTestMixin,
)
from transformers_suite.test_processing_common import ProcessorTesterMixin

from lyrics.assets import random_parts
from lyrics.processing_lyrics import LyricsImageProcessorPil, LyricsProcessor

from .skips import skip_with_reasons

pytestmark = pytest.mark.slow


@skip_with_reasons
class LyricsProcessorTest(ProcessorTesterMixin, unittest.TestCase):
    """With the refiner: a call returns everything that `model_input_names` names."""

    processor_class = LyricsProcessor
    image_token = "<image>"

    @classmethod
    def _setup_from_components(cls):
        return random_parts()[1]

    def prepare_processor_dict(self):
        """Return the settings that differ from the defaults in the processor under test.

        The suite builds processors of them without a refiner. One that records a refiner may not do without it, so that
        the fingerprint is left to the test that compares all settings.
        """
        processor = self.get_processor()
        names = ["num_query_tokens", "region_feature_size"]
        if self._testMethodName == "test_processor_from_pretrained_vs_from_components":
            names.append("refiner_fingerprint")
        return {name: getattr(processor, name) for name in names}


class LyricsImageProcessorTester(ImageProcessingTester):
    """The backend that runs without torchvision; the other has the same settings."""

    size = {"height": 20, "width": 30}

    def _get_image_processing_classes(self):
        return {"pil": LyricsImageProcessorPil}

    def prepare_image_processor_dict(self):
        return {"size": self.size}


@skip_with_reasons
class LyricsImageProcessorTest(ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = LyricsImageProcessorTester
