"""Configurations of Lyrics: the tagger, the visual refiner, the MQ-Former, and the model that joins them.

Sub-models that Transformers already has (vision encoder, language model, detector, segmenter, Swin) are configured by
Transformers' own classes. The refiner's configuration lives in `refiner/config.json`, beside its weights, and is not
part of `LyricsConfig`: the model never runs the refiner, the processor does.
"""

from __future__ import annotations

import os
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.utils import logging

from .configuration_base import CheckedConfig
from .configuration_mqformer import LyricsMQFormerConfig
from .configuration_ram import PerChannel, RamConfig, read_tag_thresholds
from .published_config import is_published_config, translate_model_config, translate_refiner_config

logger = logging.get_logger(__name__)

RegionFeatureType = Literal["mask", "detection"]


@strict
class LyricsRefinerConfig(CheckedConfig):
    """Configuration of the visual refiner: tagger -> open-vocabulary detector -> segmenter.

    Args:
        tagger_config: a `RamConfig`, or `None` when the caller always names the tags.
        detector_config: any configuration of `AutoModelForZeroShotObjectDetection` that the refiner supports.
        segmenter_config: a SAM-family configuration. `"mask"` features need one, SAM's own by default; for
            `"detection"` features it may be `None`.
        region_feature_type: what a region is described by. `"mask"` (the paper): the mean of the segmenter's image
            embedding under the object's mask, and its box (xyxy in [0, 1]). `"detection"` (the published weights):
            every decoder query of the detector, with its last reference box (cxcywh in [0, 1]).
        box_threshold: a detection is kept when its best token's probability is above this value.
        text_threshold: only tokens above this probability may give a detection its label.
        iou_threshold: of two boxes that overlap more than this, only the better one is kept.
        max_regions: at most this many objects per image, best first.
        max_prompt_tokens: longest prompt in tokens, special tokens included; more tags go into further prompts.
        tag_separator: stands between two tags of a prompt.
        detector_shortest_edge, detector_longest_edge: the detector's view of an image in pixels.
        boxes_per_batch: how many boxes pass through the mask decoder at once; bounds its memory.
        image_mean, image_std: normalisation of the detector's and the segmenter's view, RGB in [0, 1].
        detector_mean, detector_std: of the detector's view, where it has another; by default CLIP's for OWLv2.
        fingerprint: identifies weights and settings; written by `save_pretrained`.
    """

    model_type = "lyrics_refiner"
    sub_configs_defaults = {
        "tagger_config": SubConfigSpec(config_class=RamConfig, optional=True),
        "detector_config": SubConfigSpec(config_class=AutoConfig, model_type="grounding-dino"),
        "segmenter_config": SubConfigSpec(config_class=AutoConfig, model_type="sam", optional=True),
    }

    tagger_config: Any = None
    detector_config: Any = None
    segmenter_config: Any = None
    region_feature_type: RegionFeatureType = "mask"
    box_threshold: float | int = 0.25
    text_threshold: float | int = 0.2
    iou_threshold: float | int = 0.6
    max_regions: int = 64
    max_prompt_tokens: int = 256
    tag_separator: str = ", "
    detector_shortest_edge: int = 800
    detector_longest_edge: int = 1333
    boxes_per_batch: int = 32
    image_mean: PerChannel = (0.485, 0.456, 0.406)
    image_std: PerChannel = (0.229, 0.224, 0.225)
    detector_mean: PerChannel | None = None
    detector_std: PerChannel | None = None
    fingerprint: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.region_feature_type == "mask" and self.segmenter_config is None:
            self.segmenter_config = {}
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Part of `@strict` validation: counts and sizes are positive."""
        for name in (
            "max_regions",
            "max_prompt_tokens",
            "detector_shortest_edge",
            "detector_longest_edge",
            "boxes_per_batch",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"LyricsRefinerConfig: {name} must be positive, got {getattr(self, name)}.")
        if self.region_feature_type == "detection" and self.detector_is_owl:
            raise ValueError(
                'LyricsRefinerConfig: region_feature_type "detection" is made of the queries of Grounding DINO, and '
                f"{self.detector_config.model_type} has none."
            )

    @property
    def detector_is_owl(self) -> bool:
        """Whether the detector is OWLv2, which sees a square and reads each tag on its own."""
        return self.detector_config.model_type == "owlv2"

    @property
    def detector_normalization(self) -> tuple[PerChannel, PerChannel]:
        """Mean and standard deviation of the detector's view."""
        own = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD) if self.detector_is_owl else (self.image_mean, self.image_std)
        mean, std = own
        return self.detector_mean or mean, self.detector_std or std

    @property
    def segmenter_side(self) -> int:
        """Height and width of the segmenter's view in pixels."""
        side = self.segmenter_config.prompt_encoder_config.image_size
        return side if isinstance(side, int) else side[0]

    @property
    def segmenter_stretches(self) -> bool:
        """Whether the segmenter's view is filled by the picture, as SAM 2's is; else it is padded."""
        return self.segmenter_config.model_type in ("sam2", "sam2_video")

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As in Transformers; a checkpoint in the published layout is translated, its tag list included.

        Args:
            kwargs: those of Transformers, and `tag_thresholds`, a file with one threshold per tag and line.
        """
        tag_thresholds = kwargs.pop("tag_thresholds", None)
        config_dict, unused_kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        published = is_published_config(config_dict)
        if published:
            config_dict = translate_refiner_config(config_dict, pretrained_model_name_or_path, **kwargs)
        if tag_thresholds is not None:
            tagger = config_dict["tagger_config"]
            tagger["threshold"] = read_tag_thresholds(tag_thresholds, len(tagger["id2label"]))
        elif published:
            logger.warning_once(
                "The published checkpoint holds no thresholds of its own for the tags: every tag fires above "
                f"{config_dict['tagger_config']['threshold']}. Give RAM's list as `tag_thresholds=FILE`, one number "
                "per line."
            )
        return config_dict, unused_kwargs

    @property
    def region_feature_size(self) -> int:
        """Width of one region feature, box included."""
        if self.region_feature_type == "detection":
            return self.detector_config.d_model + 4
        return self.segmenter_config.mask_decoder_config.hidden_size + 4


@strict
class LyricsConfig(CheckedConfig):
    """Configuration of a Lyrics model: vision encoder, MQ-Former and language model.

    Args:
        vision_config: any Transformers vision encoder; the paper's is CLIP ViT-L/14.
        mqformer_config: a `LyricsMQFormerConfig`; its `encoder_hidden_size` follows the vision encoder.
        text_config: any Transformers causal language model.
        vision_feature_layer: which hidden state of the vision encoder is used; -1 is its `last_hidden_state`.
        image_token_id: the placeholder's id. It may lie outside the embedding table, as it does by default
            (`text_config.vocab_size`): its row is never looked up.
        require_objects: raise, instead of warning once, when an image comes without region features.
    """

    model_type = "lyrics"
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(
            config_class=AutoConfig,
            model_type="clip_vision_model",
            init_kwargs={
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
                "image_size": 224,
                "patch_size": 14,
                "projection_dim": 768,
            },
        ),
        "mqformer_config": SubConfigSpec(config_class=LyricsMQFormerConfig),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }

    vision_config: Any = None
    mqformer_config: Any = None
    text_config: Any = None
    vision_feature_layer: int = -2
    image_token_id: Any = None
    require_objects: bool = False
    tie_word_embeddings: bool = False
    initializer_range: float | int = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.mqformer_config.encoder_hidden_size = self.vision_config.hidden_size
        if self.image_token_id is None:
            self.image_token_id = self.text_config.vocab_size

    def validate_architecture(self) -> None:
        """Part of `@strict` validation: the placeholder is a token id."""
        if not isinstance(self.image_token_id, int) or self.image_token_id < 0:
            raise ValueError(f"LyricsConfig: image_token_id must be a token id, got {self.image_token_id!r}.")

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """As in Transformers; a checkpoint in the published layout is translated."""
        config_dict, unused_kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if is_published_config(config_dict):
            config_dict = translate_model_config(config_dict)
        return config_dict, unused_kwargs


__all__ = ["LyricsConfig", "LyricsMQFormerConfig", "LyricsRefinerConfig", "RamConfig"]
