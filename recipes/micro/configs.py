"""Sizes and vocabularies of the micro model: the ordinary model classes with small configurations."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    CLIPConfig,
    LlamaConfig,
    MMGroundingDinoConfig,
    PreTrainedTokenizerFast,
    ResNetConfig,
    SamConfig,
)

from ...assets.random_model import build_bert_tokenizer
from ...modeling_lyrics import LyricsMQFormerConfig, RamConfig
from ...processing_lyrics.chat_templates import SYSTEM_PROMPT, VICUNA_TEMPLATE
from ...processing_lyrics.spatial_text import format_box, format_object
from .world.questions import FAMILIES, Question, all_names, ask_many, caption
from .world.scenes import CHARACTERS, COLORS, SHAPES, SIZES, draw_scene

VIEW = 48  # pixels that the vision encoder sees of a scene of 128, as CLIP sees 224 of a photograph
REFINED_VIEW = 128  # pixels that the refiner sees
TAGS = (*SHAPES, *CHARACTERS)
REGION_WIDTH = 32
MQFORMER = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,  # with more, a grounding query mixes what it takes from several regions
    "cross_attention_frequency": 2,
    "region_attention_gain": 0.5,
    "num_region_positions": 16,
    "region_box_octaves": 5,
    "region_nothing": True,
    "initializer_range": 0.05,
    "intermediate_size": 256,
    "num_visual_queries": 8,
    "num_grounding_queries": 16,
    "region_hidden_size": REGION_WIDTH + 4,
    "encoder_hidden_size": 96,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}

# Vicuna's without its system prompt, whose tokens would outnumber those of what is seen.
CHAT_TEMPLATE = VICUNA_TEMPLATE.replace(SYSTEM_PROMPT.replace("'", "\\'"), "")

_COORDINATE = r"[01]\.\d\d"  # a token of its own; the third decimal is another
_SAMPLES = 200  # scenes whose texts make the vocabularies


@cache
def _sample_texts() -> tuple[str, ...]:
    """Captions and dialogues of some training scenes."""
    texts = []
    for number in range(_SAMPLES):
        scene, random = draw_scene("train", number), np.random.default_rng(number)
        texts += [caption(scene, random) for _ in range(4)]
        texts += [_as_plain_text(question) for question in ask_many(scene, 12, random)]
    return tuple(texts)


def _as_plain_text(question: Question) -> str:
    """Question and answer on two lines, as a tokenizer's training sees them."""
    asked, answered = question.text, question.answer
    if question.kind == "referring":
        answered = format_object(question.answer, question.box or ())
    elif question.kind == "description":
        asked = f"{question.text} {format_box(question.box or ())}"
    return f"{asked}\n{answered}"


def vocabulary_words() -> list[str]:
    """Every word of the world in lower case, and the coordinates with two decimals."""
    words = Counter(word.lower() for text in _sample_texts() for word in re.findall(r"[A-Za-z]+", text))
    known = {word.lower() for word in (*SHAPES, *COLORS, *SIZES, *FAMILIES)}
    coordinates = [f"{value / 100:.2f}" for value in range(101)]
    return sorted({word for word in words if len(word) > 1} | known) + coordinates


def build_micro_bert_tokenizer(*extra: str) -> PreTrainedTokenizerFast:
    """A BERT tokenizer with the words of the world, which spells all others."""
    return build_bert_tokenizer(*extra, words=vocabulary_words(), isolate=_COORDINATE)


def build_micro_text_tokenizer(vocab_size: int = 640) -> PreTrainedTokenizerFast:
    """A byte-level BPE, learned from the world's texts: any text, no unknown token; a coordinate takes two tokens.

    A name such as `small red ring` is a token, as the object is one vector of a picture: one can be compared with the
    other.
    """
    tokenizer = Tokenizer(models.BPE())
    pieces = rf"{_COORDINATE}|, (?=\d)|\d| ?[A-Za-z]+| ?[^\sA-Za-z\d]+|\s"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet)
    coordinates = [f"{value / 100:.2f}" for value in range(101)] * 20
    prompts = [" USER: ? ASSISTANT: "] * 50
    tokenizer.train_from_iterator([*_sample_texts(), *coordinates, *prompts], trainer)
    tokenizer.add_tokens([AddedToken(name, single_word=True, normalized=False) for name in all_names()])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=1024
    )


def clip_config(tokenizer: Any) -> CLIPConfig:
    """The vision encoder, and the text encoder that it is trained against."""
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 96,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 5,
        "num_attention_heads": 4,
        "image_size": VIEW,
        "patch_size": 6,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=96)


def backbone_config() -> ResNetConfig:
    """The detector's encoder."""
    levels: dict[str, Any] = {"out_features": ["stage2", "stage3", "stage4"]}
    return ResNetConfig(
        num_channels=3,
        embedding_size=24,
        hidden_sizes=[24, 48, 96, 160],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        **levels,
    )


def tagger_config() -> RamConfig:
    """RAM."""
    return RamConfig(
        vision_config={
            "model_type": "swin",
            "image_size": REFINED_VIEW,
            "embed_dim": 24,
            "depths": [2, 2, 2, 2],
            "num_heads": [2, 2, 4, 4],
            "window_size": 4,
            "drop_path_rate": 0.0,
        },
        tag_embedding_size=96,
        hidden_size=96,
        intermediate_size=192,
        id2label=dict(enumerate(TAGS)),
        label2id={tag: index for index, tag in enumerate(TAGS)},
        threshold=0.05,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def detector_config(tokenizer: Any) -> MMGroundingDinoConfig:
    """MM-Grounding-DINO: Grounding DINO whose scores begin low."""
    return MMGroundingDinoConfig(
        backbone_config=backbone_config(),
        text_config=BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=256,
        ),
        num_queries=100,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        d_model=64,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        fusion_dropout=0.0,
        fusion_droppath=0.0,
        max_text_len=256,
        two_stage=True,
        embedding_init_target=True,
        auxiliary_loss=True,
    )


def segmenter_config() -> SamConfig:
    """SAM."""
    vision = {
        "hidden_size": 64,
        "output_channels": REGION_WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": REFINED_VIEW,
        "patch_size": 8,
        "window_size": 4,
        "global_attn_indexes": [2],
        "num_pos_feats": REGION_WIDTH // 2,
        "initializer_range": 0.02,  # the default, 1e-10, is for weights that are loaded
        "mlp_dim": 128,
    }
    decoder = {"hidden_size": REGION_WIDTH, "mlp_dim": 64, "num_attention_heads": 4, "iou_head_hidden_dim": 32}
    prompts = {"hidden_size": REGION_WIDTH, "image_size": REFINED_VIEW, "patch_size": 8}
    config = SamConfig(
        vision_config=vision,
        mask_decoder_config={**decoder, "layer_norm_eps": 1e-5},
        prompt_encoder_config=prompts,
    )
    # of the frequencies that tell places apart: SAM's own is 1, and Transformers' default would make them noise
    vision_config: Any = config.vision_config
    vision_config.scale = 1.0
    return config


def language_model_config(tokenizer: Any) -> LlamaConfig:
    """The language model."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,  # what a name looks up, all that is told of an object, passes through one head
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        initializer_range=0.08,  # 1 / sqrt(width); with 0.02, as for wide models, attention begins and stays uniform
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def mqformer_config(vocab_size: int, **more: Any) -> LyricsMQFormerConfig:
    """The MQ-Former."""
    fields: dict[str, Any] = {**MQFORMER, **more}
    return LyricsMQFormerConfig(vocab_size=vocab_size, **fields)
