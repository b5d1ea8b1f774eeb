"""ModelTesterMixin and ConfigTester of Transformers, against every model of this package."""

import unittest
from unittest.mock import patch

import pytest
import torch
from transformers.models.auto import modeling_auto
from transformers_suite.test_configuration_common import ConfigTester
from transformers_suite.test_modeling_common import ModelTesterMixin, floats_tensor, ids_tensor

from lyrics.modeling_lyrics import (
    LyricsConfig,
    LyricsForConditionalGeneration,
    LyricsModel,
    LyricsMQFormerConfig,
    LyricsMQFormerModel,
    LyricsRefinerConfig,
    LyricsVisualRefiner,
    RamConfig,
    RamForImageTagging,
    RamModel,
)

from .skips import skip_with_reasons

pytestmark = pytest.mark.slow

# The suite tells base models and heads apart by static lists of names, which know no registered model.
NAMES = (
    patch.dict(modeling_auto.MODEL_MAPPING_NAMES, lyrics="LyricsModel", ram="RamModel", mqformer="LyricsMQFormerModel"),
    patch.dict(modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, lyrics="LyricsForConditionalGeneration"),
)


class Suite(ModelTesterMixin):
    """What all models have in common."""

    def setUp(self):
        for names in NAMES:
            names.start()
            self.addCleanup(names.stop)
        self.model_tester = self.class_of_tester(self)

    def test_config(self):
        self.model_tester.config_tester.run_common_tests()


class LyricsTester:
    """A Lyrics of two layers everywhere, and a batch with one image per row."""

    batch_size, seq_length, is_training = 7, 14, True
    num_hidden_layers, hidden_size, num_attention_heads = 2, 32, 2
    visual, grounding, regions, words = 2, 3, 4, 5
    image_token_id = 1

    def __init__(self, parent):
        self.config_tester = ConfigTester(
            parent, config_class=LyricsConfig, has_text_modality=False, common_properties=["image_token_id"]
        )

    def get_config(self):
        return LyricsConfig(
            vision_config={
                "model_type": "clip_vision_model",
                "hidden_size": 24,
                "intermediate_size": 24,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 16,
                "patch_size": 8,
            },
            mqformer_config={
                "vocab_size": 40,
                "hidden_size": 16,
                "intermediate_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_visual_queries": self.visual,
                "num_grounding_queries": self.grounding,
                "region_hidden_size": 8,
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
            },
            text_config={
                "model_type": "llama",
                "vocab_size": 60,
                "hidden_size": self.hidden_size,
                "intermediate_size": 32,
                "num_hidden_layers": self.num_hidden_layers,
                "num_attention_heads": self.num_attention_heads,
                "num_key_value_heads": self.num_attention_heads,
                "max_position_embeddings": 64,
                "pad_token_id": 0,
                "bos_token_id": 2,
                "eos_token_id": 3,
            },
            image_token_id=self.image_token_id,
        )

    def prepare_config_and_inputs_for_common(self):
        ids = ids_tensor([self.batch_size, self.seq_length], 55) + 4
        ids[:, 2 : 2 + self.visual + self.grounding] = self.image_token_id
        return self.get_config(), {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "pixel_values": floats_tensor([self.batch_size, 3, 16, 16]),
            "region_features": floats_tensor([self.batch_size, self.regions, 8]),
            "region_attention_mask": torch.ones(self.batch_size, self.regions, dtype=torch.long),
            "mqformer_input_ids": ids_tensor([self.batch_size, self.words], 39) + 1,
            "mqformer_attention_mask": torch.ones(self.batch_size, self.words, dtype=torch.long),
        }


@skip_with_reasons
class LyricsModelTest(Suite, unittest.TestCase):
    class_of_tester = LyricsTester
    all_model_classes = (LyricsModel, LyricsForConditionalGeneration)
    _is_composite = True
    additional_model_inputs = (
        "pixel_values",
        "region_features",
        "region_attention_mask",
        "mqformer_input_ids",
        "mqformer_attention_mask",
    )

    def setUp(self):
        super().setUp()
        if "rope" in self._testMethodName:
            self.model_tester.image_token_id = 60  # these tests draw any token, and give no image

    # CLIP's last layer lies behind the one that is used, and the text half of the MQ-Former's last layer is not read.
    test_all_params_have_gradient = False


class MQFormerTester:
    """An MQ-Former of two layers with text; a sequence is five queries and five words."""

    batch_size, seq_length, words, is_training = 7, 10, 5, False
    num_hidden_layers, hidden_size, num_attention_heads = 2, 16, 2

    def __init__(self, parent):
        self.config_tester = ConfigTester(parent, config_class=LyricsMQFormerConfig)

    def get_config(self):
        return LyricsMQFormerConfig(
            vocab_size=40,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_visual_queries=2,
            num_grounding_queries=3,
            encoder_hidden_size=24,
            region_hidden_size=8,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), {
            "encoder_hidden_states": floats_tensor([self.batch_size, 6, 24]),
            "region_features": floats_tensor([self.batch_size, 4, 8]),
            "region_attention_mask": torch.ones(self.batch_size, 4, dtype=torch.long),
            "input_ids": ids_tensor([self.batch_size, self.words], 39) + 1,
            "attention_mask": torch.ones(self.batch_size, self.words, dtype=torch.long),
        }


@skip_with_reasons
class LyricsMQFormerModelTest(Suite, unittest.TestCase):
    class_of_tester = MQFormerTester
    all_model_classes = (LyricsMQFormerModel,)
    additional_model_inputs = ("encoder_hidden_states", "region_features", "region_attention_mask")


class RamTester:
    """A RAM with a Swin of four stages."""

    batch_size, is_training = 7, True
    image_size = 32

    def __init__(self, parent):
        self.config_tester = ConfigTester(parent, config_class=RamConfig, has_text_modality=False)

    def get_config(self):
        return RamConfig(
            vision_config={
                "model_type": "swin",
                "image_size": 32,
                "patch_size": 2,
                "embed_dim": 8,
                "depths": [1, 2],
                "num_heads": [2, 2],
                "window_size": 2,
            },
            tag_embedding_size=12,
            hidden_size=16,
            intermediate_size=16,
            num_attention_heads=2,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            num_labels=5,
        )

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), {"pixel_values": floats_tensor([self.batch_size, 3, 32, 32])}


@skip_with_reasons
class RamModelTest(Suite, unittest.TestCase):
    class_of_tester = RamTester
    all_model_classes = (RamModel, RamForImageTagging)
    _is_composite = True
    test_resize_embeddings = False

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels and model_class is RamForImageTagging:
            inputs["labels"] = torch.zeros(self.model_tester.batch_size, 5)
        return inputs

    def test_model_get_set_embeddings(self):
        """The embedding of an image is that of its patches, as in Swin's own tests."""
        for model_class in self.all_model_classes:
            assert isinstance(model_class(self.model_tester.get_config()).get_input_embeddings(), torch.nn.Module)


class RefinerTester:
    """Tagger, detector and segmenter at their smallest."""

    batch_size, is_training = 2, False

    def __init__(self, parent):
        self.config_tester = ConfigTester(parent, config_class=LyricsRefinerConfig, has_text_modality=False)

    def get_config(self):
        from lyrics.assets.random_model import build_bert_tokenizer, micro_refiner_config

        config = micro_refiner_config(len(build_bert_tokenizer()))
        for swin in (config.tagger_config.vision_config, config.detector_config.backbone_config):
            swin.embed_dim, swin.hidden_size = 8, 64
        return config

    def prepare_config_and_inputs_for_common(self):
        return self.get_config(), {
            "pixel_values": floats_tensor([self.batch_size, 3, 128, 128]),
            "tagger_pixel_values": floats_tensor([self.batch_size, 3, 96, 96]),
            "segmenter_pixel_values": floats_tensor([self.batch_size, 3, 128, 128]),
            "segmenter_sizes": torch.full((self.batch_size, 2), 128),
        }


class RefinerWithTokenizer(LyricsVisualRefiner):
    """The suite builds models from configurations, which bring no tokenizer."""

    def __init__(self, config):
        from lyrics.assets.random_model import build_bert_tokenizer

        super().__init__(config)
        self.tokenizer = build_bert_tokenizer()


@skip_with_reasons
class LyricsVisualRefinerTest(Suite, unittest.TestCase):
    class_of_tester = RefinerTester
    all_model_classes = (RefinerWithTokenizer,)
    _is_composite = True
    has_attentions = False
    test_resize_embeddings = False
