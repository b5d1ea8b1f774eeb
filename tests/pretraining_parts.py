"""A first-stage model that is smaller than the micro model, and rows for it."""

import numpy as np
import torch
from PIL import Image
from transformers import CLIPVisionConfig

from lyrics.assets.random_model import STAGE_1_TOKENS, build_bert_tokenizer, build_text_tokenizer
from lyrics.modeling_lyrics import LyricsForPreTraining, LyricsMQFormerConfig, LyricsPreTrainingConfig
from lyrics.processing_lyrics import LyricsImageProcessor, LyricsProcessor, VisualObjects

SIDE, REGION_WIDTH, QUERIES = 28, 12, (3, 4)
WORDS = ("red", "ball", "cup", "on", "a", "table", "two", "dogs", "blue", "sky")


def build_processor():
    return LyricsProcessor(
        LyricsImageProcessor(size={"height": SIDE, "width": SIDE}),
        build_text_tokenizer(),
        build_bert_tokenizer(*STAGE_1_TOKENS),
        num_query_tokens=sum(QUERIES),
        region_feature_size=REGION_WIDTH,
    )


def build_config(queries=QUERIES, dropout=0.0, **changes):
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=14
    )
    mqformer = LyricsMQFormerConfig(
        vocab_size=len(build_bert_tokenizer(*STAGE_1_TOKENS)),
        hidden_size=48,  # torch's flex attention is wrong on a CPU for heads of width 16 and some lengths
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_visual_queries=queries[0],
        num_grounding_queries=queries[1],
        region_hidden_size=REGION_WIDTH,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    settings = {"projection_size": 16, "msp_weight": 1.0 if queries[1] else 0.0} | changes
    return LyricsPreTrainingConfig(vision_config=vision, mqformer_config=mqformer, **settings)


def build_model(std=None, seed=0, **changes):
    """Build a model; with `std`, its weights are large enough for every input to change the output."""
    torch.manual_seed(seed)
    model = LyricsForPreTraining(build_config(**changes))
    if std is not None:
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=std)
    model.model.vision_model.requires_grad_(False)
    return model


def build_objects(seed, count):
    random = np.random.default_rng(seed)
    corners = np.sort(random.random((count, 2, 2)), axis=1).reshape(count, 4)
    features = random.standard_normal((count, REGION_WIDTH)).astype(np.float32)
    features[:, -4:] = corners
    return VisualObjects(
        labels=[str(random.choice(WORDS)) for _ in range(count)],
        boxes=corners,
        scores=np.sort(random.random(count))[::-1],
        region_features=features,
    )


def build_row(seed, objects=None):
    """Build a row of an image of noise, a caption that differs from those of other seeds, and 0 to 3 objects."""
    random = np.random.default_rng(seed)
    return {
        "image": Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8)),
        "caption": " ".join([*random.choice(WORDS, 1 + seed % 4), str(seed)]),
        "visual_objects": build_objects(seed, seed % 4 if objects is None else objects),
    }


def build_rows(count, first=0):
    return [build_row(seed) for seed in range(first, first + count)]
