"""Configurations of the Lyrics model and of the visual refiner.

Transformers' own classes configure the sub-models that Transformers has: vision encoder, language model, detector and
segmenter. The refiner's configuration lies in `refiner/config.json`, beside its weights. It is not part of
`LyricsConfig`, since the processor runs the refiner, and the model never does.
"""

from __future__ import annotations

import os
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.utils import logging

from .checkpoint_files import pin_revision
from .configuration_base import (
    BELOW_ONE,
    FINITE,
    FROM_ONE,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    CheckedConfig,
    check_model_type,
    check_numbers,
)
from .configuration_mqformer import LyricsMQFormerConfig
from .configuration_ram import PerChannel, RamConfig, read_tag_thresholds
from .published_config import is_published_config, translate_model_config, translate_refiner_config

logger = logging.get_logger(__name__)

RegionFeatureType = Literal["mask", "detection"]
ResizeBackend = Literal["pil", "torch"]


@strict
class LyricsRefinerConfig(CheckedConfig):
    """Configuration of the visual refiner: tagger, open-vocabulary detector and segmenter.

    Args:
        tagger_config: `RamConfig`, or `None` when the caller always names the tags.
        detector_config: configuration of an `AutoModelForZeroShotObjectDetection` that the refiner supports.
        segmenter_config: configuration of a SAM-family model. `"mask"` features need one, SAM's own by default; `None`
            is allowed for `"detection"` features.
        region_feature_type: description of a region. `"mask"` (the paper): the mean of the segmenter's image embedding
            under the object's mask, and the box (xyxy in [0, 1]). `"detection"` (the published weights): the last
            hidden state of every detector query, and its last reference box (cxcywh in [0, 1]).
        box_threshold: smallest score of a detection, which is the probability of its best token.
        text_threshold: smallest probability of a token that gives a detection its label.
        iou_threshold: overlap above which the lower-scored of two boxes is dropped.
        max_regions: largest number of objects per image; the best are kept.
        max_prompt_tokens: longest detector prompt in tokens, special tokens included; more tags go into further
            prompts.
        tag_separator: text between two tags of a prompt.
        detector_shortest_edge, detector_longest_edge: size of the detector's view of an image in pixels.
        tile_aspect_ratio: long side divided by short side, above which an image is refined in overlapping square
            parts, whose objects are joined. `None` refines every image as a whole. For `"mask"` features.
        tile_overlap: smallest overlap of two such parts, in shares of their side. Larger objects may be found in part.
        familiar_score: mean score of an image's detections from which on the image looks like those that the
            detector was trained on. `None` if this is not known. It changes nothing that the refiner does.
        boxes_per_batch: number of boxes that the mask decoder processes at once; bounds its memory.
        resize_backend: library that resizes an image: `"pil"`, as in the original code; or `"torch"`, on the refiner's
            device, which is faster on a CPU, too. Bytes then differ by at most 1, and objects may differ a
            little.
        image_mean, image_std: normalization of the detector's and the segmenter's view, RGB in [0, 1].
        detector_mean, detector_std: normalization of the detector's view alone; CLIP's by default for OWLv2.
        fingerprint: hash of weights and settings; written by `save_pretrained`.
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
    tile_aspect_ratio: float | int | None = None
    tile_overlap: float | int = 0.5
    familiar_score: float | int | None = None
    boxes_per_batch: int = 32
    resize_backend: ResizeBackend = "pil"
    image_mean: PerChannel = (0.485, 0.456, 0.406)
    image_std: PerChannel = (0.229, 0.224, 0.225)
    detector_mean: PerChannel | None = None
    detector_std: PerChannel | None = None
    fingerprint: str | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Use SAM's configuration where `"mask"` features have none."""
        if self.region_feature_type == "mask" and self.segmenter_config is None:
            self.segmenter_config = {}
        super().__post_init__(**kwargs)

    def validate_architecture(self) -> None:
        """Check counts, sizes, thresholds, and whether the detector has the features (called by `@strict`)."""
        counts = ("max_regions", "max_prompt_tokens", "detector_shortest_edge", "detector_longest_edge")
        check_numbers(self, POSITIVE, *counts, "boxes_per_batch", "image_std", "detector_std")
        check_numbers(self, FINITE, "image_mean", "image_std", "detector_mean", "detector_std")
        check_numbers(self, SHARE, "box_threshold", "text_threshold", "iou_threshold", "familiar_score")
        check_numbers(self, FROM_ONE, "tile_aspect_ratio")
        check_numbers(self, BELOW_ONE, "tile_overlap")
        if self.region_feature_type == "detection" and self.tile_aspect_ratio is not None:
            raise ValueError(
                'LyricsRefinerConfig: region_feature_type "detection" describes the queries of one detection, and '
                f"tile_aspect_ratio {self.tile_aspect_ratio} would join those of several. Set it to None."
            )
        if self.region_feature_type == "detection" and self.detector_is_owl:
            raise ValueError(
                'LyricsRefinerConfig: region_feature_type "detection" is made of the queries of Grounding DINO, and '
                f"{self.detector_config.model_type} has none."
            )

    @classmethod
    def fast(cls, **fields: Any) -> LyricsRefinerConfig:
        """Return the configuration of a refiner that costs a fifth of the default's operations or less.

        RAM and Grounding DINO-T are as by default, but the detector sees the image at 640 pixels instead of 800, SAM
        2.1 with the tiny Hiera encoder outlines, and torch resizes. `docs/refiner.md` tells what the parts cost. A
        trained model needs the region features that it was trained with: refine and train with the refiner that you
        will use.

        Args:
            fields: further fields of the configuration, instead of these.
        """
        settings: dict[str, Any] = {
            "tagger_config": RamConfig(),
            "segmenter_config": {"model_type": "sam2"},
            "detector_shortest_edge": 640,
            "detector_longest_edge": 1066,
            "resize_backend": "torch",
        }
        return cls(**settings | fields)

    @property
    def detector_is_owl(self) -> bool:
        """Whether the detector is OWLv2, which sees a square image and encodes each tag alone."""
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
        """Whether the image is stretched to fill the segmenter's view, as for SAM 2 and EdgeTAM; otherwise padded."""
        return self.segmenter_config.model_type in ("sam2", "sam2_video", "edgetam", "edgetam_video")

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the settings of a checkpoint, and the unused arguments; the published layout is translated.

        Args:
            pretrained_model_name_or_path: folder or Hub id.
            kwargs: Transformers' arguments, and `tag_thresholds`, the path of a file with one threshold per line and
                tag.
        """
        tag_thresholds = kwargs.pop("tag_thresholds", None)
        pin_revision(pretrained_model_name_or_path, kwargs)
        config_dict, unused_kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        published = is_published_config(config_dict)
        if published:
            config_dict = translate_refiner_config(config_dict, pretrained_model_name_or_path, **kwargs)
        if tag_thresholds is not None:
            tagger = config_dict.get("tagger_config") or {}
            tagger["threshold"] = read_tag_thresholds(tag_thresholds, len(tagger.get("id2label") or ()))
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

    The defaults are the paper's sizes: CLIP ViT-L/14, an MQ-Former with 32 visual and 64 grounding queries, and a
    LLaMA. A sub-configuration can be given as an object or as a dictionary of the values that differ.
    `LyricsConfig.from_pretrained` also reads the `config.json` of the published checkpoint.

    Args:
        vision_config: configuration of any Transformers vision encoder.
        mqformer_config: `LyricsMQFormerConfig`; its `encoder_hidden_size` is set to the vision encoder's width.
        text_config: configuration of any Transformers causal language model.
        vision_feature_layer: index of the vision encoder's hidden state that is used; -1 is its `last_hidden_state`.
        image_token_id: token id of the placeholder. It may lie outside the embedding table, as the default
            (`text_config.vocab_size`) does, since its row is never looked up.
        require_objects: bool, whether an image without region features is an error instead of a warning.
        tie_word_embeddings: bool, whether the language modeling head shares the word embeddings.
        initializer_range: standard deviation of new weights.

    Examples:
        >>> from lyrics import LyricsConfig
        >>> queries = {"num_visual_queries": 8, "num_grounding_queries": 4}
        >>> config = LyricsConfig(mqformer_config=queries, text_config={"model_type": "llama", "vocab_size": 1000})
        >>> config.mqformer_config.num_queries  # positions that an image takes in the prompt
        12
        >>> config.image_token_id
        1000
    """

    model_type = "lyrics"
    # `Trainer.predict` and `evaluate` gather all other outputs of the model
    keys_to_ignore_at_inference = ["cache", "image_outputs"]
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
        """Set the values that follow from sub-configurations."""
        super().__post_init__(**kwargs)
        self.mqformer_config.encoder_hidden_size = self.vision_config.hidden_size
        if self.image_token_id is None:
            self.image_token_id = self.text_config.vocab_size

    def validate_architecture(self) -> None:
        """Check that the placeholder is a token id, and that the parts have layers (called by `@strict`)."""
        for part in (self.vision_config, self.text_config):
            check_numbers(part, POSITIVE, "num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size")
        check_numbers(self, NOT_NEGATIVE, "initializer_range")
        if not isinstance(self.image_token_id, int) or self.image_token_id < 0:
            raise ValueError(f"LyricsConfig: image_token_id must be a token id, got {self.image_token_id!r}.")

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the settings of a checkpoint, and the unused arguments; the published layout is translated."""
        config_dict, unused_kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if is_published_config(config_dict):
            config_dict = translate_model_config(config_dict)
        check_model_type(config_dict, pretrained_model_name_or_path, ("lyrics",))
        return config_dict, unused_kwargs


__all__ = ["LyricsConfig", "LyricsMQFormerConfig", "LyricsRefinerConfig", "RamConfig"]
