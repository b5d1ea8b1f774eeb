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

logger = logging.get_logger(__name__)

RegionFeatureType = Literal["mask", "detection"]
PerChannel = list[float | int] | tuple[float | int, ...] | float | int  # three numbers, or one for all


def read_tag_thresholds(path: str | os.PathLike, num_tags: int) -> list[float]:
    """Read thresholds of tags, one number in [0, 1] per line, in the order of the tags.

    Raises:
        ValueError: naming the file, when a line is not such a number, or when there is not one for each tag.
    """
    thresholds = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file.read().split("\n"), start=1):
            if not line.strip():
                continue
            try:
                thresholds.append(float(line))
            except ValueError:
                raise ValueError(f"{path}, line {number}: {line.strip()!r} is not a number.") from None
            if not 0.0 <= thresholds[-1] <= 1.0:
                raise ValueError(f"{path}, line {number}: threshold {line.strip()} is not in [0, 1].")
    if len(thresholds) != num_tags:
        raise ValueError(f"{path} has {len(thresholds)} thresholds for {num_tags} tags.")
    return thresholds


@strict
class RamConfig(CheckedConfig):
    """Configuration of the Recognize Anything Model (RAM, arXiv 2306.03514): a Swin encoder and a tagging head.

    The vocabulary of tags is `id2label`; its order is the order of the rows of the label embedding.

    Args:
        vision_config: configuration of the Swin encoder (`SwinConfig`); `image_size` is the side of the square input.
        tag_embedding_size: width of the stored label embeddings and of the projected image tokens.
        hidden_size, num_hidden_layers, num_attention_heads, intermediate_size: the Query2Label tagging head.
        threshold: a tag fires when its probability is strictly above this value; one number for all tags, or one per
            tag, in the order of `id2label`.
        chinese_labels: the tags in Chinese, in the same order, or `None`.
        suppressed_label_ids: tags that never fire (`delete_tag_index` in the original).
        image_mean, image_std: normalisation of the input, RGB in [0, 1].
    """

    model_type = "ram"
    base_config_key = "tagger_config"
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(
            config_class=AutoConfig,
            model_type="swin",
            init_kwargs={
                "image_size": 384,
                "embed_dim": 192,
                "depths": [2, 2, 18, 2],
                "num_heads": [6, 12, 24, 48],
                "window_size": 12,
            },
        )
    }

    vision_config: Any = None
    tag_embedding_size: int = 512
    hidden_size: int = 768
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    layer_norm_eps: float | int = 1e-12
    initializer_range: float | int = 0.02
    threshold: float | int | list[float | int] = 0.68
    chinese_labels: list[str] | None = None
    suppressed_label_ids: list[int] | None = None
    image_mean: PerChannel = (0.485, 0.456, 0.406)
    image_std: PerChannel = (0.229, 0.224, 0.225)

    def validate_architecture(self) -> None:
        """Part of `@strict` validation: the head's width, and one threshold and one translation per tag."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"RamConfig: hidden_size ({self.hidden_size}) is not a multiple of num_attention_heads "
                f"({self.num_attention_heads})."
            )
        for name in ("threshold", "chinese_labels"):
            values = getattr(self, name)
            if isinstance(values, list) and len(values) != self.num_labels:
                raise ValueError(f"RamConfig: {name} has {len(values)} entries for {self.num_labels} tags.")


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
        from .published_checkpoint import is_published_config, translate_refiner_config

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
class LyricsMQFormerConfig(CheckedConfig):
    """Configuration of the MQ-Former, a BERT encoder with two sets of learned queries.

    Args:
        num_visual_queries, num_grounding_queries: V and G; the visual ones come first.
        encoder_hidden_size: width of the vision features that the visual queries attend to.
        region_hidden_size: width of the region features that the grounding queries attend to.
        cross_attention_frequency: cross-attention stands in every n-th layer, from layer 0 on.
        normalize_vision_features: put a learned LayerNorm before the vision features (BLIP-2 does so for CLIP).
        region_attention_gain: how far apart the scores of regions begin in a model that is trained from nothing: for
            features of unit variance this number's square is their standard deviation. By default they begin as all
            else, with `initializer_range`, and each grounding query sees the mean of all regions, which small models
            hardly get away from.
        num_region_positions: so many of an image's first regions, which are its best, also say which one they are when
            they are attended to, so that a grounding query can settle on the n-th. With 0, as in the paper, they are a
            set without order.
        region_box_octaves: give the grounding queries each region's box as waves too, sines and cosines whose
            frequencies double so many times, for a model that is trained from nothing: four bare numbers among the
            features of a region are hard to tell a place from. With 0, as in the paper, there are none.
        region_nothing: let a grounding query attend to nothing instead of regions, a learned key whose value is zero,
            so that queries that are left over need not show some object twice. The paper's cannot.
        vocab_size: BERT's 30,522 tokens, and `[BOS]`, `[DEC]` and `[MLM]` for the first training stage.
    """

    model_type = "lyrics_mqformer"
    base_config_key = "mqformer_config"

    vocab_size: int = 30525
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float | int = 0.1
    attention_probs_dropout_prob: float | int = 0.1
    max_position_embeddings: int = 512
    initializer_range: float | int = 0.02
    layer_norm_eps: float | int = 1e-12
    pad_token_id: int | None = 0
    cross_attention_frequency: int = 2
    num_visual_queries: int = 32
    num_grounding_queries: int = 64
    encoder_hidden_size: int = 1024
    region_hidden_size: int = 260
    normalize_vision_features: bool = True
    region_attention_gain: float | int | None = None
    num_region_positions: int = 0
    region_box_octaves: int = 0
    region_nothing: bool = False

    @property
    def region_input_size(self) -> int:
        """Width of a region as the grounding queries attend to it: its features, and the waves of its box."""
        return self.region_hidden_size + 4 * 2 * self.region_box_octaves

    @property
    def num_queries(self) -> int:
        """V + G: how many positions an image takes in the language model."""
        return self.num_visual_queries + self.num_grounding_queries

    def validate_architecture(self) -> None:
        """Part of `@strict` validation: head width, and at least one query."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"LyricsMQFormerConfig: hidden_size ({self.hidden_size}) is not a multiple of num_attention_heads "
                f"({self.num_attention_heads})."
            )
        if self.num_visual_queries < 0 or self.num_grounding_queries < 0 or self.num_queries == 0:
            raise ValueError(
                f"LyricsMQFormerConfig: num_visual_queries={self.num_visual_queries} and num_grounding_queries="
                f"{self.num_grounding_queries} must not be negative, and at least one must be positive."
            )
        for name in ("num_region_positions", "region_box_octaves"):
            if getattr(self, name) < 0:
                raise ValueError(f"LyricsMQFormerConfig: {name}={getattr(self, name)} is negative.")


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
        from .published_checkpoint import is_published_config, translate_model_config

        config_dict, unused_kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if is_published_config(config_dict):
            config_dict = translate_model_config(config_dict)
        return config_dict, unused_kwargs


__all__ = ["LyricsConfig", "LyricsMQFormerConfig", "LyricsRefinerConfig", "RamConfig"]
