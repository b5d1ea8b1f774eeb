"""A model with random weights in which every setting differs from its default, as no other fixture has it."""

import torch
from transformers.image_utils import PILImageResampling

from lyrics.assets.random_model import (
    STAGE_1_TOKENS,
    TAGS,
    build_bert_tokenizer,
    build_text_tokenizer,
    micro_config,
    micro_refiner_config,
)
from lyrics.modeling_lyrics import (
    LyricsConfig,
    LyricsForConditionalGeneration,
    LyricsPreTrainingConfig,
    LyricsRefinerConfig,
    LyricsVisualRefiner,
)
from lyrics.processing_lyrics import LyricsImageProcessor, LyricsProcessor
from lyrics.processing_lyrics.chat_templates import IMAGE, VICUNA_TEMPLATE

IMAGE_TOKEN = "<picture>"

MODEL = {
    "vision_feature_layer": -1,
    "require_objects": True,
    "tie_word_embeddings": True,
    "initializer_range": 0.1,
    "dtype": "float32",
}
MQFORMER = {
    "hidden_act": "relu",
    "hidden_dropout_prob": 0.05,
    "attention_probs_dropout_prob": 0.05,
    "max_position_embeddings": 600,
    "initializer_range": 0.1,
    "layer_norm_eps": 1e-6,
    "pad_token_id": None,
    "cross_attention_frequency": 3,
    "normalize_vision_features": False,
    "region_attention_gain": 0.5,
    "num_region_positions": 3,
    "region_box_octaves": 2,
    "region_nothing": True,
}
REFINER = {
    "region_feature_type": "detection",
    "box_threshold": 0.01,
    "text_threshold": 0.01,
    "iou_threshold": 0.7,
    "max_prompt_tokens": 64,
    "tag_separator": ". ",
    "tile_overlap": 0.4,
    "familiar_score": 0.5,
    "boxes_per_batch": 5,
    "resize_backend": "torch",
    "image_mean": (0.5, 0.4, 0.3),
    "image_std": 0.25,
    "detector_mean": 0.5,
    "detector_std": (0.3, 0.25, 0.2),
}
TAGGER = {
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "hidden_act": "relu",
    "hidden_dropout_prob": 0.05,
    "attention_probs_dropout_prob": 0.05,
    "layer_norm_eps": 1e-6,
    "initializer_range": 0.1,
    "threshold": [0.5] * len(TAGS),
    "chinese_labels": [f"標籤{index}" for index in range(len(TAGS))],
    "suppressed_label_ids": [1, 2],
    "image_mean": 0.5,
    "image_std": (0.3, 0.25, 0.2),
}
PRETRAINING = {
    "vision_feature_layer": -1,
    "itc_weight": 0.5,
    "itm_weight": 2.0,
    "icg_weight": 0.0,
    "msp_weight": 0.3,
    "projection_size": 24,
    "temperature": 0.1,
    "label_smoothing": 0.0,
    "tie_word_embeddings": False,
    "initializer_range": 0.1,
    "object_start_token_id": 7,
}
PROCESSOR = {
    "chat_template": VICUNA_TEMPLATE.replace(IMAGE, IMAGE_TOKEN).replace("A chat between", "A talk between"),
    "image_token": IMAGE_TOKEN,
    "num_query_tokens": 24,
    "mqformer_text": "instruction",
    "spatial_text": "short",
    "region_feature_size": 36,
    "max_image_pixels": 1_000_000,
}
IMAGE_PROCESSOR = {
    "resample": PILImageResampling.BILINEAR,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.3, 0.25, 0.2],
    "size": {"height": 64, "width": 64},
    "do_rescale": False,
    "do_convert_rgb": False,
}


def pretraining_config() -> LyricsPreTrainingConfig:
    """Return a configuration of stage 1 in which every setting differs from its default."""
    parts = micro_config(300, 1100, 300)
    vision, queries = parts.vision_config.to_dict(), parts.mqformer_config.to_dict()
    return LyricsPreTrainingConfig(vision_config=vision, mqformer_config=queries, **PRETRAINING)


def parts_with_every_option(seed: int = 0) -> tuple[LyricsForConditionalGeneration, LyricsProcessor]:
    """Build the model and its processor.

    The placeholder lies inside the vocabulary, which has unused tokens after it.
    """
    tokenizer, mqformer_tokenizer = build_text_tokenizer(), build_bert_tokenizer(*STAGE_1_TOKENS)
    detector_tokenizer = build_bert_tokenizer()
    token = len(tokenizer)
    config = micro_config(token + 4, len(mqformer_tokenizer), token).to_dict() | MODEL
    config["mqformer_config"] |= MQFORMER
    config["text_config"] |= {"initializer_range": 0.1, "tie_word_embeddings": True}
    refining = micro_refiner_config(len(detector_tokenizer)).to_dict() | REFINER
    refining["tagger_config"] |= TAGGER
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        refiner = LyricsVisualRefiner(LyricsRefinerConfig.from_dict(refining))
        model = LyricsForConditionalGeneration(LyricsConfig.from_dict(config)).eval()
    refiner.tokenizer = detector_tokenizer
    image_processor = LyricsImageProcessor(**IMAGE_PROCESSOR)
    processor = LyricsProcessor(image_processor, tokenizer, mqformer_tokenizer, **PROCESSOR)
    return model, processor.attach_refiner(refiner)
